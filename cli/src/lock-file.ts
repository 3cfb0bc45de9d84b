/** A lock between commands: a file that one of them creates, and removes when it is done. */

import { readFile, rm, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { CommandError } from './failures.js';

/** How long a command waits for another one, in milliseconds. A lock is held for one small file. */
const WAIT_MS_MAX = 5000;
const POLL_MS = 20;

/**
 * Runs the work while no other command has the lock. The lock of a process that has ended without removing it is taken over.
 *
 * @throws CommandError when another command keeps it
 */
export async function whileLocked<Result>(file: string, work: () => Promise<Result>): Promise<Result> {
  await lock(file);
  try {
    return await work();
  } finally {
    await rm(file, { force: true });
  }
}

async function lock(file: string): Promise<void> {
  const untilMs = Date.now() + WAIT_MS_MAX;
  while (!(await isCreated(file))) {
    const holder = await holderOf(file);
    if (holder !== undefined && !isRunning(holder)) {
      await takeOver(file, untilMs);
    } else if (Date.now() > untilMs) {
      const who = holder === undefined ? 'another command' : `the command with process id ${holder}`;
      throw new CommandError(`${file} is held by ${who}. If it does not run any more, remove the file.`);
    } else await sleep(POLL_MS);
  }
}

/**
 * Removes the lock of a process that has ended. Of several commands that find it, one at a time looks again: the lock may
 * belong to another one by now.
 */
async function takeOver(file: string, untilMs: number): Promise<void> {
  const turn = `${file}.takeover`;
  while (!(await isCreated(turn))) {
    if (Date.now() > untilMs) {
      throw new CommandError(`${turn} is held by another command. If none runs any more, remove the file.`);
    }
    await sleep(POLL_MS);
  }
  try {
    const holder = await holderOf(file);
    if (holder !== undefined && !isRunning(holder)) await rm(file, { force: true });
  } finally {
    await rm(turn, { force: true });
  }
}

async function isCreated(file: string): Promise<boolean> {
  try {
    await writeFile(file, `${process.pid}\n`, { flag: 'wx', mode: 0o600 });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

/** The process that holds the lock; undefined when it has just been removed, or does not say. */
async function holderOf(file: string): Promise<number | undefined> {
  const text = await readFile(file, 'utf8').catch(() => '');
  const id = Number(text.trim());
  return Number.isInteger(id) && id > 0 ? id : undefined;
}

function isRunning(id: number): boolean {
  try {
    process.kill(id, 0);
    return true;
  } catch (error) {
    // A process of another user.
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
