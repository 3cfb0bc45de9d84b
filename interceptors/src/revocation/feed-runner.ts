/** Runs the feed: syncs with the issuer at regular intervals and when a broadcast requires it, and watches the lease. */

import type {
  Broadcast,
  InstanceDescription,
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
import type { BrokerStatus } from './broker-link.js';
import type { Feed, Moment, SyncTicket } from './feed.js';
import type { Fences } from './fences.js';
import { ListFullError } from './list.js';
import { VersionError } from './version-error.js';

/** The issuer's revocation log: over gRPC, or directly in the issuer's own process. */
export interface RevocationSource {
  /** Answers a sync request from a state of the log that is read after the call. */
  sync(request: SyncRequest, signal: AbortSignal): Promise<SyncResponse>;
  /** Streams the whole list. */
  pull(request: PullRequest, signal: AbortSignal): AsyncIterable<PullResponse>;
  /**
   * Notifies of entries that this process itself has committed. Absent where the issuer is another process, whose
   * broadcasts must be signed.
   */
  follow?(onWritten: (written: Broadcast) => void): void;
  /** Closes its connections. */
  close?(): void;
}

/** Number of regular syncs within the length of a lease. */
const SYNCS_PER_LEASE = 5;

/** Interval of syncs before the first lease, in milliseconds. */
const FIRST_INTERVAL_MS = 200;

/** Timeout of a sync before the first lease, in milliseconds. */
const FIRST_TIMEOUT_MS = 5000;

/** Maximum number of concurrent syncs. More than one, because a frozen connection must not stop later syncs. */
const SYNCS_OPEN_MAX = SYNCS_PER_LEASE + 3;

/** Timeout of a pull, in milliseconds. */
const PULL_TIMEOUT_MS = 60_000;

/** Timeout of the request with which an instance says that it has stopped serving, in milliseconds. */
const LEAVE_TIMEOUT_MS = 500;

/** Maximum number of broadcasts that are verified at a time, on other threads. */
export const BROADCASTS_PENDING_MAX = 32;

/**
 * Maximum number of broadcasts that are verified on the main thread within {@link INLINE_INTERVAL_MS}. That takes 0.1 ms,
 * a detour over another thread up to ten times as long. More of them would delay calls.
 */
export const BROADCASTS_INLINE_MAX = 16;

/** The interval of {@link BROADCASTS_INLINE_MAX}, in milliseconds. */
const INLINE_INTERVAL_MS = 100;

/** Maximum size of a broadcast that is verified on the main thread, in bytes. */
const INLINE_BYTES_MAX = 64 * 1024;

const NOTHING_TO_STOP = (): void => {};

/** Runs the feed of one process. */
export class FeedRunner {
  readonly #options: FeedRunnerOptions;
  readonly #timers: Timers;
  readonly #importKeys: ImportKeys;
  readonly #reader: BroadcastReader;
  readonly #openRequests = new Set<AbortController>();
  #subscription: Subscription | undefined;
  #closed = false;
  #stopSchedule = NOTHING_TO_STOP;
  #stopLeaseCheck = NOTHING_TO_STOP;
  #openSyncs = 0;
  #pendingBroadcasts = 0;
  /** Broadcasts verified on the main thread since the interval began. */
  #inlineBroadcasts = 0;
  #inlineIntervalBeganMs = Number.NEGATIVE_INFINITY;
  /** A broadcast was dropped because too many were pending. */
  #hasDroppedBroadcast = false;
  /** Regular syncs have begun. */
  #isSyncing = false;
  /** A sync of {@link syncNow} is open, and another one is wanted after it. */
  #isSyncNowOpen = false;
  #isSyncNowWanted = false;
  #isPulling = false;
  #isCurrentKnown = false;
  /** Why the last sync failed; empty when it did not. */
  #problem = '';
  #hasSynced = false;
  #broker: BrokerStatus = { state: 'connecting', problem: '' };

  constructor(options: FeedRunnerOptions) {
    this.#options = options;
    this.#timers = options.timers ?? systemTimers;
    this.#importKeys = options.importKeys ?? KeyRing.import;
    this.#reader = new BroadcastReader(this.#importKeys);
  }

  /** Why the list is not current, in one phrase; empty when it is. */
  get staleReason(): string {
    if (this.isCurrent()) return '';
    if (!this.#isSyncing) {
      const { problem } = this.#broker;
      return `revocations: the broker has not been reached yet${problem === '' ? '' : ` (${problem})`}`;
    }
    return `revocations: ${this.#problem === '' ? 'the issuer has not answered yet' : this.#problem}`;
  }

  /** The connection over which broadcasts arrive; undefined without a broker. */
  get broker(): BrokerStatus | undefined {
    return this.#options.nats && this.#broker;
  }

  /** Whether the latest sync that has ended succeeded. */
  get lastSyncSucceeded(): boolean {
    return this.#hasSynced && this.#problem === '';
  }

  start(): void {
    const { nats, source } = this.#options;
    source.follow?.((written) => this.#applyOwn(written));
    if (nats !== undefined) {
      this.#subscribe(nats);
      // A broker that was never reached is most likely a wrong address, which should show at the start and not in the
      // first incident. Once it was reached, nothing waits for it any more.
      if (nats.awaited) return;
    }
    this.#startSyncing();
  }

  /** Whether the lease is running. */
  isCurrent(): boolean {
    const { clock, feed } = this.#options;
    return feed.leaseLeftMs(clock.monotonicMs(), clock.wallMs()) > 0;
  }

  /** Syncs now; if such a sync is open, syncs once more after it. */
  syncNow(): void {
    if (!this.#isSyncing) return;
    if (this.#isSyncNowOpen) {
      this.#isSyncNowWanted = true;
      return;
    }
    this.#isSyncNowOpen = true;
    void this.#sync().finally(() => {
      this.#isSyncNowOpen = false;
      if (!this.#isSyncNowWanted) return;
      this.#isSyncNowWanted = false;
      this.syncNow();
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const controller of this.#openRequests) controller.abort();
    this.#stopSchedule();
    this.#stopLeaseCheck();
    await this.#leave();
    await this.#subscription?.close();
    this.#options.source.close?.();
  }

  /** Tells operators that this instance has stopped, and is not merely silent. Nothing depends on it. Never rejects. */
  async #leave(): Promise<void> {
    const { feed, source, description } = this.#options;
    if (description === undefined || !this.lastSyncSucceeded) return;
    const { request } = feed.createSyncRequest(this.#now());
    await this.#within(LEAVE_TIMEOUT_MS, (signal) =>
      source.sync({ ...request, description, leaving: true }, signal),
    ).catch(() => undefined);
  }

  #subscribe(nats: NonNullable<FeedRunnerOptions['nats']>): void {
    const { feed, log, subscribe = subscribeToBroadcasts } = this.#options;
    this.#subscription = subscribe({
      url: nats.url,
      name: nats.name,
      files: nats.files,
      onMessage: (bytes) => void this.#receive(bytes),
      onConnected: () => {
        this.#broker = { state: 'connected', problem: '' };
        log.info({ event: 'broker_connected' }, 'revocations arrive by broadcast');
        // Broadcasts sent while the broker was unreachable are missing.
        if (feed.hydrated) this.syncNow();
        this.#startSyncing();
      },
      onDisconnected: (status) => {
        this.#broker = status;
        const { state: reason, problem: why } = status;
        log.warn({ event: 'broker_lost', reason, why }, 'revocations arrive by syncs only');
      },
    });
  }

  #startSyncing(): void {
    if (this.#isSyncing || this.#closed) return;
    this.#isSyncing = true;
    this.#schedule();
    void this.#sync();
  }

  #schedule(): void {
    const lengthMs = this.#options.feed.leaseLengthMs;
    const intervalMs = lengthMs > 0 ? lengthMs / SYNCS_PER_LEASE : FIRST_INTERVAL_MS;
    // A little early and irregular, so that instances started together do not sync together.
    const random = this.#options.random ?? Math.random;
    this.#stopSchedule = this.#timers.after(Math.max(1, intervalMs * (0.9 + 0.1 * random())), () => {
      this.#schedule();
      void this.#sync();
    });
  }

  #now(): Moment {
    const { clock } = this.#options;
    return { monotonicMs: clock.monotonicMs(), wallMs: clock.wallMs() };
  }

  /** Syncs once. Never rejects. */
  async #sync(): Promise<void> {
    if (this.#openSyncs >= SYNCS_OPEN_MAX || this.#closed) return;
    const { feed, source } = this.#options;
    const ticket = feed.createSyncRequest(this.#now(), this.#options.fences?.positions());
    const timeoutMs = feed.leaseLengthMs > 0 ? feed.leaseLengthMs : FIRST_TIMEOUT_MS;
    this.#openSyncs += 1;
    try {
      await this.#apply(
        ticket,
        await this.#within(timeoutMs, (signal) =>
          source.sync({ ...ticket.request, description: this.#options.description }, signal),
        ),
      );
    } catch (error) {
      if (!this.#closed) this.#failed(error);
    } finally {
      this.#openSyncs -= 1;
    }
  }

  async #apply(ticket: SyncTicket, response: SyncResponse): Promise<void> {
    const { feed, onKeys } = this.#options;
    // Keys are imported before the response is applied, because a lease requires them.
    const keys = response.keySet === undefined ? undefined : await this.#importKeys(response.keySet.keys);
    const broadcastKeys = await this.#reader.importKeys(response.broadcastKeys);
    if (this.#closed) return;
    const outcome = feed.applySyncResponse(ticket, response, () => {
      if (keys !== undefined) onKeys(keys);
    });
    // An overtaken response would reinstall a key that has left the set.
    if (outcome !== 'outdated') this.#reader.replaceKeys(broadcastKeys);
    if (outcome === 'pull') {
      // A new epoch has ended the lease.
      this.#checkLease();
      void this.#pull();
    }
    if (outcome === 'granted') this.#granted();
  }

  #granted(): void {
    const { feed, clock, log, onCurrentChange } = this.#options;
    const leftMs = feed.leaseLeftMs(clock.monotonicMs(), clock.wallMs());
    this.#scheduleLeaseCheck(leftMs);
    this.#problem = '';
    this.#hasSynced = true;
    this.#options.fences?.granted();
    if (this.#isCurrentKnown || leftMs <= 0) return;
    this.#isCurrentKnown = true;
    log.info(
      { event: 'revocations_current', applied: String(feed.applied) },
      'the revocation list is current',
    );
    onCurrentChange(true);
  }

  #scheduleLeaseCheck(leftMs: number): void {
    this.#stopLeaseCheck();
    this.#stopLeaseCheck = this.#timers.after(Math.max(1, Math.ceil(leftMs)), () => this.#checkLease());
  }

  #checkLease(): void {
    if (!this.#isCurrentKnown) return;
    const { feed, clock } = this.#options;
    const leftMs = feed.leaseLeftMs(clock.monotonicMs(), clock.wallMs());
    if (leftMs > 0) {
      // Timers and clocks differ a little, so a check may come too early.
      this.#scheduleLeaseCheck(leftMs);
      return;
    }
    this.#isCurrentKnown = false;
    this.#options.log.error(
      { event: 'revocations_stale', problem: this.#problem },
      'the revocation list is stale: calls are refused until the issuer answers',
    );
    this.#options.onCurrentChange(false);
  }

  async #pull(): Promise<void> {
    if (this.#isPulling) return;
    this.#isPulling = true;
    const { feed, source, service, instance } = this.#options;
    try {
      feed.beginPull();
      let isComplete = false;
      await this.#within(PULL_TIMEOUT_MS, async (signal) => {
        for await (const part of source.pull({ service, instance: Buffer.from(instance) }, signal)) {
          isComplete = feed.applyPullPart(part);
        }
      });
      if (isComplete) this.syncNow();
    } catch (error) {
      if (!this.#closed) this.#failed(error);
    } finally {
      feed.abandonPull();
      this.#isPulling = false;
    }
  }

  /** Runs `work` with a signal that is aborted after `ms` milliseconds, and when the runner is closed. */
  async #within<T>(ms: number, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const controller = new AbortController();
    const late = (): void => controller.abort(new DOMException(`no answer within ${ms} ms`, 'TimeoutError'));
    const stop = this.#timers.after(ms, late);
    this.#openRequests.add(controller);
    try {
      return await work(controller.signal);
    } finally {
      stop();
      this.#openRequests.delete(controller);
    }
  }

  /** Applies entries that this process committed. Never throws, because it runs in a turn of its own. */
  #applyOwn(written: Broadcast): void {
    const { feed, log } = this.#options;
    try {
      const { accepted, syncDue } = feed.applyBroadcast(written);
      if (!accepted || syncDue) this.syncNow();
    } catch (error) {
      log.error({ event: 'broadcast_unusable', err: error }, 'an own entry of the log could not be applied');
      this.syncNow();
    }
  }

  /** Verifies and applies a broadcast. Never rejects: a message that is not a valid broadcast is reported and dropped. */
  async #receive(bytes: Uint8Array): Promise<void> {
    const { feed, log, onForgery } = this.#options;
    if (this.#pendingBroadcasts >= BROADCASTS_PENDING_MAX) {
      // A flood of messages, replayed ones for example, must not take the time that syncs and calls need: the lease would
      // run out. A sync afterwards fetches what was dropped.
      this.#hasDroppedBroadcast = true;
      return;
    }
    this.#pendingBroadcasts += 1;
    try {
      const reading = this.#reader.read(bytes, this.#mayVerifyInline(bytes));
      const broadcast = reading instanceof Promise ? await reading : reading;
      if (broadcast === undefined) {
        // Before the first sync response no key is known, so no message can be called forged.
        if (feed.hydrated) onForgery();
        return;
      }
      if (feed.applyBroadcast(broadcast).syncDue) this.syncNow();
    } catch (error) {
      log.error({ event: 'broadcast_unusable', err: error }, 'a broadcast could not be applied');
      this.syncNow();
    } finally {
      this.#pendingBroadcasts -= 1;
      if (this.#pendingBroadcasts === 0 && this.#hasDroppedBroadcast) {
        this.#hasDroppedBroadcast = false;
        if (feed.hydrated) this.syncNow();
      }
    }
  }

  #mayVerifyInline(bytes: Uint8Array): boolean {
    if (bytes.byteLength > INLINE_BYTES_MAX) return false;
    const nowMs = this.#options.clock.monotonicMs();
    if (nowMs - this.#inlineIntervalBeganMs >= INLINE_INTERVAL_MS) {
      this.#inlineIntervalBeganMs = nowMs;
      this.#inlineBroadcasts = 0;
    }
    this.#inlineBroadcasts += 1;
    return this.#inlineBroadcasts <= BROADCASTS_INLINE_MAX;
  }

  #failed(error: unknown): void {
    // In the issuer's own process the error arrives as it was thrown, not through gRPC.
    const { reason, message } =
      error instanceof ServiceError ? { reason: error.code, message: error.message } : errorOf(error);
    const problem = problemOf(error, reason, message);
    if (problem !== this.#problem) {
      this.#problem = problem;
      this.#options.log.warn({ event: 'sync_failed', reason, problem }, 'a sync failed');
    }
    this.#checkLease();
  }
}

