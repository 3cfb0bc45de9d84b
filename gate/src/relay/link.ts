/** One socket of a connection: what is read from it frame by frame, and what is written to it once a turn. */

import type { Socket } from 'node:net';
import { FrameReader, type FrameSink } from '../http2/frame-reader.js';
import { Output } from '../http2/output.js';

/** Receives frames, of which some make up header blocks. */
export interface LinkSink extends FrameSink {
  /** Whether a header block has begun and not ended. */
  readonly isWithinBlock: boolean;
}

/** Receives what happens to a socket. */
export interface LinkOwner {
  /** Bytes have arrived; `turnEnded` follows. */
  turnBegins(): void;
  /** Bytes were read and their frames received, or something was thrown; or the socket takes more output again. */
  turnEnded(link: Link, error: unknown): void;
  /** The peer has closed, or the socket is broken. Called once. */
  lost(link: Link): void;
  /** The socket is closed. Called once, after `lost`. */
  closed(link: Link): void;
}

export class Link {
  readonly socket: Socket;
  readonly output: Output;
  readonly reader: FrameReader;
  readonly #sink: LinkSink;
  readonly #owner: LinkOwner;
  #isPaused = false;
  #isEnded = false;
  #isLost = false;
  /** Takes what comes before the frames, and returns the rest. */
  opening: ((chunk: Buffer) => Buffer) | undefined;
  /** Bytes have arrived since this was last reset. */
  isActive = true;
  /** The socket is closed. */
  isClosed = false;

  constructor(socket: Socket, sink: LinkSink, payloadBytesMax: number, owner: LinkOwner) {
    this.socket = socket;
    this.#sink = sink;
    this.#owner = owner;
    this.output = new Output(socket);
    this.reader = new FrameReader(sink, payloadBytesMax);
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
   * Stops or resumes reading, as the sink needs.
   *
   * @returns whether frames were received
   * @throws what the sink throws
   */
  settle(): boolean {
    if (this.#isEnded) return false;
    if (this.#sink.isBlocked) {
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
    if (!this.#sink.isBlocked) {
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
