/** The package as npm would publish it: packed, packed again elsewhere, and checked. */

import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cp, mkdir, readFile, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { publint } from 'publint';
import { formatMessage } from 'publint/utils';
import { PROJECT_FOLDER } from '../../scripts/system/project.js';

const run = promisify(execFile);

const LIBRARY = join(PROJECT_FOLDER, 'interceptors');
const GATE = join(PROJECT_FOLDER, 'gate');
const COMMAND_LINE = join(PROJECT_FOLDER, 'cli');

/** What the library is compiled from, beside the settings in the project's folder. */
const SOURCES = ['src', 'gen', 'proto', 'package.json', 'tsconfig.build.json', 'README.md', 'LICENSE'];

/** How far the sizes in the README may be from those of the tarball, as a share of the latter. */
const SIZE_DEVIATION_MAX = 0.1;

const BYTES_PER_MB = 1_000_000;

/** Maximum size of what the linters print, in bytes. */
const OUTPUT_BYTES_MAX = 16 * 1024 * 1024;

/** A packed package. */
export interface Tarball {
  readonly file: string;
  readonly sha256: string;
  /** Size of the tarball, in bytes. */
  readonly bytes: number;
  /** Size of its content, in bytes. */
  readonly unpackedBytes: number;
  /** Number of files. */
  readonly files: number;
}

/** Packs the library as it is compiled in this project. */
export function packHere(folder: string): Promise<Tarball> {
  return pack(LIBRARY, folder);
}

/** Packs the gate as it is compiled in this project. */
export function packGate(folder: string): Promise<Tarball> {
  return pack(GATE, folder);
}

/** Packs the command line as it is compiled in this project. */
export function packCommandLine(folder: string): Promise<Tarball> {
  return pack(COMMAND_LINE, folder);
}

/** Packs the system as it is compiled in this project, whose root is its package. */
export function packSystem(folder: string): Promise<Tarball> {
  return pack(PROJECT_FOLDER, folder);
}

/** Compiles a copy of the sources in another folder, and packs it. */
export async function packElsewhere(folder: string): Promise<Tarball> {
  const copy = join(folder, 'elsewhere');
  const library = join(copy, 'library');
  await mkdir(library, { recursive: true });
  await cp(join(PROJECT_FOLDER, 'tsconfig.json'), join(copy, 'tsconfig.json'));
  for (const name of SOURCES) await cp(join(LIBRARY, name), join(library, name), { recursive: true });
  await symlink(join(PROJECT_FOLDER, 'node_modules'), join(copy, 'node_modules'));
  const compiler = join(PROJECT_FOLDER, 'node_modules', 'typescript', 'bin', 'tsc');
  await run(process.execPath, [compiler, '--project', 'tsconfig.build.json'], { cwd: library });
  return await pack(library, copy);
}

async function pack(library: string, folder: string): Promise<Tarball> {
  const words = ['pack', '--json', '--ignore-scripts', '--pack-destination', folder];
  const { stdout } = await run('npm', words, { cwd: library, maxBuffer: OUTPUT_BYTES_MAX });
  const [packed] = JSON.parse(stdout) as [
    { filename: string; size: number; unpackedSize: number; entryCount: number },
  ];
  const file = join(folder, packed.filename);
  const sha256 = createHash('sha256')
    .update(await readFile(file))
    .digest('hex');
  return {
    file,
    sha256,
    bytes: packed.size,
    unpackedBytes: packed.unpackedSize,
    files: packed.entryCount,
  };
}

/** The sizes in the README of the library that differ from those of the tarball; each line is a fault. */
export async function sizeFaults({ bytes, unpackedBytes }: Tarball): Promise<string[]> {
  const readme = await readFile(join(LIBRARY, 'README.md'), 'utf8');
  const stated = /tarball has ([\d.]+) MB \(([\d.]+) MB unpacked/.exec(readme)?.slice(1).map(Number);
  if (stated === undefined) return ['interceptors/README.md does not state the sizes of the tarball'];
  return [bytes, unpackedBytes].flatMap((actual, index) => {
    const actualMb = actual / BYTES_PER_MB;
    const statedMb = stated[index] ?? Number.NaN;
    return Math.abs(statedMb - actualMb) <= actualMb * SIZE_DEVIATION_MAX
      ? []
      : [`interceptors/README.md states ${statedMb} MB, and the tarball has ${actualMb.toFixed(1)} MB`];
  });
}

/** What publint finds in the package; each line is a fault. */
export async function publintFaults(): Promise<string[]> {
  const { messages, pkg } = await publint({ pkgDir: LIBRARY, strict: true, pack: 'npm' });
  return messages.map((message) => formatMessage(message, pkg) ?? message.code);
}

/** What @arethetypeswrong/cli finds in the tarball: types that do not resolve to what runs. */
export async function typeFaults({ file }: Tarball): Promise<string[]> {
  const program = join(PROJECT_FOLDER, 'node_modules', '.bin', 'attw');
  // The package is ESM only: CommonJS can load it by import() alone.
  const words = [file, '--profile', 'esm-only', '--format', 'json'];
  const { stdout } = await run(program, words, { maxBuffer: OUTPUT_BYTES_MAX }).catch((error: unknown) => {
    if (error instanceof Error && 'stdout' in error) return { stdout: String(error.stdout) };
    throw error;
  });
  const { problems = {} } = JSON.parse(stdout) as { problems?: Record<string, unknown[]> };
  return Object.entries(problems)
    .filter(([name]) => !ABOUT_COMMONJS.has(name))
    .map(([name, found]) => `${name}: ${JSON.stringify(found)}`);
}

const ABOUT_COMMONJS: ReadonlySet<string> = new Set(['CJSResolvesToESM', 'NoResolution']);
