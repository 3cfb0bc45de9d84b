/** Deadlines of requests: grpc-js ends a call with a long one at once, and accepts malformed ones. */

import type { Server, ServerInterceptingCallInterface } from '@grpc/grpc-js';
import type { Clock } from '../clock.js';
import {
  inspectHeadersOf,
  type RequestDeadline,
  requestDeadlineUnder,
  setRequestDeadline,
} from './grpc-js-internals.js';

const HEADER = 'grpc-timeout';

/** TimeoutValue and TimeoutUnit of the gRPC protocol over HTTP/2. */
const TIMEOUT = /^(\d{1,8})([HMSmun])$/;

const UNIT_MS: Readonly<Record<string, number>> = {
  H: 3_600_000,
  M: 60_000,
  S: 1000,
  m: 1,
  u: 0.001,
  n: 0.000_001,
};

/** The longest timer of Node, in milliseconds. */
const TIMER_MAX_MS = 2 ** 31 - 1;

/**
 * Reads `grpc-timeout` before grpc-js does. grpc-js 1.14 computes it in 32 bits: 597 hours (25 days) become a negative
 * time, 1,194 hours become one hour. It also finds a number anywhere in the value, so `-1S` is a second. A long timeout is
 * hidden from grpc-js, and {@link longDeadlineOf} returns it; a malformed one is reported by {@link hasMalformedTimeout}.
 *
 * @throws TypeError when the HTTP/2 servers of this version of grpc-js cannot be found
 */
export function readDeadlinesOf(server: Server, wallMs: () => number): void {
  inspectHeadersOf(server, (headers, _rawHeaders, stream) => {
    const value = headers[HEADER];
    if (value === undefined) return;
    const deadline = deadlineOf(value, wallMs);
    if (deadline === undefined) return;
    delete headers[HEADER];
    setRequestDeadline(stream, deadline);
  });
}

/** Whether the caller sent a `grpc-timeout` that is not one. */
export function hasMalformedTimeout(call: ServerInterceptingCallInterface): boolean {
  return requestDeadlineUnder(call) === 'malformed';
}

/** When a call with a long timeout ends, in wall-clock milliseconds; undefined when grpc-js knows the deadline. */
export function longDeadlineOf(call: ServerInterceptingCallInterface): number | undefined {
  const deadline = requestDeadlineUnder(call);
  return typeof deadline === 'number' ? deadline : undefined;
}

/** What grpc-js would misread; undefined when it reads the value well. */
function deadlineOf(value: string | readonly string[], wallMs: () => number): RequestDeadline | undefined {
  const [, amount, unit = ''] = TIMEOUT.exec(String(value)) ?? [];
  if (amount === undefined) return 'malformed';
  const timeoutMs = Number(amount) * (UNIT_MS[unit] ?? 0);
  return timeoutMs > TIMER_MAX_MS ? wallMs() + timeoutMs : undefined;
}

/** Whether a deadline of grpc-js is over. */
export function isPast(deadline: Date | number, clock: Pick<Clock, 'wallMs'>): boolean {
  return clock.wallMs() >= (deadline instanceof Date ? deadline.getTime() : deadline);
}
