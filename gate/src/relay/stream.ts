/** The calls in progress of one connection, by the ids that the client and the server know them by. */

import { FLAG_PADDED, FRAME_HEADER_BYTES, type HeadersExtras, STREAM_ID_MAX } from '../http2/frames.js';
import type { RequestHead } from '../http2/request-head.js';
import { IdMap } from './id-map.js';
import type { CutHandler, RelayCall, RelayStatus } from './judge.js';
import { MessageMeter } from './message-meter.js';

/** Ends calls. */
export interface StreamOwner {
  /** Ends a call with a status, and counts it as cut. */
  cut(stream: RelayStream, status: RelayStatus): void;
}

/** The answer of the gate itself to a call. */
export interface OwnAnswer {
  /** A DATA frame of the request, `bytes[start, end)`. */
  requestData(flags: number, bytes: Buffer, start: number, end: number): void;
  /** The request is complete. */
  requestEnded(): void;
  /** Sends what the client has room for. */
  flush(): void;
  /** The call has ended, in any way. */
  close(): void;
}

/** A part of a request that waits for the decision: a DATA frame, or the block of the trailers. */
type HeldPart = { readonly frame: Buffer } | { readonly trailers: Buffer };

/** One request and its response. Without closures, because every call allocates one. */
export class RelayStream implements CutHandler {
  /** The stream id at the client. */
  readonly id: number;
  readonly #owner: StreamOwner;
  /** The stream id at the server; 0 until the call is admitted. */
  serverId = 0;
  /** Set once the call is admitted. */
  call: RelayCall | undefined;
  /** Set when the gate answers the call itself. */
  own: OwnAnswer | undefined;
  /** What the decision is about; dropped with it. */
  head: RequestHead | undefined;
  /** Padding and priority of the request's HEADERS frame; dropped with the decision. */
  extras: HeadersExtras | undefined;
  /** What has arrived before the decision. */
  held: HeldPart[] | undefined;
  heldBytes = 0;
  /** What the client has added to the stream's window before the decision, in bytes. */
  heldWindow = 0;
  /** What the client has added to the stream's window, less the DATA that it was sent, in bytes. */
  windowChange = 0;
  /** The client has ended its side, or was told to. */
  isRequestEnded = false;
  /** The final header block has passed to the client. */
  isResponseBegun = false;
  isResponseEnded = false;
  /** In no table any more. */
  isClosed = false;
  #requestMeter: MessageMeter | undefined;
  /** What the request may hold if it does not consist of messages, in bytes. */
  #requestBytesLeft = 0;
  /** Finds the ends of responses; undefined when they are no messages. */
  #responseMeter: MessageMeter | undefined;
  #hasOneResponse = false;
  /** How many responses had passed when the client was found to leave no room; negative while it leaves room. */
  #passedBefore = -1;

  constructor(id: number, owner: StreamOwner) {
    this.id = id;
    this.#owner = owner;
  }

  cut(status: RelayStatus): void {
    this.#owner.cut(this, status);
  }

  /** Says what to measure, once the call is admitted. @param isEnveloped whether bodies consist of messages with a prefix */
  measure(isEnveloped: boolean, requestBytesMax: number, hasOneResponse: boolean): void {
    this.#requestBytesLeft = requestBytesMax;
    if (!isEnveloped) return;
    this.#requestMeter = new MessageMeter(requestBytesMax);
    this.#responseMeter = new MessageMeter(Number.POSITIVE_INFINITY);
    this.#hasOneResponse = hasOneResponse;
  }

  /** Measures a DATA frame of the request. @returns false when the request becomes too large */
  admitsRequest(flags: number, bytes: Buffer, start: number, end: number): boolean {
    const from = dataStart(flags, start);
    const to = dataEnd(flags, bytes, start, end);
    if (this.#requestMeter !== undefined) return this.#requestMeter.read(bytes, from, to);
    this.#requestBytesLeft -= to - from;
    return this.#requestBytesLeft >= 0;
  }

  /** Measures a DATA frame of the response. @returns whether the only response is complete with it; true at most once */
  completesResponse(flags: number, bytes: Buffer, start: number, end: number): boolean {
    const meter = this.#responseMeter;
    if (meter === undefined || this.#isAnswered) return false;
    meter.read(bytes, dataStart(flags, start), dataEnd(flags, bytes, start, end));
    return this.#isAnswered;
  }

  /** The only response has passed. */
  get #isAnswered(): boolean {
    return this.#hasOneResponse && this.#passed > 0;
  }

  get #passed(): number {
    return this.#responseMeter?.complete ?? 0;
  }

