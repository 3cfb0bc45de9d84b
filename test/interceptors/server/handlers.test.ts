/** The adapters of handlers: what they send, when they stop, and what they report. */

import { EventEmitter, once } from 'node:events';
import { setImmediate as turn } from 'node:timers/promises';
import { queryObjects } from 'node:v8';
import { Metadata, type ServiceDefinition, status, type UntypedServiceImplementation } from '@grpc/grpc-js';
import { expect } from 'chai';
import { GuardError } from '../../../interceptors/src/errors.js';
import { attachState } from '../../../interceptors/src/server/call-state.js';
import {
  bidi,
  clientStream,
  onlyGuarded,
  serverStream,
  unary,
} from '../../../interceptors/src/server/handlers.js';
import { identity } from '../../support/echo.js';
import { until } from '../../support/waiting.js';

type Ending = { readonly code?: status; readonly details?: string; readonly name?: string };

/** What the adapters use of grpc-js's calls. */
class FakeCall extends EventEmitter {
  readonly metadata = new Metadata();
  readonly written: unknown[] = [];
  readonly failures: unknown[] = [];
  readonly errors: Ending[] = [];
  cancelled = false;
  ended = 0;
  /** Whether the peer has room for more. */
  hasRoom = true;
  request: unknown = 'request';
  requests: unknown[] = [];
  iteratorOptions: unknown;
  readonly #signal = new AbortController();

  constructor(isGuarded = true) {
    super();
    this.on('error', (error: Ending) => this.errors.push(error));
    if (!isGuarded) return;
    attachState(this.metadata, {
      path: '/test.v1.Test/Call',
      principal: undefined,
      bearer: undefined,
      signal: this.#signal.signal,
      certificateThumbprint: undefined,
      stillAllowed: () => 0,
      passFence: () => Promise.resolve(1000),
      reportFailure: (error) => void this.failures.push(error),
    });
  }

  write(response: unknown): boolean {
    this.written.push(response);
    return this.hasRoom;
  }

  end(): void {
    this.ended += 1;
  }

  async *iterator(options: unknown): AsyncGenerator<unknown> {
    this.iteratorOptions = options;
    yield* this.requests;
  }

  cancel(reason: unknown = new DOMException('the call has ended', 'AbortError')): void {
    this.cancelled = true;
    this.#signal.abort(reason);
    this.emit('cancelled');
  }

  /** Number of listeners, without that of this fake. */
  listening(): number {
    return this.eventNames().reduce((sum, name) => sum + this.listenerCount(name), 0) - 1;
  }
}

/** The only answer of a handler that has one: the response, or the error. */
function answerOf(handle: unknown, call: FakeCall): Promise<unknown> {
  const handler = handle as (call: FakeCall, callback: (error: unknown, value?: unknown) => void) => void;
  return new Promise((resolve) => {
    handler(call, (error, value) => resolve(error ?? value));
  });
}

const SINGLE = {
  'a unary handler': (handle: () => unknown) => unary<unknown, unknown>(handle),
  'a handler for a stream of requests': (handle: () => unknown) =>
    clientStream<unknown, unknown>(async () => await handle()),
};

const STREAMED = {
  'a handler for a stream of responses': (handle: () => AsyncIterable<unknown>) =>
    serverStream<unknown, unknown>(handle),
  'a handler for streams in both directions': (handle: () => AsyncIterable<unknown>) =>
    bidi<unknown, unknown>(handle),
};

