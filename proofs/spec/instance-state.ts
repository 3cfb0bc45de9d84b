/** The state of an instance, and what rows of several tables do to it. */

import { ReferenceList } from './list.js';
import type { Row } from './rows.js';
import type { EntryStep, Moment, RequestStep, TokenStep } from './steps.js';

/** Digits of an id. */
const ID_DIGITS = 32;

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

/** A row about an instance. */
export type InstanceRow<E, R> = Row<InstanceState, E, R>;

/** The position moves, and never back. */
export function advance(state: InstanceState, sequence: number, entryId: string): void {
  if (sequence <= state.applied) return;
  state.applied = sequence;
  state.entryIdAtApplied = entryId;
  state.highest = Math.max(state.highest, sequence);
  for (const held of state.held.keys()) if (held <= sequence) state.held.delete(held);
}

/** Every verified token that the list revokes is no longer valid. */
export function checkVerified(state: InstanceState, revokes: (token: TokenStep) => boolean): void {
  for (const verified of state.verified.values()) if (revokes(verified.token)) verified.valid = false;
}

/** V1 says that an entry counts for verified tokens as well, even if it does not fit into the list. */
export const ENTRY_FLAGS = 'V1';

/** V2 says that an entry counts as held once it is in the list. */
export const ENTRY_HELD = 'V2';

/** Adds an entry. @throws UnusableEntry */
export function add(state: InstanceState, entry: EntryStep, without: ReadonlySet<string>): void {
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
