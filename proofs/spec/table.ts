/**
 * The tables of the specification as data: each row has the condition and the action of the row with the same number in
 * docs/spec/revocation-v1.md. They are written from the page and not from the code of the feed.
 */

import { ReferenceList } from './list.js';
import type {
  EntryStep,
  Moment,
  Outcome,
  PartResult,
  PartStep,
  RequestStep,
  ResponseStep,
  TokenStep,
} from './steps.js';

/** Maximum number of unacknowledged entry ids. */
const ACKNOWLEDGEMENTS_MAX = 1000;

/** Digits of an id. */
const ID_DIGITS = 32;

/** A larger fall of (wall − monotonic) ends a segment, in milliseconds. */
export const CLOCK_JITTER_MS = 10;

/** A request that was made, and what its response is judged by. */
export interface Ticket {
  readonly request: RequestStep;
  readonly at: Moment;
  readonly risesMs: number;
  /** The list that the request describes. */
  readonly list: ReferenceList;
}

/** The state of an instance. */
export interface InstanceState {
  readonly listMax: number;
  epoch: string;
  list: ReferenceList;
  applied: number;
  entryIdAtApplied: string;
  highest: number;
  keySetVersion: string;
  /** The number of the epoch, and the sequence at which fences are to stand. */
  epochNumber: number;
  fenceWanted: number;
  horizonMs: number;
  /** Monotonic time at which the latest applied request was sent. */
  lastMs: number;
  lease: { readonly at: Moment; readonly risesMs: number; readonly lengthMs: number } | undefined;
  hydrated: boolean;
  /** In order of arrival. */
  unacknowledged: string[];
  /** The ids of added entries beyond `applied`, by sequence. */
  held: Map<number, string>;
  /** The parts of a pull in progress. */
  staged: ReferenceList | undefined;
  /** The sum of the rises of ended segments, and the present segment. */
  endedRisesMs: number;
  segment: { lowestMs: number; highestMs: number; riseMs: number } | undefined;
  /** Tokens that were verified before, by name. */
  verified: Map<string, { readonly token: TokenStep; valid: boolean }>;
}

/** A row: when its condition holds, its action follows. An action with a result ends the event. */
interface Row<E, R> {
  readonly id: string;
  readonly when: (state: InstanceState, event: E) => boolean;
  readonly act: (state: InstanceState, event: E) => R | undefined;
}

export interface ResponseEvent {
  readonly ticket: Ticket;
  readonly response: ResponseStep;
  readonly isLatest: boolean;
  readonly without: ReadonlySet<string>;
}

/** R0 says when a response is the latest one. */
export const LATEST = 'R0';

const always = (): boolean => true;

/** An action without a result. */
function effect<E>(work: (state: InstanceState, event: E) => void) {
  return (state: InstanceState, event: E): undefined => {
    work(state, event);
    return undefined;
  };
}

function isOtherEpoch(state: InstanceState, { response }: ResponseEvent): boolean {
  return response.epoch !== state.epoch;
}

function isOtherList(state: InstanceState, { ticket }: ResponseEvent): boolean {
  return ticket.list !== state.list;
}

function hasNamedKeys(state: InstanceState, { ticket }: ResponseEvent): boolean {
  return state.keySetVersion !== '' && ticket.request.key_set_version === state.keySetVersion;
}

function advance(state: InstanceState, sequence: number, entryId: string): void {
  if (sequence <= state.applied) return;
  state.applied = sequence;
  state.entryIdAtApplied = entryId;
  state.highest = Math.max(state.highest, sequence);
  for (const held of state.held.keys()) if (held <= sequence) state.held.delete(held);
}

/** Every verified token that the list revokes is no longer valid. */
function checkVerified(state: InstanceState, revokes: (token: TokenStep) => boolean): void {
  for (const verified of state.verified.values()) if (revokes(verified.token)) verified.valid = false;
}

/** V1 says that an entry counts for verified tokens as well, even if it does not fit into the list. */
export const ENTRY_FLAGS = 'V1';

/** V2 says that an entry counts as held once it is in the list. */
export const ENTRY_HELD = 'V2';

/** Adds an entry. @throws UnusableEntry */
function add(state: InstanceState, entry: EntryStep, without: ReadonlySet<string>): void {
  if (!without.has(ENTRY_FLAGS)) {
    const alone = new ReferenceList(without, 1);
    try {
      alone.add(entry);
    } catch {
      // The list reports it below.
    }
    checkVerified(state, (token) => alone.revokes(token));
  }
  state.list.add(entry);
  if (!without.has(ENTRY_HELD) && entry.sequence > state.applied) {
    state.held.set(entry.sequence, entry.entry_id);
  }
}

/** Q1 says which entries a request names as held: those that follow `applied` without a gap. */
export const HELD = 'Q1';

