/** The guards of the fence, each of which the explorer can leave out, and the worlds in which their absence shows. */

import type { Edit, ModuleName } from '../protocol.js';
import type { FenceEnvironment, FenceWorld } from './state.js';

/** A guard of the fence. */
export interface FenceGuard {
  readonly name: string;
  readonly about: string;
  readonly edits?: readonly Edit[];
  readonly environment?: FenceEnvironment;
  readonly world: string;
  /** Why no world has a violation without it: another guard covers for it. */
  readonly redundant?: string;
}

/** The worlds of the fence. */
export const FENCE_WORLDS: readonly FenceWorld[] = [
  {
    name: 'fence',
    about: 'two entries; transactions, raises and reports of two instances in any order',
    entries: 2,
    epochs: 0,
    restores: 0,
    crashes: true,
    states: 35_266,
  },
  {
    name: 'fence-epoch',
    about: 'a token that ends with its epoch, one that outlives it, and a new epoch',
    entries: 2,
    epochs: 1,
    restores: 0,
    apart: true,
    withoutBroadcasts: true,
    states: 4236,
  },
  {
    name: 'fence-restore',
    about: 'two entries, and a database of auth that may lose them and then gets a new epoch',
    entries: 2,
    epochs: 0,
    restores: 1,
    apart: true,
    withoutBroadcasts: true,
    states: 10_537,
  },
];

function edit(module: ModuleName, find: string, replace: string): Edit {
  return { module, find, replace };
}

const NO_WHERE = edit('fence', 'WHERE (epoch_number, sequence) < ($1::bigint, $2::bigint)', '');
const NO_CHECK = edit('fence', 'if (!isBefore(present, to) || rows[0]?.alone !== true)', 'if (false)');

export const FENCE_GUARDS: readonly FenceGuard[] = [
  {
    name: 'fence-lock',
    about: 'a transaction keeps the lock on the fence until it ends',
    environment: { withoutLock: true },
    world: 'fence',
  },
  {
    name: 'fence-latest',
    about: 'a transaction reads the latest version of the fence, whatever its snapshot is',
    environment: { oldVersion: true },
    world: 'fence',
  },
  {
    name: 'fence-position',
    about: 'a transaction compares the fence with what its instance has applied',
    edits: [edit('fence', 'return !isBefore(place, fence);', 'return true;')],
    world: 'fence',
  },
  {
    name: 'fence-epoch',
    about: 'places are compared by the number of the epoch first',
    edits: [
      edit(
        'fence',
        'if (one.epochNumber !== other.epochNumber)\n        return one.epochNumber < other.epochNumber;',
        '',
      ),
    ],
    world: 'fence-epoch',
  },
  {
    name: 'fence-list',
    about: 'the token is looked up in the list after the fence was locked',
    environment: { listFirst: true },
    world: 'fence',
  },
  {
    name: 'fence-applied',
    about: 'broadcasts never move the position that is compared with the fence',
    edits: [
      edit(
        'feed',
        'this.#insert(entry);\n            if (entry.acknowledge)',
        'this.#insert(entry);\n this.#advance(entry.sequence, entry.entryId);\n            if (entry.acknowledge)',
      ),
    ],
    world: 'fence',
  },
  {
    name: 'fence-rises',
    about: 'the fence never falls',
    edits: [NO_WHERE, NO_CHECK],
    world: 'fence',
  },
  {
    name: 'fence-rises-in-sql',
    about: 'the statement that raises the fence compares once more',
    edits: [NO_WHERE],
    world: 'fence',
    redundant:
      'here one instance at a time raises the fence, and has compared before; in PostgreSQL another one may come between',
  },
  {
    name: 'fence-commit',
    about: 'the fence is reported after its commit was confirmed',
    environment: { reportsEarly: true },
    world: 'fence',
  },
  {
    name: 'fence-reported-epoch',
    about: 'auth compares the numbers of epochs before sequences',
    edits: [
      edit(
        'fence-watch',
        'if (fence.epochNumber !== entry.epochNumber)\n        return fence.epochNumber > entry.epochNumber;',
        '',
      ),
    ],
    world: 'fence-epoch',
  },
  {
    name: 'fence-numbers',
    about: 'an epoch gets a larger number than any before it, the lost ones included',
    environment: { equalNumbers: true },
    world: 'fence-restore',
  },
];
