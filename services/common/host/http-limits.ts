/** How many requests an HTTP port answers: those of one connection at a time, and those of one address in a second. */

import type { Socket } from 'node:net';
import type { Clock } from '@portcullis/guard';

/** Maximum number of requests of one connection that wait for their answers: pipelining beyond it ends the connection. */
const PIPELINED_MAX = 4;

const WINDOW_MS = 1_000;

/** The limits by their names in the metric. */
export const HTTP_LIMITS = ['pipelined', 'requests_per_address'] as const;

/** One of {@link HTTP_LIMITS}. */
export type HttpLimit = (typeof HTTP_LIMITS)[number];

/** Counts requests. */
export class HttpLimits {
  readonly #perAddress: number;
  readonly #clock: Clock;
  /** Requests of the present second, by address. */
  readonly #byAddress = new Map<string, number>();
  readonly #waiting = new WeakMap<Socket, number>();
  #windowMs = Number.NEGATIVE_INFINITY;
  /** Number of requests refused so far, by limit. */
  readonly refused: Record<HttpLimit, number> = { pipelined: 0, requests_per_address: 0 };

  constructor(perAddress: number, clock: Clock) {
    this.#perAddress = perAddress;
    this.#clock = clock;
  }

  /** Counts a request that waits for its answer. @returns whether the connection may have it */
  enter(socket: Socket): boolean {
    const waiting = this.#waiting.get(socket) ?? 0;
    if (waiting >= PIPELINED_MAX) {
      this.refused.pipelined += 1;
      return false;
    }
    this.#waiting.set(socket, waiting + 1);
    return true;
  }

  /** The request has its answer. */
  leave(socket: Socket): void {
    this.#waiting.set(socket, Math.max(0, (this.#waiting.get(socket) ?? 0) - 1));
  }

  /** Counts a request of an address. @returns whether it may be answered in this second */
  allows(address: string): boolean {
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#windowMs >= WINDOW_MS) {
      this.#windowMs = nowMs;
      this.#byAddress.clear();
    }
    const count = this.#byAddress.get(address) ?? 0;
    if (count >= this.#perAddress) {
      this.refused.requests_per_address += 1;
      return false;
    }
    this.#byAddress.set(address, count + 1);
    return true;
  }
}
