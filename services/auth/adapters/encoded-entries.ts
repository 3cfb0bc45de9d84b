/** The bytes of sync responses. Each entry is encoded once, and a read that continues another one reuses its bytes. */

import { SyncResponse } from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import type { LogEntry } from '../records/revocations.js';
import { indexAfter, type SyncResult } from '../revocation/log.js';
import { entryMessageOf } from './revocation-messages.js';

/** The entries of one read as they stand in the bytes of a SyncResponse, one after another. */
interface EncodedEntries {
  readonly entries: readonly LogEntry[];
  readonly bytes: Buffer;
  /** Where each entry begins in `bytes`, and the end. */
  readonly offsets: readonly number[];
}

/** The entries of a response that are the last of a read. */
interface SharedEntries {
  readonly reading: readonly LogEntry[];
  readonly from: number;
}

const EMPTY = SyncResponse.fromPartial({});

const shared = new WeakMap<SyncResponse, SharedEntries>();
const encodedReadings = new WeakMap<readonly LogEntry[], EncodedEntries>();
/** The latest read: the next one most likely continues it. */
let latest: EncodedEntries = { entries: [], bytes: Buffer.alloc(0), offsets: [0] };

/** Notes that the entries of a response are part of a read, so that {@link encodeSyncResponse} can use its bytes. */
export function shareEntries(response: SyncResponse, { reading, entries }: SyncResult): void {
  const [first] = entries;
  if (reading === undefined || first === undefined) return;
  shared.set(response, { reading, from: indexAfter(reading, first.sequence - 1n) });
}

/**
 * Encodes a response. The entries come last: the fields of a message may be in any order, and the members of a repeated
 * field may stand apart (Protocol Buffers, encoding, "Field order").
 */
export function encodeSyncResponse(response: SyncResponse): Buffer {
  const part = shared.get(response);
  if (part === undefined) return Buffer.from(SyncResponse.encode(response).finish());
  const { epoch, head, entryIdAtHead, pull, keySet, broadcastKeys, horizon, leaseLength } = response;
  const { epochNumber, fenceWanted } = response;
  const log = { epoch, head, entryIdAtHead, pull, epochNumber, fenceWanted };
  const rest = { ...log, keySet, broadcastKeys, horizon, leaseLength };
  const { bytes, offsets } = encodingOf(part.reading);
  return Buffer.concat([
    SyncResponse.encode({ ...rest, entries: [] }).finish(),
    bytes.subarray(offsets[part.from]),
  ]);
}

function encodingOf(reading: readonly LogEntry[]): EncodedEntries {
  const known = encodedReadings.get(reading);
  if (known !== undefined) return known;
  const encoded = encode(reading);
  encodedReadings.set(reading, encoded);
  latest = encoded;
  return encoded;
}

function encode(entries: readonly LogEntry[]): EncodedEntries {
  const reused = beginningIn(latest, entries);
  const offsets = [...reused.offsets];
  const fresh = entries.slice(offsets.length - 1).map(bytesOf);
  let end = reused.bytes.byteLength;
  for (const { byteLength } of fresh) {
    end += byteLength;
    offsets.push(end);
  }
  return { entries, bytes: Buffer.concat([reused.bytes, ...fresh], end), offsets };
}

/** The encoding of those first entries that are the last ones of another read. */
function beginningIn(
  other: EncodedEntries,
  entries: readonly LogEntry[],
): Pick<EncodedEntries, 'bytes' | 'offsets'> {
  const [first] = entries;
  const from = first === undefined ? 0 : indexAfter(other.entries, first.sequence - 1n);
  const common = other.entries.slice(from);
  const isContinued = common.every((entry, index) => entry === entries[index]);
  if (!isContinued) return { bytes: Buffer.alloc(0), offsets: [0] };
  const start = other.offsets[from] ?? 0;
  return {
    bytes: other.bytes.subarray(start),
    offsets: other.offsets.slice(from).map((offset) => offset - start),
  };
}

/** An entry with the tag and the length that it has as a member of the response. */
function bytesOf(entry: LogEntry): Uint8Array {
  return SyncResponse.encode({ ...EMPTY, entries: [entryMessageOf(entry)] }).finish();
}
