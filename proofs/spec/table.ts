/**
 * The tables of the specification as data: each row has the condition and the action of the row with the same number in
 * docs/spec/revocation-v1.md. They are written from the page and not from the code of the feed.
 *
 * Here are the rows of responses, epochs and broadcasts. Those of pulls, clocks, fences and retention are beside it.
 */

import {
  add,
  advance,
  checkVerified,
  type InstanceRow,
  type InstanceState,
  type Ticket,
} from './instance-state.js';
import { ReferenceList } from './list.js';
import { always, decide, effect } from './rows.js';
import type { EntryStep, Outcome, ResponseStep } from './steps.js';

/** Maximum number of unacknowledged entry ids. */
const ACKNOWLEDGEMENTS_MAX = 1000;

export interface ResponseEvent {
  readonly ticket: Ticket;
  readonly response: ResponseStep;
  readonly isLatest: boolean;
  readonly without: ReadonlySet<string>;
}

/** R0 says when a response is the latest one. */
export const LATEST = 'R0';

function isOtherEpoch(state: InstanceState, { response }: ResponseEvent): boolean {
  return response.epoch !== state.epoch;
}

function isOtherList(state: InstanceState, { ticket }: ResponseEvent): boolean {
  return ticket.list !== state.list;
}

function hasNamedKeys(state: InstanceState, { ticket }: ResponseEvent): boolean {
  return state.keySetVersion !== '' && ticket.request.key_set_version === state.keySetVersion;
}

/** What happens when an epoch begins. */
export const EPOCH_ROWS: readonly InstanceRow<ResponseEvent, never>[] = [
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

export const RESPONSE_ROWS: readonly InstanceRow<ResponseEvent, Outcome>[] = [
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

export const BROADCAST_ROWS: readonly InstanceRow<BroadcastEvent, 'ignored'>[] = [
  { id: 'B1', when: ({ epoch }) => epoch === '', act: () => 'ignored' },
  { id: 'B2', when: (state, { epoch }) => epoch !== state.epoch, act: () => 'ignored' },
];

/** For each entry of a broadcast. */
export const BROADCAST_ENTRY_ROWS: readonly InstanceRow<
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
export const BROADCAST_END_ROWS: readonly InstanceRow<BroadcastEvent, never>[] = [
  {
    id: 'B7',
    when: ({ unacknowledged }) => unacknowledged.length > ACKNOWLEDGEMENTS_MAX,
    act: effect((state) => {
      state.unacknowledged = state.unacknowledged.slice(-ACKNOWLEDGEMENTS_MAX);
    }),
  },
];
