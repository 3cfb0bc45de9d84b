/** Processor time of other processes, from what Linux tells of them. */

import { readdir, readFile } from 'node:fs/promises';

/** Of a tick in `/proc/PID/stat` (proc(5): `sysconf(_SC_CLK_TCK)`, which is 100 a second everywhere), in milliseconds. */
const TICK_MS = 10;

/** Fields of `/proc/PID/stat` after the name of the process, counted from 0. */
const FIELD = { parent: 1, user: 11, system: 12 } as const;

/**
 * The processor time that some processes and their children have spent so far, in milliseconds; `NaN` where there is no
 * `/proc`. Children that have ended meanwhile are not in it.
 */
export async function processorTimeMs(pids: readonly number[]): Promise<number> {
  const names = await readdir('/proc').catch(() => []);
  if (names.length === 0) return Number.NaN;
  let ticks = 0;
  for (const name of names) {
    if (!/^\d+$/.test(name)) continue;
    // It may have ended since.
    const text = await readFile(`/proc/${name}/stat`, 'utf8').catch(() => '');
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    const isMeant = pids.includes(Number(name)) || pids.includes(Number(fields[FIELD.parent]));
    if (isMeant) ticks += Number(fields[FIELD.user]) + Number(fields[FIELD.system]);
  }
  return ticks * TICK_MS;
}
