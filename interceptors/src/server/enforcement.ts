/** Enforces revocations in one process: flags the cached tokens that they revoke, and cuts the live calls of these. */

import type { Clock, Timers } from '../clock.js';
import type { Feed, FeedListener } from '../revocation/feed.js';
import type { LiveCall, VerifiedToken } from '../revocation/verified-tokens.js';
import type { VerificationKeys } from '../token/key-ring.js';
import type { ForeignIssuer, TrustedIssuers } from '../token/trusted-issuers.js';
import { Admissions } from './admission.js';
import type { LimitName } from './guard-limits.js';

/**
 * Maximum number of live calls cut in one turn of the event loop. Few, because Node's HTTP/2 does most of the work of
 * ending a call after the cut, in the same turn.
 */
export const CUT_SLICE_CALLS = 5;

/** Maximum time for cuts in one turn, in milliseconds: each cut also runs code of the handler. */
const CUT_SLICE_MS = 0.5;

/** Pause after a slice of cuts while other calls arrive, in milliseconds. */
const CUT_PAUSE_MS = 1;

export interface EnforcementOptions {
  readonly issuer: string;
  readonly audience: string;
  readonly clock: Clock;
  readonly timers: Timers;
  /** Creates the feed that notifies this listener. */
  readonly createFeed: (listener: FeedListener) => Feed;
  /** Other issuers whose tokens are accepted. */
  readonly trusted?: TrustedIssuers | undefined;
  /** A token was rejected; `fault` names the cause. */
  readonly onTokenInvalid: (fault: string) => void;
  /** A signature was verified in `ms` milliseconds. */
  readonly onVerified?: (ms: number) => void;
  /** A limit has refused a call. */
  readonly onLimit?: (limit: LimitName) => void;
  /** A handler threw while its call was cut. */
  readonly onCutFailed: (error: unknown) => void;
}

/** The feed, the tokens that it flags and the calls that it cuts. No I/O. */
export class Enforcement {
  readonly feed: Feed;
  readonly admissions: Admissions;
  readonly #clock: Clock;
  readonly #timers: Timers;
  readonly #onCutFailed: (error: unknown) => void;
  #decisionsSeen = 0;
  readonly #cutQueue: (LiveCall | undefined)[] = [];

  constructor(options: EnforcementOptions) {
    this.#clock = options.clock;
    this.#timers = options.timers;
    this.#onCutFailed = options.onCutFailed;
    this.feed = options.createFeed({
      entryAdded: (entry) => this.#revoke(this.admissions.tokens.revokedBy(entry)),
      listFilled: (list) => this.#revokeWhere((token) => list.revokes(token.claims)),
      // Tokens of other issuers stay cached: `listFilled` checks them against the new list, and no call is admitted before.
      epochChanged: () => this.#forgetOwn(),
    });
    this.admissions = new Admissions({ ...options, feed: this.feed });
  }

  /** Calls wait to be cut. */
  get isCutting(): boolean {
    return this.#cutQueue.length > 0;
  }

  /** Replaces the key set. Tokens of a key that left the set are flagged at once: the key may have leaked. */
  replaceKeys(keys: VerificationKeys): void {
    this.admissions.replaceKeys(keys);
    this.#revokeWhere(({ claims }) => !claims.isForeign && !keys.has(claims.keyId));
  }

  /** Flags the tokens whose key left the key set of another issuer. */
  foreignKeysChanged(issuer: ForeignIssuer): void {
    this.#revokeWhere(({ claims }) => {
      return claims.isForeign && claims.issuer === issuer.issuer && !issuer.has(claims.keyId);
    });
  }

  /** Repeats the check of every live call, and cuts those that fail it. */
  recheckLiveCalls(): void {
    for (const token of this.admissions.tokens.all()) this.#cut(token.liveCalls());
  }

  /** Drops expired tokens from the cache, and cuts their calls. */
  dropExpired(): void {
    const untilMs = Math.max(this.#clock.wallMs(), this.feed.horizonMs);
    for (const token of this.admissions.tokens.dropExpired(untilMs)) this.#cut(token.liveCalls());
  }

  /**
   * Drops the issuer's own tokens and cuts their calls; the next call with such a token verifies it again. A flag alone
   * would not do: sync responses may arrive out of order, the epoch may change back and forth, and a token of the new
   * epoch would stay refused.
   */
  #forgetOwn(): void {
    const own = [...this.admissions.tokens.all()].filter(({ claims }) => !claims.isForeign);
    for (const token of own) this.admissions.tokens.remove(token);
    this.#revoke(own);
  }

  #revokeWhere(isHit: (token: VerifiedToken) => boolean): void {
    const hit: VerifiedToken[] = [];
    for (const token of this.admissions.tokens.all()) if (isHit(token)) hit.push(token);
    this.#revoke(hit);
  }

  #revoke(tokens: readonly VerifiedToken[]): void {
    for (const token of tokens) {
      // All flags first: from here on no message passes, however long the cuts take.
      token.revoked = true;
    }
    for (const token of tokens) this.#cut(token.liveCalls());
  }

  #cut(calls: readonly LiveCall[]): void {
    if (calls.length === 0) return;
    const wasIdle = this.#cutQueue.length === 0;
    for (const call of calls) this.#cutQueue.push(call);
    if (wasIdle) this.#cutSlice(0);
  }

  /** Cuts calls from an index of the queue on, then yields to other calls. */
  #cutSlice(from: number): void {
    const untilMs = this.#clock.monotonicMs() + CUT_SLICE_MS;
    let next = from;
    do {
      const call = this.#cutQueue[next];
      // Released at once: keeping thousands of ended calls alive lengthens garbage collection.
      this.#cutQueue[next] = undefined;
      try {
        call?.recheck();
      } catch (error) {
        // One handler's error does not keep other calls from being cut.
        this.#onCutFailed(error);
      }
      next += 1;
    } while (next < from + CUT_SLICE_CALLS && this.#clock.monotonicMs() < untilMs);
    if (next === this.#cutQueue.length) {
      this.#cutQueue.length = 0;
      return;
    }
    const { decisions } = this.admissions;
    const isAlone = decisions === this.#decisionsSeen;
    this.#decisionsSeen = decisions;
    if (isAlone) this.#timers.soon(() => this.#cutSlice(next));
    else this.#timers.after(CUT_PAUSE_MS, () => this.#cutSlice(next));
  }
}
