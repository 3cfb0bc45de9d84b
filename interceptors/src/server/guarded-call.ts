/**
 * One guarded call, from its metadata to its end: holds it until it is decided, repeats the check on every message, and
 * cuts it when its token must not be used any longer. The workarounds for how grpc-js ends a call are in this file.
 */

import type {
  Metadata,
  MethodDefinition,
  ServerInterceptingCall,
  ServerInterceptingCallInterface,
} from '@grpc/grpc-js';
import type { GuardErrorCode } from '../errors.js';
import type { DenialReason, LiveCall, VerifiedToken } from '../revocation/verified-tokens.js';
import type { Principal } from '../token/principal.js';
import { certificateThumbprintUnder, isPrivateConnection, retireConnection } from '../wire/connection.js';
import {
  asServerInterceptingCall,
  resetStream,
  type ServerCallListener,
  type ServerCallStatus,
} from '../wire/grpc-js-internals.js';
import { type CallStatus, statusOf } from '../wire/status.js';
import type { Admission, Caller } from './admission.js';
import { attachState, type CallState } from './call-state.js';
import { CUT_STATUSES, refusal, refusalStatus } from './refusals.js';

/** How long a peer may leave the status of a cut call unread before its stream is reset, in milliseconds. */
export const CUT_GRACE_MS = 250;

/** HTTP/2 error code CANCEL (RFC 9113 §7). */
const HTTP2_CANCEL = 8;

/** The part of the guard that a call needs. */
export interface CallGuard {
  /** Decides a call by its metadata. A promise only while the signature of a new token is being verified. */
  admit(path: string, metadata: Metadata, caller: Caller): Admission | Promise<Admission>;
  /** Why an admitted call must not go on; undefined when it may. */
  denialReason(token: VerifiedToken, allowStale: boolean): DenialReason | undefined;
  /** For how many milliseconds an admitted call may go on, if nothing is revoked and no sync succeeds. */
  validForMs(token: VerifiedToken, allowStale: boolean): number;
  /** Counts an admitted call for the security reports. Every call passes here, so it must cost next to nothing. */
  reportAdmitted(token: VerifiedToken, call: ServerInterceptingCallInterface): void;
  /** Counts a refused call for the security reports; `token` is the verified token, if there is one. */
  reportRefused(
    reason: GuardErrorCode,
    token: VerifiedToken | undefined,
    call: ServerInterceptingCallInterface,
  ): void;
  /** Logs an error whose cause the caller does not receive. */
  handlerFailed(path: string, error: unknown): void;
  /** Observes that a call was admitted, or refused or cut for a reason. */
  onDecision(path: string, outcome: 'ADMITTED' | GuardErrorCode): void;
}

/** The reason with which signals are aborted. One object, because creating an error for each call would cost too much. */
const CALL_ENDED = new DOMException('the call has ended', 'AbortError');

/** What the guard needs of a method's definition. */
export type GuardedMethod = Pick<
  MethodDefinition<unknown, unknown>,
  'path' | 'requestStream' | 'responseStream'
>;

/** Puts a guard between a call and its handler. */
export function guardCall(
  method: GuardedMethod,
  call: ServerInterceptingCallInterface,
  guard: CallGuard,
): ServerInterceptingCall {
  return asServerInterceptingCall(new GuardedCall(method, call, guard));
}

/**
 * Stands between grpc-js and the handler. It implements every step of the call instead of passing callbacks along,
 * because in `ServerInterceptingCall` the callback of an asynchronous step can hold back a status for ever.
 *
 * One object serves a call in all its roles (call, listener, state, caller, live call): every call allocates it, so it
 * has no closures and no unused fields.
 */
