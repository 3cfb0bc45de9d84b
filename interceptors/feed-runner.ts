/** Runs the feed: asks the issuer regularly and when a broadcast says so, and watches the lease. */

import { randomInt } from 'node:crypto';
import type {
  PullRequest,
  PullResponse,
  SyncRequest,
  SyncResponse,
} from '../proto/gen/portcullis/revocation/v1/revocation.js';
import { BroadcastReader, type Subscription, subscribeToBroadcasts } from './broadcasts.js';
import type { Clock } from './clock.js';
import type { Feed, Moment, SyncTicket } from './feed.js';
import { KeyRing } from './key-ring.js';
import { errorOf } from './status.js';

/** The issuer, as a feed asks it: over gRPC, or straight in the issuer's own process. */
export interface RevocationSource {
  /** Answers "am I up to date?", from a state of the log read after the call. */
  sync(request: SyncRequest, signal: AbortSignal): Promise<SyncResponse>;
  /** Streams the whole live list. */
  pull(request: PullRequest, signal: AbortSignal): AsyncIterable<PullResponse>;
  /** Lets go of what it holds open. */
  close?(): void;
}

/** Where the guard writes what operators should know. A pino logger fits. */
export interface GuardLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** How many questions are asked within the length of a lease. */
export const QUESTIONS_PER_LEASE = 5;

/** How often to ask before the issuer has told the length of a lease, in milliseconds. */
const FIRST_INTERVAL_MS = 200;

/** How long the first answer may take, in milliseconds. */
const FIRST_TIMEOUT_MS = 5000;

/** How many questions may be open at once: a frozen connection must not stop later ones. */
const QUESTIONS_OPEN_MAX = QUESTIONS_PER_LEASE + 3;

/** How long a whole list may take to arrive, in milliseconds. */
const PULL_TIMEOUT_MS = 60_000;

export class FeedRunner {
  readonly #options: FeedRunnerOptions;
  readonly #reader = new BroadcastReader();
  readonly #closing = new AbortController();
  #subscription: Subscription | undefined;
  #tick: NodeJS.Timeout | undefined;
  #leaseEnd: NodeJS.Timeout | undefined;
  #open = 0;
  #askingNow = false;
  #askAgain = false;
  #pulling = false;
  #current = false;
  #problem = '';

  constructor(options: FeedRunnerOptions) {
    this.#options = options;
  }

  /** What keeps the list from being trusted, in one phrase; empty when nothing does. */
  get missing(): string {
    if (this.isCurrent()) return '';
    return `revocations: ${this.#problem === '' ? 'the issuer has not answered yet' : this.#problem}`;
  }

