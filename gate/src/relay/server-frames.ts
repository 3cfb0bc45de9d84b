/** Receives the frames of the server. */

import {
  ConnectionFault,
  ENHANCE_YOUR_CALM,
  FLOW_CONTROL_ERROR,
  FRAME_SIZE_ERROR,
  PROTOCOL_ERROR,
} from '../http2/errors.js';
import * as h2 from '../http2/frames.js';
import { emptiesTable, ResponseBlocks } from '../http2/response-blocks.js';
import type { Calls } from './calls.js';
import { checkDataPadding, PartialBlock, readHeadersLayout } from './header-block.js';
import type { LinkSink } from './link.js';
import { isOwnPing } from './own-ping.js';
import type { ConnectionPort } from './port.js';
import { emptyTable } from './replies.js';
import { Responses } from './responses.js';
import { readSettings, settingsForClient } from './settings.js';
import type { StreamTable } from './stream.js';

/** Credit for WINDOW_UPDATE frames of a client for each DATA frame that it receives: for the connection, and the stream. */
const WINDOW_UPDATES_PER_DATA = 2;

/** A server's header lists are passed on, and need less room than the client allows. */
const LIST_BYTES_MAX = 1024 * 1024;
const FIELDS_MAX = 10_000;
const CONTINUATIONS_MAX = 64;

/** What the connection does when the server leaves. */
export interface ServerFollower {
  /** The server has sent GOAWAY. */
  serverLeaves(lastId: number, code: number, debug: string): void;
}

/** A DATA frame that waits: `bytes[start, end)`. */
interface HeldData {
  readonly flags: number;
  readonly id: number;
  readonly bytes: Buffer;
  readonly start: number;
  readonly end: number;
}

/** The server's side of one connection. */
export class ServerFrames implements LinkSink {
  readonly #port: ConnectionPort;
  readonly #calls: Calls;
  readonly #responses: Responses;
  readonly #streams: StreamTable;
  readonly #follower: ServerFollower;
  readonly #blocks = new ResponseBlocks(LIST_BYTES_MAX, FIELDS_MAX);
  #partial: PartialBlock | undefined;
  /** DATA for which a response of the gate has left no room in the client's connection; nothing is read meanwhile. */
  #held: HeldData | undefined;
  #hasSettings = false;
  isStopped = false;

  constructor(port: ConnectionPort, calls: Calls, streams: StreamTable, follower: ServerFollower) {
    this.#port = port;
    this.#calls = calls;
    this.#responses = new Responses(port, calls);
    this.#streams = streams;
    this.#follower = follower;
  }