/** The last entry that a request names as held, and the XOR of the ids up to there. */
export function heldBy({ applied, held }: InstanceState): Pick<RequestStep, 'held_to' | 'held_digest'> {
  let [to, digest] = [applied, 0n];
  for (let id = held.get(to + 1); id !== undefined; id = held.get(to + 1)) {
    digest ^= BigInt(`0x${id}`);
    to += 1;
  }
  if (to === applied) return { held_to: 0, held_digest: '' };
  return { held_to: to, held_digest: digest.toString(16).padStart(ID_DIGITS, '0') };
}

/** What happens when an epoch begins. */
export const EPOCH_ROWS: readonly Row<ResponseEvent, never>[] = [
  {
    id: 'E1',
    when: always,
    act: effect((state) => {
      state.lease = undefined;
    }),
  },
  {
    id: 'E2',
    when: always,
    act: effect((state) => {
      state.hydrated = false;
    }),
  },
  {
    id: 'E3',
    when: always,
    act: effect((state, { without }) => {
      state.list = new ReferenceList(without, state.listMax);
    }),
  },
  {
    id: 'E4',
    when: always,
    act: (state) => {
      state.applied = 0;
      state.entryIdAtApplied = '';
    },
  },
  {
    id: 'E5',
    when: always,
    act: effect((state) => {
      state.highest = 0;
    }),
  },
  {
    id: 'E6',
    when: always,
    act: effect((state) => {
      state.keySetVersion = '';
    }),
  },
  {
    id: 'E7',
    when: always,
    act: effect((state) => {
      state.unacknowledged = [];
    }),
  },
  {
    id: 'E8',
    when: always,
    act: effect((state) => {
      state.staged = undefined;
    }),
  },
  {
    id: 'E9',
    when: always,
    act: effect((state) => {
      checkVerified(state, ({ iss }) => iss === undefined);
    }),
  },
  {
    id: 'E10',
    when: always,
    act: effect((state) => {
      state.held = new Map();
    }),
  },
  {
    id: 'E11',
    when: always,
    act: effect((state) => {
      state.epochNumber = 0;
      state.fenceWanted = 0;
    }),
  },
];

export const RESPONSE_ROWS: readonly Row<ResponseEvent, Outcome>[] = [
  {
    id: 'R1',
    when: (state, event) => isOtherEpoch(state, event) && (!event.isLatest || isOtherList(state, event)),
    act: () => 'outdated',
  },
  {
    id: 'R2',
    when: isOtherEpoch,
    act: (state, event) => {
      decide(EPOCH_ROWS, state, event, event.without);
      state.epoch = event.response.epoch;
      return undefined;
    },
  },
  {
    id: 'R3',
    when: (_, { isLatest }) => isLatest,
    act: effect((state, { response }) => {
      state.horizonMs = Math.max(state.horizonMs, response.horizon_ms);
    }),
  },
  {
    id: 'R4',
    when: (_, { isLatest }) => isLatest,
    act: effect((state) => {
      state.list.dropUntil(state.horizonMs);
    }),
  },
  {
    id: 'R5',
    when: always,
    act: (state, { response, without }) => {
      for (const entry of response.entries) add(state, entry, without);
      return undefined;
    },
  },
  { id: 'R6', when: (_, { isLatest }) => !isLatest, act: () => 'outdated' },
  {
    id: 'R7',
    when: always,
    act: effect((state, { ticket }) => {
      [state.lastMs] = ticket.at;
    }),
  },
  {
    id: 'R8',
    when: (_, { response }) => response.key_set_version !== null,
    act: effect((state, { response }) => {
      state.keySetVersion = response.key_set_version ?? '';
    }),
  },
  {
    id: 'R9',
    when: always,
    act: (state, { ticket }) => {
      state.unacknowledged = state.unacknowledged.filter((id) => !ticket.request.seen.includes(id));
      return undefined;
    },
  },
  { id: 'R10', when: (_, { response }) => response.pull, act: () => 'pull' },
  { id: 'R11', when: isOtherList, act: () => 'pull' },
  {
    id: 'R12',
    when: (state, event) => event.response.key_set_version === null && !hasNamedKeys(state, event),
    act: () => 'outdated',
  },
  {
    id: 'R13',
    when: always,
    act: effect((state, { response }) => {
      advance(state, response.head, response.entry_id_at_head);
    }),
  },
  {
    id: 'R16',
    when: always,
    act: effect((state, { response }) => {
      state.epochNumber = Math.max(state.epochNumber, response.epoch_number ?? 0);
      state.fenceWanted = Math.max(state.fenceWanted, response.fence_wanted ?? 0);
    }),
  },
  {
    id: 'R14',
    when: always,
    act: (state, { ticket, response }) => {
      state.lease = { at: ticket.at, risesMs: ticket.risesMs, lengthMs: response.lease_ms };
      return undefined;
    },
  },
  {
    id: 'R15',
    when: always,
    act: effect((state) => {
      state.hydrated = true;
    }),
  },
];

