/** Temporary folders for tests that start no process. */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A folder for one test's files. */
export interface TestFolder {
  readonly path: string;
  /** Removes the folder and its contents. */
  remove(): Promise<void>;
}

/**
 * Creates a folder. A test that starts programs or servers uses `makeTemporaryFolder` of scripts/system instead, whose
 * folders disappear even when the run is killed.
 */
export async function makeFolder(): Promise<TestFolder> {
  const path = await mkdtemp(join(tmpdir(), 'portcullis-test-'));
  return { path, remove: () => rm(path, { recursive: true, force: true }) };
}
