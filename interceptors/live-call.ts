/**
 * One guarded call, from its metadata to its end: holds it until it is admitted, repeats the check
 * on every message, and cuts it when its token no longer counts. Everything that depends on how
 * grpc-js ends a call stands in this file.
 */

import { type Metadata, ServerInterceptingCall, type ServerInterceptingCallInterface } from '@grpc/grpc-js';
import { type ErrorCode, ServiceError } from './errors.js';
import { type Connection, connectionOf } from './plaintext.js';
import { attachState, type CallState, type Principal } from './principal.js';
import { statusOf } from './status.js';
import type { CutReason, LiveCall, VerifiedToken } from './verified-tokens.js';

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
    peer: () => string,
    connection: Connection,
  ): Admission | Promise<Admission>;
  /** Why an admitted call may not go on; undefined when it may. */
  objectionTo(token: VerifiedToken, allowStale: boolean): CutReason | undefined;
  /** For how many milliseconds an admitted call may be relied on. */
  reliableMs(token: VerifiedToken, allowStale: boolean): number;
  /** A handler failed in a way of which its caller is told nothing. */
  handlerFailed(path: string, error: unknown): void;
  /** How a call was decided, or why it was cut. */
  decided(path: string, outcome: 'ADMITTED' | ErrorCode): void;
}

/** The decision on a call. */
export type Admission =
  | { readonly kind: 'public' }
  | { readonly kind: 'admitted'; readonly token: VerifiedToken; readonly allowStale: boolean }
  | { readonly kind: 'refused'; readonly error: ServiceError };

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
} as const satisfies Partial<Record<ErrorCode, string>>;

/** When a caller should come back to a process whose list is stale, in milliseconds. */
export const STALE_RETRY_MS = 1000;

const RETRIABLE: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'REVOCATION_STATE_STALE',
  'DEPENDENCY_UNAVAILABLE',
  'RATE_LIMITED',
]);

/** The error of a refusal. */
export function refusal(code: keyof typeof SENTENCES): ServiceError {
  const retry = RETRIABLE.has(code);
  return new ServiceError(code, SENTENCES[code], retry ? { retryAfterMs: STALE_RETRY_MS } : {});
}

/**
 * Stands between grpc-js and the handler. It overrides every step of the call instead of passing
 * interceptors' callbacks along, because the callbacks of an asynchronous step can park a status
 * for ever.
 */
export class GuardedCall extends ServerInterceptingCall implements LiveCall, CallState {
  readonly path: string;
  previousLive: LiveCall | undefined;
  nextLive: LiveCall | undefined;
  readonly #inner: ServerInterceptingCallInterface;
  readonly #guard: CallGuard;
  #listener: InterceptingServerListener | undefined;
  #token: VerifiedToken | undefined;
  #allowStale = false;
  /** Nothing passes any longer, in either direction. */
  #closed = false;
  #finished = false;
  #abort: AbortController | undefined;

  constructor(path: string, inner: ServerInterceptingCallInterface, guard: CallGuard) {
    super(inner);
    this.path = path;
    this.#inner = inner;
    this.#guard = guard;
  }

  get principal(): Principal | undefined {
    return this.#token?.claims;
  }

  get bearer(): string | undefined {
    return this.#token?.text;
  }

  get certificateThumbprint(): string | undefined {
    return connectionOf(this.#inner).certificateThumbprint();
  }

  get signal(): AbortSignal {
    this.#abort ??= new AbortController();
    if (this.#closed || this.#finished) this.#abort.abort();
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

  override start(listener: InterceptingServerListener): void {
    this.#listener = listener;
    this.#inner.start({
      onReceiveMetadata: (metadata) => this.#receiveMetadata(metadata, listener),
      onReceiveMessage: (message) => {
        if (this.#passes()) listener.onReceiveMessage(message);
      },
      onReceiveHalfClose: () => {
        if (this.#passes()) listener.onReceiveHalfClose();
      },
      onCancel: () => this.#finish(),
    });
  }

  override sendMetadata(metadata: Metadata): void {
    if (this.#passes()) this.#inner.sendMetadata(metadata);
  }

  // biome-ignore lint/suspicious/noExplicitAny: grpc-js declares messages so.
  override sendMessage(message: any, callback: () => void): void {
    if (this.#passes()) this.#inner.sendMessage(message, callback);
  }

  override sendStatus(status: PartialStatusObject): void {
    if (this.#passes()) this.#inner.sendStatus(status);
  }

  recheck(): void {
    this.#passes();
  }

  #cut(reason: CutReason): void {
    this.#guard.decided(this.path, reason);
    this.#close(refusal(reason));
    // The handler is told as if the peer had gone: there is nobody left to answer.
    this.#listener?.onCancel();
  }

  #receiveMetadata(metadata: Metadata, listener: InterceptingServerListener): void {
    const peer = (): string => this.#inner.getPeer();
    const admission = this.#guard.admit(this.path, metadata, peer, connectionOf(this.#inner));
    if (!(admission instanceof Promise)) {
      this.#conclude(admission, metadata, listener);
      return;
    }
    admission.then(
      (decision) => this.#conclude(decision, metadata, listener),
      (error: unknown) => {
        this.#guard.handlerFailed(this.path, error);
        this.#close(error);
      },
    );
  }

  #conclude(admission: Admission, metadata: Metadata, listener: InterceptingServerListener): void {
    if (this.#closed || this.#finished) return;
    if (admission.kind === 'refused') {
      this.#guard.decided(this.path, admission.error.code);
      this.#close(admission.error);
      return;
    }
    if (admission.kind === 'admitted') {
      this.#token = admission.token;
      this.#allowStale = admission.allowStale;
      admission.token.link(this);
    }
    this.#guard.decided(this.path, 'ADMITTED');
    attachState(metadata, this);
    listener.onReceiveMetadata(metadata);
  }

  /** The check that every message repeats; a call that fails it is cut on the spot. */
  #passes(): boolean {
    if (this.#closed || this.#finished) return false;
    const token = this.#token;
    if (token === undefined) return true;
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
  #close(error: unknown): void {
    this.#closed = true;
    this.#abort?.abort();
    this.#inner.sendStatus(statusOf(error));
    const timer = setTimeout(() => {
      if (!this.#finished) resetStream(this.#inner);
    }, CUT_GRACE_MS);
    timer.unref();
  }

  #finish(): void {
    if (this.#finished) return;
    this.#finished = true;
    this.#token?.unlink(this);
    this.#abort?.abort();
    // A call that was cut has told its handler already.
    if (!this.#closed) this.#listener?.onCancel();
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
