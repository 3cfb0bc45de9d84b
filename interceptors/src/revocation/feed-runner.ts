/** Runs the feed: asks the issuer regularly and when a broadcast says so, and watches the lease. */

import type {
  Broadcast,
  PullRequest,
  PullResponse,
  SyncRequest,
  SyncResponse,
} from '../../gen/portcullis/revocation/v1/revocation.js';
import { type Clock, systemTimers, type Timers } from '../clock.js';
import { ServiceError } from '../errors.js';
import type { GuardLog } from '../log.js';
import { type ImportKeys, KeyRing, type VerificationKeys } from '../token/key-ring.js';
import { errorOf } from '../wire/status.js';
import { BroadcastReader, type Subscription, subscribeToBroadcasts } from './broadcasts.js';
import type { BrokerFiles } from './broker.js';
import type { Feed, Moment, SyncTicket } from './feed.js';
import { ListFullError } from './list.js';

/** The issuer, as a feed asks it: over gRPC, or straight in the issuer's own process. */
export interface RevocationSource {
  /** Answers "am I up to date?", from a state of the log read after the call. */
  sync(request: SyncRequest, signal: AbortSignal): Promise<SyncResponse>;
  /** Streams the whole live list. */
  pull(request: PullRequest, signal: AbortSignal): AsyncIterable<PullResponse>;
  /**
   * Tells of what this very process has written to the log, as soon as it is committed. Absent where the
   * issuer is another process: from there nothing is believed that is not signed.
   */
  follow?(onWritten: (written: Broadcast) => void): void;
  /** Lets go of what it holds open. */
  close?(): void;
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

/** How many broadcasts may be verified at once, on other threads. */
export const BROADCASTS_UNDER_WAY_MAX = 32;

/**
 * How many broadcasts are verified on the spot within {@link AT_ONCE_INTERVAL_MS}: that takes 0.1 ms, where the way to
 * another thread and back can take ten times as long. More of them would keep calls waiting, whoever sent them.
 */
export const BROADCASTS_AT_ONCE_MAX = 16;

/** The interval of {@link BROADCASTS_AT_ONCE_MAX}, in milliseconds. */
const AT_ONCE_INTERVAL_MS = 100;

/** A longer broadcast is verified on another thread, in bytes. */
const AT_ONCE_BYTES_MAX = 64 * 1024;

const NOTHING_TO_STOP = (): void => {};

export class FeedRunner {
  readonly #options: FeedRunnerOptions;
  readonly #timers: Timers;
  readonly #importKeys: ImportKeys;
  readonly #reader: BroadcastReader;
  readonly #underWay = new Set<AbortController>();
  #subscription: Subscription | undefined;
  #closed = false;
  #stopTick = NOTHING_TO_STOP;
  #stopLeaseEnd = NOTHING_TO_STOP;
  #open = 0;
  #hearing = 0;
  /** Broadcasts verified on the spot since the interval began. */
  #heardAtOnce = 0;
  #intervalBeganMs = Number.NEGATIVE_INFINITY;
  #hasLeftOut = false;
  /** Questions are being asked. */
  #asking = false;
  #askingNow = false;
  #askAgain = false;
  #pulling = false;
  #current = false;
  #problem = '';

  constructor(options: FeedRunnerOptions) {
    this.#options = options;
    this.#timers = options.timers ?? systemTimers;
    this.#importKeys = options.importKeys ?? KeyRing.import;
    this.#reader = new BroadcastReader(this.#importKeys);
  }

  /** What keeps the list from being trusted, in one phrase; empty when nothing does. */
  get missing(): string {
    if (this.isCurrent()) return '';
    if (!this.#asking) return 'revocations: the broker has not been reached yet';
    return `revocations: ${this.#problem === '' ? 'the issuer has not answered yet' : this.#problem}`;
  }

  start(): void {
    const { nats, feed, source } = this.#options;
    source.follow?.((written) => this.#follow(written));
    if (nats !== undefined) {
      const subscribe = this.#options.subscribe ?? subscribeToBroadcasts;
      this.#subscription = subscribe({
        url: nats.url,
        name: nats.name,
        files: nats.files,
        onMessage: (bytes) => void this.#hear(bytes),
        onConnected: () => {
          this.#options.log.info({ event: 'broker_connected' }, 'revocations arrive by broadcast');
          // What was broadcast while the broker was away is asked for.
          if (feed.hydrated) this.askNow();
          this.#beginAsking();
        },
        onDisconnected: (why) =>
          this.#options.log.warn({ event: 'broker_lost', why }, 'revocations arrive by syncs alone'),
      });
      // A broker that was never reached is most likely a wrong address, and is to be found now
      // instead of in the first incident. Once it was reached, nothing waits for it any more.
      if (nats.awaited) return;
    }
    this.#beginAsking();
  }