describe('the adapter of a handler', () => {
  for (const [name, adapt] of Object.entries(SINGLE)) {
    describe(`for ${name}`, () => {
      const run = async (handle: () => unknown, call = new FakeCall()) => ({
        answer: (await answerOf(adapt(handle), call)) as Ending,
        failures: call.failures,
      });

      it('returns its response', async () => {
        expect(await run(() => 'response')).to.deep.equal({ answer: 'response', failures: [] });
        expect((await run(() => Promise.resolve('later'))).answer).to.equal('later');
      });

      it('sends a ServiceError with its status, and reports nothing', async () => {
        const error = new GuardError('NOT_FOUND', 'no such item');
        for (const handle of [() => Promise.reject(error), thrower(error)]) {
          const { answer, failures } = await run(handle);
          expect(answer).to.include({
            code: status.NOT_FOUND,
            details: 'no such item',
            message: 'no such item',
            name: 'ServiceError',
          });
          expect(failures).to.deep.equal([]);
        }
      });

      it('reports anything else, unless it stops because its call has ended', async () => {
        const ended = new DOMException('the call has ended', 'AbortError');
        const fault = new TypeError('a fault');
        const endedCall = () => {
          const call = new FakeCall();
          call.cancel(ended);
          return call;
        };
        const rows = [
          [fault, new FakeCall(), [fault]],
          [fault, endedCall(), [fault]],
          [ended, endedCall(), []],
          [ended, new FakeCall(), [ended]],
          [undefined, new FakeCall(), [undefined]],
          // Without a guard nothing can be reported.
          [fault, new FakeCall(false), []],
        ] as const;
        for (const [thrown, call, expected] of rows) {
          const { answer, failures } = await run(() => Promise.reject(thrown), call);
          expect(answer).to.include({ code: status.INTERNAL, details: 'internal error' });
          expect(failures).to.deep.equal(expected);
        }
      });
    });
  }

  it('passes the request, or the requests without closing the other direction', async () => {
    const call = new FakeCall();
    expect(
      await answerOf(
        unary<unknown, unknown>((request) => [request]),
        call,
      ),
    ).to.deep.equal(['request']);
    call.requests = ['one', 'two'];
    const collect = clientStream<unknown, unknown>(async (requests) => {
      const all: unknown[] = [];
      for await (const request of requests) all.push(request);
      return all;
    });
    expect(await answerOf(collect, call)).to.deep.equal(['one', 'two']);
    expect(call.iteratorOptions).to.deep.equal({ destroyOnReturn: false });
    const echo = bidi<unknown, unknown>((requests) => requests);
    echo(call as never);
    await until(() => call.ended === 1);
    expect(call.written).to.deep.equal(['one', 'two']);
    expect(call.iteratorOptions).to.deep.equal({ destroyOnReturn: false });
    const repeat = serverStream<unknown, unknown>(async function* (request) {
      yield request;
    });
    repeat(call as never);
    await until(() => call.ended === 2);
    expect(call.written.at(-1)).to.equal('request');
  });

  for (const [name, adapt] of Object.entries(STREAMED)) {
    describe(`for ${name}`, () => {
      function run(handle: () => AsyncIterable<unknown>, call = new FakeCall()): FakeCall {
        adapt(handle)(call as never);
        return call;
      }

      it('sends every response, then ends the call, and leaves no listener', async () => {
        const call = run(async function* () {
          yield 'one';
          yield 'two';
        });
        await until(() => call.ended > 0);
        expect([call.written, call.ended, call.errors]).to.deep.equal([['one', 'two'], 1, []]);
        expect(call.listening()).to.equal(0);
      });

      it('ends with the status of what it throws, before or between its responses', async () => {
        const error = new GuardError('NOT_FOUND', 'no such item');
        const fault = new TypeError('a fault');
        const failing = async function* (thrown: unknown) {
          yield 'one';
          throw thrown;
        };
        for (const [handle, code, failures] of [
          [() => failing(error), status.NOT_FOUND, []],
          [() => failing(fault), status.INTERNAL, [fault]],
          [thrower(error), status.NOT_FOUND, []],
          [thrower(fault), status.INTERNAL, [fault]],
        ] as const) {
          const call = run(handle);
          await until(() => call.errors.length > 0);
          expect(call.errors).to.have.length(1);
          expect(call.errors[0]).to.include({ code, name: 'ServiceError' });
          expect([call.failures, call.ended]).to.deep.equal([failures, 0]);
          expect(call.listening()).to.equal(0);
        }
      });

      it('asks for the next response only when the peer has room for it, or the call ends', async () => {
        for (const event of ['drain', 'cancelled', 'close', 'error']) {
          let asked = 0;
          const call = new FakeCall();
          call.hasRoom = false;
          run(async function* () {
            for (;;) {
              asked += 1;
              yield asked;
            }
          }, call);
          await until(() => call.written.length === 1);
          await turn();
          expect(asked).to.equal(1);
          // The wait listens to four events, and the whole call to one.
          expect(call.listening()).to.equal(5);
          call.emit(event, new Error('a test'));
          await until(() => call.written.length === 2 || call.ended > 0);
          await turn();
          if (event !== 'cancelled') expect([asked, call.listening()]).to.deep.equal([2, 5]);
          call.cancel();
          await until(() => call.ended === 1);
          expect(call.listening()).to.equal(0);
        }
      });

      it('keeps nothing of the responses that it has sent', async () => {
        const call = new FakeCall();
        const waiting = new EventEmitter();
        const responses = 10_000;
        run(async function* () {
          for (let count = 0; count < responses; count += 1) yield count;
          await once(waiting, 'go');
        }, call);
        const before = queryObjects(Promise, { format: 'count' });
        await until(() => call.written.length === responses);
        expect(queryObjects(Promise, { format: 'count' }) - before).to.be.lessThan(responses / 10);
        waiting.emit('go');
        await until(() => call.ended === 1);
      });

      it('does not wait for room when the call has ended during the write', async () => {
        const call = new FakeCall();
        call.write = () => {
          call.cancelled = true;
          return false;
        };
        run(async function* () {
          yield 'one';
        }, call);
        await until(() => call.ended === 1);
        expect(call.listening()).to.equal(0);
      });

      it('stops a handler that waits for its next response when the call ends, and runs its finally', async () => {
        const call = new FakeCall();
        const steps: string[] = [];
        const waiting = new EventEmitter();
        run(async function* () {
          try {
            yield 'one';
            await once(waiting, 'go');
            yield 'two';
          } finally {
            steps.push('finally');
          }
        }, call);
        await until(() => call.written.length === 1);
        await turn();
        call.cancel();
        await until(() => call.ended === 1);
        expect([call.written, call.listening()]).to.deep.equal([['one'], 0]);
        // The end of the call did not wait for the handler.
        expect(steps).to.deep.equal([]);
        waiting.emit('go');
        await until(() => steps.length === 1);
        expect([call.written, call.errors, call.failures]).to.deep.equal([['one'], [], []]);
      });

      it('ignores what a handler throws after the end of its call, except in its finally', async () => {
        for (const isGuarded of [true, false]) {
          const call = new FakeCall(isGuarded);
          const waiting = new EventEmitter();
          const cleanUp = new TypeError('in its finally');
          const responses = {
            next: async () => {
              await once(waiting, 'never');
              return { done: true, value: undefined } as const;
            },
            return: () => Promise.reject(cleanUp),
          };
          run(() => ({ [Symbol.asyncIterator]: () => responses }), call);
          await turn();
          call.cancel();
          await until(() => call.ended === 1);
          waiting.emit('error', new TypeError('too late'));
          await turn();
          expect([call.failures, call.errors]).to.deep.equal([isGuarded ? [cleanUp] : [], []]);
        }
      });

      it('does not start a handler whose call has ended, but runs its return', async () => {
        const call = new FakeCall();
        call.cancel();
        const asked: string[] = [];
        const responses = {
          next: async () => {
            asked.push('next');
            return { done: true, value: undefined } as const;
          },
          return: async () => {
            asked.push('return');
            return { done: true, value: undefined } as const;
          },
        };
        run(() => ({ [Symbol.asyncIterator]: () => responses }), call);
        await until(() => call.ended === 1);
        expect([asked, call.errors]).to.deep.equal([['return'], []]);
      });

      it('accepts an iterator without a return', async () => {
        const responses = {
          next: async () => ({ done: true, value: undefined }) as const,
        };
        const call = run(() => ({ [Symbol.asyncIterator]: () => responses }));
        await until(() => call.ended + call.errors.length > 0);
        expect([call.ended, call.errors]).to.deep.equal([1, []]);
      });
    });
  }
});

