/** The load: clients that ask every instance again and again, and keep streams open at all of them. */

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
import { INSTANCES, type InstanceName } from './environment.js';
import { type Credential, isService, type Ledger, type Outcome } from './revocation-oracle.js';

/** How often every question is asked, once with a good token and once with a revoked one, in milliseconds. */
const ASK_INTERVAL_MS = 40;
/** Most unanswered questions at one instance; a frozen one is asked no more than that. */
const OPEN_QUESTIONS_MAX = 96;
/** Longer than any instance is frozen, so that what it was asked meanwhile is answered after all. */
const QUESTION_TIMEOUT_MS = 8_000;
const STREAM_SEND_INTERVAL_MS = 100;
const REOPEN_AFTER_MS = 150;
/** A stream that is opened with a revoked token has ended by then, also on a machine with too much to do. */
const STREAM_ENDS_WITHIN_MS = 3_000;
/** How many good answers in a row make an instance count as back. */
const GOOD_ANSWERS = 3;

/** A token of the load. */
export interface Player extends Credential {
  readonly kind: CallerKind;
}

/** The window in which an instance was frozen: it can have admitted nothing between these moments. */
export interface Frozen {
  readonly fromMs: number;
  toMs: number;
}

/** Asks and judges until it is stopped. */
export class Load {
  /** Instances at which revoked tokens come first: good ones wait until one of those was answered. */
  readonly revokedFirst = new Set<InstanceName>();
  /** Instances that were started again in this round, and may read nothing before they have the whole list. */
  readonly restarted = new Set<InstanceName>();
  readonly frozen = new Map<InstanceName, Frozen>();
  readonly #ledger: Ledger;
  readonly #clients: Clients;
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
    ledger: Ledger;
    clients: Clients;
    questions: readonly Question[];
    kinds: readonly StreamKind[];
    players: readonly Player[];
  }) {
    this.#ledger = options.ledger;
    this.#clients = options.clients;
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

  /** Waits until every instance serves good tokens again. @returns those that were late */
  async untilServed(isLate: (instance: InstanceName) => boolean): Promise<InstanceName[]> {
    for (;;) {
      const missing = INSTANCES.filter((instance) => {
        const good = this.#good.get(instance);
        return good === undefined || good.inRow < GOOD_ANSWERS;
      });
      if (missing.length === 0) return missing;
      const late = missing.filter(isLate);
      if (late.length > 0) return late;
      await sleep(ASK_INTERVAL_MS / 2);
    }
  }

  /** When the slowest instance began to serve again. */
  servedSinceMs(): number {
    return Math.max(...INSTANCES.map((instance) => this.#good.get(instance)?.sinceMs ?? 0));
  }

  /** Begins to count anew who serves: answers to what was asked before do not count. */
  countAnew(): void {
    this.#countFromMs = nowMs();
    this.#good.clear();
  }

  /** The streams that stay open although their token has been revoked; one that has just been opened may end first. */
  async leftOpen(): Promise<string[]> {
    const suspects = [...this.#streams].filter(({ player }) => player.revokedMs !== undefined);
    const isOpen = (live: LiveStream): boolean => this.#streams.has(live);
    const deadlineMs = nowMs() + STREAM_ENDS_WITHIN_MS;
    while (suspects.some(isOpen) && nowMs() < deadlineMs) await sleep(ASK_INTERVAL_MS);
    return suspects
      .filter(isOpen)
      .map(({ kind, player }) => `${kind.method} on ${kind.instance} with ${player.name}`);
  }

  /** Asks one instance everything with one token; returns the answers of methods that the bound is promised for. */
  async askEverything(
    player: Player,
    timeoutMs: number,
  ): Promise<{ question: Question; outcome: Outcome }[]> {
    const asked = this.#questions.filter(({ callers }) => callers.includes(player.kind));
    return await Promise.all(
      asked.map(async (question) => ({ question, outcome: await this.#ask(question, player, timeoutMs) })),
    );
  }

  /** Asks the echo what its client streams were given, and judges it. */
  async hearWitness(): Promise<void> {
    const heard = await askWitness(this.#clients.echo).catch(() => ({}));
    for (const [name, momentMs] of Object.entries(heard)) {
      const player = this.#poured.get(name);
      if (player === undefined) continue;
      this.#ledger.judge({
        credential: player,
        instance: 'echo',
        method: 'ClientStream',
        notBeforeMs: this.#floor('echo', momentMs),
        endedMs: nowMs(),
        outcome: { kind: 'admitted' },
        isMessage: true,
      });
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
        // Reading is asked less often: the bound is not promised for it.
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
      // Whoever holds back is not served either.
      const now = nowMs();
      if (question.allowStale !== true) this.#ledger.serve(instance, now, now, { kind: 'unanswered' });
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
    this.#ledger.judge({ credential: player, instance, method, notBeforeMs, endedMs, outcome, allowStale });
    const wasGood = player.revokeSentMs === undefined || endedMs < player.revokeSentMs;
    if (!wasGood && outcome.kind !== 'unavailable' && outcome.kind !== 'unanswered') {
      this.revokedFirst.delete(instance);
    }
    if (wasGood && !allowStale) this.#served(instance, sentMs, endedMs, outcome);
    if (wasGood && allowStale) this.#read(instance, method, player, outcome);
    return outcome;
  }

  #served(instance: InstanceName, sentMs: number, endedMs: number, outcome: Outcome): void {
    this.#ledger.serve(instance, sentMs, endedMs, outcome);
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
    this.#ledger.report('READING_LOST', `${method} on ${instance} with ${player.name} was refused as stale`);
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
      this.#ledger.judge({ ...seen, isMessage: !isFirst });
      isFirst = false;
    });
    const outcome = await stream.ended;
    this.#streams.delete(live);
    if (outcome.kind === 'admitted' || outcome.kind === 'unanswered') return;
    const endedMs = nowMs();
    this.#ledger.judge({ credential: player, instance, method, notBeforeMs: openedMs, endedMs, outcome });
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
