/**
 * One guarded call, from its metadata to its end: holds it until it is admitted, repeats the check
 * on every message, and cuts it when its token no longer counts. Everything that depends on how
 * grpc-js ends a call stands in this file.
 */

import type {
  Metadata,
  MethodDefinition,
  ServerInterceptingCall,
  ServerInterceptingCallInterface,
} from '@grpc/grpc-js';
import { GuardError, type GuardErrorCode, type ServiceError } from '../errors.js';
import type { CutReason, LiveCall, VerifiedToken } from '../revocation/verified-tokens.js';
import { attachState, type CallState, type Principal } from '../token/principal.js';
import { certificateThumbprintUnder, retireConnection } from '../wire/connection.js';
import { type CallStatus, sentOften, statusOf } from '../wire/status.js';
import type { Caller } from './admission.js';

/** How long a peer may leave the status of a cut call unread before its stream is reset, in ms. */
export const CUT_GRACE_MS = 250;

// grpc-js names these types in its signatures without exporting them.
type InterceptingServerListener = Parameters<ServerInterceptingCall['start']>[0];
type PartialStatusObject = Parameters<ServerInterceptingCall['sendStatus']>[0];

/** HTTP/2 error code CANCEL (RFC 9113 §7). */
const HTTP2_CANCEL = 8;

/** What a guarded call asks of its guard. */
export interface CallGuard {
  /**
   * Decides a call on its metadata. Synchronous when the token is known, or nothing needs to be
   * verified; a promise only while a new token's signature is verified.
   */
  admit(
    path: string,
    metadata: Metadata,
    call: ServerInterceptingCallInterface & Caller,
  ): Admission | Promise<Admission>;
  /** Why an admitted call may not go on; undefined when it may. */
  objectionTo(token: VerifiedToken, allowStale: boolean): CutReason | undefined;
  /** For how many milliseconds an admitted call may be relied on. */
  reliableMs(token: VerifiedToken, allowStale: boolean): number;
  /** A call with a token was admitted; for the reports. On the way of every call: it must cost next to nothing. */
  wasAdmitted(token: VerifiedToken, call: ServerInterceptingCallInterface): void;
  /** A call was refused; its token is told where it was verified. */
  wasRefused(
    reason: GuardErrorCode,
    token: VerifiedToken | undefined,
    call: ServerInterceptingCallInterface,
  ): void;
  /** A handler failed in a way of which its caller is told nothing. */
  handlerFailed(path: string, error: unknown): void;
  /** How a call was decided, or why it was cut. */
  decided(path: string, outcome: 'ADMITTED' | GuardErrorCode): void;
}

/** The decision on a call. */
export type Admission =
  | { readonly kind: 'public' }
  | { readonly kind: 'admitted'; readonly token: VerifiedToken; readonly allowStale: boolean }
  | {
      readonly kind: 'refused';
      readonly error: ServiceError<GuardErrorCode>;
      readonly token?: VerifiedToken;
    };

/** What is sent to a caller whose call is refused or cut, for each reason. */
export const SENTENCES = {
  TOKEN_MISSING: 'an access token is required',
  TOKEN_INVALID: 'the access token is not valid',
  TOKEN_EXPIRED: 'the access token has expired',
  TOKEN_REVOKED: 'the access token has been revoked',
  TLS_REQUIRED: 'access tokens are accepted over TLS alone',
  REVOCATION_STATE_STALE: 'revocations cannot be known at this moment',
  DEPENDENCY_UNAVAILABLE: 'the access token cannot be verified at this moment',
  RATE_LIMITED: 'too many new tokens at once',
} as const satisfies Partial<Record<GuardErrorCode, string>>;

/** When a caller should come back to a process whose list is stale, in milliseconds. */
export const STALE_RETRY_MS = 1000;

const RETRIABLE: ReadonlySet<GuardErrorCode> = new Set<GuardErrorCode>([
  'REVOCATION_STATE_STALE',
  'DEPENDENCY_UNAVAILABLE',
  'RATE_LIMITED',
]);

/** The error of a refusal. */
export function refusal(code: keyof typeof SENTENCES): ServiceError<GuardErrorCode> {
  const retry = RETRIABLE.has(code);
  return new GuardError(code, SENTENCES[code], retry ? { retryAfterMs: STALE_RETRY_MS } : {});
}

const SHARED = new Map<
  keyof typeof SENTENCES,
  { readonly error: ServiceError<GuardErrorCode>; readonly status: CallStatus }
>();

/**
 * The error of a refusal, the same for everybody: in a flood of bad tokens an error of its own for each, with its stack
 * and its status, costs a good part of what the signature does. It is told, and never thrown.
 */
