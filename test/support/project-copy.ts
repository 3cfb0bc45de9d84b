/** Copies of the project's sources, for tests that disable a check and expect a program to detect it. */

import { cp, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';

/** The repository's root, with a slash at its end. */
export const PROJECT_FOLDER = fileURLToPath(new URL('../..', import.meta.url));

const PARTS = [
  'package.json',
  'tsconfig.json',
  'tsconfig.build.json',
  'interceptors',
  'services',
  'scripts',
  'proofs',
  'proto',
];

/** A line of a source file, and its replacement in a copy. */
export interface Replacement {
  /** Path from the repository's root. */
  readonly file: string;
  readonly from: string | RegExp;
  readonly to: string;
}

/**
 * Copies the project and replaces text in one file. The copy uses the installed packages, but its own library: the
 * link of the workspace is created again.
 *
 * @throws AssertionError when the file does not contain the text
 */
export async function copyProject(copy: string, { file, from, to }: Replacement): Promise<void> {
  for (const part of PARTS) await cp(join(PROJECT_FOLDER, part), join(copy, part), { recursive: true });
  await linkPackages(copy);
  const path = join(copy, file);
  const source = await readFile(path, 'utf8');
  const changed = source.replace(from, () => to);
  expect(changed, `${file} has nothing to replace`).to.not.equal(source);
  await writeFile(path, changed);
}

async function linkPackages(copy: string): Promise<void> {
  const installed = join(PROJECT_FOLDER, 'node_modules');
  const modules = join(copy, 'node_modules');
  await mkdir(join(modules, '@portcullis'), { recursive: true });
  await symlink(join(copy, 'interceptors'), join(modules, '@portcullis', 'guard'));
  for (const name of await readdir(installed)) {
    if (name !== '@portcullis') await symlink(join(installed, name), join(modules, name));
  }
}
