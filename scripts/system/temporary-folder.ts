/** Temporary folders that go away with us, even when we are killed. */

import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { unwatchFolder, watchFolder } from './reaper-client.js';

/** A folder that is there until it is removed, or until our process has ended. */
export interface TemporaryFolder {
  readonly path: string;
  /** Removes it with all that it holds. */
  remove(): Promise<void>;
}

/** Makes a temporary folder; others may pass through it, as PostgreSQL's user must, but not list it. */
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
