/** Files of a data folder. */

import { randomUUID } from 'node:crypto';
import { access, rename, writeFile } from 'node:fs/promises';

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
