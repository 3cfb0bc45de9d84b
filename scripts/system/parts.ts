/** The parts of a running system: each can be stopped, killed and started again under the same address. */

import { readFile } from 'node:fs/promises';
import { type ClientRequest, type IncomingMessage, request } from 'node:http';
import { request as requestHttps } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { type LaunchedProcess, type LaunchOptions, launch } from './processes.js';
import { SystemError } from './system-error.js';

const READY_TIMEOUT_MS = 60_000;
const READY_POLL_MS = 30;
const PROBE_TIMEOUT_MS = 2_000;

/** A part of the system that runs as a process of its own. */
export interface Part {
  /** What it is called in messages. */
  readonly name: string;
  /** The process's number; that of the last one when none runs. */
  readonly pid: number;
  readonly logFile: string;
  /** Tells whether its process runs. */
  isRunning(): boolean;
  /** Sends a signal, without waiting. */
  kill(signal: NodeJS.Signals): void;
  /** Resolves when the process that runs now has ended. */
  ended(): Promise<string>;
  /** Stops it; resolves when its process has ended. */
  stop(): Promise<void>;
  /** Starts it again where it was, and waits until it serves. */
  restart(): Promise<void>;
}

/** One of our services. */
export interface ServiceProcess extends Part {
  /** Where it serves gRPC, such as `127.0.0.1:50051`. */
  readonly address: string;
  /** Where it serves `/livez`, `/readyz` and `/metrics`. */
  readonly opsAddress: string;
  /** Starts it and does not wait; it may find nothing of what it depends on. */
  launch(): Promise<void>;
  /** Waits until it says that it is ready. @throws SystemError when it ends or takes too long */
  ready(options?: ReadyOptions): Promise<void>;
  /** Asks `/readyz`; `undefined` when nothing answers. */
  readiness(): Promise<{ ready: boolean; text: string } | undefined>;
}

/** How to wait for readiness. */
export interface ReadyOptions {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal | undefined;
}

/** A service that has not been started yet. */
export interface ServiceProcessOptions {
  readonly address: string;
  readonly opsAddress: string;
  /** The authority that its ops port is known by; HTTP when undefined. */
  readonly caFile?: string | undefined;
  readonly launch: LaunchOptions;
}

/** Prepares a service; nothing is started before `launch`. */
export function createServiceProcess(options: ServiceProcessOptions): ServiceProcess {
  const { address, opsAddress, caFile } = options;
  const { name, logFile } = options.launch;
  let running: LaunchedProcess | undefined;
  const proc: ServiceProcess = {
    name,
    address,
    opsAddress,
    logFile,
    get pid() {
      return running?.pid ?? 0;
    },
    isRunning: () => running !== undefined && running.hasEnded() === undefined,
    kill: (signal) => running?.kill(signal),
    ended: async () => (await running?.ended) ?? 'was never started',
    stop: async () => await running?.stop(),
    async launch() {
      await running?.stop();
      running = await launch(options.launch);
    },
    async ready({ timeoutMs = READY_TIMEOUT_MS, signal } = {}) {
      if (running === undefined) throw new TypeError(`${name} has not been launched`);
      await waitUntilReady({ proc, process: running, timeoutMs, signal });
    },
    async restart() {
      await proc.launch();
      await proc.ready();
    },
    readiness: () => probe(opsAddress, caFile),
  };
  return proc;
}

async function waitUntilReady(waiting: {
  proc: ServiceProcess;
  process: LaunchedProcess;
  timeoutMs: number;
  signal: AbortSignal | undefined;
}): Promise<void> {
  const { proc, process, timeoutMs, signal } = waiting;
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    signal?.throwIfAborted();
    const ended = process.hasEnded();
    if (ended !== undefined) throw await failure(proc, process, `has ended (${ended})`);
    const answer = await proc.readiness();
    if (answer?.ready === true) return;
    if (performance.now() > deadline) {
      const missing = answer === undefined ? 'it does not answer' : `it says: ${answer.text.trim()}`;
      throw await failure(proc, process, `is not ready after ${timeoutMs / 1_000} seconds; ${missing}`);
    }
    await sleep(READY_POLL_MS, undefined, signal === undefined ? {} : { signal });
  }
}

async function failure(proc: ServiceProcess, process: LaunchedProcess, what: string): Promise<SystemError> {
  return new SystemError(
    `${proc.name} ${what}. The end of its log, ${proc.logFile}:\n${await process.logTail()}`,
  );
}

async function probe(
  opsAddress: string,
  caFile: string | undefined,
): Promise<{ ready: boolean; text: string } | undefined> {
  const options = { agent: false, timeout: PROBE_TIMEOUT_MS } as const;
  const ca = caFile === undefined ? undefined : await readFile(caFile);
  const ask = (answered: (response: IncomingMessage) => void): ClientRequest =>
    ca === undefined
      ? request(`http://${opsAddress}/readyz`, options, answered)
      : requestHttps(`https://${opsAddress}/readyz`, { ...options, ca }, answered);
  return await new Promise((resolve) => {
    const asking = ask((response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', () => resolve(undefined));
      response.on('end', () =>
        resolve({ ready: response.statusCode === 200, text: Buffer.concat(chunks).toString() }),
      );
    });
    asking.on('timeout', () => asking.destroy());
    asking.on('error', () => resolve(undefined));
    asking.end();
  });
}
