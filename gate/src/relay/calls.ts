/** The calls of one connection: decided before the server receives anything, and ended when the decision changes. */

import { CANCEL, NO_ERROR, PROTOCOL_ERROR, REFUSED_STREAM, STREAM_CLOSED } from '../http2/errors.js';
import {
  FLAG_END_STREAM,
  FRAME_HEADER_BYTES,
  type HeadersExtras,
  writeHeaders,
  writeRstStream,
  writeSettingsAck,
  writeUint32,
  writeWindowUpdate,
} from '../http2/frames.js';
import type { RequestHead } from '../http2/request-head.js';
import type { OwnMethod, RelayCall, RelayStatus, Verdict } from './judge.js';
import { isEnveloped } from './message-meter.js';
import { OwnCall, type OwnCallHost } from './own-call.js';
import type { ConnectionPort } from './port.js';
import { emptyTable, encodedIdentity, foreignTo, isGrpc, sendForeign, sendStatus } from './replies.js';
import { RelayStream, type StreamOwner, type StreamTable } from './stream.js';

/** The decision on a call that may begin. */
type Admitted = Exclude<Verdict<RelayCall>, { readonly kind: 'refused' }>;

export class Calls implements StreamOwner, OwnCallHost {
  readonly #port: ConnectionPort;
  readonly #streams: StreamTable;
  /** The server's first block must say that no dynamic table is used. */
  #isTableAnnounced = false;
  /** Calls that the gate answers itself, and whose clients have no room for the answer. */
  readonly #waiting = new Set<RelayStream>();
  /** Bytes of all requests that wait for their decisions. */
  #undecidedBytes = 0;
  /** The server accepts no further streams. */
  isServerLeaving = false;

  constructor(port: ConnectionPort, streams: StreamTable) {
    this.#port = port;
    this.#streams = streams;
  }

  get undecidedBytes(): number {
    return this.#undecidedBytes;
  }

  /** A new, well-formed request. */
  begin(id: number, head: RequestHead, isEnd: boolean, extras: HeadersExtras | undefined): void {
    const stream = new RelayStream(id, this);
    stream.head = head;
    stream.extras = extras;
    stream.isRequestEnded = isEnd;
    this.#streams.add(stream);
    let verdict: Verdict<RelayCall> | Promise<Verdict<RelayCall>>;
    try {
      verdict = this.#port.judge.judge(head.path, head.authorizations, this.#port.caller);
    } catch (error) {
      this.#undecidable(stream, error);
      return;
    }
    if (verdict instanceof Promise) {
      verdict
        .then(
          (decided) => this.#decided(stream, decided),
          (error: unknown) => this.#undecidable(stream, error),
        )
        .catch((error: unknown) => this.#undecidable(stream, error))
        .catch((error: unknown) => this.#port.event('internal_error', error));
    } else {
      this.#decided(stream, verdict);
    }
  }

  /** A request whose header list is too large. */
  refuseTooLarge(id: number, isEnd: boolean): void {
    const stream = new RelayStream(id, this);
    stream.isRequestEnded = isEnd;
    this.#streams.add(stream);
    this.finish(stream, this.#port.statuses.headersTooLarge);
  }

  #undecidable(stream: RelayStream, error: unknown): void {
    this.#port.event('internal_error', error);
    if (!stream.isClosed) this.finish(stream, this.#port.statuses.noDecision);
  }

  #decided(stream: RelayStream, verdict: Verdict<RelayCall>): void {
    if (verdict.kind === 'refused') {
      if (!stream.isClosed) this.#refuse(stream, verdict.status);
      return;
    }
    if (stream.isClosed) {
      verdict.call.unlink();
      return;
    }
    this.#admit(stream, verdict);
  }

  #refuse(stream: RelayStream, status: RelayStatus): void {
    const foreign = foreignTo(this.#port, stream, status);
    if (foreign === undefined) {
      this.finish(stream, status);
      return;
    }
    sendForeign(this.#port, stream, foreign);
    this.#stopRequest(stream);
    this.#close(stream);
  }

  #admit(stream: RelayStream, { call, requestBytesMax, own }: Admitted): void {
    const port = this.#port;
    const head = stream.head as RequestHead;
    const { extras } = stream;
    stream.call = call;
    // Nothing has reached the server yet: a call that is cut here never begins there.
    call.link(stream);
    if (stream.isClosed) return;
    if (own !== undefined && isGrpc(head.contentType)) {
      this.#answer(stream, own);
      return;
    }
    if (port.toServer === undefined) {
      this.finish(stream, port.statuses.serverUnavailable);
      return;
    }
    if (this.isServerLeaving) {
      this.#reset(stream, REFUSED_STREAM);
      return;
    }
    stream.measure(isEnveloped(head.contentType), requestBytesMax, call.method?.responseStream === false);
    const identity = port.judge.identityHeaders?.(call, head);
    const parts = [head.block];
    if (identity !== undefined && identity.length > 0) parts.push(encodedIdentity(identity));
    if (!this.#isTableAnnounced) {
      this.#isTableAnnounced = true;
      parts.unshift(emptyTable);
    }
    this.#streams.bind(stream);
    const hasHeld = stream.held !== undefined;
    writeHeaders(port.toServer, stream.serverId, parts, stream.isRequestEnded && !hasHeld, extras);
    if (stream.heldWindow > 0) writeWindowUpdate(port.toServer, stream.serverId, stream.heldWindow);
    stream.head = undefined;
    stream.extras = undefined;
    if (hasHeld) this.#release(stream);
    else if (stream.isRequestEnded) call.requestEnded();
    port.scheduleFlush();
  }

  /** The gate answers the call itself. */
  #answer(stream: RelayStream, method: OwnMethod): void {
    stream.own = new OwnCall(this.#port, stream, method, this);
    stream.head = undefined;
    stream.extras = undefined;
    if (stream.held !== undefined) this.#release(stream);
    else if (stream.isRequestEnded) this.#ownRequestEnded(stream);
    this.#port.scheduleFlush();
  }

  #ownRequestEnded(stream: RelayStream): void {
    if (stream.isClosed) return;
    stream.call?.requestEnded();
    stream.own?.requestEnded();
  }

  waits(stream: RelayStream): void {
    this.#waiting.add(stream);
  }

  /** Sends answers of the gate itself for which there is room by now. */
  flushOwn(): void {
    if (this.#waiting.size === 0) return;
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const { own } of waiting) own?.flush();
  }

  /** Passes on what has waited for the decision. */
  #release(stream: RelayStream): void {
    const held = stream.held ?? [];
    const bytes = stream.heldBytes;
    const dataBytes = stream.heldDataBytes;
    stream.held = undefined;
    stream.heldBytes = 0;
    let passed = 0;
    for (const part of held) {
      if (stream.isClosed) break;
      if ('trailers' in part) {
        this.#passTrailers(stream, part.trailers);
        continue;
      }
      const { frame } = part;
      passed += frame.length - FRAME_HEADER_BYTES;
      this.#passData(stream, frame[4] ?? 0, frame, 0, frame.length);
    }
    // The client's window for what was dropped; passData has credited what it refused itself.
    writeWindowUpdate(this.#port.toClient, 0, dataBytes - passed);
    this.#forgetHeld(bytes);
  }

  #forgetHeld(bytes: number): void {
    if (bytes === 0) return;
    const port = this.#port;
    this.#undecidedBytes -= bytes;
    if (this.#undecidedBytes === 0 && port.toServer !== undefined) {
      for (; port.heldSettingsAcks > 0; port.heldSettingsAcks--) writeSettingsAck(port.toServer);
    }
    port.scheduleFlush();
  }

