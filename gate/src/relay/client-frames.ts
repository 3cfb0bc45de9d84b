/** Receives the frames of a client. Whatever reaches the server passes here. */

import { BlockCache } from '../http2/block-cache.js';
import {
  ConnectionFault,
  ENHANCE_YOUR_CALM,
  FRAME_SIZE_ERROR,
  PROTOCOL_ERROR,
  REFUSED_STREAM,
  STREAM_CLOSED,
} from '../http2/errors.js';
import type { Field } from '../http2/field.js';
import * as h2 from '../http2/frames.js';
import { HpackDecoder } from '../http2/hpack-decoder.js';
import { type RequestHead, readRequestHead, readRequestTrailers } from '../http2/request-head.js';
import type { Calls } from './calls.js';
import { ClientControl } from './client-control.js';
import { checkDataPadding, PartialBlock, readHeadersLayout } from './header-block.js';
import type { LinkSink } from './link.js';
import type { ConnectionPort } from './port.js';
import type { RelayStream, StreamTable } from './stream.js';

/** Larger requests are not remembered, in bytes: a few bytes can refer to large entries of the table. */
const REMEMBERED_HEAD_BYTES_MAX = 8 * 1024;

/** The client's side of one connection. */
export class ClientFrames implements LinkSink {
  readonly #port: ConnectionPort;
  readonly #calls: Calls;
  readonly #streams: StreamTable;
  readonly #control: ClientControl;
  readonly #decoder: HpackDecoder;
  readonly #heads = new BlockCache<RequestHead>();
  #partial: PartialBlock | undefined;
  #hasSettings = false;
  /** No frame is taken: the server is not connected yet, or the connection has ended. */
  isStopped = true;

