/** Translates revocations between the protocol's messages and the domain. */

import type {
  Broadcast,
  Entry,
  PullResponse,
  SyncRequest,
  SyncResponse,
} from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { EntryKind as EntryKindMessage } from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import type { EntryKind, LogBatch, LogEntry } from '../records/revocations.js';
import type { PullPart, SyncPosition, SyncResult } from '../revocation/log.js';

/** The message of an entry. */
export function entryMessageOf(entry: LogEntry): Entry {
  return {
    entryId: entry.entryId,
    sequence: entry.sequence,
    kind: KINDS[entry.kind],
    key: entry.key,
    minGeneration: entry.minGeneration,
    keepUntil: entry.keepUntil,
    acknowledge: entry.acknowledge,
    issuer: entry.issuer,
    claim: entry.claim ?? '',
    cutOffTime: entry.cutOffTime,
  };
}

/** The message of a batch. */
export function broadcastOf({ epoch, entries }: LogBatch): Broadcast {
  return { epoch, entries: entries.map(entryMessageOf) };
}

/** The sync request of a message. */
export function questionOf(request: SyncRequest): SyncPosition {
  const { kinds, claimIds, description, ...position } = request;
  return {
    ...position,
    description: description && {
      host: shownText(description.host),
      version: shownText(description.version),
      startTime: description.startTime,
    },
    abilities: { kinds: kinds.flatMap((kind) => KINDS_BY_MESSAGE.get(kind) ?? []), claimIds },
  };
}

/** Longest text of a description, in characters. */
const DESCRIPTION_CHARACTERS_MAX = 100;

/** Text that an operator's terminal can show; empty for any other. */
function shownText(text: string): string {
  return text.length <= DESCRIPTION_CHARACTERS_MAX && /^[\x21-\x7e]*$/.test(text) ? text : '';
}

/** The message of a sync response. Its entries are translated when they are read. */
export function syncResponseOf(answer: SyncResult): SyncResponse {
  let entries: Entry[] | undefined;
  return {
    epoch: answer.epoch,
    head: answer.head,
    entryIdAtHead: answer.headEntryId,
    get entries() {
      entries ??= answer.entries.map(entryMessageOf);
      return entries;
    },
    pull: answer.pull,
    keySet: answer.keySet && { version: answer.keySet.version, keys: [...answer.keySet.keys] },
    broadcastKeys: [...answer.broadcastKeys],
    horizon: answer.horizon,
    epochNumber: answer.epochNumber,
    fenceWanted: answer.fenceWanted,
    leaseLength: {
      seconds: BigInt(Math.floor(answer.leaseMs / 1000)),
      nanos: (answer.leaseMs % 1000) * 1_000_000,
    },
  };
}

/** The message of one part of the live list. */
export function pullResponseOf(part: PullPart): PullResponse {
  switch (part.part) {
    case 'packed': {
      const { kind, keepUntil, ids } = part.packed;
      return { part: { $case: 'packed', value: { kind: KINDS[kind], keepUntil, ids } } };
    }
    case 'entries':
      return { part: { $case: 'entries', value: { entries: part.entries.map(entryMessageOf) } } };
    case 'end': {
      const { epoch, head, headEntryId } = part.end;
      return { part: { $case: 'end', value: { epoch, sequence: head, entryId: headEntryId } } };
    }
  }
}

const KINDS = {
  TOKEN: EntryKindMessage.ENTRY_KIND_TOKEN,
  SESSION: EntryKindMessage.ENTRY_KIND_SESSION,
  USER: EntryKindMessage.ENTRY_KIND_USER,
  CLIENT: EntryKindMessage.ENTRY_KIND_CLIENT,
  KEY: EntryKindMessage.ENTRY_KIND_KEY,
  CLAIM: EntryKindMessage.ENTRY_KIND_CLAIM,
} satisfies Record<EntryKind, EntryKindMessage>;

const KINDS_BY_MESSAGE: ReadonlyMap<EntryKindMessage, EntryKind> = new Map(
  Object.entries(KINDS).map(([kind, message]) => [message, kind as EntryKind]),
);
