/** One socket of a connection: what is read from it frame by frame, and what is written to it once a turn. */

import type { Socket } from 'node:net';
import { FrameReader, type FrameSink } from '../http2/frame-reader.js';
import { Output } from '../http2/output.js';
import type { RelayLimits } from './limits.js';
import { Turn } from './turn.js';

/** Receives frames, of which some make up header blocks. */
export interface LinkSink extends FrameSink {
  /** Whether a header block has begun and not ended. */
  readonly isWithinBlock: boolean;
}

/** Receives what happens to a socket. */
export interface LinkOwner {
  /** Bytes have arrived; `turnEnded` follows. */
  turnBegins(): void;
  /**
   * Bytes were read and their frames received, or something was thrown; or the socket takes more output again, or others
   * were served.
   */
  turnEnded(link: Link, error: unknown): void;
  /** The peer has closed, or the socket is broken. Called once. */
  lost(link: Link): void;
  /** The socket is closed. Called once, after `lost`. */
  closed(link: Link): void;
}

export class Link implements FrameSink {
  readonly socket: Socket;
  readonly output: Output;
  readonly reader: FrameReader;
  readonly #sink: LinkSink;
  readonly #owner: LinkOwner;
  readonly #turn: Turn;
  #isPaused = false;
  #isEnded = false;
  #isLost = false;
  /** Takes what comes before the frames, and returns the rest. */
  opening: ((chunk: Buffer) => Buffer) | undefined;
  /** Bytes have arrived since this was last reset. */
  isActive = true;
  /** The socket is closed. */
  isClosed = false;

  constructor(
    socket: Socket,
    sink: LinkSink,
    owner: LinkOwner,
    { limits, nowMs }: { readonly limits: RelayLimits; readonly nowMs: () => number },
  ) {
    this.socket = socket;
    this.#sink = sink;
    this.#owner = owner;
    this.#turn = new Turn(limits.turnMs, nowMs, () => owner.turnEnded(this, undefined));
    this.output = new Output(socket);
    this.reader = new FrameReader(this, limits.frameBytes);
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('drain', () => this.#owner.turnEnded(this, undefined));
    socket.on('end', () => this.#lose());
    socket.on('close', () => {
      this.#lose();
      this.isClosed = true;
      this.#owner.closed(this);
    });
    // Every error is followed by `close`.
    socket.on('error', () => {});
  }

  /** Whether its bytes are read at present. */
  get isRead(): boolean {
    return !this.#isPaused;
  }

  /** Whether something has begun and not ended: a frame, or a header block. */
  get isWithin(): boolean {
    return this.reader.isWithinFrame || this.#sink.isWithinBlock;
  }

  /** Whether no frame is taken: the sink takes none, or others have to be served first. */
  get isBlocked(): boolean {
    return this.#turn.isOver || this.#sink.isBlocked;
  }

  frame(type: number, flags: number, streamId: number, bytes: Buffer, start: number, end: number): void {
    this.#turn.count();
    this.#sink.frame(type, flags, streamId, bytes, start, end);
  }

  #read(chunk: Buffer): void {
    if (this.#isEnded) return;
    this.isActive = true;
    this.#owner.turnBegins();
    let error: unknown;
    try {
      this.reader.push(this.opening === undefined ? chunk : this.opening(chunk));
    } catch (thrown) {
      error = thrown ?? new Error('unknown error');
    }
    this.#owner.turnEnded(this, error);
  }

  /**
   * Stops or resumes reading, as the sink and others need.
   *
   * @returns whether frames were received
   * @throws what the sink throws
   */
  settle(): boolean {
    if (this.#isEnded) return false;
    if (this.isBlocked) {
      if (!this.#isPaused) {
        this.#isPaused = true;
        this.socket.pause();
      }
      return false;
    }
    // A turn that wrote too much has left bytes behind, although the socket took all of it.
    if (!this.#isPaused && !this.reader.isWaiting) return false;
    const before = this.reader.frames;
    this.reader.resume();
    if (!this.isBlocked) {
      this.#isPaused = false;
      this.socket.resume();
    }
    return this.reader.frames !== before;
  }

  /** Writes what was collected, and closes. Nothing is received any more. */
  end(): void {
    if (this.#isEnded) return;
    this.output.flush();
    this.#isEnded = true;
    this.reader.clear();
    this.socket.end();
    // Unread bytes would turn the end into a reset, which could overtake the last frames.
    this.socket.resume();
  }

  #lose(): void {
    if (this.#isLost) return;
    this.#isLost = true;
    this.#owner.lost(this);
  }
}