describe('handlers of a guarded service', () => {
  const method = { requestStream: false, responseStream: false, path: '/test.v1.Test/Call' };
  const serialize = {
    requestSerialize: identity,
    requestDeserialize: identity,
    responseSerialize: identity,
    responseDeserialize: identity,
  };
  const definition: ServiceDefinition = {
    Single: { ...method, ...serialize },
    Streamed: { ...method, ...serialize, responseStream: true },
  };

  it('run for calls that a guard has decided, and fail for all others', () => {
    const ran: unknown[][] = [];
    const handlers: UntypedServiceImplementation = {
      Single: ((...values: unknown[]) => ran.push(values)) as never,
      Streamed: ((...values: unknown[]) => ran.push(values)) as never,
    };
    const guarded = onlyGuarded(definition, handlers);
    const call = (name: string, on: FakeCall, ...more: unknown[]): void =>
      (guarded[name] as (...values: unknown[]) => void)(on, ...more);
    const answers: Ending[] = [];
    const callback = (error: Ending): void => void answers.push(error);
    for (const [name, more] of [
      ['Single', [callback]],
      ['Streamed', []],
    ] as const) {
      const decided = new FakeCall();
      call(name, decided, ...more);
      expect(ran.pop()?.slice(0, 1 + more.length)).to.deep.equal([decided, ...more]);
      expect([decided.errors, answers]).to.deep.equal([[], []]);
    }
    const unguarded = new FakeCall(false);
    call('Single', unguarded, callback);
    expect(answers).to.have.length(1);
    expect(answers[0]).to.include({ code: status.INTERNAL, details: 'internal error' });
    expect(unguarded.errors).to.deep.equal([]);
    call('Streamed', unguarded);
    expect(unguarded.errors).to.have.length(1);
    expect(unguarded.errors[0]).to.include({ code: status.INTERNAL });
    expect([answers.length, ran]).to.deep.equal([1, []]);
  });
});

function thrower(error: unknown): () => never {
  return () => {
    throw error;
  };
}
