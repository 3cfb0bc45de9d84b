/** The data folder's record of running processes, by which a start finds what a crashed one left behind. */

import { randomUUID } from 'node:crypto';
import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import type { ProcessRegistry } from './processes.js';
import { endProcess, isRunning } from './processes.js';
import type { WatchedProcess } from './reaper-client.js';

/**
 * Ends what an earlier start of the same folder left running: exactly those processes, told by number
 * and time of start, the last started first.
 *
 * @returns how many there were
 */
export async function endRecordedProcesses(file: string): Promise<number> {
  let ended = 0;
  for (const found of (await readRecord(file)).reverse()) {
    if (!(await isRunning(found))) continue;
    await endProcess(found, found.ending);
    ended += 1;
  }
  await rm(file, { force: true });
  return ended;
}

/** Keeps the record. Every change is written whole before the next one. */
export function recordProcesses(file: string): ProcessRegistry {
  const running = new Map<number, WatchedProcess>();
  let written = Promise.resolve();
  const write = async (): Promise<void> => {
    const draft = `${file}.${randomUUID()}`;
    await writeFile(draft, JSON.stringify([...running.values()], null, 2), { mode: 0o600 });
    await rename(draft, file);
  };
  const writeInTurn = async (): Promise<void> => {
    written = written.then(write);
    await written;
  };
  return {
    async started({ pid, startTime }, ending) {
      running.set(pid, { pid, startTime, ending });
      await writeInTurn();
    },
    async ended({ pid, startTime }) {
      if (running.get(pid)?.startTime === startTime) running.delete(pid);
      await writeInTurn();
    },
  };
}

/** A record that cannot be read was being written when the whole machine stopped, and all processes with it. */
async function readRecord(file: string): Promise<WatchedProcess[]> {
  try {
    return JSON.parse(await readFile(file, 'utf8')) as WatchedProcess[];
  } catch {
    return [];
  }
}
