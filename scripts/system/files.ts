/** Files of a data folder. */

import { randomUUID } from 'node:crypto';
import { access, mkdir, rename, stat, writeFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';

/** Writes a file that only its owner can read; the file has the old content or the new one, never a part. */
export async function writeAtomically(file: string, content: string): Promise<void> {
  const draft = `${file}.${randomUUID()}`;
  await writeFile(draft, content, { mode: 0o600 });
  await rename(draft, file);
}

export async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

/**
 * Creates a folder and those above it, unless they exist. Node's own `recursive` never returns where the file system says that
 * a parent is missing although it exists, such as in /proc.
 *
 * @returns whether something was created
 */
export async function makeFolder(named: string, mode: number): Promise<boolean> {
  const path = resolve(named);
  const make = async (): Promise<boolean> => {
    try {
      await mkdir(path, { mode });
      return true;
    } catch (error) {
      if (codeOf(error) === 'EEXIST' && (await stat(path)).isDirectory()) return false;
      throw error;
    }
  };
  try {
    return await make();
  } catch (error) {
    if (codeOf(error) !== 'ENOENT' || dirname(path) === path) throw error;
  }
  await makeFolder(dirname(path), mode);
  return await make();
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined;
}
