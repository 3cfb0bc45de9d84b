/** Turns `proto/` into TypeScript and the descriptor image, or tells which of the committed results are out of date. */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const BUF = join(ROOT, 'node_modules', '.bin', 'buf');
/** Where generated code stands: that of the services, and that of the library, which must stand alone. */
const GENERATED = [join('proto', 'gen'), join('interceptors', 'gen')];
const LIBRARY_TEMPLATE = join('interceptors', 'buf.gen.yaml');
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
    throw new Error('--check and --baseline exclude each other');
  }
  await (options.baseline ? moveBaseline() : generateOrCheck());
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}

async function moveBaseline(): Promise<void> {
  await inScratchFolder(refuseBreakingChanges);
  // An image, unlike a plain descriptor set, remembers which files are only imported; without that,
  // `buf breaking` would report the well-known types as deleted.
  await buf('build', '--exclude-source-info', '--output', BASELINE);
  console.log(`${BASELINE} now describes the schema as it is`);
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
      await refuseBreakingChanges(scratch);
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

/** Compares the schema with the baseline. buf compares one image with one image, and the schema has two modules. */
async function refuseBreakingChanges(scratch: string): Promise<void> {
  const image = join(scratch, 'schema.binpb');
  await buf('build', '--output', image);
  await buf('breaking', image, '--against', BASELINE, '--config', BREAKING_RULES);
}

/** Runs the generators into `scratch`, and returns what they wrote by its path in the repository. */
async function generate(scratch: string): Promise<Map<string, Buffer>> {
  for (const folder of GENERATED) await mkdir(join(scratch, folder), { recursive: true });
  await Promise.all([
    buf('generate', '--output', scratch),
    buf('generate', '--template', LIBRARY_TEMPLATE, '--output', scratch),
    // Source info is comments and positions: it would make the image change with every comment.
    buf('build', '--as-file-descriptor-set', '--exclude-source-info', '--output', join(scratch, IMAGE)),
  ]);
  return filesBelow(scratch);
}

/** The paths whose committed content is not what the generators write: changed, missing or left over. */
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

/** Runs buf in the repository's root; throws what it printed when it fails. */
async function buf(...args: readonly string[]): Promise<void> {
  try {
    await promisify(execFile)(BUF, args, { cwd: ROOT });
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string };
    throw new Error(`buf ${args.join(' ')} failed\n${stdout}${stderr}`.trimEnd(), { cause: error });
  }
}