  /** A DATA frame of a request, `bytes[start, end)`. */
  requestData(stream: RelayStream, flags: number, bytes: Buffer, start: number, end: number): void {
    if (stream.isRequestEnded) {
      writeWindowUpdate(this.#port.toClient, 0, end - start - FRAME_HEADER_BYTES);
      this.resetBoth(stream, STREAM_CLOSED);
      return;
    }
    if ((flags & FLAG_END_STREAM) !== 0) stream.isRequestEnded = true;
    if (stream.call === undefined) {
      this.#undecidedBytes += end - start;
      stream.hold({ frame: Buffer.from(bytes.subarray(start, end)) });
      return;
    }
    this.#passData(stream, flags, bytes, start, end);
  }

  #passData(stream: RelayStream, flags: number, bytes: Buffer, start: number, end: number): void {
    const { toServer, toClient } = this.#port;
    const call = stream.call as RelayCall;
    const length = end - start - FRAME_HEADER_BYTES;
    let denial = call.denial();
    const { own } = stream;
    if (own !== undefined && denial === undefined) {
      writeWindowUpdate(toClient, 0, length);
      own.requestData(flags, bytes, start, end);
      if ((flags & FLAG_END_STREAM) !== 0) this.#ownRequestEnded(stream);
      return;
    }
    if (denial === undefined && !stream.admitsRequest(flags, bytes, start, end)) {
      this.#port.event('limit_request_bytes');
      denial = call.exceeded('request_bytes');
    }
    if (denial !== undefined || toServer === undefined) {
      writeWindowUpdate(toClient, 0, length);
      if (denial !== undefined) this.cut(stream, denial);
      return;
    }
    const isEnd = (flags & FLAG_END_STREAM) !== 0;
    if (length > 0 && call.method?.requestStream !== false) call.requestActive();
    if (isEnd) call.requestEnded();
    writeUint32(bytes, start + 5, stream.serverId);
    toServer.append(bytes, start, end);
    if (isEnd) this.closeIfEnded(stream);
  }

