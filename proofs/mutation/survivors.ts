/** The mutants that no test can kill, each with the reason; kept in `survivors.json` beside this file. */

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Mutant } from './instrument.js';

/** A mutant that behaves as the original does. */
interface Explained {
  readonly file: string;
  readonly mutator: string;
  readonly from: string;
  readonly to: string;
  /** Why no test can notice it. */
  readonly reason: string;
}

/** Finds the reason why a mutant cannot be killed. */
export interface Explanations {
  reasonFor(mutant: Mutant): string | undefined;
}

/** Reads the explanations of a checkout. */
export async function readExplanations(root: string): Promise<Explanations> {
  const file = join(root, 'proofs', 'mutation', 'survivors.json');
  const explained: readonly Explained[] = JSON.parse(await readFile(file, 'utf8'));
  const reasons = new Map(explained.map((one) => [keyOf(one), one.reason]));
  return { reasonFor: (mutant) => reasons.get(keyOf(mutant)) };
}

/** What identifies a mutant. Independent of the line, so that other changes of the file keep it. */
export function keyOf({ file, mutator, from, to }: Omit<Explained, 'reason'>): string {
  return JSON.stringify([file, mutator, from, to]);
}
