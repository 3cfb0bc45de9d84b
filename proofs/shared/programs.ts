/** Programs of others that proofs run: taken from this machine, or fetched from their registries. What cannot be had is named. */

import { execFile } from 'node:child_process';
import { access, mkdir } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { PROJECT_FOLDER } from '../../scripts/system/project.js';

const run = promisify(execFile);

/** How long fetching and building one program may take, in milliseconds. */
const FETCH_TIMEOUT_MS = 900_000;
const OUTPUT_BYTES_MAX = 16 * 1024 * 1024;

/** Where fetched programs stay for the next run. */
export const CACHE = join(PROJECT_FOLDER, '.portcullis', 'interop');

/** A program, or why there is none. */
export type Peer<Value> =
  | { readonly name: string; readonly had: true; readonly value: Value; readonly version: string }
  | { readonly name: string; readonly had: false; readonly why: string };

/** Tries to get a program. */
export async function obtain<Value>(
  name: string,
  get: () => Promise<{ readonly value: Value; readonly version: string }>,
): Promise<Peer<Value>> {
  try {
    return { name, had: true, ...(await get()) };
  } catch (error) {
    return { name, had: false, why: lastLineOf(error) };
  }
}

function lastLineOf(error: unknown): string {
  const { stderr = '', message = String(error) } = error as { stderr?: string; message?: string };
  const lines = stderr
    .trim()
    .split('\n')
    .filter((line) => line !== '');
  return lines.at(-1) ?? message.split('\n')[0] ?? '';
}

/** The Python of a virtual environment with these packages. */
export async function venv(name: string, packages: readonly string[]): Promise<string> {
  const folder = join(CACHE, name);
  const python = join(folder, 'bin', 'python');
  if (!(await exists(join(folder, 'complete')))) {
    await mkdir(CACHE, { recursive: true });
    await exec('python3', ['-m', 'venv', folder]);
    await exec(python, ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', ...packages]);
    await exec('touch', [join(folder, 'complete')]);
  }
  return python;
}

/** The path of a program of this machine. */
export async function onPath(name: string): Promise<string | undefined> {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin'];
  for (const folder of folders) {
    const program = join(folder, name);
    if (await exists(program)) return program;
  }
  return undefined;
}

export async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

/** Runs a program to its end. @throws Error with its output when it fails */
export async function exec(
  program: string,
  words: readonly string[],
  cwd = PROJECT_FOLDER,
  environment: NodeJS.ProcessEnv = {},
  signal?: AbortSignal,
): Promise<{ stdout: string; stderr: string }> {
  return await run(program, words, {
    cwd,
    timeout: FETCH_TIMEOUT_MS,
    maxBuffer: OUTPUT_BYTES_MAX,
    env: { ...process.env, ...environment },
    ...(signal !== undefined && { signal }),
  });
}
