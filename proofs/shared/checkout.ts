/** Copies of a checkout, in which programs run with other sources. */

import { cp, mkdir, readdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';

/** The parts of a checkout that programs need. */
export const PROGRAM_PARTS = [
  'package.json',
  'tsconfig.json',
  'tsconfig.build.json',
  'interceptors',
  'gate',
  'cli',
  'services',
  'scripts',
  'proofs',
  'proto',
];

/** Installed packages and compiled code; a build in progress, whose folder has a number, may vanish at any moment. */
const LEFT_OUT = /\/(?:node_modules|dist(?:\.\d+)?)$/;

/**
 * Copies the sources of a checkout. The copy uses the installed packages, but its own packages: the links of the workspace are
 * created again.
 */
export async function copyCheckout(
  root: string,
  copy: string,
  parts: readonly string[] = PROGRAM_PARTS,
): Promise<void> {
  for (const part of parts) {
    await cp(join(root, part), join(copy, part), {
      recursive: true,
      filter: (path) => !LEFT_OUT.test(path),
    });
  }
  const installed = join(root, 'node_modules');
  const modules = join(copy, 'node_modules');
  await mkdir(join(modules, '@portcullis'), { recursive: true });
  await symlink(join(copy, 'interceptors'), join(modules, '@portcullis', 'guard'));
  await symlink(join(copy, 'gate'), join(modules, '@portcullis', 'gate'));
  for (const name of await readdir(installed)) {
    if (name !== '@portcullis') await symlink(join(installed, name), join(modules, name));
  }
}
