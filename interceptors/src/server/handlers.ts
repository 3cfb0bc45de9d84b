/** Between grpc-js and handlers: the only place where a result or a throw becomes a callback. */

import type {
  handleBidiStreamingCall,
  handleClientStreamingCall,
  handleServerStreamingCall,
  handleUnaryCall,
  Metadata,
  ServerDuplexStream,
  ServerReadableStream,
  ServerUnaryCall,
  ServerWritableStream,
} from '@grpc/grpc-js';
import { ServiceError } from '../errors.js';
import { type AnyCall, stateOf } from '../token/principal.js';
import { type CallStatus, statusOf } from '../wire/status.js';

/**
 * A handler for one request and one response. What it throws reaches the caller as its status when
 * it is a ServiceError, and as INTERNAL with a fixed text when it is anything else.
 */
export function unary<Request, Response>(
  handle: (request: Request, call: ServerUnaryCall<Request, Response>) => Promise<Response> | Response,
): handleUnaryCall<Request, Response> {
  return (call, callback) => {
    settle(
      () => handle(call.request, call),
      (response) => callback(null, response),
      (error) => callback(failure(call, error)),
    );
  };
}

/**
 * A handler for one request and a stream of responses. It is not asked for the next response before
 * the peer has room for it, and its `return` runs when the call ends early.
 */
export function serverStream<Request, Response>(
  handle: (request: Request, call: ServerWritableStream<Request, Response>) => AsyncIterable<Response>,
): handleServerStreamingCall<Request, Response> {
  return (call) => {
    settle(
      () => sendAll(call, () => handle(call.request, call)),
      () => call.end(),
      (error) => fail(call, error),
    );
  };
}

/** A handler for a stream of requests and one response. */
export function clientStream<Request, Response>(
  handle: (
    requests: AsyncIterable<Request>,
    call: ServerReadableStream<Request, Response>,
  ) => Promise<Response>,
): handleClientStreamingCall<Request, Response> {
  return (call, callback) => {
    settle(
      () => handle(requestsOf<Request>(call), call),
      (response) => callback(null, response),
      (error) => callback(failure(call, error)),
    );
  };
}

/** A handler for streams in both directions. */
export function bidi<Request, Response>(
  handle: (
    requests: AsyncIterable<Request>,
    call: ServerDuplexStream<Request, Response>,
  ) => AsyncIterable<Response>,
): handleBidiStreamingCall<Request, Response> {
  return (call) => {
    settle(
      () => sendAll(call, () => handle(requestsOf<Request>(call), call)),
      () => call.end(),
      (error) => fail(call, error),
    );
  };
}

/** The part of a writable call that sending needs. */
interface Outgoing<Response> extends AnyCall {
  readonly cancelled: boolean;
  write(response: Response): boolean;
  once(event: 'drain' | 'cancelled' | 'close' | 'error', listener: () => void): unknown;
  removeListener(event: 'drain' | 'cancelled' | 'close' | 'error', listener: () => void): unknown;
}

/** Runs a step that may throw at once or later, and calls exactly one of the two ends. */
function settle<T>(
  step: () => Promise<T> | T,
  succeed: (result: T) => void,
  failed: (error: unknown) => void,
): void {
  new Promise<T>((resolve) => resolve(step())).then(succeed).catch(failed);
}

async function sendAll<Response>(
  call: Outgoing<Response>,
  handle: () => AsyncIterable<Response>,
): Promise<void> {
  const responses = handle()[Symbol.asyncIterator]();
  const cancelled = whenCancelled(call);
  try {
    while (!call.cancelled) {
      // A handler may wait for long: the end of the call must not wait for it.
      const next = responses.next();
      const step = await Promise.race([next, cancelled.promise]);
      if (step === CANCELLED) {
        next.catch(() => {});
        break;
      }
      if (step.done === true) return;
      if (!call.write(step.value) && !call.cancelled) await roomIn(call);
    }
  } finally {
    cancelled.forget();
    // Not awaited: a generator that is waiting runs its `finally` only when its wait ends.
    responses.return?.().catch((error: unknown) => stateOf(call)?.reportFailure(error));
  }
}

const CANCELLED = Symbol('cancelled');

function whenCancelled(call: Outgoing<never>): { promise: Promise<typeof CANCELLED>; forget: () => void } {
  let resolve: (value: typeof CANCELLED) => void = () => {};
  const promise = new Promise<typeof CANCELLED>((done) => {
    resolve = done;
  });
  const listener = (): void => resolve(CANCELLED);
  call.once('cancelled', listener);
  return {
    promise,
    forget: () => {
      call.removeListener('cancelled', listener);
    },
  };
}

/** Waits until the peer has read enough, or is gone. */
function roomIn(call: Outgoing<never>): Promise<void> {
  return new Promise((resolve) => {
    const events = ['drain', 'cancelled', 'close', 'error'] as const;
    const done = (): void => {
      for (const event of events) call.removeListener(event, done);
      resolve();
    };
    for (const event of events) call.once(event, done);
  });
}

/** The part of a readable call that receiving needs. */
interface Incoming extends AnyCall {
  iterator(options: { destroyOnReturn: boolean }): AsyncIterable<unknown>;
}

/** The requests of a call. Reading them to their end leaves the other direction open. */
function requestsOf<Request>(call: Incoming): AsyncIterable<Request> {
  return call.iterator({ destroyOnReturn: false }) as AsyncIterable<Request>;
}

interface Failing extends AnyCall {
  emit(event: 'error', error: CallStatus): boolean;
}

function fail(call: Failing, error: unknown): void {
  call.emit('error', failure(call, error));
}

function failure(
  call: AnyCall,
  error: unknown,
): CallStatus & { name: string; message: string; metadata: Metadata } {
  if (!(error instanceof ServiceError)) stateOf(call)?.reportFailure(error);
  const status = statusOf(error);
  return { name: 'ServiceError', message: status.details, ...status };
}
