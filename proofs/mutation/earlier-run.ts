/** An earlier run, of which only the survivors are run again: tests that were added since can only kill more. */

import { readFile } from 'node:fs/promises';
import type { Mutant, Source } from './instrument.js';
import { type Findings, hasChanged, type Score } from './scores.js';
import { keyOf } from './survivors.js';

/** What an earlier run has found. */
export interface EarlierRun {
  /** The score of a file that has not changed since, if all of its mutants were run. */
  scoreOf(source: Source): Score | undefined;
  hasSurvivor(mutant: Mutant): boolean;
}

/** Reads the figures of an earlier run. Mutants are compared without their lines. */
export async function readEarlierRun(figures: string): Promise<EarlierRun> {
  const { unexplained, scores, unfinished }: Findings = JSON.parse(await readFile(figures, 'utf8'));
  const keys = new Set(unexplained.map(keyOf));
  return {
    scoreOf: ({ file, text }) => {
      const score = scores[file];
      return unfinished.includes(file) || hasChanged(score, text) ? undefined : score;
    },
    hasSurvivor: (mutant) => keys.has(keyOf(mutant)),
  };
}
