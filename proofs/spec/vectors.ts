/** Reads the vectors of the specification: it fills in what they abbreviate. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT_FOLDER } from '../../scripts/system/project.js';
import type { BroadcastResult, EntryStep, PartResult, PartStep, ResponseStep, Step } from './steps.js';

/** A sequence of steps of a new instance. */
export interface Vector {
  readonly name: string;
  /** Rows of the specification: without one of them, the vector fails. */
  readonly rows: readonly string[];
  readonly listMax: number | undefined;
  readonly steps: readonly Step[];
}

/** The sequences from one number to another. */
type Numbered = readonly [from: number, to: number];

/** The steps that stand for others. */
type Abbreviated =
  | Step
  | { readonly do: 'pull'; readonly parts: readonly PartStep[]; readonly expect: PartResult }
  | {
      readonly do: 'broadcast';
      readonly epoch: string;
      readonly numbered: Numbered;
      readonly expect: BroadcastResult;
    };

interface VectorFile {
  readonly version: number;
  readonly defaults: { readonly response: ResponseStep; readonly entry: Partial<EntryStep> };
  readonly openings: Readonly<Record<string, readonly Abbreviated[]>>;
  readonly vectors: readonly {
    readonly name: string;
    readonly rows: readonly string[];
    readonly list_entries_max?: number;
    readonly after?: string;
    readonly steps: readonly Abbreviated[];
  }[];
}

/** Digits of an id. */
const ID_DIGITS = 32;

/** The folder of the specification. */
export const SPECIFICATION_FOLDER = join(PROJECT_FOLDER, 'docs', 'spec');

/** The vectors of an instance. @throws Error when the file is of another version */
export function readVectors(): readonly Vector[] {
  const text = readFileSync(join(SPECIFICATION_FOLDER, 'vectors', 'feed.json'), 'utf8');
  const { version, defaults, openings, vectors } = JSON.parse(text) as VectorFile;
  if (version !== 1) throw new Error(`expected vectors of version 1, got ${version}`);
  const complete = (step: Abbreviated): readonly Step[] => stepsOf(step, defaults);
  return vectors.map(({ name, rows, list_entries_max, after, steps }) => ({
    name,
    rows,
    listMax: list_entries_max,
    steps: [...(after === undefined ? [] : (openings[after] ?? [])), ...steps].flatMap(complete),
  }));
}

function stepsOf(step: Abbreviated, defaults: VectorFile['defaults']): readonly Step[] {
  const entryOf = (entry: Partial<EntryStep>): EntryStep => ({ ...defaults.entry, ...entry }) as EntryStep;
  const partOf = (part: PartStep): PartStep =>
    part.entries === undefined ? part : { entries: part.entries.map(entryOf) };
  switch (step.do) {
    case 'ask': {
      const seen = step.expect?.seen as readonly string[] | { readonly numbered: Numbered } | undefined;
      if (seen === undefined || !('numbered' in seen)) return [step];
      return [{ ...step, expect: { ...step.expect, seen: sequences(seen.numbered).map(idOf) } }];
    }
    case 'answer': {
      const response = { ...defaults.response, ...step.response };
      return [{ ...step, response: { ...response, entries: response.entries.map(entryOf) } }];
    }
    case 'broadcast': {
      if (!('numbered' in step)) return [{ ...step, entries: step.entries.map(entryOf) }];
      const { numbered, ...rest } = step;
      return [{ ...rest, entries: sequences(numbered).map((sequence) => entryOf(numberedEntry(sequence))) }];
    }
    case 'part':
      return [{ ...step, part: partOf(step.part) }];
    case 'pull': {
      const parts = step.parts.map((part, index) => {
        const expect = index === step.parts.length - 1 ? step.expect : 'incomplete';
        return { do: 'part', part: partOf(part), expect } as const;
      });
      return [{ do: 'begin-pull' }, ...parts, { do: 'abandon-pull' }];
    }
    default:
      return [step];
  }
}

function sequences([from, to]: Numbered): number[] {
  return Array.from({ length: to - from + 1 }, (_, index) => from + index);
}

function numberedEntry(sequence: number): Partial<EntryStep> {
  const id = idOf(sequence);
  return { entry_id: id, sequence, key: id, acknowledge: true };
}

function idOf(sequence: number): string {
  return sequence.toString(16).padStart(ID_DIGITS, '0');
}
