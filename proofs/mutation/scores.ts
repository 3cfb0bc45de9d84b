/** The scores of files: how many of a file's mutants the tests notice, kept in `scores.json` beside this file. */

import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { tableText } from '../shared/reporting.js';
import type { Mutant, Source } from './instrument.js';
import type { Fate, Outcome } from './run.js';
import type { Explanations } from './survivors.js';

/** The score that each file must reach, in percent. */
const SCORE_MIN = 95;
const CODE_SHOWN_MAX = 200;

/** The score of one file. */
export interface Score {
  /** SHA-256 of the file's text. */
  readonly sha256: string;
  readonly mutants: number;
  readonly killed: number;
  /** Survivors with a reason why no test can kill them. */
  readonly explained: number;
}

/** Scores by file. */
export type Scores = Readonly<Record<string, Score>>;

/** A run of all targets. */
export interface Run {
  readonly sources: readonly Source[];
  readonly outcomes: readonly Outcome[];
  /** The mutants that were not run. */
  readonly left: readonly Mutant[];
  /** By file, the score in an earlier run, of which only the survivors were run again. */
  readonly earlier: ReadonlyMap<string, Score>;
}

/** A run, counted. */
export interface Findings {
  readonly scores: Scores;
  /** Survivors without a reason. */
  readonly unexplained: readonly (Mutant & { readonly fate: Fate })[];
  /** Files that still have mutants to run. */
  readonly unfinished: readonly string[];
  readonly left: number;
}

export function findingsOf({ sources, outcomes, left, earlier }: Run, explanations: Explanations): Findings {
  const survivors = outcomes.filter(({ fate }) => fate !== 'killed');
  const unexplained = survivors.filter(({ mutant }) => explanations.reasonFor(mutant) === undefined);
  const countIn = (file: string, list: readonly Outcome[]): number =>
    list.filter(({ mutant }) => mutant.file === file).length;
  const scores = sources.map(({ file, text }): [string, Score] => {
    const former = earlier.get(file);
    const mutants = former?.mutants ?? countIn(file, outcomes);
    const surviving = countIn(file, unexplained);
    const explained = (former?.explained ?? 0) + countIn(file, survivors) - surviving;
    return [file, { sha256: hashOf(text), mutants, killed: mutants - explained - surviving, explained }];
  });
  return {
    scores: Object.fromEntries(scores),
    unexplained: unexplained.map(({ mutant, fate }) => ({ ...mutant, fate })),
    unfinished: [...new Set(left.map(({ file }) => file))],
    left: left.length,
  };
}

/** Whether every file reaches the score, and every survivor has a reason. */
export function isGood({ scores, unexplained }: Findings): boolean {
  return unexplained.length === 0 && Object.values(scores).every((score) => percentOf(score) >= SCORE_MIN);
}

/** The scores as a table, and the survivors without a reason with their code. */
export function textOf({ scores, unexplained, left }: Findings): string {
  const rows = Object.entries(scores).map(([file, score]) => rowOf(file, score));
  const sum = (read: (score: Score) => number): number =>
    Object.values(scores).reduce((total, score) => total + read(score), 0);
  const all = {
    sha256: '',
    mutants: sum(({ mutants }) => mutants),
    killed: sum(({ killed }) => killed),
    explained: sum(({ explained }) => explained),
  };
  const head = ['file', 'mutants', 'killed', 'explained', 'score'];
  return [
    tableText([head, ...rows, rowOf('all', all)]),
    ...unexplained.map(({ file, line, mutator, from, to, fate }) =>
      [
        `${file}:${line} ${fate} (${mutator})`,
        `  - ${from.slice(0, CODE_SHOWN_MAX)}`,
        `  + ${to.slice(0, CODE_SHOWN_MAX)}`,
      ].join('\n'),
    ),
    ...(left === 0 ? [] : [`${left} mutants were not run.`]),
  ].join('\n\n');
}

function rowOf(file: string, score: Score): string[] {
  const { mutants, killed, explained } = score;
  return [file, String(mutants), String(killed), String(explained), `${percentOf(score).toFixed(1)} %`];
}

/** The share of killed mutants among those that can be killed. */
function percentOf({ mutants, killed, explained }: Score): number {
  return mutants === explained ? 100 : (100 * killed) / (mutants - explained);
}

/** Reads the scores that a checkout records. */
export async function readScores(root: string): Promise<Scores> {
  return JSON.parse(await readFile(fileIn(root), 'utf8'));
}

/** Records the scores of the files whose mutants were all run. */
export async function recordScores(root: string, { scores, unfinished }: Findings): Promise<void> {
  const complete = Object.entries(scores).filter(([file]) => !unfinished.includes(file));
  const all = Object.entries({ ...(await readScores(root)), ...Object.fromEntries(complete) });
  const sorted = Object.fromEntries(all.sort(([a], [b]) => (a < b ? -1 : 1)));
  await writeFile(fileIn(root), `${JSON.stringify(sorted, null, 2)}\n`);
}

/** Whether a file with a score has changed since it was recorded. */
export function hasChanged(score: Score | undefined, text: string): boolean {
  return score !== undefined && score.sha256 !== hashOf(text);
}

function hashOf(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

function fileIn(root: string): string {
  return join(root, 'proofs', 'mutation', 'scores.json');
}