  get isBlocked(): boolean {
    return this.isStopped || this.#held !== undefined || this.#port.toClient.isBlocked;
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
      case h2.WINDOW_UPDATE:
        this.#windowUpdate(id, bytes, start, end);
        break;
      case h2.RST_STREAM:
        this.#rstStream(id, bytes, start, end);
        break;
      case h2.SETTINGS:
        this.#settings(flags, id, bytes, start, end);
        break;
      case h2.PING:
        this.#ping(flags, id, bytes, start, end);
        break;
      case h2.GOAWAY:
        this.#goaway(id, bytes, start, end);
        break;
      case h2.PUSH_PROMISE:
        throw new ConnectionFault(PROTOCOL_ERROR, 'unexpected PUSH_PROMISE');
      default:
      // Nothing else has a meaning for a client that was not told of it.
    }
  }

  #first(type: number, flags: number): void {
    if (type !== h2.SETTINGS || (flags & h2.FLAG_ACK) !== 0) {
      throw new ConnectionFault(PROTOCOL_ERROR, 'the first frame must be SETTINGS');
    }
    this.#hasSettings = true;
  }

  /** Passes on the DATA that has waited, once the client has room for it. */
  release(): void {
    const held = this.#held;
    if (held === undefined) return;
    this.#held = undefined;
    this.#data(held.flags, held.id, held.bytes, held.start, held.end);
  }

  #data(flags: number, id: number, bytes: Buffer, start: number, end: number): void {
    checkDataPadding(flags, bytes, start, end);
    const length = end - start - h2.FRAME_HEADER_BYTES;
    const { budgets, windows } = this.#port;
    const stream = this.#streams.getByServerId(id);
    if (stream === undefined) {
      this.#checkKnown(id);
      this.#responses.drop(length);
      return;
    }
    if (length > windows.connection) {
      if (length > windows.connection + windows.own)
        throw new ConnectionFault(FLOW_CONTROL_ERROR, 'DATA beyond the window of the connection');
      this.#held = { flags, id, bytes, start, end };
      return;
    }
    budgets.windowUpdates.refund(WINDOW_UPDATES_PER_DATA);
    budgets.pings.refund(1);
    this.#responses.data(stream, flags, bytes, start, end);
  }

  #checkKnown(id: number): void {
    if (!this.#streams.isKnownToServer(id))
      throw new ConnectionFault(PROTOCOL_ERROR, 'frame on an idle stream');
  }

  #headers(flags: number, id: number, bytes: Buffer, start: number, end: number): void {
    this.#checkKnown(id);
    const layout = readHeadersLayout(flags, id, bytes, start, end);
    if ((flags & h2.FLAG_END_HEADERS) === 0) {
      this.#partial = new PartialBlock(id, flags, bytes, layout);
      return;
    }
    const { blockStart, blockEnd } = layout;
    const kind = this.#blocks.read(bytes, blockStart, blockEnd);
    const stream = this.#streams.getByServerId(id);
    const isEnd = (flags & h2.FLAG_END_STREAM) !== 0;
    if (stream === undefined || !this.#responses.headers(stream, kind, isEnd)) return;
    if (this.#port.owesTableUpdate && !emptiesTable(bytes, blockStart)) {
      h2.writeHeaders(
        this.#port.toClient,
        stream.id,
        [emptyTable, bytes.subarray(blockStart, blockEnd)],
        isEnd,
      );
    } else {
      h2.writeUint32(bytes, start + 5, stream.id);
      this.#port.toClient.append(bytes, start, end);
    }
    this.#port.owesTableUpdate = false;
    if (isEnd) this.#responses.ended(stream);
  }

  #continuation(flags: number, bytes: Buffer, start: number, end: number): void {
    const partial = this.#partial;
    if (partial === undefined) throw new ConnectionFault(PROTOCOL_ERROR, 'unexpected CONTINUATION');
    partial.continue(bytes, start, end);
    if (partial.bytes > LIST_BYTES_MAX || partial.continuations > CONTINUATIONS_MAX) {
      throw new ConnectionFault(ENHANCE_YOUR_CALM, 'header block too large');
    }
    if ((flags & h2.FLAG_END_HEADERS) === 0) return;
    this.#partial = undefined;
    const block = partial.join();
    const kind = this.#blocks.read(block, 0, block.length);
    const stream = this.#streams.getByServerId(partial.streamId);
    const isEnd = (partial.flags & h2.FLAG_END_STREAM) !== 0;
    if (stream === undefined || !this.#responses.headers(stream, kind, isEnd)) return;
    const needsUpdate = this.#port.owesTableUpdate && !emptiesTable(block, 0);
    h2.writeHeaders(this.#port.toClient, stream.id, needsUpdate ? [emptyTable, block] : [block], isEnd);
    this.#port.owesTableUpdate = false;
    if (isEnd) this.#responses.ended(stream);
  }

  #windowUpdate(id: number, bytes: Buffer, start: number, end: number): void {
    if (end - start !== h2.FRAME_HEADER_BYTES + 4) {
      throw new ConnectionFault(FRAME_SIZE_ERROR, 'invalid length of WINDOW_UPDATE');
    }
    if (id > 0) {
      const stream = this.#streams.getByServerId(id);
      if (stream === undefined) return;
      h2.writeUint32(bytes, start + 5, stream.id);
    }
    this.#port.toClient.append(bytes, start, end);
  }

  #rstStream(id: number, bytes: Buffer, start: number, end: number): void {
    if (end - start !== h2.FRAME_HEADER_BYTES + 4) {
      throw new ConnectionFault(FRAME_SIZE_ERROR, 'invalid length of RST_STREAM');
    }
    this.#checkKnown(id);
    const stream = this.#streams.getByServerId(id);
    if (stream === undefined) return;
    this.#calls.serverReset(stream, h2.readUint32(bytes, start + h2.FRAME_HEADER_BYTES));
  }

  #settings(flags: number, id: number, bytes: Buffer, start: number, end: number): void {
    const port = this.#port;
    if (id !== 0) throw new ConnectionFault(PROTOCOL_ERROR, 'SETTINGS on a stream');
    if ((flags & h2.FLAG_ACK) === 0) {
      const settings = readSettings(bytes, start + h2.FRAME_HEADER_BYTES, end);
      h2.writeSettings(port.toClient, settingsForClient(settings, port.limits));
      port.serverSettingsUnacknowledged += 1;
      return;
    }
    if (!port.windows.isUnacknowledged) {
      throw new ConnectionFault(PROTOCOL_ERROR, 'unexpected acknowledgement of SETTINGS');
    }
    port.windows.acknowledged();
    h2.writeSettingsAck(port.toClient);
  }

  #ping(flags: number, id: number, bytes: Buffer, start: number, end: number): void {
    const port = this.#port;
    const at = start + h2.FRAME_HEADER_BYTES;
    if (end - at !== 8) throw new ConnectionFault(FRAME_SIZE_ERROR, 'invalid length of PING');
    if (id !== 0) throw new ConnectionFault(PROTOCOL_ERROR, 'PING on a stream');
    if ((flags & h2.FLAG_ACK) === 0) {
      port.serverPings += 1;
    } else if (isOwnPing(bytes, at)) {
      return;
    } else if (port.clientPings > 0) {
      port.clientPings -= 1;
    } else {
      return;
    }
    port.toClient.append(bytes, start, end);
  }

  #goaway(id: number, bytes: Buffer, start: number, end: number): void {
    const at = start + h2.FRAME_HEADER_BYTES;
    if (end - at < 8) throw new ConnectionFault(FRAME_SIZE_ERROR, 'invalid length of GOAWAY');
    if (id !== 0) throw new ConnectionFault(PROTOCOL_ERROR, 'GOAWAY on a stream');
    const debug = bytes.toString('latin1', at + 8, end);
    this.#follower.serverLeaves(h2.readUint31(bytes, at), h2.readUint32(bytes, at + 4), debug);
  }
}