  start(): void {
    const { nats, feed } = this.#options;
    if (nats !== undefined) {
      this.#subscription = subscribeToBroadcasts({
        url: nats.url,
        name: nats.name,
        onMessage: (bytes) => void this.#hear(bytes),
        onConnected: () => {
          this.#options.log.info({ event: 'broker_connected' }, 'revocations arrive by broadcast');
          // What was broadcast while the broker was away is asked for.
          if (feed.hydrated) this.askNow();
        },
        onDisconnected: (why) =>
          this.#options.log.warn({ event: 'broker_lost', why }, 'revocations arrive by syncs alone'),
      });
    }
    this.#schedule();
    void this.#ask();
  }

  isCurrent(): boolean {
    const { clock, feed } = this.#options;
    return feed.leaseLeftMs(clock.monotonicMs(), clock.wallMs()) > 0;
  }

  /** Asks at once; while such a question is open, asks once more after it. */
  askNow(): void {
    if (this.#askingNow) {
      this.#askAgain = true;
      return;
    }
    this.#askingNow = true;
    void this.#ask().finally(() => {
      this.#askingNow = false;
      if (!this.#askAgain) return;
      this.#askAgain = false;
      this.askNow();
    });
  }

  async close(): Promise<void> {
    this.#closing.abort();
    clearTimeout(this.#tick);
    clearTimeout(this.#leaseEnd);
    await this.#subscription?.close();
    this.#options.source.close?.();
  }

  #schedule(): void {
    const lengthMs = this.#options.feed.leaseLengthMs;
    const intervalMs = lengthMs > 0 ? lengthMs / QUESTIONS_PER_LEASE : FIRST_INTERVAL_MS;
    // A little early and a little uneven, so that instances started together do not ask together.
    const waitMs = Math.max(
      1,
      Math.floor(intervalMs * 0.9) + randomInt(Math.max(1, Math.floor(intervalMs * 0.1))),
    );
    this.#tick = setTimeout(() => {
      this.#schedule();
      void this.#ask();
    }, waitMs);
    this.#tick.unref();
  }

  #now(): Moment {
    const { clock } = this.#options;
    return { monotonicMs: clock.monotonicMs(), wallMs: clock.wallMs() };
  }

  /** Asks once and takes the answer. Never rejects. */
  async #ask(): Promise<void> {
    if (this.#open >= QUESTIONS_OPEN_MAX || this.#closing.signal.aborted) return;
    const { feed, source } = this.#options;
    const ticket = feed.ask(this.#now());
    const timeoutMs = feed.leaseLengthMs > 0 ? feed.leaseLengthMs : FIRST_TIMEOUT_MS;
    this.#open += 1;
    try {
      const signal = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(timeoutMs)]);
      await this.#take(ticket, await source.sync(ticket.request, signal));
    } catch (error) {
      if (!this.#closing.signal.aborted) this.#failed(error);
    } finally {
      this.#open -= 1;
    }
  }

  async #take(ticket: SyncTicket, answer: SyncResponse): Promise<void> {
    const { feed, onKeys } = this.#options;
    // Keys are imported before the answer is taken, because a lease needs them in place.
    const keys = answer.keySet === undefined ? undefined : await KeyRing.import(answer.keySet.keys);
    const broadcastKeys = await this.#reader.importKeys(answer.broadcastKeys);
    if (this.#closing.signal.aborted) return;
    const outcome = feed.take(ticket, answer, () => {
      if (keys !== undefined) onKeys(keys);
    });
    // An answer that was overtaken would bring back a key that has left.
    if (outcome !== 'outdated') this.#reader.useKeys(broadcastKeys);
    if (outcome === 'pull') {
      // Another epoch has ended the lease.
      this.#lookAtLease();
      void this.#pull();
    }
    if (outcome === 'granted') this.#granted();
  }

  #granted(): void {
    const { feed, clock, log, onCurrentChange } = this.#options;
    const leftMs = feed.leaseLeftMs(clock.monotonicMs(), clock.wallMs());
    this.#lookAtLeaseIn(leftMs);
    this.#problem = '';
    if (this.#current || leftMs <= 0) return;
    this.#current = true;
    log.info(
      { event: 'revocations_current', applied: String(feed.applied) },
      'the revocation list is current',
    );
    onCurrentChange(true);
  }

  #lookAtLeaseIn(leftMs: number): void {
    clearTimeout(this.#leaseEnd);
    this.#leaseEnd = setTimeout(() => this.#lookAtLease(), Math.max(1, Math.ceil(leftMs)));
    this.#leaseEnd.unref();
  }

  #lookAtLease(): void {
    if (!this.#current || this.#closing.signal.aborted) return;
    const { feed, clock } = this.#options;
    const leftMs = feed.leaseLeftMs(clock.monotonicMs(), clock.wallMs());
    if (leftMs > 0) {
      // Timers and clocks differ by a little: a look that came too early must not be the last one.
      this.#lookAtLeaseIn(leftMs);
      return;
    }
    this.#current = false;
    this.#options.log.error(
      { event: 'revocations_stale', problem: this.#problem },
      'the revocation list is stale: calls are refused until the issuer answers',
    );
    this.#options.onCurrentChange(false);
  }

  async #pull(): Promise<void> {
    if (this.#pulling || this.#closing.signal.aborted) return;
    this.#pulling = true;
    const { feed, source, service, instance } = this.#options;
    try {
      const signal = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(PULL_TIMEOUT_MS)]);
      feed.beginPull();
      let isWhole = false;
      for await (const part of source.pull({ service, instance: Buffer.from(instance) }, signal)) {
        isWhole = feed.takePart(part);
      }
      if (isWhole) this.askNow();
    } catch (error) {
      if (!this.#closing.signal.aborted) this.#failed(error);
    } finally {
      feed.abandonPull();
      this.#pulling = false;
    }
  }

  /** Never rejects: a message that cannot be read is counted and forgotten. */
  async #hear(bytes: Uint8Array): Promise<void> {
    const { feed, log, onForgery } = this.#options;
    try {
      const broadcast = await this.#reader.read(bytes);
      if (broadcast === undefined) {
        // Before the first answer no key is known: nothing can be said of the message.
        if (feed.hydrated) onForgery();
        return;
      }
      if (feed.hear(broadcast).askNow) this.askNow();
    } catch (error) {
      log.error({ event: 'broadcast_unusable', err: error }, 'a broadcast could not be taken');
      this.askNow();
    }
  }

  #failed(error: unknown): void {
    const { reason, message } = errorOf(error);
    const problem =
      reason === 'LOG_CHANGED'
        ? 'the revocation log is not the one that this process followed: an operator must open a new epoch'
        : `the issuer does not answer (${message === '' ? String(error) : message})`;
    if (problem !== this.#problem) {
      this.#problem = problem;
      this.#options.log.warn({ event: 'sync_failed', reason, problem }, 'a sync failed');
    }
    this.#lookAtLease();
  }
}

/** What a {@link FeedRunner} needs. */
export interface FeedRunnerOptions {
  readonly feed: Feed;
  readonly source: RevocationSource;
  readonly service: string;
  readonly instance: Uint8Array;
  readonly nats: { readonly url: string; readonly name: string } | undefined;
  readonly clock: Clock;
  readonly log: GuardLog;
  /** Another key set is to be put in place. */
  readonly onKeys: (keys: KeyRing) => void;
  /** The list may be trusted again, or no longer. */
  readonly onCurrentChange: (isCurrent: boolean) => void;
  /** A message on the broker was not signed by a key in place, or not a broadcast at all. */
  readonly onForgery: () => void;
}