export interface BroadcastEvent {
  readonly epoch: string;
  readonly entries: readonly EntryStep[];
  readonly without: ReadonlySet<string>;
  syncDue: boolean;
}

export const BROADCAST_ROWS: readonly Row<BroadcastEvent, 'ignored'>[] = [
  { id: 'B1', when: ({ epoch }) => epoch === '', act: () => 'ignored' },
  { id: 'B2', when: (state, { epoch }) => epoch !== state.epoch, act: () => 'ignored' },
];

/** For each entry of a broadcast. */
export const BROADCAST_ENTRY_ROWS: readonly Row<
  { readonly entry: EntryStep; readonly broadcast: BroadcastEvent },
  never
>[] = [
  {
    id: 'B3',
    when: ({ highest }, { entry }) => entry.sequence > highest + 1,
    act: effect((_, { broadcast }) => {
      broadcast.syncDue = true;
    }),
  },
  {
    id: 'B4',
    when: always,
    act: effect((state, { entry }) => {
      state.highest = Math.max(state.highest, entry.sequence);
    }),
  },
  {
    id: 'B5',
    when: always,
    act: effect((state, { entry, broadcast }) => {
      add(state, entry, broadcast.without);
    }),
  },
  {
    id: 'B6',
    when: (_, { entry }) => entry.acknowledge,
    act: (state, { entry, broadcast }) => {
      if (!state.unacknowledged.includes(entry.entry_id)) state.unacknowledged.push(entry.entry_id);
      broadcast.syncDue = true;
      return undefined;
    },
  },
];

/** After the entries of a broadcast. */
export const BROADCAST_END_ROWS: readonly Row<BroadcastEvent, never>[] = [
  {
    id: 'B7',
    when: ({ unacknowledged }) => unacknowledged.length > ACKNOWLEDGEMENTS_MAX,
    act: effect((state) => {
      state.unacknowledged = state.unacknowledged.slice(-ACKNOWLEDGEMENTS_MAX);
    }),
  },
];

export const PULL_BEGIN_ROWS: readonly Row<{ readonly without: ReadonlySet<string> }, never>[] = [
  {
    id: 'P1',
    when: always,
    act: effect((state, { without }) => {
      state.staged = new ReferenceList(without, state.listMax);
    }),
  },
];

export const PULL_ABANDON_ROWS: readonly Row<object, never>[] = [
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
export const PART_ROWS: readonly Row<PartEvent, PartResult>[] = [
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

interface ReadingEvent {
  /** The difference between the wall clock and the monotonic clock. */
  readonly differenceMs: number;
}

export const CLOCK_ROWS: readonly Row<ReadingEvent, never>[] = [
  {
    id: 'C1',
    when: ({ segment }, { differenceMs }) =>
      segment !== undefined && differenceMs < segment.highestMs - CLOCK_JITTER_MS,
    act: (state) => {
      state.endedRisesMs += state.segment?.riseMs ?? 0;
      state.segment = undefined;
      return undefined;
    },
  },
  {
    id: 'C2',
    when: always,
    act: (state, { differenceMs }) => {
      const { lowestMs, highestMs, riseMs } = state.segment ?? {
        lowestMs: differenceMs,
        highestMs: differenceMs,
        riseMs: 0,
      };
      state.segment = {
        lowestMs: Math.min(lowestMs, differenceMs),
        highestMs: Math.max(highestMs, differenceMs),
        riseMs: Math.max(riseMs, differenceMs - lowestMs),
      };
      return undefined;
    },
  },
];

/** The rows of the lease: each one may end it. The result is what is left by this row, in milliseconds. */
export const LEASE_ROWS: readonly {
  readonly id: string;
  readonly left: (lease: InstanceState['lease'], now: Moment, risesMs: number) => number;
}[] = [
  { id: 'L1', left: (lease) => (lease === undefined ? 0 : Number.POSITIVE_INFINITY) },
  { id: 'L2', left: (lease, [, wallMs]) => (lease && wallMs < lease.at[1] ? 0 : Number.POSITIVE_INFINITY) },
  {
    id: 'L3',
    left: (lease, [monotonicMs], risesMs) =>
      lease === undefined
        ? Number.POSITIVE_INFINITY
        : lease.lengthMs - (monotonicMs - lease.at[0] + (risesMs - lease.risesMs)),
  },
  {
    id: 'L4',
    left: (lease, [, wallMs]) =>
      lease === undefined ? Number.POSITIVE_INFINITY : lease.lengthMs - (wallMs - lease.at[1]),
  },
];

/** Goes through the rows in their order. @returns the first result; undefined when no row had one */
export function decide<E, R>(
  rows: readonly Row<E, R>[],
  state: InstanceState,
  event: E,
  without: ReadonlySet<string>,
): R | undefined {
  for (const { id, when, act } of rows) {
    if (without.has(id) || !when(state, event)) continue;
    const result = act(state, event);
    if (result !== undefined) return result;
  }
  return undefined;
}
