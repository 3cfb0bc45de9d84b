/** Copies of the project's sources, for tests that disable a check and expect a program to detect it. */

import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { copyCheckout } from '../../proofs/shared/checkout.js';

/** The repository's root, with a slash at its end. */
export const PROJECT_FOLDER = fileURLToPath(new URL('../..', import.meta.url));

/** A line of a source file, and its replacement in a copy. */
export interface Replacement {
  /** Path from the repository's root. */
  readonly file: string;
  readonly from: string | RegExp;
  readonly to: string;
}

/**
 * Copies the project and replaces text in one file.
 *
 * @throws AssertionError when the file does not contain the text
 */
export async function copyProject(copy: string, { file, from, to }: Replacement): Promise<void> {
  await copyCheckout(PROJECT_FOLDER, copy);
  const path = join(copy, file);
  const source = await readFile(path, 'utf8');
  const changed = source.replace(from, () => to);
  expect(changed, `${file} has nothing to replace`).to.not.equal(source);
  await writeFile(path, changed);
}