  /** The trailers of a request. */
  requestTrailers(stream: RelayStream, block: Buffer): void {
    stream.isRequestEnded = true;
    if (stream.call === undefined) {
      this.#undecidedBytes += block.length;
      stream.hold({ trailers: block });
      return;
    }
    this.#passTrailers(stream, block);
  }

  #passTrailers(stream: RelayStream, block: Buffer): void {
    const { toServer } = this.#port;
    const call = stream.call as RelayCall;
    const denial = call.denial();
    if (denial !== undefined) {
      this.cut(stream, denial);
      return;
    }
    if (stream.own !== undefined) {
      this.#ownRequestEnded(stream);
      return;
    }
    if (toServer === undefined) return;
    call.requestEnded();
    // A block without fields would be an empty HEADERS frame; it is one all the same.
    writeHeaders(toServer, stream.serverId, [block], true);
    this.closeIfEnded(stream);
  }

  /** The client has reset a stream. */
  clientReset(stream: RelayStream, code: number): void {
    this.#spendReset(stream);
    const { toServer } = this.#port;
    if (stream.serverId > 0 && toServer !== undefined) writeRstStream(toServer, stream.serverId, code);
    stream.isRequestEnded = true;
    this.#close(stream);
  }

  /** The server has reset a stream. What the client does wrong there costs it as much as its own reset (CVE-2025-8671). */
  serverReset(stream: RelayStream, code: number): void {
    const isOwnWill = code === NO_ERROR || code === REFUSED_STREAM;
    this.#reset(stream, code);
    if (!isOwnWill) this.#spendReset(stream);
  }

  #spendReset(stream: RelayStream): void {
    if (!stream.isResponseEnded) this.#port.spend(this.#port.budgets.resets, 'resets');
  }

  /** Resets a stream in both directions, because the client has violated the protocol there. */
  resetBoth(stream: RelayStream, code: number): void {
    this.#spendReset(stream);
    const { toServer } = this.#port;
    if (stream.serverId > 0 && toServer !== undefined) {
      writeRstStream(toServer, stream.serverId, code === STREAM_CLOSED ? PROTOCOL_ERROR : code);
    }
    this.#reset(stream, code);
  }

  #reset(stream: RelayStream, code: number): void {
    writeRstStream(this.#port.toClient, stream.id, code);
    this.#close(stream);
  }

  /** Closes a call whose request and response have both ended. */
  closeIfEnded(stream: RelayStream): void {
    if (stream.isRequestEnded && stream.isResponseEnded && !stream.isClosed) this.#close(stream);
  }

  /** Ends a call with a status, and counts it. */
  cut(stream: RelayStream, status: RelayStatus): void {
    if (stream.isClosed) return;
    this.#port.event('call_cut');
    this.finish(stream, status);
  }

  /**
   * Ends a call with a status. The status does not wait for data: trailers are no part of flow control, and DATA of the stream
   * that is still unread at this socket is dropped when it is read.
   */
  finish(stream: RelayStream, status: RelayStatus): void {
    if (stream.isClosed) return;
    const { toServer } = this.#port;
    if (stream.serverId > 0 && toServer !== undefined) writeRstStream(toServer, stream.serverId, CANCEL);
    if (!stream.isResponseEnded) sendStatus(this.#port, stream, status);
    this.#stopRequest(stream);
    this.#close(stream);
  }

  /** Ends the calls of a server that was lost. */
  finishAll(status: RelayStatus): void {
    for (const stream of this.#streams.all()) if (stream.serverId > 0) this.finish(stream, status);
  }

  /** Ends the calls that the gate answers itself. */
  finishOwn(status: RelayStatus): void {
    for (const stream of this.#streams.all()) if (stream.own !== undefined) this.finish(stream, status);
  }

  /** Drops all calls of a client that was lost. */
  abandonAll(): void {
    for (const stream of this.#streams.all()) {
      this.#streams.remove(stream, false);
      stream.call?.unlink();
      stream.own?.close();
    }
  }

  /** The server will not process some streams. The client may repeat them on another connection. */
  refuseUnprocessed(streams: readonly RelayStream[], lastId: number): void {
    for (const stream of streams) {
      if (stream.id <= lastId) this.#reset(stream, REFUSED_STREAM);
      else this.#close(stream);
    }
  }

  /** Asks the client to send nothing more: the response is complete (RFC 9113 §8.1). */
  #stopRequest(stream: RelayStream): void {
    if (!stream.isRequestEnded) writeRstStream(this.#port.toClient, stream.id, NO_ERROR);
  }

  #close(stream: RelayStream): void {
    const port = this.#port;
    this.#streams.remove(stream, !stream.isRequestEnded);
    stream.call?.unlink();
    stream.own?.close();
    this.#waiting.delete(stream);
    if (stream.held !== undefined) {
      writeWindowUpdate(port.toClient, 0, stream.heldDataBytes);
      stream.held = undefined;
      this.#forgetHeld(stream.heldBytes);
    }
    port.scheduleFlush();
  }
}
