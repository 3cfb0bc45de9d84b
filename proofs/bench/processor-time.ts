/** Processor time of other processes, from `/proc`. */

import { readdir, readFile } from 'node:fs/promises';
import { sumOf } from '../shared/statistics.js';

/** The length of a tick in `/proc/PID/stat`, in milliseconds (proc(5): `sysconf(_SC_CLK_TCK)`, 100 a second everywhere). */
const TICK_MS = 10;

const NANOSECONDS_PER_MILLISECOND = 1e6;

/** Fields of `/proc/PID/stat` after the name of the process, counted from 0. */
const FIELD = { parent: 1, user: 11, system: 12 } as const;

/**
 * The processor time of some processes and their children so far, in milliseconds; `NaN` without `/proc`. It does not
 * include children that have ended.
 */
export async function processorTimeMs(pids: readonly number[]): Promise<number> {
  const times = await processorTimesMs(pids);
  if (times === undefined) return Number.NaN;
  return sumOf(times.values(), (ms) => ms);
}

/** The processor time of each of these processes and of their children so far; undefined without `/proc`. */
export async function processorTimesMs(
  pids: readonly number[],
): Promise<ReadonlyMap<number, number> | undefined> {
  const names = await readdir('/proc').catch(() => []);
  if (names.length === 0) return undefined;
  const times = new Map<number, number>();
  for (const name of names) {
    if (!/^\d+$/.test(name)) continue;
    // The process may have ended since.
    const text = await readFile(`/proc/${name}/stat`, 'utf8').catch(() => '');
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    const isMeant = pids.includes(Number(name)) || pids.includes(Number(fields[FIELD.parent]));
    if (!isMeant) continue;
    times.set(Number(name), (Number(fields[FIELD.user]) + Number(fields[FIELD.system])) * TICK_MS);
  }
  return times;
}

/** The processor time between two readings, in milliseconds; that of processes that have ended meanwhile is missing. */
export function processorTimeBetween(
  before: ReadonlyMap<number, number> | undefined,
  after: ReadonlyMap<number, number> | undefined,
): number {
  if (before === undefined || after === undefined) return Number.NaN;
  return sumOf(after, ([pid, ms]) => ms - (before.get(pid) ?? 0));
}

/** These processes and their children, as they are now; the processes alone without `/proc`. */
export async function withChildren(pids: readonly number[]): Promise<readonly number[]> {
  const times = await processorTimesMs(pids);
  return times === undefined ? pids : [...times.keys()];
}

/**
 * The processor time of the living threads of some processes so far, in milliseconds. Where the kernel tells it, it is
 * precise to the nanosecond, so that a measurement may be short; elsewhere to a tick, as {@link processorTimeMs}.
 */
export async function preciseTimeMs(pids: readonly number[]): Promise<number> {
  const times: number[] = [];
  for (const pid of pids) {
    for (const thread of await readdir(`/proc/${pid}/task`).catch(() => [])) {
      const text = await readFile(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').catch(() => '');
      const ms = scheduledMsIn(text);
      if (ms !== undefined) times.push(ms);
    }
  }
  return times.length === 0 ? await processorTimeMs(pids) : sumOf(times, (ms) => ms);
}

/** The time on a processor that the text of `/proc/PID/schedstat` tells, in milliseconds; undefined when it tells none. */
export function scheduledMsIn(text: string): number | undefined {
  const [nanoseconds] = /^\d+/.exec(text) ?? [];
  return nanoseconds === undefined ? undefined : Number(nanoseconds) / NANOSECONDS_PER_MILLISECOND;
}
