/**
 * A call that the engine decides, whatever wire it came by: it counts for the limits, its check is repeated, and it ends
 * when its token must not be used any longer. Each kind of wire has a subclass, so that a call is one object.
 */

import type { GuardErrorCode, ServiceError } from '../errors.js';
import type { DenialReason, LiveCall, VerifiedToken } from '../revocation/verified-tokens.js';
import type { Principal } from '../token/principal.js';
import type { Admission, Caller } from './admission.js';
import type { CallLimits, CallQueue, HeldCall, Holder } from './call-limits.js';
import type { MethodKind } from './decision.js';
import type { LimitName } from './guard-limits.js';
import type { Addressed } from './guard-reports.js';
import { limitRefusal, sharedRefusal } from './refusals.js';

/** The part of the engine that its calls need. */
export interface CallEngine {
  readonly limits: CallLimits;
  /** No call is refused or cut because of its token or rule: what would be is only observed. */
  readonly observes: boolean;
  /** Why an admitted call must not go on; undefined when it may. */
  denialReason(token: VerifiedToken, allowStale: boolean): DenialReason | undefined;
  /** For how many milliseconds an admitted call may go on, if nothing is revoked and no sync succeeds. */
  validForMs(token: VerifiedToken, allowStale: boolean): number;
  /** Observes that a limit has ended or refused a call. */
  onLimit(limit: LimitName): void;
  /** Observes that a call was admitted, or refused or cut for a reason. */
  onDecision(path: string, outcome: 'ADMITTED' | GuardErrorCode): void;
  /** Observes that a call goes on that would be refused or cut if the engine did not only observe. */
  onObserved(path: string, reason: GuardErrorCode): void;
  /** Counts an admitted call for the security reports. Every call passes here, so it must cost next to nothing. */
  reportAdmitted(token: VerifiedToken, call: Addressed): void;
  /** Counts a refused call for the security reports, and logs why; `token` is the verified token, if there is one. */
  reportRefused(
    path: string,
    reason: GuardErrorCode,
    token: VerifiedToken | undefined,
    call: Addressed,
  ): void;
}

/** Without closures and unused fields, because every call allocates one. */
export abstract class DecidedCall implements LiveCall, HeldCall, Caller, Addressed {
  readonly path: string;
  previousLive: LiveCall | undefined;
  nextLive: LiveCall | undefined;
  readonly requestStream: boolean;
  readonly isStream: boolean;
  holder: Holder | undefined;
  isUnknown = false;
  heldBytes = 0;
  queue: CallQueue | undefined;
  previousHeld: HeldCall | undefined;
  nextHeld: HeldCall | undefined;
  heldSinceMs = 0;
  protected readonly engine: CallEngine;
  protected verified: VerifiedToken | undefined;
  #allowStale = false;
  /** Ended by the engine: no message passes any longer, in either direction. */
  protected isClosed = false;
  /**
   * The only response has passed the check, so there is nothing left to withhold. A call that revokes its own token is
   * not cut between its response and its status.
   */
  protected isAnswered = false;
  /** Ended for the wire. */
  protected isFinished = false;
  /** The engine only observes, and it has observed that the call would be refused or cut. */
  #observedDenial = false;

  constructor(path: string, { requestStream, responseStream }: MethodKind, engine: CallEngine) {
    this.path = path;
    this.requestStream = requestStream;
    this.isStream = requestStream || responseStream;
    this.engine = engine;
  }

  abstract readonly address: string;
  abstract readonly isPrivate: boolean;
  abstract readonly certificateThumbprint: string | undefined;
  abstract getPeer(): string;
  abstract retireConnection(): void;

  /** Ends the call on the wire. Nothing passes any longer. */
  protected abstract close(error: ServiceError<GuardErrorCode>): void;
  /** Ends the call of a peer that does not read, so that no status would reach it. */
  protected abstract drop(error: ServiceError<GuardErrorCode>): void;
  /** The call was closed: what works on it must stop. */
  protected abstract stop(): void;

  get principal(): Principal | undefined {
    return this.verified?.claims;
  }

  /** Begins the call as it was decided. @returns the maximum size of a request message, or the error that refuses it */
  protected enter(admission: Admission): number | ServiceError<GuardErrorCode> {
    const { engine } = this;
    if (admission.kind === 'refused') return this.#refuse(admission.error, admission.token);
    if (admission.kind === 'observed') {
      // Its token is not linked, because it would be cut. Its limits are those of its peer alone.
      this.verified = admission.token;
      this.#observedDenial = true;
      return admission.requestBytesMax;
    }
    const token = admission.kind === 'admitted' ? admission.token : undefined;
    const limit =
      token === undefined
        ? engine.limits.enterPublic(this, this.address)
        : engine.limits.enterWithToken(this, token);
    if (limit !== undefined) {
      engine.onLimit(limit);
      return this.#refuse(limitRefusal(limit), token);
    }
    if (admission.kind === 'admitted') {
      this.verified = admission.token;
      this.#allowStale = admission.allowStale;
      admission.token.link(this);
      engine.reportAdmitted(admission.token, this);
    }
    engine.onDecision(this.path, 'ADMITTED');
    return admission.requestBytesMax;
  }

  #refuse(
    error: ServiceError<GuardErrorCode>,
    token: VerifiedToken | undefined,
  ): ServiceError<GuardErrorCode> {
    this.engine.onDecision(this.path, error.code);
    this.engine.reportRefused(this.path, error.code, token, this);
    return error;
  }

  /** Repeats the check, on every message; a call that fails it is cut at once. */
  protected passes(): boolean {
    if (this.isClosed || this.isFinished) return false;
    const reason = this.denialReason();
    if (reason === undefined) return true;
    this.cut(reason);
    return false;
  }

  /** Why the call must not go on; undefined when it may. */
  protected denialReason(): DenialReason | undefined {
    const token = this.verified;
    if (token === undefined || this.isAnswered) return undefined;
    const reason = this.engine.denialReason(token, this.#allowStale);
    return reason === undefined || this.#observes(reason) ? undefined : reason;
  }

  protected cut(reason: DenialReason): void {
    this.engine.onDecision(this.path, reason);
    this.close(sharedRefusal(reason));
    this.stop();
  }

  /** For how many milliseconds the caller stays authorized. @param refuse - creates what is thrown when it no longer is */
  protected validForMs(refuse: (reason: DenialReason) => Error): number {
    const token = this.verified;
    if (token === undefined) return Number.POSITIVE_INFINITY;
    const reason = this.engine.denialReason(token, this.#allowStale);
    if (reason !== undefined) {
      if (this.#observes(reason)) return Number.POSITIVE_INFINITY;
      throw refuse(reason);
    }
    return this.engine.validForMs(token, this.#allowStale);
  }

  /** Whether the call goes on although it is denied, because the engine only observes. */
  #observes(reason: DenialReason): boolean {
    if (!this.engine.observes) return false;
    if (!this.#observedDenial) this.engine.onObserved(this.path, reason);
    this.#observedDenial = true;
    return true;
  }

  // LiveCall.

  recheck(): void {
    this.passes();
  }

  // HeldCall.

  endForLimit(limit: LimitName): void {
    this.engine.limits.leave(this);
    if (this.isClosed) return;
    this.engine.onLimit(limit);
    const error = limitRefusal(limit);
    if (limit === 'response_seconds') {
      this.drop(error);
      return;
    }
    this.engine.onDecision(this.path, error.code);
    this.close(error);
    this.stop();
  }

  /** The call has ended: it is held by nothing any longer. */
  protected leave(): void {
    this.verified?.unlink(this);
    this.engine.limits.leave(this);
  }
}
