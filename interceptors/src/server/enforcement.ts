/** What revocations do in a process: they flag the verified tokens they hit, and cut the calls that hang on them. */

import type { Clock, Timers } from '../clock.js';
import type { Feed, FeedListener } from '../revocation/feed.js';
import type { LiveCall, VerifiedToken } from '../revocation/verified-tokens.js';
import type { VerificationKeys } from '../token/key-ring.js';
import type { ForeignIssuer, TrustedIssuers } from '../token/trusted-issuers.js';
import { Admissions } from './admission.js';

/**
 * How many live calls are cut before other calls have their turn. Few, because most of the work of ending a call is
 * done by the HTTP/2 of Node after the cut, in the same turn of the event loop.
 */
export const CUT_SLICE_CALLS = 5;

/** After so long no further call is cut in the same turn, in milliseconds: handlers are told in it, too. */
const CUT_SLICE_MS = 0.5;

/** For how long nothing is cut after a slice, in milliseconds, while other calls are made. */
const CUT_PAUSE_MS = 1;

/** What an {@link Enforcement} needs. */
export interface EnforcementOptions {
  readonly issuer: string;
  readonly audience: string;
  readonly clock: Clock;
  readonly timers: Timers;
  /** Makes the feed that tells this listener what it hears. */
  readonly createFeed: (listener: FeedListener) => Feed;
  /** Other issuers whose tokens are taken. */
  readonly trusted?: TrustedIssuers | undefined;
  /** A token was found bad, and why. */
  readonly onTokenInvalid: (fault: string) => void;
  /** A signature was verified, and how many milliseconds it took; nobody is told when absent. */
  readonly onVerified?: (ms: number) => void;
  /** Cutting a call threw: a handler did, when it was told that its caller has gone. */
  readonly onCutFailed: (error: unknown) => void;
}

/** The feed, the tokens that it flags and the calls that it cuts; without wire and without questions. */
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
      // What another issuer has signed does not end with our log: it is looked up in the new list once that is there,
      // and until then nobody is admitted.
      epochChanged: () => this.#forgetOwn(),
    });
    this.admissions = new Admissions({ ...options, feed: this.feed });
  }

  /** Puts another key set in place. What a key that has left signed is flagged at once: it may have leaked. */
  replaceKeys(keys: VerificationKeys): void {
    this.admissions.replaceKeys(keys);
    this.#revokeWhere(({ claims }) => !claims.isForeign && !keys.has(claims.keyId));
  }

  /** Another issuer has other keys: what those signed that have left is flagged at once. */
  foreignKeysChanged(issuer: ForeignIssuer): void {
    this.#revokeWhere(({ claims }) => {
      return claims.isForeign && claims.issuer === issuer.issuer && !issuer.has(claims.keyId);
    });
  }

  /** Lets every live call look whether it may still go on. */
  recheckLiveCalls(): void {
    for (const token of this.admissions.tokens.all()) this.#cut(token.liveCalls());
  }

  /** Forgets the tokens that have expired, and cuts their calls. */
  dropExpired(): void {
    const untilMs = Math.max(this.#clock.wallMs(), this.feed.horizonMs);
    for (const token of this.admissions.tokens.dropExpired(untilMs)) this.#cut(token.liveCalls());
  }

  /**
   * Our own tokens are forgotten: their calls end, and whoever shows one again is looked at anew. Flagged and kept, one
   * of the new epoch would stay refused when an answer that was read before the change arrives after one that was
   * read later, and the epoch goes back and forth.
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
      // The flag first, for all: from here on no message passes, however long the cutting takes.
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

  /** Cuts some calls, from a place in the queue on, then lets other calls have their turn. */
  #cutSlice(from: number): void {
    const untilMs = this.#clock.monotonicMs() + CUT_SLICE_MS;
    let next = from;
    do {
      const call = this.#cutQueue[next];
      // What has been cut is let go at once: to keep thousands of calls alive costs other calls a long pause.
      this.#cutQueue[next] = undefined;
      try {
        call?.recheck();
      } catch (error) {
        // The other calls are cut all the same.
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
