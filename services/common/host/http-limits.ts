/** How many requests an HTTP port answers: those of one connection at a time, and those of one network in a second. */

import { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Clock } from '@portcullis/guard';
import { networkOf } from '@portcullis/guard/networks';

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
  /** Requests of the present second, by network. */
  readonly #byNetwork = new Map<string, number>();
  readonly #waiting = new WeakMap<Socket, number>();
  #windowMs = Number.NEGATIVE_INFINITY;
  /** Number of requests refused so far, by limit. */
  readonly refused: Record<HttpLimit, number> = { pipelined: 0, requests_per_address: 0 };

  constructor(perAddress: number, clock: Clock) {
    this.#perAddress = perAddress;
    this.#clock = clock;
  }

  /** Whether so many requests of the connection wait for their answers that it may have no further one. */
  isFull(socket: Socket): boolean {
    return (this.#waiting.get(socket) ?? 0) >= PIPELINED_MAX;
  }

  /** Counts a request that waits for its answer. */
  enter(socket: Socket): void {
    this.#waiting.set(socket, (this.#waiting.get(socket) ?? 0) + 1);
  }

  /** The request has its answer. */
  leave(socket: Socket): void {
    this.#waiting.set(socket, Math.max(0, (this.#waiting.get(socket) ?? 0) - 1));
  }

  /** Counts a request of an address for its network. @returns whether it may be answered in this second */
  allows(address: string): boolean {
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#windowMs >= WINDOW_MS) {
      this.#windowMs = nowMs;
      this.#byNetwork.clear();
    }
    const network = networkOf(address);
    const count = this.#byNetwork.get(network) ?? 0;
    if (count >= this.#perAddress) {
      this.refused.requests_per_address += 1;
      return false;
    }
    this.#byNetwork.set(network, count + 1);
    return true;
  }
}

/**
 * The class of the requests of a port. Node parses all that it has read of a connection in one go, which took 70 ms for
 * the 2,300 requests that fit into one read. It stops only behind a request for another protocol. So the first request
 * beyond the limit counts as one: the server emits `upgrade` for it instead of `request`, and parses nothing behind it.
 */
export function requestClassOf(limits: HttpLimits): typeof IncomingMessage {
  return class extends IncomingMessage {
    readonly #isBeyondLimit: boolean;

    constructor(socket: Socket) {
      super(socket);
      this.#isBeyondLimit = limits.isFull(socket);
    }

    get upgrade(): boolean {
      return this.#isBeyondLimit;
    }

    /** Node states what the headers say. The ports have no other protocol, so they say nothing. */
    set upgrade(_: unknown) {}
  };
}
