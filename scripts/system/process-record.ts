/** The record of running processes in a data folder: a start finds in it what a crashed start left running. */

import { readFile, rm } from 'node:fs/promises';
import { writeAtomically } from './files.js';
import { endProcess, isRunning } from './process-identity.js';
import type { ProcessRegistry } from './processes.js';
import type { WatchedProcess } from './reaper-client.js';

/**
 * Ends the processes that an earlier start of the same folder left running, the last started first. Processes are
 * identified by number and start time.
 *
 * @returns how many processes were ended
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

/** Creates a registry that keeps the record. Each change is written completely before the next one. */
export function recordProcesses(file: string): ProcessRegistry {
  const running = new Map<number, WatchedProcess>();
  let written = Promise.resolve();
  const write = (): Promise<void> => writeAtomically(file, JSON.stringify([...running.values()], null, 2));
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

/** A record is unreadable only when the whole machine stopped while it was written; then no process is left. */
async function readRecord(file: string): Promise<WatchedProcess[]> {
  try {
    return JSON.parse(await readFile(file, 'utf8')) as WatchedProcess[];
  } catch {
    return [];
  }
}
