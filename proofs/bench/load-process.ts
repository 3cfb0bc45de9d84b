/** The load generator: a process that sends prepared calls as fast as responses arrive, or at a steady rate. */

import { setTimeout as sleep } from 'node:timers/promises';
import { quantile, sumOf } from '../shared/statistics.js';
import { waitUntil } from '../shared/waiting.js';
import { Connection, type ServerAddress } from './connection.js';
import { type PreparedCall, type PreparedCalls, prepareCalls } from './prepared-calls.js';
import { executeCommands } from './worker.js';

/** Calls to prepare, and their name. */
interface Preparation {
  readonly name: string;
  readonly path: string;
  readonly tokens: readonly string[];
  /** The request; `undefined` for streams that stay open. */
  readonly message: Uint8Array | undefined;
}

/** Connections to open, and their name. */
type Opening = ServerAddress & {
  readonly name: string;
  /** The prepared calls; each connection makes the first one at once. */
  readonly calls: string;
  readonly connections: number;
};

/** A series of calls on some connections. */
interface Flow {
  readonly connections: string;
  readonly calls: string;
  /** The number of calls, or the duration. */
  readonly until: { readonly calls: number } | { readonly seconds: number };
  /** The number of concurrent calls. */
  readonly inFlight: number;
  /** A steady rate; as fast as responses arrive when absent. */
  readonly perSecond?: number;
  /** Makes each prepared call once, in order, and ends with the last. */
  readonly once?: boolean;
  /** Returns the duration of every call. */
  readonly keep?: boolean;
}

export interface CallTaken {
  /** When it was sent, in Unix milliseconds. */
  readonly sentMs: number;
  readonly ms: number;
}

export interface FlowResult {
  /** The number of calls that ended. */
  readonly calls: number;
  /** The number of calls without a response message. */
  readonly refused: number;
  readonly seconds: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** All calls when the flow keeps them, else empty. */
  readonly kept: readonly CallTaken[];
}

interface Streams {
  readonly connections: string;
  readonly calls: string;
  readonly count: number;
}

const STALL_MS = 20_000;
/** How many streams may be opened before the earlier ones have responded. */
const STREAMS_UNANSWERED_MAX = 200;
const POLL_MS = 1;

const prepared = new Map<string, PreparedCalls>();
const opened = new Map<string, Connection[]>();

const commands = {
  prepare: async ({ name, path, tokens, message }: Preparation): Promise<void> => {
    prepared.set(
      name,
      await prepareCalls({
        path,
        tokens,
        message: message === undefined ? undefined : Buffer.from(message),
      }),
    );
  },

  open: async ({ name, calls, connections, ...to }: Opening): Promise<void> => {
    const all: Connection[] = [];
    for (let index = 0; index < connections; index += 1) all.push(await Connection.connect(to, found(calls)));
    opened.set(name, all);
  },

  /** Opens streams that stay open, and waits for the first message of each. */
  openStreams: async ({ connections, calls, count }: Streams): Promise<void> => {
    const all = opened.get(connections) ?? [];
    const { calls: some } = found(calls);
    const before = sumOf(all, ({ messages }) => messages);
    for (let sent = 0; sent < count; ) {
      for (const connection of all) {
        const call = some[sent % some.length];
        if (sent === count || call === undefined) break;
        connection.send(call);
        connection.flush();
        sent += 1;
      }
      await until(() => sumOf(all, ({ messages }) => messages) - before >= sent - STREAMS_UNANSWERED_MAX);
    }
    await until(() => sumOf(all, ({ messages }) => messages) - before >= count);
  },

  /** Waits until no stream is open. @returns when the last one ended, in Unix milliseconds */
  untilEnded: async (name: string): Promise<number> => {
    const all = opened.get(name) ?? [];
    await until(() => sumOf(all, ({ open }) => open) === 0);
    return performance.timeOrigin + Math.max(...all.map(({ lastEndMs }) => lastEndMs));
  },

  openCalls: (name: string): number => sumOf(opened.get(name) ?? [], ({ open }) => open),

  close: (name: string): void => {
    for (const connection of opened.get(name) ?? []) connection.close();
    opened.delete(name);
    prepared.delete(name);
  },

  /** Runs flows concurrently until the first of them has ended; the others stop then. */
  run: async (flows: readonly Flow[]): Promise<FlowResult[]> => {
    const running = flows.map((flow) => new RunningFlow(flow));
    await Promise.race(running.map((flow) => flow.ended));
    for (const flow of running) flow.stop();
    await Promise.all(running.map((flow) => flow.ended));
    return running.map((flow) => flow.result());
  },
};

