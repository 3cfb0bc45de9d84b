/** The files of the project: what is mutated, what tests it, and a copy in which both run. */

import { cp, mkdir, readdir, readFile, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { Source } from './instrument.js';
import { type Target, TESTS_LEFT_OUT } from './targets.js';

/** The parts of a checkout that a run needs. */
const PARTS = [
  'package.json',
  'tsconfig.json',
  'tsconfig.build.json',
  'interceptors',
  'services',
  'scripts',
  'proofs',
  'proto',
  'test',
];

/** Reads the files of a target. */
export async function sourcesOf(root: string, { sources }: Target): Promise<Source[]> {
  const files = (await Promise.all(sources.map((place) => filesIn(root, place, '.ts')))).flat();
  return await Promise.all(
    files.map(async (file) => ({ file, text: await readFile(join(root, file), 'utf8') })),
  );
}

/** The test files of a target. */
export async function testsOf(root: string, { tests }: Target): Promise<string[]> {
  const files = (await Promise.all(tests.map((place) => filesIn(root, place, '.test.ts')))).flat();
  return files.filter((file) => !TESTS_LEFT_OUT.includes(file));
}

async function filesIn(root: string, place: string, ending: string): Promise<string[]> {
  if (!place.endsWith('/')) return [place];
  const names = await readdir(join(root, place), { recursive: true });
  return names
    .filter((name) => name.endsWith(ending))
    .map((name) => `${place}${name}`)
    .sort();
}

/** Copies a checkout; the copy uses the installed packages, but its own library. */
export async function copyProject(root: string, copy: string): Promise<void> {
  for (const part of PARTS) {
    await cp(join(root, part), join(copy, part), {
      recursive: true,
      filter: (path) => !path.endsWith('/node_modules') && !path.endsWith('/dist'),
    });
  }
  const modules = join(copy, 'node_modules');
  await mkdir(join(modules, '@portcullis'), { recursive: true });
  await symlink(join(copy, 'interceptors'), join(modules, '@portcullis', 'guard'));
  for (const name of await readdir(join(root, 'node_modules'))) {
    if (name !== '@portcullis') await symlink(join(root, 'node_modules', name), join(modules, name));
  }
}
