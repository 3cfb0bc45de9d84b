/** The lock on a data folder: one launcher at a time; the lock of a dead launcher is ignored. */

import { randomUUID } from 'node:crypto';
import { link, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { writeAtomically } from './files.js';
import { isRunning, ownIdentity, type ProcessIdentity } from './process-identity.js';
import { SystemError } from './system-error.js';

const PREFIX = 'lock.';
const RELEASED = 'released';
const ATTEMPTS_MAX = 100;

interface FolderLock {
  release(): Promise<void>;
}

/**
 * Locks a folder for as long as this process lives.
 *
 * Lock files are numbered, and the highest number counts. A process that finds its holder dead, or the lock released,
 * creates the next number, which succeeds for one process only. The highest file is never removed or replaced, so a
 * slow process cannot mistake a live lock for the dead one that it has just read.
 *
 * @param what - the content of the folder, for the error message
 * @throws SystemError when a running process holds the lock
 */
export async function lockFolder(folder: string, what: string): Promise<FolderLock> {
  const own = JSON.stringify(await ownIdentity());
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
    const highest = Math.max(0, ...(await numbersIn(folder)));
    const holder = await holderOf(folder, highest);
    if (holder !== undefined && (await isRunning(holder))) {
      throw new SystemError(
        `${what} in ${folder} is in use by process ${holder.pid}. Stop it first, or choose another folder with PORTCULLIS_DATA_DIR.`,
      );
    }
    const number = highest + 1;
    if (!(await createWhole(fileOf(folder, number), own))) continue;
    const numbers = await numbersIn(folder);
    if (Math.max(...numbers) > number) {
      // The listing was outdated: this number was used and removed in between.
      await rm(fileOf(folder, number), { force: true });
      continue;
    }
    for (const older of numbers) if (older < number) await rm(fileOf(folder, older), { force: true });
    return { release: () => writeAtomically(fileOf(folder, number), RELEASED) };
  }
  throw new SystemError(`The lock in ${folder} could not be acquired: other processes keep acquiring it.`);
}

function fileOf(folder: string, number: number): string {
  return join(folder, `${PREFIX}${number}`);
}

async function numbersIn(folder: string): Promise<number[]> {
  const names = (await readdir(folder)).filter((name) => name.startsWith(PREFIX));
  return names.map((name) => Number(name.slice(PREFIX.length))).filter((number) => Number.isInteger(number));
}

async function holderOf(folder: string, number: number): Promise<ProcessIdentity | undefined> {
  try {
    const value: unknown = JSON.parse(await readFile(fileOf(folder, number), 'utf8'));
    if (typeof value !== 'object' || value === null) return undefined;
    if (!('pid' in value) || typeof value.pid !== 'number') return undefined;
    if (!('startTime' in value) || typeof value.startTime !== 'string') return undefined;
    return { pid: value.pid, startTime: value.startTime };
  } catch {
    return undefined;
  }
}

/** A hard link appears with its whole content or not at all, and never replaces another file. */
async function createWhole(file: string, content: string): Promise<boolean> {
  const draft = `${file}.${randomUUID()}`;
  await writeFile(draft, content, { mode: 0o600 });
  try {
    await link(draft, file);
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false;
    throw error;
  } finally {
    await rm(draft);
  }
}
