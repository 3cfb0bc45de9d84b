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
  readonly definitions: readonly string[];
}

const EPOCH: World = { name: 'epoch and key set', definitions: [] };
const RESTORE: World = {
  name: 'restore',
  definitions: ['ENTRIES=2', 'EPOCHS=0', 'KEY_CHANGES=0', 'RESTORES=1', 'REQUESTS=1'],
};
const FOREIGN: World = { name: 'other issuer', definitions: ['FOREIGN', 'KEY_CHANGES=0'] };

/** What the model is searched for: each rule is left out in a world where that must show. */
export const SEARCHES: readonly { readonly world: World; readonly without: string | undefined }[] = [
  { world: EPOCH, without: undefined },
  { world: RESTORE, without: undefined },
  { world: FOREIGN, without: undefined },
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
];

/** The result of a search. */
export interface SearchResult {
  readonly states: number;
  /** A revoked token was admitted too late. */
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
    await copyFile(join(SPECIFICATION_FOLDER, 'revocation-v1.pml'), join(folder, 'model.pml'));
    const guard = without === undefined ? [] : [`WITHOUT_${without}`];
    const definitions = [...world.definitions, ...guard].map((definition) => `-D${definition}`);
    await run('spin', [...definitions, '-a', 'model.pml'], { cwd: folder });
    await run('gcc', ['-O2', '-w', '-DSAFETY', '-o', 'pan', 'pan.c'], { cwd: folder });
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
