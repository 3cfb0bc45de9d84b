/** Responses that the relay gives itself. */

import { dateField } from '../http2/date.js';
import { FLAG_END_STREAM, FRAME_BYTES_DEFAULT, writeData, writeHeaders } from '../http2/frames.js';
import { EMPTY_TABLE, encodeField, encodeFields } from '../http2/hpack-encoder.js';
import type { ForeignResponse, Header, RelayStatus } from './judge.js';
import type { ConnectionPort } from './port.js';
import type { RelayStream } from './stream.js';

/** A block of its own, to be put before others: the size update that tells a peer to use no dynamic table. */
export const emptyTable = Buffer.of(EMPTY_TABLE);

/** The encoded forms of lists that are used again. */
const encodedLists = new WeakMap<readonly Header[], Buffer>();

/** Sends a status: as trailers, or as the whole response when none has begun. */
export function sendStatus(port: ConnectionPort, stream: RelayStream, status: RelayStatus): void {
  if (stream.isResponseBegun) {
    writeBlock(port, stream.id, encoded(status.headers), true);
  } else {
    const block = Buffer.concat([encoded(status.trailersOnly), dateField(port.wallMs())]);
    writeBlock(port, stream.id, block, true);
  }
}

/** The response to a refused caller that speaks something else than gRPC; undefined when it speaks gRPC. */
export function foreignTo(
  { judge }: ConnectionPort,
  { head }: RelayStream,
  status: RelayStatus,
): ForeignResponse | undefined {
  return head === undefined || isGrpc(head.contentType) ? undefined : judge.foreignResponse?.(head, status);
}

/** Whether a request with this content type expects the statuses of gRPC. */
export function isGrpc(contentType: string): boolean {
  return contentType.startsWith('application/grpc') && !contentType.startsWith('application/grpc-web');
}

/** Sends such a response at once: its body is left out where the client has no room for all of it. */
export function sendForeign(port: ConnectionPort, stream: RelayStream, response: ForeignResponse): void {
  const { body } = response;
  const { windows } = port;
  const room = Math.min(windows.connection, windows.sureStream + stream.windowChange, FRAME_BYTES_DEFAULT);
  const isCut = body.length > room;
  const hasBody = body.length > 0 && !isCut;
  const headers = isCut ? response.headers.filter(([name]) => name !== 'content-length') : response.headers;
  const status = isCut ? (response.bareStatus ?? response.status) : response.status;
  const block = Buffer.concat([
    encodeField(':status', String(status), false),
    encodeFields(headers),
    dateField(port.wallMs()),
  ]);
  writeBlock(port, stream.id, block, !hasBody);
  if (!hasBody) return;
  windows.used(body.length);
  writeData(port.toClient, stream.id, body, FLAG_END_STREAM);
}

/** Encodes headers about the caller. They may be credentials for the server, so nothing may index them. */
export function encodedIdentity(list: readonly Header[]): Buffer {
  const known = encodedLists.get(list);
  if (known !== undefined) return known;
  const block = Buffer.concat(list.map(([name, value]) => encodeField(name, value, true)));
  encodedLists.set(list, block);
  return block;
}

function encoded(list: readonly Header[]): Buffer {
  const known = encodedLists.get(list);
  if (known !== undefined) return known;
  const block = encodeFields(list);
  encodedLists.set(list, block);
  return block;
}

/** Sends a header block of the gate itself. */
export function writeBlock(port: ConnectionPort, streamId: number, block: Buffer, isEnd: boolean): void {
  writeHeaders(port.toClient, streamId, port.owesTableUpdate ? [emptyTable, block] : [block], isEnd);
  port.owesTableUpdate = false;
}
