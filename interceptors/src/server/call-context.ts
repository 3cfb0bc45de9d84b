/** The call of the running handler, for frameworks that do not pass it on. */

import { AsyncLocalStorage } from 'node:async_hooks';
import type { Metadata } from '@grpc/grpc-js';
import type { ServerCallListener } from '../wire/grpc-js-internals.js';
import type { AnyCall } from './call-state.js';

const running = new AsyncLocalStorage<AnyCall>();

/**
 * The call whose handler is running, for `principalOf`, `stillAllowed` and the like, where the framework does not hand it
 * to the handler. The guard must have been created with `callContext: true`.
 *
 * @throws TypeError outside of a handler, or where the guard keeps no context
 */
export function currentCall(): AnyCall {
  const call = running.getStore();
  if (call === undefined) {
    throw new TypeError(
      'no call is running here: create the guard with callContext: true, and ask in a handler',
    );
  }
  return call;
}

/** The listener of a call, whose handler runs in the context of the call. */
export function withCallContext(listener: ServerCallListener): ServerCallListener {
  return new ContextListener(listener);
}

class ContextListener implements ServerCallListener {
  readonly #listener: ServerCallListener;
  #call: AnyCall | undefined;

  constructor(listener: ServerCallListener) {
    this.#listener = listener;
  }

  onReceiveMetadata(metadata: Metadata): void {
    this.#call = { metadata };
    running.run(this.#call, () => this.#listener.onReceiveMetadata(metadata));
  }

  onReceiveMessage(message: unknown): void {
    this.#run(() => this.#listener.onReceiveMessage(message));
  }

  onReceiveHalfClose(): void {
    this.#run(() => this.#listener.onReceiveHalfClose());
  }

  onCancel(): void {
    this.#listener.onCancel();
  }

  #run(step: () => void): void {
    if (this.#call === undefined) step();
    else running.run(this.#call, step);
  }
}