export function sharedRefusal(code: keyof typeof SENTENCES): ServiceError<GuardErrorCode> {
  return sharedOf(code).error;
}

function sharedOf(code: keyof typeof SENTENCES): {
  readonly error: ServiceError<GuardErrorCode>;
  readonly status: CallStatus;
} {
  let shared = SHARED.get(code);
  if (shared === undefined) {
    const error = refusal(code);
    shared = { error, status: sentOften(statusOf(error)) };
    SHARED.set(code, shared);
  }
  return shared;
}

/** What a refused call ends with. */
function statusOfRefusal(error: ServiceError): CallStatus {
  const shared = SHARED.get(error.code as keyof typeof SENTENCES);
  return shared?.error === error ? shared.status : statusOf(error);
}

/** What a cut call ends with. Made once: thousands of calls may be cut at a time, and what they are sent is the same. */
const CUT_STATUSES: Readonly<Record<CutReason, CallStatus>> = {
  TOKEN_EXPIRED: sharedOf('TOKEN_EXPIRED').status,
  TOKEN_REVOKED: sharedOf('TOKEN_REVOKED').status,
  REVOCATION_STATE_STALE: sharedOf('REVOCATION_STATE_STALE').status,
};

/** Why a handler's signal is aborted, always the same, because an error of its own for each call costs more than the rest. */
const CALL_ENDED = new DOMException('the call has ended', 'AbortError');

/** A method that is guarded, as grpc-js describes it. */
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
  const guarded: ServerInterceptingCallInterface = new GuardedCall(method, call, guard);
  // grpc-js asks for its own class and uses what this has, no more.
  return guarded as ServerInterceptingCall;
}

/**
 * Stands between grpc-js and the handler. It takes every step of the call itself instead of passing
 * interceptors' callbacks along, because the callbacks of an asynchronous step can park a status
 * for ever.
 *
 * One is made for every call, and what a call leaves behind is a good part of what it costs: so this
 * is no subclass of grpc-js's own class, whose fields it would not use, and it listens to the call
 * below in person instead of through closures.
 */
