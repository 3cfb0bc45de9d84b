/** Notices when the machine lets nobody run: then what the drill sees is not the work of its faults. */

import { nowMs } from './moment.js';

const LOOK_INTERVAL_MS = 20;
const REMEMBERED = 100;

/** Looks at the clock all the time. */
export interface Standstills {
  /** The longest time for which it was kept from looking, in milliseconds. */
  worstMs(): number;
  /** Whether it was kept from looking for long, within the time before this moment. */
  wereBefore(atMs: number): boolean;
  stop(): void;
}

/**
 * Begins to look.
 *
 * @param longMs - from when on a standstill counts
 * @param withinMs - for how long it is remembered
 */
export function noticeStandstills(longMs: number, withinMs: number): Standstills {
  const long: number[] = [];
  let lastMs = nowMs();
  let worstMs = 0;
  const look = (): void => {
    const now = nowMs();
    const lateMs = now - lastMs - LOOK_INTERVAL_MS;
    lastMs = now;
    worstMs = Math.max(worstMs, lateMs);
    if (lateMs < longMs) return;
    long.push(now);
    if (long.length > REMEMBERED) long.shift();
  };
  const timer = setInterval(look, LOOK_INTERVAL_MS);
  return {
    worstMs: () => worstMs,
    wereBefore(atMs) {
      look();
      return long.some((endedMs) => endedMs <= atMs + longMs && atMs - endedMs < withinMs);
    },
    stop: () => clearInterval(timer),
  };
}
