/** The condition table of the issuer as data: each row has the number of the row in docs/spec/revocation-v1.md. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { SPECIFICATION_FOLDER } from './vectors.js';

/** Maximum number of entries in one response. */
const ENTRIES_MAX = 1000;

/** Digits of an id. */
const ID_DIGITS = 32;

/** What an issuer knows when it answers. */
export interface LogStep {
  readonly epoch: string;
  readonly head: number;
  /** The ids of the last entries of the log, by sequence, that have not left it. */
  readonly entry_ids: Readonly<Record<string, string>>;
  /** Epochs that are over, and epochs whose loss was found after `epoch` was opened. Others are unknown. */
  readonly other_epochs: Readonly<Record<string, 'OVER' | 'LOST'>>;
}

/** The position of an instance. */
export interface PositionStep {
  readonly epoch: string;
  readonly applied: number;
  readonly entry_id_at_applied: string;
  /** Missing when the instance holds no entries beyond `applied`. */
  readonly held_to?: number;
  readonly held_digest?: string;
}

/** The answer: the sequences of its entries, from one to another; none when the first is larger. */
export type AnswerStep = 'pull' | 'LOG_CHANGED' | { readonly entries: readonly [from: number, to: number] };

/** An answer that an issuer must give. */
export interface IssuerVector {
  readonly name: string;
  /** The row that decides. */
  readonly row: string;
  readonly log: LogStep;
  readonly request: PositionStep;
  readonly expect: AnswerStep;
}

interface Row {
  readonly id: string;
  readonly when: (log: LogStep, request: PositionStep, from: number) => boolean;
  readonly answer: (log: LogStep, request: PositionStep, from: number) => AnswerStep;
}

const pull = (): AnswerStep => 'pull';
const changed = (): AnswerStep => 'LOG_CHANGED';

/** I0 says from where on the instance lacks entries. */
export const LACKING = 'I0';

/** The sequence after which the instance lacks entries. */
function fromOf(log: LogStep, request: PositionStep): number {
  const { applied, held_to = 0, held_digest = '' } = request;
  if (held_to <= applied || held_to > log.head) return applied;
  let digest = 0n;
  for (let sequence = applied + 1; sequence <= held_to; sequence += 1) {
    digest ^= BigInt(`0x${log.entry_ids[sequence] ?? 0}`);
  }
  return digest.toString(16).padStart(ID_DIGITS, '0') === held_digest ? held_to : applied;
}

/** The rows, of which the first whose condition holds decides. */
export const ISSUER_ROWS: readonly Row[] = [
  { id: 'I1', when: (_, { epoch }) => epoch === '', answer: pull },
  {
    id: 'I2',
    when: (log, { epoch }) => epoch !== log.epoch && log.other_epochs[epoch] === 'OVER',
    answer: pull,
  },
  { id: 'I3', when: (log, { epoch }) => epoch !== log.epoch, answer: changed },
  { id: 'I4', when: (log, { applied }) => applied > log.head, answer: changed },
  {
    id: 'I5',
    when: (log, { applied }) => applied > 0 && log.entry_ids[applied] === undefined,
    answer: pull,
  },
  {
    id: 'I6',
    when: (log, { applied, entry_id_at_applied }) =>
      applied > 0 && log.entry_ids[applied] !== entry_id_at_applied,
    answer: changed,
  },
  { id: 'I7', when: (log, _, from) => log.head - from > ENTRIES_MAX, answer: pull },
  { id: 'I8', when: () => true, answer: (log, _, from) => ({ entries: [from + 1, log.head] }) },
];

/** The answer of the table. @param without - a row that is left out */
export function issuerAnswer(log: LogStep, request: PositionStep, without?: string): AnswerStep | undefined {
  const from = without === LACKING ? request.applied : fromOf(log, request);
  const row = ISSUER_ROWS.find(({ id, when }) => id !== without && when(log, request, from));
  return row?.answer(log, request, from);
}

/** The vectors of an issuer. @throws Error when the file is of another version */
export function readIssuerVectors(): readonly IssuerVector[] {
  const text = readFileSync(join(SPECIFICATION_FOLDER, 'vectors', 'issuer.json'), 'utf8');
  const { version, vectors } = JSON.parse(text) as { version: number; vectors: readonly IssuerVector[] };
  if (version !== 1) throw new Error(`expected vectors of version 1, got ${version}`);
  return vectors;
}
