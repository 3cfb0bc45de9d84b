/** What a client has room for (RFC 9113 §5.2), as far as the gate must know it to send DATA of its own. */

import { WINDOW_DEFAULT } from '../http2/frames.js';

/** The flow-control windows of one client. */
export class ClientWindows {
  /** What the connection has room for, in bytes. The server may know of {@link ClientWindows.own} bytes more. */
  connection = WINDOW_DEFAULT;
  /** DATA of the gate itself, whose credit must not reach the server, in bytes. */
  own = 0;
  #stream = WINDOW_DEFAULT;
  #acknowledged = WINDOW_DEFAULT;
  /** The window for new streams after each SETTINGS frame that is not acknowledged yet. */
  readonly #unacknowledged: number[] = [];

  /** The window for new streams that the server uses, in bytes. */
  get stream(): number {
    return this.#stream;
  }

  /**
   * The window for new streams that the client is sure to accept, in bytes: it may insist on the former one until it
   * receives the acknowledgement of its SETTINGS.
   */
  get sureStream(): number {
    return Math.min(this.#acknowledged, ...this.#unacknowledged);
  }

  /** Whether SETTINGS of the client are not acknowledged yet. */
  get isUnacknowledged(): boolean {
    return this.#unacknowledged.length > 0;
  }

  /** The client has sent SETTINGS. @param stream its window for new streams; undefined when that stays */
  announced(stream: number | undefined): void {
    if (stream !== undefined) this.#stream = stream;
    this.#unacknowledged.push(this.#stream);
  }

  /** The oldest SETTINGS are acknowledged. */
  acknowledged(): void {
    this.#acknowledged = this.#unacknowledged.shift() ?? this.#acknowledged;
  }

  /** The client has room for more. @returns what of it the server may use, in bytes */
  credited(increment: number): number {
    const own = Math.min(increment, this.own);
    this.connection += increment;
    this.own -= own;
    return increment - own;
  }

  /** The gate has sent DATA of its own. */
  used(bytes: number): void {
    this.connection -= bytes;
    this.own += bytes;
  }
}
