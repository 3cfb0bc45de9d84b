/** The rows of pulls. */

import { advance, checkVerified, type InstanceRow } from './instance-state.js';
import { ReferenceList } from './list.js';
import { always, effect } from './rows.js';
import type { PartResult, PartStep } from './steps.js';

export const PULL_BEGIN_ROWS: readonly InstanceRow<{ readonly without: ReadonlySet<string> }, never>[] = [
  {
    id: 'P1',
    when: always,
    act: effect((state, { without }) => {
      state.staged = new ReferenceList(without, state.listMax);
    }),
  },
];

export const PULL_ABANDON_ROWS: readonly InstanceRow<object, never>[] = [
  {
    id: 'P9',
    when: always,
    act: effect((state) => {
      state.staged = undefined;
    }),
  },
];

export interface PartEvent {
  readonly part: PartStep;
  /** Where the parts are kept. */
  readonly staged: ReferenceList;
}

/** P2 ignores a part that belongs to no pull, P3 fails at a part of unknown kind. */
export const PART_ROWS: readonly InstanceRow<PartEvent, PartResult>[] = [
  { id: 'P2', when: ({ staged }) => staged === undefined, act: () => 'incomplete' },
  {
    id: 'P3',
    when: (_, { part }) => Object.keys(part).length === 0,
    act: () => 'error',
  },
  {
    id: 'P4',
    when: (_, { part }) => part.end === undefined,
    act: (_, { part, staged }) => {
      if (part.packed !== undefined) staged.addPacked(part.packed);
      for (const entry of part.entries ?? []) staged.add(entry);
      return 'incomplete';
    },
  },
  {
    id: 'P5',
    when: ({ epoch }, { part }) => part.end?.epoch !== epoch,
    act: (state) => {
      state.staged = undefined;
      return 'incomplete';
    },
  },
  {
    id: 'P6',
    when: always,
    act: (state, { staged }) => {
      state.staged = undefined;
      try {
        state.list.merge(staged);
      } finally {
        checkVerified(state, (token) => state.list.revokes(token));
      }
      return undefined;
    },
  },
  {
    id: 'P7',
    when: always,
    act: effect((state, { part }) => {
      advance(state, part.end?.sequence ?? 0, part.end?.entry_id ?? '');
    }),
  },
  { id: 'P8', when: always, act: () => 'complete' },
];
