/** The reference instance: it follows the tables of the specification, row by row, and nothing else. */

import { CLOCK_ROWS, LEASE_ROWS } from './clock-rows.js';
import { ENTRY_FLAGS, ENTRY_HELD, HELD, heldBy, type InstanceState, type Ticket } from './instance-state.js';
import { ENTRY_FAULTS, FULL, PACKED_FAULTS, ReferenceList, TOKEN_ROWS, UnusableEntry } from './list.js';
import { PART_ROWS, PULL_ABANDON_ROWS, PULL_BEGIN_ROWS } from './pull-rows.js';
import { decide } from './rows.js';
import type {
  BroadcastResult,
  EntryStep,
  Moment,
  Outcome,
  PartResult,
  PartStep,
  RequestStep,
  ResponseStep,
  StateStep,
  TokenStep,
} from './steps.js';
import {
  BROADCAST_END_ROWS,
  BROADCAST_ENTRY_ROWS,
  BROADCAST_ROWS,
  EPOCH_ROWS,
  LATEST,
  RESPONSE_ROWS,
} from './table.js';

const NOTHING_HELD = { held_to: 0, held_digest: '' };

/** Maximum number of entries in a list. */
const LIST_MAX = 20_000_000;

/** The numbers of all rows, in the order of the page. */
export const ROWS: readonly string[] = [
  HELD,
  LATEST,
  ...RESPONSE_ROWS.map(({ id }) => id),
  ...EPOCH_ROWS.map(({ id }) => id),
  ...BROADCAST_ROWS.map(({ id }) => id),
  ...BROADCAST_ENTRY_ROWS.map(({ id }) => id),
  ...BROADCAST_END_ROWS.map(({ id }) => id),
  ...PULL_BEGIN_ROWS.map(({ id }) => id),
  ...PART_ROWS.map(({ id }) => id),
  ...PULL_ABANDON_ROWS.map(({ id }) => id),
  ...ENTRY_FAULTS.map(({ id }) => id),
  ...PACKED_FAULTS.map(({ id }) => id),
  FULL,
  ENTRY_FLAGS,
  ENTRY_HELD,
  ...CLOCK_ROWS.map(({ id }) => id),
  ...LEASE_ROWS.map(({ id }) => id),
  ...TOKEN_ROWS.map(({ id }) => id),
];

/** An instance that does what the tables say. */
export class ReferenceInstance {
  readonly state: InstanceState;
  readonly #without: ReadonlySet<string>;

  /**
   * @param options.from - a part of the state, if the instance is not new
   * @param options.without - the rows that are left out
   */
  constructor(
    options: {
      listMax?: number | undefined;
      from?: Partial<InstanceState>;
      without?: ReadonlySet<string>;
    } = {},
  ) {
    const { listMax = LIST_MAX, from = {}, without = new Set() } = options;
    this.#without = without;
    this.state = {
      listMax,
      epoch: '',
      list: new ReferenceList(without, listMax),
      applied: 0,
      entryIdAtApplied: '',
      highest: 0,
      keySetVersion: '',
      epochNumber: 0,
      fenceWanted: 0,
      horizonMs: 0,
      lastMs: Number.NEGATIVE_INFINITY,
      lease: undefined,
      hydrated: false,
      unacknowledged: [],
      held: new Map(),
      staged: undefined,
      endedRisesMs: 0,
      segment: undefined,
      verified: new Map(),
      ...from,
    };
  }

  /** A request is made. */
  ask(at: Moment): Ticket {
    const risesMs = this.#read(at);
    return { request: this.#request(), at, risesMs, list: this.state.list };
  }

  /** A response arrives. */
  answer(ticket: Ticket, response: ResponseStep): Outcome {
    const isLatest = this.#without.has(LATEST) || ticket.at[0] > this.state.lastMs;
    const event = { ticket, response, isLatest, without: this.#without };
    return orError(() => decide(RESPONSE_ROWS, this.state, event, this.#without) ?? 'granted');
  }

  /** A broadcast with a valid signature arrives. */
  broadcast(broadcast: { readonly epoch: string; readonly entries: readonly EntryStep[] }): BroadcastResult {
    const event = { ...broadcast, without: this.#without, syncDue: false };
    return orError(() => {
      if (decide(BROADCAST_ROWS, this.state, event, this.#without) === 'ignored') {
        return { accepted: false, sync_due: false };
      }
      for (const entry of event.entries) {
        decide(BROADCAST_ENTRY_ROWS, this.state, { entry, broadcast: event }, this.#without);
      }
      decide(BROADCAST_END_ROWS, this.state, event, this.#without);
      return { accepted: true, sync_due: event.syncDue };
    });
  }

  beginPull(): void {
    decide(PULL_BEGIN_ROWS, this.state, { without: this.#without }, this.#without);
  }

  /** A part of a pull arrives. */
  part(part: PartStep): PartResult {
    const staged = this.state.staged ?? new ReferenceList(this.#without, this.state.listMax);
    return orError(() => decide(PART_ROWS, this.state, { part, staged }, this.#without) ?? 'incomplete');
  }

  abandonPull(): void {
    decide(PULL_ABANDON_ROWS, this.state, {}, this.#without);
  }

  /** How long the lease still runs, in milliseconds; 0 or less when it is over. */
  leaseLeftMs(now: Moment): number {
    const risesMs = this.#read(now);
    const { lease } = this.state;
    return Math.min(
      ...LEASE_ROWS.filter(({ id }) => !this.#without.has(id)).map(({ left }) => left(lease, now, risesMs)),
    );
  }

  /** Whether an entry revokes a token. With a name, the token is remembered as verified. */
  revokes(token: TokenStep, name?: string): boolean {
    const isRevoked = this.state.list.revokes(token);
    if (name !== undefined) this.state.verified.set(name, { token, valid: !isRevoked });
    return isRevoked;
  }

  /** Whether a token that was verified before is still valid. */
  isValid(name: string): boolean {
    return this.state.verified.get(name)?.valid ?? false;
  }

  /** What can be seen from outside. */
  observed(): Required<StateStep> {
    const { hydrated, horizonMs, lease, list, highest, epochNumber, fenceWanted } = this.state;
    return {
      ...this.#request(),
      hydrated,
      horizon_ms: horizonMs,
      lease_ms: lease?.lengthMs ?? 0,
      entries: list.size,
      highest,
      epoch_number: epochNumber,
      fence_wanted: fenceWanted,
    };
  }

  #request(): RequestStep {
    const { epoch, applied, entryIdAtApplied, keySetVersion, unacknowledged } = this.state;
    return {
      epoch,
      applied,
      entry_id_at_applied: entryIdAtApplied,
      key_set_version: keySetVersion,
      seen: [...unacknowledged],
      ...(this.#without.has(HELD) ? NOTHING_HELD : heldBy(this.state)),
    };
  }

  /** Both clocks are read. @returns the sum of all rises, in milliseconds */
  #read([monotonicMs, wallMs]: Moment): number {
    decide(CLOCK_ROWS, this.state, { differenceMs: wallMs - monotonicMs }, this.#without);
    return this.state.endedRisesMs + (this.state.segment?.riseMs ?? 0);
  }
}

function orError<T>(work: () => T): T | 'error' {
  try {
    return work();
  } catch (error) {
    if (error instanceof UnusableEntry) return 'error';
    throw error;
  }
}
