/** The bytes of sync responses. An entry is encoded once, and the entries of a read are joined once, for all responses. */

import { SyncResponse } from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import type { LogEntry } from '../records/revocations.js';
import { indexAfter, type SyncResult } from '../revocation/log.js';
import { entryMessageOf } from './revocation-messages.js';

/** The entries of one read as they stand in the bytes of a SyncResponse, one after another. */
interface EncodedEntries {
  readonly bytes: Buffer;
  /** Where each entry begins, and the end. */
  readonly offsets: readonly number[];
}

/** The entries of a response that are the last of a read. */
interface SharedEntries {
  readonly reading: readonly LogEntry[];
  readonly from: number;
}

const shared = new WeakMap<SyncResponse, SharedEntries>();
const encodedReadings = new WeakMap<readonly LogEntry[], EncodedEntries>();
const encodedEntries = new WeakMap<LogEntry, Uint8Array>();

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
  const parts = reading.map(bytesOf);
  const offsets: number[] = [];
  let length = 0;
  for (const part of parts) {
    offsets.push(length);
    length += part.byteLength;
  }
  const encoded = { bytes: Buffer.concat(parts, length), offsets: [...offsets, length] };
  encodedReadings.set(reading, encoded);
  return encoded;
}

function bytesOf(entry: LogEntry): Uint8Array {
  const known = encodedEntries.get(entry);
  if (known !== undefined) return known;
  // With the tag and the length that it has as a member of the response.
  const bytes = SyncResponse.encode({ ...EMPTY, entries: [entryMessageOf(entry)] }).finish();
  encodedEntries.set(entry, bytes);
  return bytes;
}

const EMPTY = SyncResponse.fromPartial({});
