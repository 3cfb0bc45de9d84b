/** The rows of the clocks and of the lease. */

import type { InstanceRow, InstanceState } from './instance-state.js';
import { always } from './rows.js';
import type { Moment } from './steps.js';

/** A larger fall of (wall − monotonic) ends a segment, in milliseconds. */
export const CLOCK_JITTER_MS = 10;

interface ReadingEvent {
  /** The difference between the wall clock and the monotonic clock. */
  readonly differenceMs: number;
}

export const CLOCK_ROWS: readonly InstanceRow<ReadingEvent, never>[] = [
  {
    id: 'C1',
    when: ({ segment }, { differenceMs }) =>
      segment !== undefined && differenceMs < segment.highestMs - CLOCK_JITTER_MS,
    act: (state) => {
      state.endedRisesMs += state.segment?.riseMs ?? 0;
      state.segment = undefined;
      return undefined;
    },
  },
  {
    id: 'C2',
    when: always,
    act: (state, { differenceMs }) => {
      const { lowestMs, highestMs, riseMs } = state.segment ?? {
        lowestMs: differenceMs,
        highestMs: differenceMs,
        riseMs: 0,
      };
      state.segment = {
        lowestMs: Math.min(lowestMs, differenceMs),
        highestMs: Math.max(highestMs, differenceMs),
        riseMs: Math.max(riseMs, differenceMs - lowestMs),
      };
      return undefined;
    },
  },
];

/** The rows of the lease: each one may end it. The result is what is left by this row, in milliseconds. */
export const LEASE_ROWS: readonly {
  readonly id: string;
  readonly left: (lease: InstanceState['lease'], now: Moment, risesMs: number) => number;
}[] = [
  { id: 'L1', left: (lease) => (lease === undefined ? 0 : Number.POSITIVE_INFINITY) },
  { id: 'L2', left: (lease, [, wallMs]) => (lease && wallMs < lease.at[1] ? 0 : Number.POSITIVE_INFINITY) },
  {
    id: 'L3',
    left: (lease, [monotonicMs], risesMs) =>
      lease === undefined
        ? Number.POSITIVE_INFINITY
        : lease.lengthMs - (monotonicMs - lease.at[0] + (risesMs - lease.risesMs)),
  },
  {
    id: 'L4',
    left: (lease, [, wallMs]) =>
      lease === undefined ? Number.POSITIVE_INFINITY : lease.lengthMs - (wallMs - lease.at[1]),
  },
];
