/**
 * `npm run generate`: generates TypeScript and the descriptor image from `proto/`, and the references of the API and of the
 * library, or checks that they are up to date.
 */

import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import { apiPages } from './reference/api.js';
import { cliPage } from './reference/cli.js';
import { libraryPage } from './reference/library.js';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const BUF = join(ROOT, 'node_modules', '.bin', 'buf');
const API_PAGES = join('docs', 'reference', 'api');
const LIBRARY_PAGE = join('docs', 'reference', 'library.md');
const CLI_PAGE = join('docs', 'reference', 'cli.md');
/** The folders with generated files only: code of the services, of the packages, which are independent, and pages. */
const GENERATED = [
  join('proto', 'gen'),
  join('interceptors', 'gen'),
  join('gate', 'gen'),
  join('cli', 'gen'),
  API_PAGES,
];
const LIBRARY_TEMPLATE = join('interceptors', 'buf.gen.yaml');
const GATE_TEMPLATE = join('gate', 'buf.gen.yaml');
const CLI_TEMPLATE = join('cli', 'buf.gen.yaml');
const IMAGE = join('proto', 'gen', 'image.binpb');
const BREAKING_RULES = JSON.stringify({ version: 'v2', breaking: { use: ['WIRE_JSON'] } });
const BASELINE = join('proto', 'baseline.binpb');

const { values: options } = parseArgs({
  options: {
    check: { type: 'boolean', default: false },
    baseline: { type: 'boolean', default: false },
  },
});

try {
  if (options.check && options.baseline) {
    throw new Error('--check and --baseline cannot be combined');
  }
  console.log(options.check ? 'Checking generated code …' : 'Running the generators …');
  await (options.baseline ? moveBaseline() : generateOrCheck());
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}

async function moveBaseline(): Promise<void> {
  await inScratchFolder(checkCompatibility);
  // An image, unlike a plain descriptor set, remembers which files are only imported; without that,
  // `buf breaking` would report the well-known types as deleted.
  await buf('build', '--exclude-source-info', '--output', BASELINE);
  console.log(`${BASELINE} now describes the current schema`);
}

async function generateOrCheck(): Promise<void> {
  await inScratchFolder(async (scratch) => {
    const fresh = await generate(scratch);
    const stale = await differences(fresh);
    if (!options.check) {
      await apply(fresh, stale);
    } else if (stale.length > 0) {
      throw new Error(['generated files are out of date; run `npm run generate`:', ...stale].join('\n  '));
    } else {
      await checkCompatibility(scratch);
    }
  });
}

async function inScratchFolder(work: (scratch: string) => Promise<void>): Promise<void> {
  const scratch = await mkdtemp(join(tmpdir(), 'portcullis-generate-'));
  try {
    await work(scratch);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/** Compares the schema with the baseline. The schema has two modules, and buf compares single images. */
async function checkCompatibility(scratch: string): Promise<void> {
  const image = join(scratch, 'schema.binpb');
  await buf('build', '--output', image);
  await buf('breaking', image, '--against', BASELINE, '--config', BREAKING_RULES);
}

/** Runs the generators with `scratch` as target; returns the files by their path in the repository. */
async function generate(scratch: string): Promise<Map<string, Buffer>> {
  for (const folder of GENERATED) await mkdir(join(scratch, folder), { recursive: true });
  const described = join(scratch, 'described.binpb');
  await Promise.all([
    buf('generate', '--output', scratch),
    buf('generate', '--template', LIBRARY_TEMPLATE, '--output', scratch),
    buf('generate', '--template', GATE_TEMPLATE, '--output', scratch),
    buf('generate', '--template', CLI_TEMPLATE, '--output', scratch),
    // Source info is comments and positions: with it, every changed comment would change the image.
    buf('build', '--as-file-descriptor-set', '--exclude-source-info', '--output', join(scratch, IMAGE)),
    buf('build', '--as-file-descriptor-set', '--output', described),
    writeFile(join(scratch, LIBRARY_PAGE), await libraryPage(join(ROOT, 'interceptors'))),
    writeFile(join(scratch, CLI_PAGE), cliPage()),
  ]);
  for (const [name, page] of apiPages(await readFile(described))) {
    await writeFile(join(scratch, API_PAGES, name), page);
  }
  return filesBelow(scratch);
}

/** The paths whose committed content differs from the generated one: changed, missing or left over. */
async function differences(fresh: ReadonlyMap<string, Buffer>): Promise<string[]> {
  const committed = await filesBelow(ROOT);
  const paths = new Set([...fresh.keys(), ...committed.keys()]);
  return [...paths].filter((path) => !sameBytes(fresh.get(path), committed.get(path))).sort();
}

function sameBytes(left: Buffer | undefined, right: Buffer | undefined): boolean {
  return left !== undefined && right !== undefined && left.equals(right);
}

async function apply(fresh: ReadonlyMap<string, Buffer>, stale: readonly string[]): Promise<void> {
  for (const path of stale) {
    const content = fresh.get(path);
    const target = join(ROOT, path);
    if (content === undefined) {
      await rm(target);
      console.log(`removed ${path}`);
    } else {
      await mkdir(dirname(target), { recursive: true });
      await writeFile(target, content);
      console.log(`wrote ${path}`);
    }
  }
  console.log(`${fresh.size} generated files are up to date`);
}

/** Every generated file below `base`, by its path relative to `base`. */
async function filesBelow(base: string): Promise<Map<string, Buffer>> {
  const files = new Map<string, Buffer>();
  for (const page of [LIBRARY_PAGE, CLI_PAGE]) {
    if (existsSync(join(base, page))) files.set(page, await readFile(join(base, page)));
  }
  for (const folder of GENERATED) {
    await mkdir(join(base, folder), { recursive: true });
    for (const entry of await readdir(join(base, folder), { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const path = join(entry.parentPath, entry.name);
      files.set(relative(base, path), await readFile(path));
    }
  }
  return files;
}

/** Runs buf in the repository's root. @throws Error with buf's output when it fails */
async function buf(...args: readonly string[]): Promise<void> {
  try {
    await promisify(execFile)(BUF, args, { cwd: ROOT });
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string };
    throw new Error(`buf ${args.join(' ')} failed\n${stdout}${stderr}`.trimEnd(), { cause: error });
  }
}
