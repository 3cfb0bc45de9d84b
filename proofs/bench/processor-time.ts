/** Processor time of other processes, from `/proc`. */

import { readdir, readFile } from 'node:fs/promises';

/** The length of a tick in `/proc/PID/stat`, in milliseconds (proc(5): `sysconf(_SC_CLK_TCK)`, 100 a second everywhere). */
const TICK_MS = 10;

/** Fields of `/proc/PID/stat` after the name of the process, counted from 0. */
const FIELD = { parent: 1, user: 11, system: 12 } as const;

/**
 * The processor time of some processes and their children so far, in milliseconds; `NaN` without `/proc`. It does not
 * include children that have ended.
 */
export async function processorTimeMs(pids: readonly number[]): Promise<number> {
  const names = await readdir('/proc').catch(() => []);
  if (names.length === 0) return Number.NaN;
  let ticks = 0;
  for (const name of names) {
    if (!/^\d+$/.test(name)) continue;
    // The process may have ended since.
    const text = await readFile(`/proc/${name}/stat`, 'utf8').catch(() => '');
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    const isMeant = pids.includes(Number(name)) || pids.includes(Number(fields[FIELD.parent]));
    if (isMeant) ticks += Number(fields[FIELD.user]) + Number(fields[FIELD.system]);
  }
  return ticks * TICK_MS;
}
