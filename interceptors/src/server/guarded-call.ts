/**
 * One guarded call, from its metadata to its end: holds it until it is decided, repeats the check on every message, and
 * cuts it when its token must not be used any longer. The workarounds for how grpc-js ends a call are in this file.
 */

import {
  status as grpcStatus,
  type Metadata,
  type MethodDefinition,
  type ServerInterceptingCall,
  type ServerInterceptingCallInterface,
} from '@grpc/grpc-js';
import { type GuardErrorCode, invalidField, type ServiceError } from '../errors.js';
import type { FenceQuery } from '../revocation/fence.js';
import type { Fences } from '../revocation/fences.js';
import type { DenialReason } from '../revocation/verified-tokens.js';
import { certificateThumbprintUnder, isPrivateConnection, retireConnection } from '../wire/connection.js';
import { hasMalformedTimeout, longDeadlineOf } from '../wire/deadlines.js';
import {
  asServerInterceptingCall,
  closeStreamLater,
  decodeRequestWith,
  mapStatusesOf,
  type RequestDecoder,
  resetStream,
  type ServerCallListener,
  type ServerCallStatus,
} from '../wire/grpc-js-internals.js';
import { isCompressed, lengthOfOneMessage } from '../wire/request-reader.js';
import { type CallStatus, statusOf } from '../wire/status.js';
import type { Admission, Caller } from './admission.js';
import { withCallContext } from './call-context.js';
import { attachState, type CallState } from './call-state.js';
import { type CallEngine, DecidedCall } from './decided-call.js';
import type { LimitName } from './guard-limits.js';
import { limitStatus, refusal } from './refusals.js';
import { RequestBuffer } from './request-buffer.js';

/** How long a peer may leave the status of a cut call unread before its stream is reset, in milliseconds. */
export const CUT_GRACE_MS = 250;

/** HTTP/2 error code CANCEL (RFC 9113 §7). */
const HTTP2_CANCEL = 8;

/** A message of so many bytes that arrives in one frame is not counted: it is less than what the call itself takes. */
const UNCOUNTED_BYTES = 1024;

const NO_MESSAGES: Buffer[] = [];

const NO_LISTENER: ServerCallListener = {
  onReceiveMetadata: () => {},
  onReceiveMessage: () => {},
  onReceiveHalfClose: () => {},
  onCancel: () => {},
};

const MALFORMED_TIMEOUT = invalidField(
  'grpc-timeout',
  'must be one to eight digits and a unit, such as 5S (gRPC over HTTP/2)',
);

