/** Handlers of a guarded service, and their adapters to grpc-js: the only place that turns results and throws into callbacks. */

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
  ServiceDefinition,
  UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { ServiceError } from '../errors.js';
import { type CallStatus, statusOf } from '../wire/status.js';
import { type AnyCall, stateOf } from './call-state.js';

/**
 * The handlers of a service: one function for each method. Its first argument is the request, or an async iterable of the
 * requests; it returns the response, or an async iterable of responses. A ServiceError that it throws is sent with its
 * status; anything else is logged and sent as INTERNAL with a fixed text.
 */
export type ServiceHandlers<Definition extends ServiceDefinition> = {
  readonly [Method in keyof Definition]: MethodHandler<Definition[Method]>;
};

/**
 * Handlers whose responses have no field that the schema lacks. An object may have more members than the type that it is
 * assigned to, so without this a misspelt optional field of a response would compile. What does not fit has a text as its
 * type, which is the compiler's message. Further functions are no fault: a class may have helpers, and one object may serve
 * several services.
 */
export type ExactHandlers<Definition extends ServiceDefinition, Handlers> = {
  readonly [Method in keyof Handlers]: Method extends keyof Definition
    ? ExactHandler<Handlers[Method], SurplusOf<ResponseOf<Definition[Method]>, ReturnedBy<Handlers[Method]>>>
    : unknown;
};

type AnyFunction = (...input: never) => unknown;

type ExactHandler<Handler, Surplus> = [Surplus] extends [never]
  ? Handler
  : `the response has no field ${Surplus & string}`;

type ReturnedBy<Handler> = Handler extends (...input: never) => infer Result
  ? Result extends AsyncIterable<infer Response>
    ? Response
    : Awaited<Result>
  : never;

/** The names of the fields that `Given` has beyond `Wanted`, also in nested messages. */
type SurplusOf<Wanted, Given> = 0 extends 1 & (Wanted | Given)
  ? never
  : Given extends Leaf
    ? never
    : Given extends readonly (infer Item)[]
      ? SurplusOf<ItemOf<Wanted>, Item>
      : {
          [Field in keyof Given & string]: Field extends FieldOf<Wanted>
            ? SurplusOfField<ValueOf<Wanted, Field>, Given[Field]>
            : // Methods of a message class are no fields.
              Given[Field] extends AnyFunction
              ? never
              : Field;
        }[keyof Given & string];

/** Nothing to look for where the type is the schema's own, which may contain itself. */
type SurplusOfField<Wanted, Given> = [Wanted] extends [Given] ? never : SurplusOf<Wanted, Given>;

type Leaf = string | number | bigint | boolean | null | undefined | Date | Uint8Array;
type ItemOf<Wanted> = Wanted extends readonly (infer Item)[] ? Item : never;
type FieldOf<Wanted> = Wanted extends unknown ? keyof Wanted : never;
type ValueOf<Wanted, Field> = Wanted extends unknown
  ? Field extends keyof Wanted
    ? Wanted[Field]
    : never
  : never;

type RequestOf<Method> = Method extends { requestDeserialize: (bytes: Buffer) => infer Request }
  ? Request
  : never;
type ResponseOf<Method> = Method extends { responseSerialize: (response: infer Response) => Buffer }
  ? Response
  : never;

/** A handler of one method, typed by what ts-proto generates for it. */
export type MethodHandler<Method> = Method extends { requestStream: false; responseStream: false }
  ? UnaryHandler<RequestOf<Method>, ResponseOf<Method>>
  : Method extends { requestStream: false; responseStream: true }
    ? ServerStreamHandler<RequestOf<Method>, ResponseOf<Method>>
    : Method extends { requestStream: true; responseStream: false }
      ? ClientStreamHandler<RequestOf<Method>, ResponseOf<Method>>
      : Method extends { requestStream: true; responseStream: true }
        ? BidiHandler<RequestOf<Method>, ResponseOf<Method>>
        : // A definition that was loaded at run time has no types.
          (input: never, call: never) => unknown;

type UnaryHandler<Request, Response> = (
  request: Request,
  call: ServerUnaryCall<Request, Response>,
) => Promise<Response> | Response;

type ServerStreamHandler<Request, Response> = (
  request: Request,
  call: ServerWritableStream<Request, Response>,
) => AsyncIterable<Response>;

type ClientStreamHandler<Request, Response> = (
  requests: AsyncIterable<Request>,
  call: ServerReadableStream<Request, Response>,
) => Promise<Response>;