/** Options of a {@link FeedRunner}. */
export interface FeedRunnerOptions {
  readonly feed: Feed;
  readonly source: RevocationSource;
  readonly service: string;
  readonly instance: Uint8Array;
  /** Where and what this instance is, for operators. Default: nothing is stated, and no goodbye is said. */
  readonly description?: InstanceDescription | undefined;
  /** `awaited`: the first sync waits until the broker was reached once, so no call is admitted before. */
  readonly nats:
    | {
        readonly url: string;
        readonly name: string;
        readonly awaited: boolean;
        readonly files?: BrokerFiles | undefined;
      }
    | undefined;
  readonly clock: Clock;
  /** Default: the timers of this process. */
  readonly timers?: Timers;
  /** A number in [0, 1); it spreads syncs over time. Default: `Math.random`. */
  readonly random?: () => number;
  /** Subscribes to broadcasts. Default: over NATS. */
  readonly subscribe?: typeof subscribeToBroadcasts;
  /** Imports public keys. Default: {@link KeyRing.import}. */
  readonly importKeys?: ImportKeys;
  readonly log: GuardLog;
  /** The fences of the service's databases. */
  readonly fences?: Pick<Fences, 'positions' | 'granted'> | undefined;
  /** Installs a new key set. */
  readonly onKeys: (keys: VerificationKeys) => void;
  /** The list became current, or stale. */
  readonly onCurrentChange: (isCurrent: boolean) => void;
  /** A message on the broker was not a broadcast signed by a current key. */
  readonly onForgery: () => void;
}

function problemOf(error: unknown, reason: string, message: string): string {
  if (error instanceof ListFullError || error instanceof VersionError) return error.message;
  if (reason === 'LOG_CHANGED') {
    return 'the revocation log is not the one that this process followed: an operator must open a new epoch';
  }
  return `the issuer does not answer (${message === '' ? String(error) : message})`;
}
