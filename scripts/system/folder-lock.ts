/** The lock on a folder: one launcher at a time, and a dead one's lock does not stand in the way. */

import { randomUUID } from 'node:crypto';
import { link, readFile, rename, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ProcessIdentity } from './processes.js';
import { isRunning, ownIdentity } from './processes.js';
import { SystemError } from './system-error.js';

const LOCK_FILE = 'lock.json';
const ATTEMPTS_MAX = 10;

/** A lock that is held. */
export interface FolderLock {
  /** Gives the lock back. */
  release(): Promise<void>;
}

/**
 * Locks a folder for as long as this process lives.
 *
 * @param what - what the folder holds, for the message
 * @throws SystemError when a running process holds the lock
 */
export async function lockFolder(folder: string, what: string): Promise<FolderLock> {
  const file = join(folder, LOCK_FILE);
  const own = JSON.stringify({ ...(await ownIdentity()), token: randomUUID() });
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
    if (await createWhole(file, own)) return { release: () => removeIfOurs(file, own) };
    const found = await readFile(file, 'utf8').catch(() => undefined);
    if (found === undefined) continue;
    const holder = parseHolder(found);
    if (holder !== undefined && (await isRunning(holder))) {
      throw new SystemError(
        `${what} in ${folder} is in use by process ${holder.pid}. Stop it first, or choose another folder with PORTCULLIS_DATA_DIR.`,
      );
    }
    await removeStale(file, found);
  }
  throw new SystemError(`The lock ${file} could not be taken: other processes keep taking it.`);
}

/** A link appears with its whole content or not at all, and never replaces another's lock. */
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
    await unlink(draft);
  }
}

/** Moves the lock aside first: if another process has just taken it, its lock is put back. */
async function removeStale(file: string, stale: string): Promise<void> {
  const aside = `${file}.${randomUUID()}`;
  try {
    await rename(file, aside);
  } catch {
    return;
  }
  if ((await readFile(aside, 'utf8')) !== stale) await link(aside, file).catch(() => undefined);
  await unlink(aside);
}

async function removeIfOurs(file: string, own: string): Promise<void> {
  if ((await readFile(file, 'utf8').catch(() => '')) === own) await unlink(file).catch(() => undefined);
}

function parseHolder(text: string): ProcessIdentity | undefined {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== 'object' || value === null) return undefined;
    if (!('pid' in value) || typeof value.pid !== 'number') return undefined;
    if (!('startTime' in value) || typeof value.startTime !== 'string') return undefined;
    return { pid: value.pid, startTime: value.startTime };
  } catch {
    return undefined;
  }
}