/** The part of the guard that a call needs. */
export interface CallGuard {
  readonly engine: CallEngine;
  readonly fences: Pick<Fences, 'pass'>;
  /** Handlers run in the context of their call. */
  readonly keepsContext: boolean;
  /** The address of the call's peer; empty when it is unknown. */
  addressOf(call: ServerInterceptingCallInterface): string;
  /** Decides a call by its metadata. A promise only while the signature of a new token is being verified. */
  admit(path: string, metadata: Metadata, caller: Caller): Admission | Promise<Admission>;
  /** A call on the connection under it was admitted with a token. */
  trust(call: ServerInterceptingCallInterface): void;
  /** Observes that a transaction was stopped at a fence. */
  onFenceRefused(reason: GuardErrorCode): void;
  /** Logs an error whose cause the caller does not receive. */
  handlerFailed(path: string, error: unknown): void;
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
  extends DecidedCall
  implements ServerInterceptingCallInterface, CallState, ServerCallListener, RequestDecoder
{
  /** The call below this one. */
  readonly #inner: ServerInterceptingCallInterface;
  readonly #guard: CallGuard;
  readonly #answersOnce: boolean;
  #listener = NO_LISTENER;
  /** The request has arrived in full. */
  #halfClosed = false;
  #requestBytesMax = 0;
  /** Exists for streams of requests, and when the only message is large or has not arrived in one frame. */
  #request: RequestBuffer | undefined;
  #mapsStatuses = false;
  #abort: AbortController | undefined;
  #resetTimer: NodeJS.Timeout | undefined;

  constructor(method: GuardedMethod, inner: ServerInterceptingCallInterface, guard: CallGuard) {
    super(method.path, method, guard.engine);
    this.#answersOnce = !method.responseStream;
    this.#inner = inner;
    this.#guard = guard;
  }

  get address(): string {
    return this.#guard.addressOf(this.#inner);
  }

  get bearer(): string | undefined {
    return this.verified?.text;
  }

  get isPrivate(): boolean {
    return isPrivateConnection(this.#inner);
  }

  get certificateThumbprint(): string | undefined {
    return certificateThumbprintUnder(this.#inner);
  }

  get signal(): AbortSignal {
    this.#abort ??= new AbortController();
    if (this.isClosed || this.isFinished) this.#abort.abort(CALL_ENDED);
    return this.#abort.signal;
  }

  stillAllowed(): number {
    return this.validForMs(refusal);
  }

  async passFence(query: FenceQuery): Promise<number> {
    const refuse = (reason: DenialReason): Error => {
      this.#guard.onFenceRefused(reason);
      return refusal(reason);
    };
    // The lock comes first: what the list lacked before may be in it now.
    if (!(await this.#guard.fences.pass(query))) throw refuse('REVOCATION_STATE_STALE');
    return this.validForMs(refuse);
  }

  reportFailure(error: unknown): void {
    this.#guard.handlerFailed(this.path, error);
  }

  start(listener: ServerCallListener): void {
    this.#listener = this.#guard.keepsContext ? withCallContext(listener) : listener;
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
    const passes = this.requestStream ? !this.isAnswered && this.passes() : !this.isClosed;
    if (this.requestStream) this.#delivered();
    if (passes) this.#listener.onReceiveMessage(message);
  }

  onReceiveHalfClose(): void {
    this.#halfClosed = true;
    this.engine.limits.arrived(this);
    if (this.passes()) this.#listener.onReceiveHalfClose();
  }

  onCancel(): void {
    this.#finish();
  }

  sendMetadata(metadata: Metadata): void {
    if (this.passes()) this.#inner.sendMetadata(metadata);
  }

  sendMessage(message: unknown, callback: () => void): void {
    if (!this.passes()) return;
    const { limits } = this.engine;
    if (this.#answersOnce) {
      this.isAnswered = true;
      limits.answered(this);
      this.#inner.sendMessage(message, callback);
      return;
    }
    limits.sending(this);
    this.#inner.sendMessage(message, () => {
      limits.sent(this);
      callback();
    });
  }

  sendStatus(status: ServerCallStatus): void {
    if (!this.passes()) return;
    if (!this.isAnswered) this.engine.limits.answered(this);
    this.#inner.sendStatus(status);
  }

  startRead(): void {
    this.#inner.startRead();
  }

  getPeer(): string {
    return this.#inner.getPeer();
  }

  getDeadline(): ReturnType<ServerInterceptingCallInterface['getDeadline']> {
    return longDeadlineOf(this.#inner) ?? this.#inner.getDeadline();
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

  // RequestDecoder.

  write(data: Buffer): Buffer[] {
    if (this.isClosed || this.isFinished) return NO_MESSAGES;
    if (!this.requestStream && this.#request === undefined) {
      const length = lengthOfOneMessage(data);
      // Copied, as grpc-js does: a slice would keep the whole read alive.
      if (length >= 0 && length <= Math.min(UNCOUNTED_BYTES, this.#requestBytesMax) && !isCompressed(data)) {
        return [Buffer.from(data)];
      }
    }
    this.#request ??= new RequestBuffer(this.#requestBytesMax, this.requestStream);
    return this.#readCounted(this.#request, data);
  }

  #readCounted(request: RequestBuffer, data: Buffer): Buffer[] {
    const messages = request.read(data);
    if (messages === undefined) return this.#refuseRequest('request_bytes');
    if (messages.length > 0) this.engine.limits.active(this);
    if (messages.some(isCompressed)) this.#nameDecompressionLimit();
    const limit = request.isOverfull ? 'bytes_in_flight' : this.engine.limits.charge(this, request.bytes);
    return limit === undefined ? messages : this.#refuseRequest(limit);
  }

  /** grpc-js ends a call whose message is too large after decompression with a status that has no reason. */
  #nameDecompressionLimit(): void {
    if (this.#mapsStatuses) return;
    this.#mapsStatuses = true;
    mapStatusesOf(this.#inner, (status) => {
      // A handler's status has metadata, or null.
      if (status.code !== grpcStatus.RESOURCE_EXHAUSTED || status.metadata !== undefined) return status;
      this.engine.onLimit('request_bytes');
      return limitStatus('request_bytes');
    });
  }

  /** A message of a stream has reached the handler. */
  #delivered(): void {
    if (this.#request === undefined) return;
    this.#request.delivered();
    this.engine.limits.charge(this, this.#request.bytes);
  }

  #refuseRequest(limit: LimitName): Buffer[] {
    this.endForLimit(limit);
    return NO_MESSAGES;
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
    if (this.isFinished) return;
    if (admission.kind !== 'refused' && admission.kind !== 'observed' && hasMalformedTimeout(this.#inner)) {
      this.engine.onDecision(this.path, MALFORMED_TIMEOUT.code);
      this.close(MALFORMED_TIMEOUT);
      return;
    }
    const entered = this.enter(admission);
    if (typeof entered !== 'number') {
      this.close(entered);
      return;
    }
    if (admission.kind === 'admitted') this.#guard.trust(this.#inner);
    this.#requestBytesMax = entered;
    decodeRequestWith(this.#inner, this, entered);
    attachState(metadata, this);
    this.#listener.onReceiveMetadata(metadata);
  }

  // DecidedCall.

  protected close(error: ServiceError<GuardErrorCode>): void {
    this.#close(statusOf(error));
  }

  protected drop(): void {
    // The status waits behind what the peer does not read.
    this.isClosed = true;
    resetStream(this.#inner, HTTP2_CANCEL);
    // The handler may be waiting for room to send.
    this.#listener.onCancel();
  }

  protected stop(): void {
    // For the handler a cut is a cancellation by the caller.
    this.#listener.onCancel();
  }

  /**
   * Ends the call from the server's side. First the flag, because grpc-js drops the trailers when the handler sends a
   * message after the status. Then the status, on the inner call. A peer that does not read would hold back even that,
   * so its stream is reset after {@link CUT_GRACE_MS}.
   */
  #close(status: CallStatus): void {
    this.isClosed = true;
    this.#abort?.abort(CALL_ENDED);
    this.#inner.sendStatus(status);
    if (this.isFinished) return;
    this.#resetTimer = setTimeout(() => resetStream(this.#inner, HTTP2_CANCEL), CUT_GRACE_MS);
    this.#resetTimer.unref();
  }

  #finish(): void {
    if (this.isFinished) return;
    this.isFinished = true;
    // The timer would keep thousands of cut calls alive until it fires. The reference is cleared as well: a dead object of
    // the old generation keeps what it references alive until the next full collection.
    clearTimeout(this.#resetTimer);
    this.#resetTimer = undefined;
    this.leave();
    // Otherwise a peer could keep any number of ended calls open.
    if (!this.#halfClosed) closeStreamLater(this.#inner, CUT_GRACE_MS);
    this.#request = undefined;
    this.#abort?.abort(CALL_ENDED);
    // The handler of a cut call was notified by the cut.
    if (!this.isClosed) this.#listener.onCancel();
    // This object may outlive the handler's part of the call.
    this.#listener = NO_LISTENER;
  }
}