export type LoadCommands = typeof commands;

function found(calls: string): PreparedCalls {
  const known = prepared.get(calls);
  if (known === undefined) throw new TypeError(`no calls are prepared as ${calls}`);
  return known;
}

function until(isDone: () => boolean): Promise<void> {
  const failure = 'streams did not open or end in time';
  return waitUntil(isDone, { timeoutMs: STALL_MS, pollMs: POLL_MS, failure });
}

class RunningFlow {
  readonly ended: Promise<void>;
  readonly #flow: Flow;
  readonly #connections: readonly Connection[];
  readonly #calls: readonly PreparedCall[];
  readonly #latencies: number[] = [];
  readonly #kept: CallTaken[] = [];
  readonly #startedMs = performance.now();
  #endedMs = 0;
  #sent = 0;
  #done = 0;
  #refused = 0;
  #stopping = false;
  #finish: () => void = () => {};

  constructor(flow: Flow) {
    this.#flow = flow;
    this.#connections = opened.get(flow.connections) ?? [];
    this.#calls = found(flow.calls).calls;
    const finished = new Promise<void>((resolve) => {
      this.#finish = resolve;
    });
    const listener = {
      ended: (connection: Connection, answered: boolean, ms: number) => this.#one(connection, answered, ms),
    };
    for (const connection of this.#connections) connection.listener = listener;
    this.ended = this.#guardedAgainstStalling(finished);
    if (flow.perSecond === undefined) this.#fill();
    else void this.#pace(flow.perSecond);
  }

  stop(): void {
    this.#stopping = true;
    this.#lookForEnd();
  }

  result(): FlowResult {
    return {
      calls: this.#done,
      refused: this.#refused,
      seconds: (this.#endedMs - this.#startedMs) / 1000,
      p50Ms: quantile(this.#latencies, 0.5),
      p99Ms: quantile(this.#latencies, 0.99),
      kept: this.#kept,
    };
  }

  #fill(): void {
    const share = Math.max(1, Math.floor(this.#flow.inFlight / this.#connections.length));
    for (const connection of this.#connections) {
      for (let index = 0; index < share && this.#mayStillSend(); index += 1) this.#send(connection);
      connection.flush();
    }
  }

  async #pace(perSecond: number): Promise<void> {
    let turn = 0;
    while (this.#mayStillSend()) {
      const due = ((performance.now() - this.#startedMs) / 1000) * perSecond;
      while (this.#sent < due && this.#sent - this.#done < this.#flow.inFlight && this.#mayStillSend()) {
        const connection = this.#connections[turn % this.#connections.length];
        turn += 1;
        if (connection === undefined) return;
        this.#send(connection);
        connection.flush();
      }
      // Sleeps between sends: a busy loop would take a core from the server's threads.
      await sleep(POLL_MS);
    }
    this.#lookForEnd();
  }

  #mayStillSend(): boolean {
    const { until, once } = this.#flow;
    if (this.#stopping) return false;
    if (once === true && this.#sent >= this.#calls.length) return false;
    return 'calls' in until
      ? this.#sent < until.calls
      : performance.now() - this.#startedMs < until.seconds * 1000;
  }

  #send(connection: Connection): void {
    const call = this.#calls[this.#sent % this.#calls.length];
    if (call === undefined) return;
    this.#sent += 1;
    connection.send(call);
  }

  #one(connection: Connection, answered: boolean, ms: number): void {
    this.#done += 1;
    if (!answered) this.#refused += 1;
    this.#latencies.push(ms);
    if (this.#flow.keep === true) {
      this.#kept.push({ sentMs: performance.timeOrigin + performance.now() - ms, ms });
    }
    if (this.#flow.perSecond === undefined && this.#mayStillSend()) this.#send(connection);
    else this.#lookForEnd();
  }

  #lookForEnd(): void {
    if (this.#mayStillSend() || this.#done < this.#sent) return;
    if (this.#endedMs === 0) this.#endedMs = performance.now();
    this.#finish();
  }

  async #guardedAgainstStalling(finished: Promise<void>): Promise<void> {
    let seen = -1;
    let stalled: () => void = () => {};
    const stall = new Promise<never>((_, reject) => {
      stalled = () => reject(new Error('no call has been answered for a while'));
    });
    const look = setInterval(() => {
      if (seen === this.#done) stalled();
      seen = this.#done;
    }, STALL_MS);
    try {
      await Promise.race([finished, stall]);
    } finally {
      clearInterval(look);
    }
  }
}

executeCommands(commands);
