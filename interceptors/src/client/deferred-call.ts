/** Calls that begin when their token has been fetched, and their ends until then. */

import {
  type Deadline,
  type InterceptingListener,
  type Interceptor,
  Metadata,
  type StatusObject,
  status,
} from '@grpc/grpc-js';
import { systemClock } from '../clock.js';

/** A call below an interceptor. grpc-js does not export its type. */
export type OpenCall = ReturnType<Parameters<Interceptor>[1]>;

/**
 * A call that is opened when it is started. grpc-js loses the status of a call that is cancelled, or whose deadline
 * passes, between its opening and its start, so such a call would never end.
 */
export class DeferredCall implements OpenCall {
  readonly #open: () => OpenCall;
  #call: OpenCall | undefined;
  #isReadWanted = false;

  constructor(open: () => OpenCall) {
    this.#open = open;
  }

  start(metadata: Metadata, listener?: Partial<InterceptingListener>): void {
    try {
      this.#call = this.#open();
    } catch (error) {
      // The channel was closed in the meantime.
      const details = error instanceof Error ? error.message : String(error);
      listener?.onReceiveStatus?.({ code: status.UNAVAILABLE, details, metadata: new Metadata() });
      return;
    }
    this.#call.start(metadata, listener);
    if (this.#isReadWanted) this.#call.startRead();
  }

  startRead(): void {
    this.#isReadWanted = true;
    this.#call?.startRead();
  }

  // InterceptingCall keeps messages and the half-close until the call is started.
  sendMessageWithContext(...what: Parameters<OpenCall['sendMessageWithContext']>): void {
    this.#call?.sendMessageWithContext(...what);
  }

  sendMessage(message: unknown): void {
    this.#call?.sendMessage(message);
  }

  halfClose(): void {
    this.#call?.halfClose();
  }

  cancelWithStatus(code: status, details: string): void {
    this.#call?.cancelWithStatus(code, details);
  }

  getPeer(): string {
    return this.#call?.getPeer() ?? '';
  }

  getAuthContext(): ReturnType<OpenCall['getAuthContext']> {
    return this.#call?.getAuthContext() ?? null;
  }
}

/** The longest delay of a timer, in milliseconds; Node fires longer ones at once. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** The wait of a call for its token. It ends early when the call is cancelled, or when its deadline passes. */
export class TokenWait {
  readonly #onEnd: (end: StatusObject) => void;
  readonly #timer: NodeJS.Timeout | undefined;
  #isOver = false;

  /** @param onEnd - receives the status of a call that ended while it waited */
  constructor(deadline: Deadline | undefined, onEnd: (end: StatusObject) => void) {
    this.#onEnd = onEnd;
    const leftMs = Number(deadline ?? Number.POSITIVE_INFINITY) - systemClock.wallMs();
    if (leftMs > TIMER_MS_MAX) return;
    const late = (): void =>
      this.#end(status.DEADLINE_EXCEEDED, 'deadline exceeded while waiting for an access token');
    this.#timer = setTimeout(late, leftMs);
  }

  /** Calls one of the functions when the promise is settled, unless the wait has ended before. */
  on(token: Promise<string>, onToken: (token: string) => void, onError: (error: unknown) => void): void {
    token.then(
      (value) => {
        if (this.#stop()) onToken(value);
      },
      (error: unknown) => {
        if (this.#stop()) onError(error);
      },
    );
  }

  cancel(): void {
    this.#end(status.CANCELLED, 'cancelled by the caller');
  }

  #end(code: status, details: string): void {
    if (this.#stop()) this.#onEnd({ code, details, metadata: new Metadata() });
  }

  /** @returns whether nothing has ended the wait before */
  #stop(): boolean {
    clearTimeout(this.#timer);
    const isFirst = !this.#isOver;
    this.#isOver = true;
    return isFirst;
  }
}
