/** The client interceptor: attaches access tokens to calls, and retries a unary call once. */

import { setTimeout as sleep } from 'node:timers/promises';
import {
  type Deadline,
  InterceptingCall,
  type InterceptingListener,
  type Interceptor,
  type Listener,
  type Metadata,
  type StatusObject,
  status,
} from '@grpc/grpc-js';
import type { GuardErrorCode } from '../errors.js';
import { detailsOf } from '../wire/status.js';
import { DeferredCall, type OpenCall, TokenWait } from './deferred-call.js';
import type { TokenSource } from './token-source.js';

/** Maximum delay before a retry, in milliseconds. When the server's RetryInfo asks for more, the call is not retried. */
const RETRY_WAIT_MAX_MS = 2000;

/** Reasons for which a new token may help. */
const RENEWABLE: ReadonlySet<string> = new Set<GuardErrorCode>(['TOKEN_EXPIRED', 'TOKEN_INVALID']);

/**
 * A grpc-js client interceptor that sends `authorization: Bearer …`.
 *
 * A unary call is retried once:
 * - with a new token, when the server rejected the first as expired or invalid (a token bound to a client certificate
 *   becomes invalid when the certificate is renewed);
 * - after the delay in RetryInfo, when the server answered UNAVAILABLE and the delay is at most {@link RETRY_WAIT_MAX_MS}.
 *
 * Streams are not retried, because messages may already have had effects.
 */
export function authenticate(source: TokenSource): Interceptor {
  return (options, nextCall) => {
    const { deadline, method_definition: method } = options;
    const open = (): OpenCall => new DeferredCall(() => nextCall(options));
    return method.requestStream || method.responseStream
      ? authenticatedStream(source, open(), deadline)
      : new AuthenticatedUnaryCall(source, open, deadline).outer;
  };
}

/** Attaches a token to a stream. A rejected token is reported to the source, for later calls. */
function authenticatedStream(
  source: TokenSource,
  call: OpenCall,
  deadline: Deadline | undefined,
): InterceptingCall {
  let wait: TokenWait | undefined;
  return new InterceptingCall(call, {
    start: (metadata, listener, next) => {
      wait = new TokenWait(deadline, (end) => listener.onReceiveStatus(end));
      wait.on(
        source.get(),
        (token) =>
          next(withToken(metadata, token), {
            onReceiveStatus: (end, pass) => {
              if (end.code === status.UNAUTHENTICATED) source.reject(token);
              pass(end);
            },
          }),
        (error) => listener.onReceiveStatus(noToken(error, metadata)),
      );
    },
    cancel: (next) => {
      wait?.cancel();
      next();
    },
  });
}

/** A unary call with a token, and its retry. The response is passed on when it is certain that there is no retry. */
class AuthenticatedUnaryCall {
  /** The call as grpc-js sees it. */
  readonly outer: InterceptingCall;
  readonly #source: TokenSource;
  readonly #open: () => OpenCall;
  readonly #deadline: Deadline | undefined;
  #listener: InterceptingListener | undefined;
  #wait: TokenWait | undefined;
  #retry: OpenCall | undefined;
  #token = '';
  #sentMessage: unknown;
  #receivedMetadata: Metadata | undefined;
  #receivedMessage: unknown;

  constructor(source: TokenSource, open: () => OpenCall, deadline: Deadline | undefined) {
    this.#source = source;
    this.#open = open;
    this.#deadline = deadline;
    this.outer = new InterceptingCall(open(), {
      start: (metadata, listener, next) => this.#start(metadata, listener, next),
      sendMessage: (message: unknown, next) => {
        this.#sentMessage = message;
        next(message);
      },
      cancel: (next) => {
        this.#wait?.cancel();
        this.#retry?.cancelWithStatus(status.CANCELLED, 'cancelled by the caller');
        next();
      },
    });
  }

  #start(
    metadata: Metadata,
    listener: InterceptingListener,
    next: (metadata: Metadata, listener: Listener) => void,
  ): void {
    this.#listener = listener;
    this.#newWait().on(
      this.#source.get(),
      (token) => {
        this.#token = token;
        next(withToken(metadata, token), {
          onReceiveMetadata: (received) => {
            this.#receivedMetadata = received;
          },
          onReceiveMessage: (received: unknown) => {
            this.#receivedMessage = received;
          },
          onReceiveStatus: (end) => this.#ended(metadata, end),
        });
      },
      (error) => listener.onReceiveStatus(noToken(error, metadata)),
    );
  }

  #newWait(): TokenWait {
    this.#wait = new TokenWait(this.#deadline, (end) => this.#listener?.onReceiveStatus(end));
    return this.#wait;
  }

  /** The first attempt has ended: retries, or passes the response on. */
  #ended(metadata: Metadata, end: StatusObject): void {
    const { reason, retryAfterMs = Number.POSITIVE_INFINITY } = detailsOf(end.metadata);
    if (end.code === status.UNAUTHENTICATED) {
      this.#source.reject(this.#token);
      if (RENEWABLE.has(reason)) {
        this.#tryAgain(metadata, end, this.#source.get());
        return;
      }
    }
    if (end.code === status.UNAVAILABLE && retryAfterMs <= RETRY_WAIT_MAX_MS) {
      this.#tryAgain(
        metadata,
        end,
        sleep(retryAfterMs).then(() => this.#source.get()),
      );
      return;
    }
    this.#finish(end);
  }

  /** Makes the second attempt. Without a token for it, the call ends with the status of the first. */
  #tryAgain(metadata: Metadata, end: StatusObject, nextToken: Promise<string>): void {
    this.#newWait().on(
      nextToken,
      (token) => {
        this.#token = token;
        const call = this.#open();
        this.#retry = call;
        this.#receivedMetadata = undefined;
        this.#receivedMessage = undefined;
        call.start(withToken(metadata, token), {
          onReceiveMetadata: (received) => {
            this.#receivedMetadata = received;
          },
          onReceiveMessage: (received: unknown) => {
            this.#receivedMessage = received;
          },
          onReceiveStatus: (secondEnd) => this.#finish(secondEnd),
        });
        call.sendMessage(this.#sentMessage);
        call.halfClose();
      },
      () => this.#listener?.onReceiveStatus(end),
    );
  }

  #finish(end: StatusObject): void {
    if (this.#receivedMetadata !== undefined) this.#listener?.onReceiveMetadata(this.#receivedMetadata);
    if (this.#receivedMessage !== undefined) this.#listener?.onReceiveMessage(this.#receivedMessage);
    this.#listener?.onReceiveStatus(end);
  }
}

function withToken(metadata: Metadata, token: string): Metadata {
  const authenticated = metadata.clone();
  authenticated.set('authorization', `Bearer ${token}`);
  return authenticated;
}

/** The status of a call for which no token could be fetched: the issuer's status, if it sent one. */
function noToken(error: unknown, metadata: Metadata): StatusObject {
  const { code, details, metadata: trailers }: Partial<StatusObject> = Object(error);
  const empty = metadata.clone();
  for (const key of Object.keys(empty.getMap())) empty.remove(key);
  return {
    code: typeof code === 'number' ? code : status.UNAUTHENTICATED,
    details: typeof details === 'string' ? details : `no access token could be fetched: ${messageOf(error)}`,
    metadata: trailers ?? empty,
  };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
