/** Runs `npm run drill` in this project, or in a copy of it with a guard removed. */

import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { runProgram } from '../../support/programs.js';
import { copyProject, PROJECT_FOLDER } from '../../support/project-copy.js';

/** The exit code and the output of a drill. */
export interface Drilled<Figures> {
  readonly code: number | null;
  readonly output: string;
  readonly figures: Figures;
}

/** Runs a drill with these flags, its temporary files in a folder of the test's. */
export async function runDrill<Figures>(
  cwd: string,
  temporary: string,
  flags: readonly string[],
): Promise<Drilled<Figures>> {
  await mkdir(temporary, { recursive: true, mode: 0o711 });
  const json = join(temporary, 'figures.json');
  const words = ['proofs/drill/main', '--json', json, ...flags];
  const { code, stdout } = await runProgram(words, { cwd, env: { TMPDIR: temporary } });
  return { code, output: stdout, figures: JSON.parse(await readFile(json, 'utf8')) as Figures };
}

/** Copies the project and replaces one line of one file, which must contain that line exactly once. */
export async function copyWithout(
  copy: string,
  guard: { readonly file: string; readonly line: string; readonly instead: string },
): Promise<string> {
  const source = await readFile(join(PROJECT_FOLDER, guard.file), 'utf8');
  expect(source.split(guard.line)).to.have.lengthOf(2);
  await copyProject(copy, { file: guard.file, from: guard.line, to: guard.instead });
  return copy;
}
