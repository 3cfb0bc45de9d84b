/** Whether a peer is alive, and reads what is sent to it: looked at once a second, so that it costs nothing otherwise. */

import { writePing } from '../http2/frames.js';
import type { RelayLimits } from './limits.js';
import type { Link } from './link.js';
import { OWN_PING } from './own-ping.js';

/** What is wrong with a peer. */
export type PeerFault = 'stalled' | 'frame_time' | 'ping_answer';

/** Follows one peer. */
export class SocketWatch {
  readonly #link: Link;
  readonly #limits: RelayLimits;
  readonly #pingAfterMs: number;
  #activeMs: number;
  #pingMs = 0;
  #written = 0;
  #writtenMs: number;
  #frames = 0;
  #frameMs: number;

  /** @param pingAfterMs after this time without a byte, a peer with calls in progress receives a PING */
  constructor(link: Link, limits: RelayLimits, pingAfterMs: number, nowMs: number) {
    this.#link = link;
    this.#limits = limits;
    this.#pingAfterMs = pingAfterMs;
    this.#activeMs = nowMs;
    this.#writtenMs = nowMs;
    this.#frameMs = nowMs;
  }

  /**
   * Looks at the peer. One that is not read at present, because the other side is slow, is not blamed for its silence.
   *
   * @returns what is wrong; undefined when nothing is
   */
  look(nowMs: number, hasCalls: boolean): PeerFault | undefined {
    const { socket, reader, isRead, isWithin } = this.#link;
    const written = socket.bytesWritten - socket.writableLength;
    if (written !== this.#written || socket.writableLength === 0) {
      this.#written = written;
      this.#writtenMs = nowMs;
    }
    if (nowMs - this.#writtenMs > this.#limits.stalledMs) return 'stalled';
    if (!isRead || !isWithin || reader.frames !== this.#frames) {
      this.#frames = reader.frames;
      this.#frameMs = nowMs;
    }
    if (nowMs - this.#frameMs > this.#limits.frameMs) return 'frame_time';
    if (this.#link.isActive || !isRead) {
      this.#link.isActive = false;
      this.#activeMs = nowMs;
      this.#pingMs = 0;
    }
    if (this.#pingMs > 0) return nowMs - this.#pingMs > this.#limits.pingAnswerMs ? 'ping_answer' : undefined;
    if (hasCalls && nowMs - this.#activeMs > this.#pingAfterMs) {
      this.#pingMs = nowMs;
      writePing(this.#link.output, 0, OWN_PING);
      this.#link.output.flush();
    }
    return undefined;
  }
}