  constructor(port: ConnectionPort, calls: Calls, streams: StreamTable) {
    this.#port = port;
    this.#calls = calls;
    this.#streams = streams;
    this.#control = new ClientControl(port, calls, streams);
    const { limits } = port;
    this.#decoder = new HpackDecoder({
      tableBytesMax: limits.headerTableBytes,
      listBytesMax: limits.headerListBytes,
      fieldsMax: limits.headerFields,
    });
  }

  get isBlocked(): boolean {
    const { toClient, toServer, limits } = this.#port;
    if (this.isStopped || toServer?.isBlocked === true || toClient.isOverfull) return true;
    return this.#calls.undecidedBytes > limits.undecidedBytes;
  }

  /** Whether the client's first settings have arrived. */
  get hasSettings(): boolean {
    return this.#hasSettings;
  }

  get isWithinBlock(): boolean {
    return this.#partial !== undefined;
  }

  frame(type: number, flags: number, id: number, bytes: Buffer, start: number, end: number): void {
    if (!this.#hasSettings) this.#first(type, flags);
    if (this.#partial !== undefined && (type !== h2.CONTINUATION || id !== this.#partial.streamId)) {
      throw new ConnectionFault(PROTOCOL_ERROR, 'header block interrupted');
    }
    switch (type) {
      case h2.DATA:
        this.#data(flags, id, bytes, start, end);
        break;
      case h2.HEADERS:
        this.#headers(flags, id, bytes, start, end);
        break;
      case h2.CONTINUATION:
        this.#continuation(flags, bytes, start, end);
        break;
      case h2.RST_STREAM:
        this.#rstStream(id, bytes, start, end);
        break;
      default:
        this.#control.frame(type, flags, id, bytes, start, end);
    }
  }

  #first(type: number, flags: number): void {
    if (type !== h2.SETTINGS || (flags & h2.FLAG_ACK) !== 0) {
      throw new ConnectionFault(PROTOCOL_ERROR, 'the first frame must be SETTINGS');
    }
    this.#hasSettings = true;
  }

  #data(flags: number, id: number, bytes: Buffer, start: number, end: number): void {
    if (id === 0) throw new ConnectionFault(PROTOCOL_ERROR, 'DATA without a stream');
    checkDataPadding(flags, bytes, start, end);
    const length = end - start - h2.FRAME_HEADER_BYTES;
    const { budgets } = this.#port;
    if (length === 0 && (flags & h2.FLAG_END_STREAM) === 0) {
      this.#port.spend(budgets.emptyData, 'empty_data');
    } else {
      budgets.pings.refund(1);
    }
    const stream = this.#streams.get(id);
    if (stream === undefined) {
      this.#late(id);
      h2.writeWindowUpdate(this.#port.toClient, 0, length);
      return;
    }
    this.#calls.requestData(stream, flags, bytes, start, end);
  }

  /** A frame for a stream that is not open. */
  #late(id: number): void {
    if (id > this.#port.lastAcceptedId) return;
    if (id > this.#streams.lastId) throw new ConnectionFault(PROTOCOL_ERROR, 'frame on an idle stream');
    this.#port.spend(this.#port.budgets.lateFrames, 'late_frames');
    if (!this.#streams.mayBeLate(id)) throw new ConnectionFault(STREAM_CLOSED, 'frame on a closed stream');
  }

  #headers(flags: number, id: number, bytes: Buffer, start: number, end: number): void {
    if (id % 2 !== 1) throw new ConnectionFault(PROTOCOL_ERROR, 'invalid stream id');
    const layout = readHeadersLayout(flags, id, bytes, start, end);
    if ((flags & h2.FLAG_END_HEADERS) === 0) {
      this.#partial = new PartialBlock(id, flags, bytes, layout);
      this.#checkBlock(this.#partial);
      return;
    }
    const { priorityStart, padding } = layout;
    const extras =
      priorityStart === 0 && padding < 0
        ? undefined
        : this.#extras(
            priorityStart === 0 ? undefined : bytes.subarray(priorityStart, priorityStart + 5),
            padding,
          );
    this.#block(id, flags, bytes, layout.blockStart, layout.blockEnd, extras);
  }

  #continuation(flags: number, bytes: Buffer, start: number, end: number): void {
    const partial = this.#partial;
    if (partial === undefined) throw new ConnectionFault(PROTOCOL_ERROR, 'unexpected CONTINUATION');
    partial.continue(bytes, start, end);
    this.#checkBlock(partial);
    if ((flags & h2.FLAG_END_HEADERS) === 0) return;
    this.#partial = undefined;
    const block = partial.join();
    const extras = partial.priority === undefined ? undefined : this.#extras(partial.priority, -1);
    this.#block(partial.streamId, partial.flags, block, 0, block.length, extras);
  }

  #checkBlock(partial: PartialBlock): void {
    const { limits } = this.#port;
    if (partial.bytes > limits.headerBlockBytes) this.#excessive('limit_header_block');
    if (partial.continuations > limits.continuationFrames) this.#excessive('limit_continuation_frames');
  }

  #excessive(event: 'limit_header_block' | 'limit_continuation_frames'): never {
    this.#port.event(event);
    throw new ConnectionFault(ENHANCE_YOUR_CALM, 'header block too large');
  }

  #extras(priority: Buffer | undefined, padding: number): h2.HeadersExtras {
    const dependsOn = priority === undefined ? 0 : h2.readUint31(priority, 0);
    const dependency = dependsOn === 0 ? 0 : (this.#streams.get(dependsOn)?.serverId ?? 0);
    return { priority, dependency, padding: padding < 0 ? undefined : padding };
  }

  /** A complete header block, `bytes[start, end)`. It is decoded in every case, because it may change the table. */
  #block(
    id: number,
    flags: number,
    bytes: Buffer,
    start: number,
    end: number,
    extras: h2.HeadersExtras | undefined,
  ): void {
    const isEnd = (flags & h2.FLAG_END_STREAM) !== 0;
    const stream = this.#streams.get(id);
    if (stream !== undefined) {
      this.#trailers(stream, isEnd, this.#decoder.decode(bytes, start, end));
      return;
    }
    if (id <= this.#streams.lastId) {
      this.#decoder.decode(bytes, start, end);
      this.#late(id);
      return;
    }
    this.#streams.lastId = id;
    const head = this.#head(bytes, start, end);
    if (id > this.#port.lastAcceptedId) return;
    this.#request(id, head, isEnd, extras);
  }

  #head(bytes: Buffer, start: number, end: number): RequestHead | string | undefined {
    const { version } = this.#decoder;
    const known = this.#heads.get(bytes, start, end, version);
    if (known !== undefined) return known;
    const fields = this.#decoder.decode(bytes, start, end);
    const head = fields === undefined ? undefined : readRequestHead(fields, this.#port.forwardsToken);
    if (typeof head !== 'object' || head.block.length > REMEMBERED_HEAD_BYTES_MAX) return head;
    if (this.#decoder.version === version) {
      this.#heads.set(bytes, start, end, version, head);
    }
    return head;
  }

  /** @param head a text says why it is malformed; undefined when it is too large */
  #request(
    id: number,
    head: RequestHead | string | undefined,
    isEnd: boolean,
    extras: h2.HeadersExtras | undefined,
  ): void {
    const port = this.#port;
    if (this.#streams.size >= port.limits.streams) {
      port.event('limit_streams');
      this.#refuse(id, REFUSED_STREAM, isEnd);
    } else if (head === undefined) {
      port.event('limit_header_list');
      port.spend(port.budgets.refusedStreams, 'refused_streams');
      this.#calls.refuseTooLarge(id, isEnd);
    } else if (typeof head === 'string') {
      port.event('malformed_request', head);
      this.#refuse(id, PROTOCOL_ERROR, isEnd);
    } else {
      this.#calls.begin(id, head, isEnd, extras);
    }
  }

  #refuse(id: number, code: number, isEnd: boolean): void {
    this.#port.spend(this.#port.budgets.refusedStreams, 'refused_streams');
    h2.writeRstStream(this.#port.toClient, id, code);
    if (!isEnd) this.#streams.expectLate(id);
  }

  #trailers(stream: RelayStream, isEnd: boolean, fields: Field[] | undefined): void {
    if (stream.isRequestEnded) {
      this.#calls.resetBoth(stream, STREAM_CLOSED);
      return;
    }
    const block = fields === undefined || !isEnd ? undefined : readRequestTrailers(fields);
    if (block === undefined) {
      this.#port.event('malformed_request', 'invalid trailers');
      this.#calls.resetBoth(stream, PROTOCOL_ERROR);
      return;
    }
    this.#calls.requestTrailers(stream, block);
  }

  #rstStream(id: number, bytes: Buffer, start: number, end: number): void {
    if (end - start !== h2.FRAME_HEADER_BYTES + 4) {
      throw new ConnectionFault(FRAME_SIZE_ERROR, 'invalid length of RST_STREAM');
    }
    if (id === 0) throw new ConnectionFault(PROTOCOL_ERROR, 'RST_STREAM without a stream');
    const stream = this.#streams.get(id);
    if (stream === undefined) {
      if (id > this.#streams.lastId && id <= this.#port.lastAcceptedId) {
        throw new ConnectionFault(PROTOCOL_ERROR, 'frame on an idle stream');
      }
      this.#port.spend(this.#port.budgets.lateFrames, 'late_frames');
      return;
    }
    this.#calls.clientReset(stream, h2.readUint32(bytes, start + h2.FRAME_HEADER_BYTES));
  }
}