type BidiHandler<Request, Response> = (
  requests: AsyncIterable<Request>,
  call: ServerDuplexStream<Request, Response>,
) => AsyncIterable<Response>;

/** Handlers in the form of grpc-js. */
class NativeHandlers {
  readonly handlers: UntypedServiceImplementation;

  constructor(handlers: UntypedServiceImplementation) {
    this.handlers = handlers;
  }
}

export type { NativeHandlers };

/** Handlers that exist already in the form of grpc-js, with call and callback, for `guard.addService`. */
export function native(handlers: UntypedServiceImplementation): NativeHandlers {
  return new NativeHandlers(handlers);
}

/**
 * The handlers in the form of grpc-js. Their object may have further functions: helpers, or handlers of another service.
 *
 * @throws TypeError naming every method without a handler and, if there is one, every handler without a method
 */
export function nativeHandlersOf(
  definition: ServiceDefinition,
  handlers: ServiceHandlers<ServiceDefinition> | NativeHandlers,
): UntypedServiceImplementation {
  const isNative = handlers instanceof NativeHandlers;
  const given: Readonly<Record<string, unknown>> = isNative ? handlers.handlers : handlers;
  const result: UntypedServiceImplementation = {};
  const missing = new Map<string, string>();
  for (const [name, method] of Object.entries(definition)) {
    const handle = given[name];
    if (typeof handle !== 'function') missing.set(name, method.path);
    else if (isNative) result[name] = handle as UntypedServiceImplementation[string];
    else result[name] = adapted(method, handle.bind(given));
  }
  const faults = [...missingHandlers(missing), ...surplusHandlers(definition, given, [...missing.keys()])];
  if (faults.length > 0) throw new TypeError(faults.join('; '));
  return result;
}

/** @param missing - the paths of the methods by the names of their handlers */
function* missingHandlers(missing: ReadonlyMap<string, string>): Iterable<string> {
  if (missing.size === 0) return;
  const names = [...missing.keys()].join(', ');
  yield `no handler for ${[...missing.values()].join(', ')}: add ${names} to the handlers`;
}

function* surplusHandlers(
  definition: ServiceDefinition,
  given: Readonly<Record<string, unknown>>,
  missing: readonly string[],
): Iterable<string> {
  if (missing.length === 0) return;
  const isPlain = [Object.prototype, null].includes(Object.getPrototypeOf(given));
  for (const name of functionsOf(given)) {
    if (Object.hasOwn(definition, name)) continue;
    const meant = nearest(name, missing);
    if (meant !== undefined) {
      yield `the handler ${name} belongs to no method: did you mean ${meant}?`;
    } else if (isPlain) {
      yield `the handler ${name} belongs to no method`;
    }
  }
}

/** The names of all functions of an object, also of its class. */
function functionsOf(given: object): ReadonlySet<string> {
  const names = new Set<string>();
  for (
    let holder: object | null = given;
    holder !== null && holder !== Object.prototype;
    holder = Object.getPrototypeOf(holder)
  ) {
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(holder))) {
      if (typeof value === 'function' && name !== 'constructor') names.add(name);
    }
  }
  return names;
}

/** The name that differs in the fewest letters, at most a third of them; undefined when none is near. Case does not count. */
function nearest(wrong: string, names: readonly string[]): string | undefined {
  const [closest] = names
    .map((name) => ({ name, edits: editsBetween(wrong.toLowerCase(), name.toLowerCase()) }))
    .sort((one, other) => one.edits - other.edits);
  return closest && closest.edits <= Math.max(1, Math.floor(wrong.length / 3)) ? closest.name : undefined;
}

/** How many letters must be inserted, removed or replaced. */
function editsBetween(one: string, other: string): number {
  let last = Array.from({ length: other.length + 1 }, (_, at) => at);
  for (const [row, letter] of [...one].entries()) {
    const next = [row + 1];
    for (const [column, wanted] of [...other].entries()) {
      const replaced = (last[column] ?? 0) + (letter === wanted ? 0 : 1);
      next.push(Math.min(replaced, (last[column + 1] ?? 0) + 1, (next[column] ?? 0) + 1));
    }
    last = next;
  }
  return last.at(-1) ?? 0;
}