class GuardedCall
  implements ServerInterceptingCallInterface, LiveCall, CallState, InterceptingServerListener, Caller
{
  readonly path: string;
  previousLive: LiveCall | undefined;
  nextLive: LiveCall | undefined;
  /** The call below; whoever looks for the connection under a call follows this name, as in grpc-js. */
  readonly nextCall: ServerInterceptingCallInterface;
  readonly #guard: CallGuard;
  readonly #answersOnce: boolean;
  /** Its caller may send any number of messages. */
  readonly #requestStream: boolean;
  #listener: InterceptingServerListener | undefined;
  #token: VerifiedToken | undefined;
  #allowStale = false;
  /** Nothing passes any longer, in either direction. */
  #closed = false;
  /**
   * The one answer has passed the check, so nothing is left to be kept from anybody: a call that takes its own token
   * back is not cut between its answer and its status.
   */
  #answered = false;
  #finished = false;
  #abort: AbortController | undefined;
  #grace: NodeJS.Timeout | undefined;

  constructor(method: GuardedMethod, inner: ServerInterceptingCallInterface, guard: CallGuard) {
    this.path = method.path;
    this.#answersOnce = !method.responseStream;
    this.#requestStream = method.requestStream;
    this.nextCall = inner;
    this.#guard = guard;
  }

  get principal(): Principal | undefined {
    return this.#token?.claims;
  }

  get bearer(): string | undefined {
    return this.#token?.text;
  }

  get certificateThumbprint(): string | undefined {
    return certificateThumbprintUnder(this.nextCall);
  }

  get signal(): AbortSignal {
    this.#abort ??= new AbortController();
    if (this.#closed || this.#finished) this.#abort.abort(CALL_ENDED);
    return this.#abort.signal;
  }

  stillAllowed(): number {
    const token = this.#token;
    if (token === undefined) return Number.POSITIVE_INFINITY;
    const objection = this.#guard.objectionTo(token, this.#allowStale);
    if (objection !== undefined) throw refusal(objection);
    return this.#guard.reliableMs(token, this.#allowStale);
  }

  reportFailure(error: unknown): void {
    this.#guard.handlerFailed(this.path, error);
  }

  start(listener: InterceptingServerListener): void {
    this.#listener = listener;
    this.nextCall.start(this);
  }

  onReceiveMetadata(metadata: Metadata): void {
    const admission = this.#guard.admit(this.path, metadata, this);
    if (admission instanceof Promise) this.#await(admission, metadata);
    else this.#conclude(admission, metadata);
  }

  // biome-ignore lint/suspicious/noExplicitAny: grpc-js declares messages so.
  onReceiveMessage(message: any): void {
    // The one message of a call that has no more is kept until the half-close that follows, which is looked at.
    // After the one answer nobody looks at the token any more, so nothing more is read either.
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
    if (this.#passes()) this.nextCall.sendMetadata(metadata);
  }

  // biome-ignore lint/suspicious/noExplicitAny: grpc-js declares messages so.
  sendMessage(message: any, callback: () => void): void {
    if (!this.#passes()) return;
    this.#answered = this.#answersOnce;
    this.nextCall.sendMessage(message, callback);
  }

  sendStatus(status: PartialStatusObject): void {
    if (this.#passes()) this.nextCall.sendStatus(status);
  }

  startRead(): void {
    this.nextCall.startRead();
  }

  getPeer(): string {
    return this.nextCall.getPeer();
  }

  getDeadline(): ReturnType<ServerInterceptingCallInterface['getDeadline']> {
    return this.nextCall.getDeadline();
  }

  getHost(): string {
    return this.nextCall.getHost();
  }

  getAuthContext(): ReturnType<ServerInterceptingCallInterface['getAuthContext']> {
    return this.nextCall.getAuthContext();
  }

  getConnectionInfo(): ReturnType<ServerInterceptingCallInterface['getConnectionInfo']> {
    return this.nextCall.getConnectionInfo();
  }

  getMetricsRecorder(): ReturnType<ServerInterceptingCallInterface['getMetricsRecorder']> {
    return this.nextCall.getMetricsRecorder();
  }

  retireConnection(): void {
    retireConnection(this.nextCall);
  }

  recheck(): void {
    this.#passes();
  }

  #cut(reason: CutReason): void {
    this.#guard.decided(this.path, reason);
    this.#close(CUT_STATUSES[reason]);
    // The handler is told as if the peer had gone: there is nobody left to answer.
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
      this.#guard.decided(this.path, admission.error.code);
      this.#guard.wasRefused(admission.error.code, admission.token, this.nextCall);
      this.#close(statusOfRefusal(admission.error));
      return;
    }
    if (admission.kind === 'admitted') {
      this.#token = admission.token;
      this.#allowStale = admission.allowStale;
      admission.token.link(this);
      this.#guard.wasAdmitted(admission.token, this.nextCall);
    }
    this.#guard.decided(this.path, 'ADMITTED');
    attachState(metadata, this);
    this.#listener?.onReceiveMetadata(metadata);
  }

  /** The check that every message repeats; a call that fails it is cut on the spot. */
  #passes(): boolean {
    if (this.#closed || this.#finished) return false;
    const token = this.#token;
    if (token === undefined || this.#answered) return true;
    const objection = this.#guard.objectionTo(token, this.#allowStale);
    if (objection === undefined) return true;
    this.#cut(objection);
    return false;
  }

  /**
   * Ends the call from the server's side. First the flag: a message that the handler sends after the
   * status would make grpc-js swallow the trailers. Then the status, on the inner call. A peer that
   * does not read keeps even that from leaving, so after a grace its stream is reset.
   */
  #close(status: CallStatus): void {
    this.#closed = true;
    this.#abort?.abort(CALL_ENDED);
    this.nextCall.sendStatus(status);
    if (this.#finished) return;
    this.#grace = setTimeout(() => resetStream(this.nextCall), CUT_GRACE_MS);
    this.#grace.unref();
  }

  #finish(): void {
    if (this.#finished) return;
    this.#finished = true;
    // Thousands of calls that are cut at once would otherwise all be kept for the length of the grace. The timer is let
    // go as well: what hangs on an old object that is dead itself must be carried along until it is found to be.
    clearTimeout(this.#grace);
    this.#grace = undefined;
    this.#token?.unlink(this);
    this.#abort?.abort(CALL_ENDED);
    // A call that was cut has told its handler already.
    if (!this.#closed) this.#listener?.onCancel();
    // Nothing passes any longer; what hangs on the handler's side need not live as long as this does.
    this.#listener = undefined;
  }
}

/**
 * Resets the HTTP/2 stream under a call. grpc-js offers no way to do so, hence the look behind its
 * private names; a test pins them.
 */
function resetStream(call: ServerInterceptingCallInterface): void {
  let layer: unknown = call;
  for (let depth = 0; depth < 16 && typeof layer === 'object' && layer !== null; depth += 1) {
    const { stream, nextCall } = layer as { stream?: { close?: (code: number) => void }; nextCall?: unknown };
    if (typeof stream?.close === 'function') {
      stream.close(HTTP2_CANCEL);
      return;
    }
    layer = nextCall;
  }
}