  #beginAsking(): void {
    if (this.#asking || this.#closed) return;
    this.#asking = true;
    this.#schedule();
    void this.#ask();
  }

  isCurrent(): boolean {
    const { clock, feed } = this.#options;
    return feed.leaseLeftMs(clock.monotonicMs(), clock.wallMs()) > 0;
  }

  /** Asks at once; while such a question is open, asks once more after it. */
  askNow(): void {
    if (!this.#asking) return;
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
    this.#closed = true;
    for (const controller of this.#underWay) controller.abort();
    this.#stopTick();
    this.#stopLeaseEnd();
    await this.#subscription?.close();
    this.#options.source.close?.();
  }

  #schedule(): void {
    const lengthMs = this.#options.feed.leaseLengthMs;
    const intervalMs = lengthMs > 0 ? lengthMs / QUESTIONS_PER_LEASE : FIRST_INTERVAL_MS;
    // A little early and a little uneven, so that instances started together do not ask together.
    const random = this.#options.random ?? Math.random;
    this.#stopTick = this.#timers.after(Math.max(1, intervalMs * (0.9 + 0.1 * random())), () => {
      this.#schedule();
      void this.#ask();
    });
  }

  #now(): Moment {
    const { clock } = this.#options;
    return { monotonicMs: clock.monotonicMs(), wallMs: clock.wallMs() };
  }

  /** Asks once and takes the answer. Never rejects. */
  async #ask(): Promise<void> {
    if (this.#open >= QUESTIONS_OPEN_MAX || this.#closed) return;
    const { feed, source } = this.#options;
    const ticket = feed.ask(this.#now());
    const timeoutMs = feed.leaseLengthMs > 0 ? feed.leaseLengthMs : FIRST_TIMEOUT_MS;
    this.#open += 1;
    try {
      await this.#take(
        ticket,
        await this.#within(timeoutMs, (signal) => source.sync(ticket.request, signal)),
      );
    } catch (error) {
      if (!this.#closed) this.#failed(error);
    } finally {
      this.#open -= 1;
    }
  }

  async #take(ticket: SyncTicket, answer: SyncResponse): Promise<void> {
    const { feed, onKeys } = this.#options;
    // Keys are imported before the answer is taken, because a lease needs them in place.
    const keys = answer.keySet === undefined ? undefined : await this.#importKeys(answer.keySet.keys);
    const broadcastKeys = await this.#reader.importKeys(answer.broadcastKeys);
    if (this.#closed) return;
    const outcome = feed.take(ticket, answer, () => {
      if (keys !== undefined) onKeys(keys);
    });
    // An answer that was overtaken would bring back a key that has left.
    if (outcome !== 'outdated') this.#reader.replaceKeys(broadcastKeys);
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
    this.#stopLeaseEnd();
    this.#stopLeaseEnd = this.#timers.after(Math.max(1, Math.ceil(leftMs)), () => this.#lookAtLease());
  }

  #lookAtLease(): void {
    if (!this.#current || this.#closed) return;
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
    if (this.#pulling || this.#closed) return;
    this.#pulling = true;
    const { feed, source, service, instance } = this.#options;
    try {
      feed.beginPull();
      let isWhole = false;
      await this.#within(PULL_TIMEOUT_MS, async (signal) => {
        for await (const part of source.pull({ service, instance: Buffer.from(instance) }, signal)) {
          isWhole = feed.takePart(part);
        }
      });
      if (isWhole) this.askNow();
    } catch (error) {
      if (!this.#closed) this.#failed(error);
    } finally {
      feed.abandonPull();
      this.#pulling = false;
    }
  }

  /** Gives the work a signal, which is aborted when it takes too long, and when the runner is closed. */
  async #within<T>(ms: number, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const controller = new AbortController();
    const late = (): void => controller.abort(new DOMException(`no answer within ${ms} ms`, 'TimeoutError'));
    const stop = this.#timers.after(ms, late);
    this.#underWay.add(controller);
    try {
      return await work(controller.signal);
    } finally {
      stop();
      this.#underWay.delete(controller);
    }
  }

  /** Never throws: it is called in a turn of its own, where nobody would catch what a full list throws. */
  #follow(written: Broadcast): void {
    const { feed, log } = this.#options;
    try {
      const { taken, askNow } = feed.hear(written);
      if (!taken || askNow) this.askNow();
    } catch (error) {
      log.error(
        { event: 'broadcast_unusable', err: error },
        'what this process has written could not be taken',
      );
      this.askNow();
    }
  }

  /** Never rejects: a message that cannot be read is counted and forgotten. */
  async #hear(bytes: Uint8Array): Promise<void> {
    const { feed, log, onForgery } = this.#options;
    if (this.#hearing >= BROADCASTS_UNDER_WAY_MAX) {
      // Whoever floods the broker, with replayed messages say, must not take the time that questions
      // and calls need: the lease would run out. What is left out is asked for.
      this.#hasLeftOut = true;
      return;
    }
    this.#hearing += 1;
    try {
      const reading = this.#reader.read(bytes, this.#mayVerifyNow(bytes));
      const broadcast = reading instanceof Promise ? await reading : reading;
      if (broadcast === undefined) {
        // Before the first answer no key is known: nothing can be said of the message.
        if (feed.hydrated) onForgery();
        return;
      }
      if (feed.hear(broadcast).askNow) this.askNow();
    } catch (error) {
      log.error({ event: 'broadcast_unusable', err: error }, 'a broadcast could not be taken');
      this.askNow();
    } finally {
      this.#hearing -= 1;
      if (this.#hearing === 0 && this.#hasLeftOut) {
        this.#hasLeftOut = false;
        if (feed.hydrated) this.askNow();
      }
    }
  }

  #mayVerifyNow(bytes: Uint8Array): boolean {
    if (bytes.byteLength > AT_ONCE_BYTES_MAX) return false;
    const nowMs = this.#options.clock.monotonicMs();
    if (nowMs - this.#intervalBeganMs >= AT_ONCE_INTERVAL_MS) {
      this.#intervalBeganMs = nowMs;
      this.#heardAtOnce = 0;
    }
    this.#heardAtOnce += 1;
    return this.#heardAtOnce <= BROADCASTS_AT_ONCE_MAX;
  }

  #failed(error: unknown): void {
    // The issuer's own process is answered without gRPC, so the error comes as it was thrown.
    const { reason, message } =
      error instanceof ServiceError ? { reason: error.code, message: error.message } : errorOf(error);
    const problem = problemOf(error, reason, message);
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
  /** `awaited`: nothing is asked, and nobody admitted, before the broker was reached for the first time. */
  readonly nats:
    | {
        readonly url: string;
        readonly name: string;
        readonly awaited: boolean;
        readonly files?: BrokerFiles | undefined;
      }
    | undefined;
  readonly clock: Clock;
  /** Those of this process unless told otherwise. */
  readonly timers?: Timers;
  /** A number from 0, included, to 1, excluded; it only spreads questions over time. */
  readonly random?: () => number;
  /** How the broker is listened to, unless told otherwise through NATS. */
  readonly subscribe?: typeof subscribeToBroadcasts;
  /** How public keys are made ready for use, unless told otherwise by jose. */
  readonly importKeys?: ImportKeys;
  readonly log: GuardLog;
  /** Another key set is to be put in place. */
  readonly onKeys: (keys: VerificationKeys) => void;
  /** The list may be trusted again, or no longer. */
  readonly onCurrentChange: (isCurrent: boolean) => void;
  /** A message on the broker was not signed by a key in place, or not a broadcast at all. */
  readonly onForgery: () => void;
}

function problemOf(error: unknown, reason: string, message: string): string {
  if (error instanceof ListFullError) return error.message;
  if (reason === 'LOG_CHANGED') {
    return 'the revocation log is not the one that this process followed: an operator must open a new epoch';
  }
  return `the issuer does not answer (${message === '' ? String(error) : message})`;
}