function adapted(
  { requestStream, responseStream }: Pick<ServiceDefinition[string], 'requestStream' | 'responseStream'>,
  handle: (input: unknown, call: unknown) => never,
): UntypedServiceImplementation[string] {
  if (requestStream) return responseStream ? bidi(handle) : clientStream(handle);
  return responseStream ? serverStream(handle) : unary(handle);
}

/**
 * A handler for one request and one response. A ServiceError that it throws is sent with its status; anything else that
 * it throws is logged and sent as INTERNAL with a fixed text.
 */
export function unary<Request, Response>(
  handle: UnaryHandler<Request, Response>,
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
 * A handler for one request and a stream of responses. The next response is requested when the peer has room for it, and
 * the generator's `return` runs when the call ends early.
 */
export function serverStream<Request, Response>(
  handle: ServerStreamHandler<Request, Response>,
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
  handle: ClientStreamHandler<Request, Response>,
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
  handle: BidiHandler<Request, Response>,
): handleBidiStreamingCall<Request, Response> {
  return (call) => {
    settle(
      () => sendAll(call, () => handle(requestsOf<Request>(call), call)),
      () => call.end(),
      (error) => fail(call, error),
    );
  };
}

interface UnguardedCall extends AnyCall {
  emit(event: 'error', error: CallStatus): boolean;
}

/**
 * The same handlers, answering INTERNAL to calls that no guard decided: a server without the guard's interceptor serves
 * nothing.
 */
export function onlyGuarded(
  definition: ServiceDefinition,
  handlers: UntypedServiceImplementation,
): UntypedServiceImplementation {
  const guarded: UntypedServiceImplementation = {};
  for (const [name, { path }] of Object.entries(definition)) {
    const handle = handlers[name] as (call: UnguardedCall, callback?: (error: CallStatus) => void) => void;
    guarded[name] = (call: UnguardedCall, callback?: (error: CallStatus) => void) => {
      if (stateOf(call) !== undefined) {
        handle(call, callback);
        return;
      }
      const status = statusOf(new TypeError(`${path} was called without the guard's interceptor`));
      // Only handlers of a single response have a callback.
      if (callback === undefined) call.emit('error', status);
      else callback(status);
    };
  }
  return guarded;
}

/** What sending needs of a writable call. */
interface Outgoing<Response> extends AnyCall {
  readonly cancelled: boolean;
  write(response: Response): boolean;
  once(event: 'drain' | 'cancelled' | 'close' | 'error', listener: () => void): unknown;
  removeListener(event: 'drain' | 'cancelled' | 'close' | 'error', listener: () => void): unknown;
}

/** Runs a step that may throw synchronously or reject, and calls exactly one of the two callbacks. */
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
  let cancel = (): void => {};
  const onCancelled = (): void => cancel();
  call.once('cancelled', onCancelled);
  // The handler may take long to produce the next response; the end of the call does not wait for it. Not by Promise.race:
  // with a promise that lasts as long as the call, it would keep an object for every response until then.
  const next = (): Promise<IteratorResult<Response>> =>
    new Promise((resolve, reject) => {
      cancel = () => resolve({ done: true, value: undefined });
      responses.next().then(resolve, reject);
    });
  try {
    while (!call.cancelled) {
      const step = await next();
      if (step.done === true) return;
      if (!call.write(step.value) && !call.cancelled) await untilWritable(call);
    }
  } finally {
    call.removeListener('cancelled', onCancelled);
    // Not awaited: a generator that is waiting runs its `finally` only after the wait.
    responses.return?.().catch((error: unknown) => stateOf(call)?.reportFailure(error));
  }
}

/** Waits until the peer has room for more, or the call ends. */
function untilWritable(call: Outgoing<never>): Promise<void> {
  return new Promise((resolve) => {
    const events = ['drain', 'cancelled', 'close', 'error'] as const;
    const done = (): void => {
      for (const event of events) call.removeListener(event, done);
      resolve();
    };
    for (const event of events) call.once(event, done);
  });
}

/** What receiving needs of a readable call. */
interface Incoming extends AnyCall {
  iterator(options: { destroyOnReturn: boolean }): AsyncIterable<unknown>;
}

/** The requests of a call. Reading all of them leaves the other direction open. */
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
  const state = stateOf(call);
  // A handler that stops because its call has ended has not failed.
  const hasStopped = state?.signal.aborted === true && error === state.signal.reason;
  if (!(error instanceof ServiceError) && !hasStopped) state?.reportFailure(error);
  const status = statusOf(error);
  return { name: 'ServiceError', message: status.details, ...status };
}
