/** The load: clients that call every instance continuously and keep streams open at all of them. */

import { setMaxListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { nowMs } from '../shared/waiting.js';
import {
  askWitness,
  type CallerKind,
  type Clients,
  type OpenStream,
  type Question,
  type StreamKind,
} from './calls.js';
import type { InstanceName } from './environment.js';
import { type Credential, isService, type Outcome, type RevocationOracle } from './revocation-oracle.js';

/** Interval of each call, once with a good token and once with a revoked one, in milliseconds. */
const ASK_INTERVAL_MS = 40;
/** Maximum number of calls in flight at one instance; a frozen instance gets no more. */
const OPEN_QUESTIONS_MAX = 96;
/** Longer than any instance is frozen, so that calls made meanwhile get their response. */
const QUESTION_TIMEOUT_MS = 8_000;
const STREAM_SEND_INTERVAL_MS = 100;
const REOPEN_AFTER_MS = 150;
/** A stream opened with a revoked token has ended by then, also on an overloaded machine. */
const STREAM_ENDS_WITHIN_MS = 3_000;
/** Number of consecutive good responses after which an instance counts as back. */
const GOOD_ANSWERS = 3;

/** A token of the load. */
export interface Player extends Credential {
  readonly kind: CallerKind;
}

/** The interval in which an instance was frozen: it cannot have admitted anything in it. */
export interface Frozen {
  readonly fromMs: number;
  toMs: number;
}

/** Calls and checks until it is stopped. */
export class Load {
  /** Instances that receive calls with revoked tokens first: good tokens wait for the first response. */
  readonly revokedFirst = new Set<InstanceName>();
  /** Instances that were restarted in this round and may admit nothing before their list is complete. */
  readonly restarted = new Set<InstanceName>();
  readonly frozen = new Map<InstanceName, Frozen>();
  readonly #oracle: RevocationOracle;
  readonly #clients: Clients;
  readonly #instances: readonly InstanceName[];
  readonly #questions: readonly Question[];
  readonly #kinds: readonly StreamKind[];
  readonly #players: readonly Player[];
  readonly #open = new Map<InstanceName, number>();
  readonly #streams = new Set<LiveStream>();
  readonly #poured = new Map<string, Player>();
  readonly #good = new Map<InstanceName, { inRow: number; sinceMs: number }>();
  readonly #stopping = new AbortController();
  #countFromMs = 0;
  #work: Promise<unknown>[] = [];
  #turn = 0;
  #names = 0;

  constructor(options: {
    oracle: RevocationOracle;
    clients: Clients;
    instances: readonly InstanceName[];
    questions: readonly Question[];
    kinds: readonly StreamKind[];
    players: readonly Player[];
  }) {
    this.#oracle = options.oracle;
    this.#clients = options.clients;
    this.#instances = options.instances;
    this.#questions = options.questions;
    this.#kinds = options.kinds;
    this.#players = options.players;
    setMaxListeners(0, this.#stopping.signal);
  }

  start(): void {
    this.#work = [this.#askAll(), this.#sendAll()];
    for (const player of this.#players) {
      for (const kind of this.#kinds) {
        if (kind.callers.includes(player.kind)) this.#work.push(this.#keepStream(kind, player));
      }
    }
  }

  /** Waits until every instance admits good tokens again. @returns the late ones */
  async untilServed(isLate: (instance: InstanceName) => boolean): Promise<InstanceName[]> {
    for (;;) {
      const missing = this.#instances.filter((instance) => {
        const good = this.#good.get(instance);
        return good === undefined || good.inRow < GOOD_ANSWERS;
      });
      if (missing.length === 0) return missing;
      const late = missing.filter(isLate);
      if (late.length > 0) return late;
      await sleep(ASK_INTERVAL_MS / 2);
    }
  }

  /** When the slowest instance began to admit again. */
  servedSinceMs(): number {
    return Math.max(...this.#instances.map((instance) => this.#good.get(instance)?.sinceMs ?? 0));
  }

  /** Restarts the count of good responses: responses to earlier calls do not count. */
  countAnew(): void {
    this.#countFromMs = nowMs();
    this.#good.clear();
  }

  /** Streams that stay open although their token was revoked; a stream that was just opened gets time to end. */
  async leftOpen(): Promise<string[]> {
    const suspects = [...this.#streams].filter(({ player }) => player.revokedMs !== undefined);
    const isOpen = (live: LiveStream): boolean => this.#streams.has(live);
    const deadlineMs = nowMs() + STREAM_ENDS_WITHIN_MS;
    while (suspects.some(isOpen) && nowMs() < deadlineMs) await sleep(ASK_INTERVAL_MS);
    return suspects
      .filter(isOpen)
      .map(({ kind, player }) => `${kind.method} on ${kind.instance} with ${player.name}`);
  }

  /** Makes every call at one instance with one token; returns the outcomes of methods that the bound holds for. */
  async askEverything(
    player: Player,
    timeoutMs: number,
  ): Promise<{ question: Question; outcome: Outcome }[]> {
    const asked = this.#questions.filter(({ callers }) => callers.includes(player.kind));
    return await Promise.all(
      asked.map(async (question) => ({ question, outcome: await this.#ask(question, player, timeoutMs) })),
    );
  }

  /** Reads which messages the client streams of the echoes received, and checks them. */
  async hearWitnesses(): Promise<void> {
    for (const { instance, client } of this.#clients.echoes) {
      const heard = await askWitness(client).catch(() => ({}));
      for (const [name, momentMs] of Object.entries(heard)) {
        const player = this.#poured.get(name);
        if (player === undefined) continue;
        this.#oracle.judge({
          credential: player,
          instance,
          method: 'ClientStream',
          notBeforeMs: this.#floor(instance, momentMs),
          endedMs: nowMs(),
          outcome: { kind: 'admitted' },
          isMessage: true,
        });
      }
    }
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    for (const { stream } of this.#streams) stream.cancel();
    await Promise.all(this.#work);
    const deadlineMs = nowMs() + QUESTION_TIMEOUT_MS;
    while (nowMs() < deadlineMs && [...this.#open.values()].some((open) => open > 0)) await sleep(10);
  }

  async #askAll(): Promise<void> {
    for (; !this.#stopping.signal.aborted; this.#turn += 1) {
      for (const question of this.#questions) {
        // Less frequent: the bound does not hold for methods with ON_STALE_ALLOW.
        if (question.allowStale === true && this.#turn % 4 !== 0) continue;
        this.#askWithOneOf(question, false);
        this.#askWithOneOf(question, true);
      }
      await this.#pause(ASK_INTERVAL_MS);
    }
  }

  #askWithOneOf(question: Question, revoked: boolean): void {
    const { instance, callers } = question;
    if (!revoked && this.revokedFirst.has(instance)) {
      // While an instance is held back it does not count as serving.
      const now = nowMs();
      if (question.allowStale !== true) this.#oracle.serve(instance, now, now, { kind: 'unanswered' });
      return;
    }
    if ((this.#open.get(instance) ?? 0) >= OPEN_QUESTIONS_MAX) return;
    const players = this.#players.filter(
      ({ kind, revokeSentMs }) => callers.includes(kind) && (revokeSentMs !== undefined) === revoked,
    );
    const player = players[this.#turn % Math.max(1, players.length)];
    if (player !== undefined) void this.#ask(question, player, QUESTION_TIMEOUT_MS);
  }

  async #ask(question: Question, player: Player, timeoutMs: number): Promise<Outcome> {
    const { instance, method, allowStale = false } = question;
    this.#open.set(instance, (this.#open.get(instance) ?? 0) + 1);
    const sentMs = nowMs();
    const outcome = await question.ask(player.token, timeoutMs);
    const endedMs = nowMs();
    this.#open.set(instance, (this.#open.get(instance) ?? 1) - 1);
    const notBeforeMs = this.#floor(instance, sentMs);
    this.#oracle.judge({ credential: player, instance, method, notBeforeMs, endedMs, outcome, allowStale });
    const wasGood = player.revokeSentMs === undefined || endedMs < player.revokeSentMs;
    if (!wasGood && outcome.kind !== 'unavailable' && outcome.kind !== 'unanswered') {
      this.revokedFirst.delete(instance);
    }
    if (wasGood && !allowStale) this.#served(instance, sentMs, endedMs, outcome);
    if (wasGood && allowStale) this.#read(instance, method, player, outcome);
    return outcome;
  }

  #served(instance: InstanceName, sentMs: number, endedMs: number, outcome: Outcome): void {
    this.#oracle.serve(instance, sentMs, endedMs, outcome);
    if (sentMs < this.#countFromMs) return;
    if (!isService(outcome, sentMs, endedMs)) {
      this.#good.delete(instance);
      return;
    }
    const good = this.#good.get(instance) ?? { inRow: 0, sinceMs: sentMs };
    good.inRow += 1;
    this.#good.set(instance, good);
  }

  #read(instance: InstanceName, method: string, player: Player, outcome: Outcome): void {
    if (outcome.kind !== 'unavailable' || outcome.reason !== 'REVOCATION_STATE_STALE') return;
    if (this.restarted.has(instance)) return;
    this.#oracle.report('READING_LOST', `${method} on ${instance} with ${player.name} was refused as stale`);
  }

  async #sendAll(): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      for (const { stream } of this.#streams) stream.send(nowMs());
      await this.#pause(STREAM_SEND_INTERVAL_MS);
    }
  }

  async #keepStream(kind: StreamKind, player: Player): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      await this.#stream(kind, player);
      await this.#pause(REOPEN_AFTER_MS);
    }
  }

  async #stream(kind: StreamKind, player: Player): Promise<void> {
    const { instance, method } = kind;
    if (this.revokedFirst.has(instance) && player.revokeSentMs === undefined) return;
    this.#names += 1;
    const name = `${this.#names}`;
    this.#poured.set(name, player);
    const openedMs = nowMs();
    const stream = kind.open(player.token, name);
    const live = { stream, kind, player };
    this.#streams.add(live);
    let isFirst = true;
    stream.onMessage((momentMs) => {
      // The first message shows that the stream itself was admitted, after it was opened.
      const notBeforeMs = this.#floor(instance, Math.max(openedMs, momentMs ?? openedMs));
      const outcome = { kind: 'admitted' } as const;
      const seen = { credential: player, instance, method, notBeforeMs, endedMs: nowMs(), outcome };
      this.#oracle.judge({ ...seen, isMessage: !isFirst });
      isFirst = false;
    });
    const outcome = await stream.ended;
    this.#streams.delete(live);
    if (outcome.kind === 'admitted' || outcome.kind === 'unanswered') return;
    const endedMs = nowMs();
    this.#oracle.judge({ credential: player, instance, method, notBeforeMs: openedMs, endedMs, outcome });
  }

  /** The earliest moment at which a call that was sent then can have been admitted. */
  #floor(instance: InstanceName, sentMs: number): number {
    const frozen = this.frozen.get(instance);
    return frozen !== undefined && sentMs >= frozen.fromMs && sentMs < frozen.toMs ? frozen.toMs : sentMs;
  }

  async #pause(forMs: number): Promise<void> {
    await sleep(forMs, undefined, { signal: this.#stopping.signal }).catch(() => undefined);
  }
}

interface LiveStream {
  readonly stream: OpenStream;
  readonly kind: StreamKind;
  readonly player: Player;
}