class GuardedCall
  implements ServerInterceptingCallInterface, LiveCall, CallState, ServerCallListener, Caller
{
  readonly path: string;
  previousLive: LiveCall | undefined;
  nextLive: LiveCall | undefined;
  /** The call below this one. */
  readonly #inner: ServerInterceptingCallInterface;
  readonly #guard: CallGuard;
  readonly #answersOnce: boolean;
  readonly #requestStream: boolean;
  #listener: ServerCallListener | undefined;
  #token: VerifiedToken | undefined;
  #allowStale = false;
  /** Ended by the guard: no message passes any longer, in either direction. */
  #closed = false;
  /**
   * The only response has passed the check, so there is nothing left to withhold. A call that revokes its own token is
   * not cut between its response and its status.
   */
  #answered = false;
  /** Ended for grpc-js. */
  #finished = false;
  #abort: AbortController | undefined;
  #resetTimer: NodeJS.Timeout | undefined;

  constructor(method: GuardedMethod, inner: ServerInterceptingCallInterface, guard: CallGuard) {
    this.path = method.path;
    this.#answersOnce = !method.responseStream;
    this.#requestStream = method.requestStream;
    this.#inner = inner;
    this.#guard = guard;
  }

  get principal(): Principal | undefined {
    return this.#token?.claims;
  }

  get bearer(): string | undefined {
    return this.#token?.text;
  }

  get isPrivate(): boolean {
    return isPrivateConnection(this.#inner);
  }

  get certificateThumbprint(): string | undefined {
    return certificateThumbprintUnder(this.#inner);
  }

  get signal(): AbortSignal {
    this.#abort ??= new AbortController();
    if (this.#closed || this.#finished) this.#abort.abort(CALL_ENDED);
    return this.#abort.signal;
  }

  stillAllowed(): number {
    const token = this.#token;
    if (token === undefined) return Number.POSITIVE_INFINITY;
    const reason = this.#guard.denialReason(token, this.#allowStale);
    if (reason !== undefined) throw refusal(reason);
    return this.#guard.validForMs(token, this.#allowStale);
  }

  reportFailure(error: unknown): void {
    this.#guard.handlerFailed(this.path, error);
  }

  start(listener: ServerCallListener): void {
    this.#listener = listener;
    this.#inner.start(this);
  }

  onReceiveMetadata(metadata: Metadata): void {
    const admission = this.#guard.admit(this.path, metadata, this);
    if (admission instanceof Promise) this.#await(admission, metadata);
    else this.#conclude(admission, metadata);
  }

  onReceiveMessage(message: unknown): void {
    // The only message of a unary request needs no check: the handler starts at the half-close, which is checked. After
    // the only response the token is not checked any more, so no message is read either.
    const passes = this.#requestStream ? !this.#answered && this.#passes() : !this.#closed;
    if (passes) this.#listener?.onReceiveMessage(message);
  }

  onReceiveHalfClose(): void {
    if (this.#passes()) this.#listener?.onReceiveHalfClose();
  }

  onCancel(): void {
    this.#finish();
  }

  sendMetadata(metadata: Metadata): void {
    if (this.#passes()) this.#inner.sendMetadata(metadata);
  }

  sendMessage(message: unknown, callback: () => void): void {
    if (!this.#passes()) return;
    this.#answered = this.#answersOnce;
    this.#inner.sendMessage(message, callback);
  }

  sendStatus(status: ServerCallStatus): void {
    if (this.#passes()) this.#inner.sendStatus(status);
  }

  startRead(): void {
    this.#inner.startRead();
  }

  getPeer(): string {
    return this.#inner.getPeer();
  }

  getDeadline(): ReturnType<ServerInterceptingCallInterface['getDeadline']> {
    return this.#inner.getDeadline();
  }

  getHost(): string {
    return this.#inner.getHost();
  }

  getAuthContext(): ReturnType<ServerInterceptingCallInterface['getAuthContext']> {
    return this.#inner.getAuthContext();
  }

  getConnectionInfo(): ReturnType<ServerInterceptingCallInterface['getConnectionInfo']> {
    return this.#inner.getConnectionInfo();
  }

  getMetricsRecorder(): ReturnType<ServerInterceptingCallInterface['getMetricsRecorder']> {
    return this.#inner.getMetricsRecorder();
  }

  retireConnection(): void {
    retireConnection(this.#inner);
  }

  recheck(): void {
    this.#passes();
  }

  #cut(reason: DenialReason): void {
    this.#guard.onDecision(this.path, reason);
    this.#close(CUT_STATUSES[reason]);
    // For the handler a cut is a cancellation by the caller.
    this.#listener?.onCancel();
  }

  #await(admission: Promise<Admission>, metadata: Metadata): void {
    admission.then(
      (decision) => this.#conclude(decision, metadata),
      (error: unknown) => {
        this.#guard.handlerFailed(this.path, error);
        this.#close(statusOf(error));
      },
    );
  }

  #conclude(admission: Admission, metadata: Metadata): void {
    if (this.#closed || this.#finished) return;
    if (admission.kind === 'refused') {
      this.#guard.onDecision(this.path, admission.error.code);
      this.#guard.reportRefused(admission.error.code, admission.token, this.#inner);
      this.#close(refusalStatus(admission.error));
      return;
    }
    if (admission.kind === 'admitted') {
      this.#token = admission.token;
      this.#allowStale = admission.allowStale;
      admission.token.link(this);
      this.#guard.reportAdmitted(admission.token, this.#inner);
    }
    this.#guard.onDecision(this.path, 'ADMITTED');
    attachState(metadata, this);
    this.#listener?.onReceiveMetadata(metadata);
  }

  /** Repeats the check, on every message; a call that fails it is cut at once. */
  #passes(): boolean {
    if (this.#closed || this.#finished) return false;
    const token = this.#token;
    if (token === undefined || this.#answered) return true;
    const reason = this.#guard.denialReason(token, this.#allowStale);
    if (reason === undefined) return true;
    this.#cut(reason);
    return false;
  }

  /**
   * Ends the call from the server's side. First the flag, because grpc-js drops the trailers when the handler sends a
   * message after the status. Then the status, on the inner call. A peer that does not read would hold back even that,
   * so its stream is reset after {@link CUT_GRACE_MS}.
   */
  #close(status: CallStatus): void {
    this.#closed = true;
    this.#abort?.abort(CALL_ENDED);
    this.#inner.sendStatus(status);
    if (this.#finished) return;
    this.#resetTimer = setTimeout(() => resetStream(this.#inner, HTTP2_CANCEL), CUT_GRACE_MS);
    this.#resetTimer.unref();
  }

  #finish(): void {
    if (this.#finished) return;
    this.#finished = true;
    // The timer would keep thousands of cut calls alive until it fires. The reference is cleared as well: a dead object of
    // the old generation keeps what it references alive until the next full collection.
    clearTimeout(this.#resetTimer);
    this.#resetTimer = undefined;
    this.#token?.unlink(this);
    this.#abort?.abort(CALL_ENDED);
    // The handler of a cut call was notified by the cut.
    if (!this.#closed) this.#listener?.onCancel();
    // This object may outlive the handler's part of the call.
    this.#listener = undefined;
  }
}
