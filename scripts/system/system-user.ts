/** The ordinary user that PostgreSQL runs as when this process is root; it refuses to run as root. */

import { execFile } from 'node:child_process';
import { readFile, stat } from 'node:fs/promises';
import { promisify } from 'node:util';
import { SystemError } from './system-error.js';

/** Holds what that user needs when it cannot enter the project or data folder; only root can write to it. */
export const ROOT_STATE_FOLDER = '/var/lib/portcullis';

/** In order of preference; the last one, `nobody`, exists on every system. */
const CANDIDATES = ['postgres', '_postgres', 'nobody'];

/** A user of the machine, as an option of `spawn`. */
export interface SystemUser {
  readonly uid: number;
  readonly gid: number;
}

/** The user to run PostgreSQL as; `undefined` when this process is not root and runs it itself. */
export async function postgresUser(): Promise<SystemUser | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  const lines = (await readFile('/etc/passwd', 'utf8')).split('\n').map((line) => line.split(':'));
  for (const candidate of CANDIDATES) {
    const [, , uid, gid] = lines.find(([name]) => name === candidate) ?? [];
    if (uid !== undefined && gid !== undefined && uid !== '0') return { uid: Number(uid), gid: Number(gid) };
  }
  throw new SystemError(
    'PostgreSQL does not run as root, and this machine has none of the users postgres and nobody. ' +
      'Add one, run as an ordinary user, or set DATABASE_URL to a PostgreSQL server of your own.',
  );
}

/** The owner of a folder, who must use its content; `undefined` when that is this process's user. */
export async function ownerOf(folder: string): Promise<SystemUser | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  const { uid, gid } = await stat(folder);
  return uid === 0 ? undefined : { uid, gid };
}

/** Returns true when a user can enter a folder. It is tried, because access lists and mounts matter too. */
export async function canUserEnter(folder: string, user: SystemUser | undefined): Promise<boolean> {
  try {
    await promisify(execFile)('/bin/sh', ['-c', 'cd "$1"', 'sh', folder], { ...user, cwd: '/' });
    return true;
  } catch {
    return false;
  }
}
