/** The files of the project: what is mutated, what tests it, and a copy in which both run. */

import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { copyCheckout, PROGRAM_PARTS } from '../shared/checkout.js';
import type { Source } from './instrument.js';
import { type Target, TESTS_LEFT_OUT } from './targets.js';

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

/** Copies a checkout with its tests. */
export async function copyProject(root: string, copy: string): Promise<void> {
  await copyCheckout(root, copy, [...PROGRAM_PARTS, 'test', 'docs']);
}
