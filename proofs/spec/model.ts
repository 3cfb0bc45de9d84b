/** Runs the Spin model of the specification: as it is, and without one rule at a time. */

import { execFile } from 'node:child_process';
import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { SPECIFICATION_FOLDER } from './vectors.js';

const run = promisify(execFile);

/** Longest time for one search, in milliseconds. */
const SEARCH_MS = 300_000;
/** The longest path of a search, in events. */
const DEPTH = 1_000_000;
/** The size of Spin's hash table, as a power of two. */
const TABLE_BITS = 22;

/** A world of the model, by its definitions. */
interface World {
  readonly name: string;
  /** The file of the model, below docs/spec. */
  readonly file: string;
  readonly definitions: readonly string[];
}

const LIST_MODEL = 'revocation-v1.pml';
const EPOCH: World = { name: 'epoch and key set', file: LIST_MODEL, definitions: [] };
const RESTORE: World = {
  name: 'restore',
  file: LIST_MODEL,
  definitions: ['ENTRIES=2', 'EPOCHS=0', 'KEY_CHANGES=0', 'RESTORES=1', 'REQUESTS=1'],
};
const FOREIGN: World = {
  name: 'other issuer',
  file: LIST_MODEL,
  definitions: ['FOREIGN', 'KEY_CHANGES=0'],
};
const FENCED: World = { name: 'fence', file: 'revocation-v1-fence.pml', definitions: [] };

/** What the model is searched for: each rule is left out in a world where that must show. */
export const SEARCHES: readonly { readonly world: World; readonly without: string | undefined }[] = [
  { world: EPOCH, without: undefined },
  { world: RESTORE, without: undefined },
  { world: FOREIGN, without: undefined },
  { world: FENCED, without: undefined },
  { world: EPOCH, without: 'LEASE' },
  { world: EPOCH, without: 'LEASE_START' },
  { world: EPOCH, without: 'SAME_LIST' },
  { world: EPOCH, without: 'HYDRATION' },
  { world: EPOCH, without: 'MERGED_PULL' },
  { world: FOREIGN, without: 'EPOCH_ENDS_LEASE' },
  { world: RESTORE, without: 'APPLIED' },
  { world: RESTORE, without: 'ENTRY_ID' },
  { world: RESTORE, without: 'DIGEST' },
  { world: RESTORE, without: 'FENCE' },
  { world: FENCED, without: 'FENCE_LOCK' },
  { world: FENCED, without: 'FENCE_LATEST' },
  { world: FENCED, without: 'FENCE_POSITION' },
  { world: FENCED, without: 'FENCE_EPOCH' },
  { world: FENCED, without: 'FENCE_LIST' },
  { world: FENCED, without: 'FENCE_APPLIED' },
  { world: FENCED, without: 'FENCE_RISES' },
  { world: FENCED, without: 'FENCE_COMMIT' },
  { world: FENCED, without: 'FENCE_REPORTED_EPOCH' },
];

/** The result of a search. */
export interface SearchResult {
  readonly states: number;
  /** A revoked token was admitted, or work of it was committed, too late. */
  readonly violated: boolean;
  readonly seconds: number;
}

/** Whether Spin and a C compiler are installed. @returns what is missing */
export async function missingTools(): Promise<readonly string[]> {
  const missing: string[] = [];
  for (const [tool, argument] of [
    ['spin', '-V'],
    ['gcc', '--version'],
  ] as const) {
    await run(tool, [argument]).catch(() => missing.push(tool));
  }
  return missing;
}

/**
 * Searches the model.
 *
 * @throws Error when the model does not compile, or when the search was not complete and found nothing
 */
export async function searchModel({ world, without }: (typeof SEARCHES)[number]): Promise<SearchResult> {
  const folder = await mkdtemp(join(tmpdir(), 'portcullis-spin-'));
  const startedMs = performance.now();
  try {
    await copyFile(join(SPECIFICATION_FOLDER, world.file), join(folder, 'model.pml'));
    const guard = without === undefined ? [] : [`WITHOUT_${without}`];
    const definitions = [...world.definitions, ...guard].map((definition) => `-D${definition}`);
    await run('spin', [...definitions, '-a', 'model.pml'], { cwd: folder });
    // Compiling takes longer than a search that ends with a violation.
    const optimization = without === undefined ? '-O2' : '-O0';
    await run('gcc', [optimization, '-w', '-DSAFETY', '-o', 'pan', 'pan.c'], { cwd: folder });
    const { stdout } = await run(join(folder, 'pan'), [`-m${DEPTH}`, `-w${TABLE_BITS}`], {
      cwd: folder,
      timeout: SEARCH_MS,
    });
    const states = Number(/(\d+) states, stored/.exec(stdout)?.[1] ?? Number.NaN);
    const violated = stdout.includes('assertion violated');
    const isComplete = /errors: \d+/.test(stdout) && !stdout.includes('max search depth too small');
    if (!Number.isFinite(states) || (!violated && !isComplete)) {
      throw new Error(`the search of the model is not complete:\n${stdout}`);
    }
    return { states, violated, seconds: (performance.now() - startedMs) / 1000 };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
