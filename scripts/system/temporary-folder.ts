/** Temporary folders that disappear with this process, even when it is killed. */

import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { unwatchFolder, watchFolder } from './reaper-client.js';

/** Exists until it is removed, or until this process has ended. */
export interface TemporaryFolder {
  readonly path: string;
  /** Removes the folder and its contents. */
  remove(): Promise<void>;
}

/** Creates a temporary folder. Other users can traverse it, which PostgreSQL's user must, but not list it. */
export async function makeTemporaryFolder(): Promise<TemporaryFolder> {
  const path = await mkdtemp(join(tmpdir(), 'portcullis-'));
  watchFolder(path);
  await chmod(path, 0o711);
  return {
    path,
    async remove() {
      await rm(path, { recursive: true, force: true });
      unwatchFolder(path);
    },
  };
}