  /**
   * Reports whether the client leaves room for the response. A message must pass as a whole: a client that makes room
   * byte by byte does not read it.
   */
  reportRoom(leavesRoom: boolean): void {
    const hasRoom = leavesRoom || this.#isAnswered;
    if (this.#passedBefore >= 0 && (hasRoom || this.#passed > this.#passedBefore)) {
      this.#passedBefore = -1;
      this.call?.sent();
    }
    if (hasRoom) return;
    if (this.#passedBefore < 0) this.#passedBefore = this.#passed;
    this.call?.sending();
  }

  /** Keeps a copy of a part of the request: the bytes of a socket are part of something larger. */
  hold(part: HeldPart): void {
    this.held ??= [];
    this.held.push(part);
    this.heldBytes += 'frame' in part ? part.frame.length : part.trailers.length;
  }

  /** Bytes of the held DATA that count for flow control. */
  get heldDataBytes(): number {
    let bytes = 0;
    for (const part of this.held ?? []) if ('frame' in part) bytes += part.frame.length - FRAME_HEADER_BYTES;
    return bytes;
  }
}

function dataStart(flags: number, start: number): number {
  return start + FRAME_HEADER_BYTES + ((flags & FLAG_PADDED) === 0 ? 0 : 1);
}

/** Where the data of a DATA frame ends and its padding begins. */
function dataEnd(flags: number, bytes: Buffer, start: number, end: number): number {
  return (flags & FLAG_PADDED) === 0 ? end : end - (bytes[start + FRAME_HEADER_BYTES] ?? 0);
}

/** Ids that are remembered beside twice the number of open streams. */
const RESET_IDS_MIN = 1000;

/** The streams of one connection. */
export class StreamTable {
  readonly #byId = new IdMap<RelayStream>();
  readonly #byServerId = new IdMap<RelayStream>();
  /** Streams that were closed before the client had ended them: its frames may be on their way. */
  readonly #resetIds = new Set<number>();
  readonly #resetIdsMax: number;
  /** The highest id of the client's streams. */
  lastId = 0;
  /** The highest id among the client's streams that are closed. */
  #lastClosedId = 0;
  /** The id of the next stream at the server. */
  #nextServerId = 1;

  constructor(streamsMax: number) {
    this.#resetIdsMax = RESET_IDS_MIN + 2 * streamsMax;
  }

  get size(): number {
    return this.#byId.size;
  }

  get(id: number): RelayStream | undefined {
    return this.#byId.get(id);
  }

  getByServerId(id: number): RelayStream | undefined {
    return this.#byServerId.get(id);
  }

  /** All streams, as they are now, in any order. */
  all(): RelayStream[] {
    return this.#byId.values();
  }

  /**
   * Reports to all calls whether the client leaves room for their responses.
   *
   * @param connectionWindow what the connection has room for, in bytes; negative when nothing of the server is read at all
   * @param streamWindow the client's window for new streams, in bytes
   */
  reportRoom(connectionWindow: number, streamWindow: number): void {
    for (const stream of this.#byServerId.values()) {
      const room = Math.min(connectionWindow, streamWindow + stream.windowChange);
      // Before its headers, a response is not held up by windows.
      stream.reportRoom(connectionWindow >= 0 && (room > 0 || !stream.isResponseBegun));
    }
  }

  add(stream: RelayStream): void {
    this.#byId.set(stream.id, stream);
  }

  /** Gives a stream the next id at the server. */
  bind(stream: RelayStream): void {
    stream.serverId = this.#nextServerId;
    this.#nextServerId += 2;
    this.#byServerId.set(stream.serverId, stream);
  }

  /** Whether the server was sent a stream with this id. */
  isKnownToServer(serverId: number): boolean {
    return serverId < this.#nextServerId && serverId % 2 === 1;
  }

  /** @param mayFollow whether frames of the client may still arrive for it */
  remove(stream: RelayStream, mayFollow: boolean): void {
    stream.isClosed = true;
    this.#byId.delete(stream.id);
    if (stream.serverId > 0) this.#byServerId.delete(stream.serverId);
    this.#lastClosedId = Math.max(this.#lastClosedId, stream.id);
    if (mayFollow) this.expectLate(stream.id);
  }

  /** Remembers that the client may not know yet that a stream is closed. */
  expectLate(id: number): void {
    this.#resetIds.add(id);
    if (this.#resetIds.size <= this.#resetIdsMax) return;
    for (const oldest of this.#resetIds) {
      this.#resetIds.delete(oldest);
      return;
    }
  }

  /** Whether frames for a closed stream are no violation. */
  mayBeLate(id: number): boolean {
    return this.#resetIds.has(id);
  }

  /**
   * Maps the last stream of a server's GOAWAY frame. Decisions change the order of streams, so that the server may have
   * processed a stream whose id at the client is higher than one that it has not.
   *
   * @returns the last id for the client, and the streams up to it that the server has not processed
   */
  lastProcessed(serverLastId: number): { readonly lastId: number; readonly unprocessed: RelayStream[] } {
    if (serverLastId >= STREAM_ID_MAX - 1) return { lastId: STREAM_ID_MAX, unprocessed: [] };
    const all = this.all();
    const isProcessed = ({ serverId, own }: RelayStream): boolean =>
      own !== undefined || (serverId > 0 && serverId <= serverLastId);
    const processed = all.filter(isProcessed).map(({ id }) => id);
    const lastId = Math.max(this.#lastClosedId, ...processed);
    const unprocessed = all.filter((stream) => !isProcessed(stream));
    return { lastId, unprocessed };
  }
}
