/** The limits of the relay: what one peer can make it hold or do. */

const SECOND_MS = 1000;
const KIB = 1024;

/** The limits of the relay. Each holds for one connection unless it says otherwise. */
export interface RelayLimits {
  /** Maximum number of client connections of this process. More are closed at once. Default: 10,000. */
  readonly connections: number;
  /** Maximum number of calls in progress; more are refused (REFUSED_STREAM). Default: 1,000. */
  readonly streams: number;
  /** Maximum payload of a frame in either direction, in bytes, from 16,384. Default: 16,384. */
  readonly frameBytes: number;
  /** Maximum size of the dynamic table of a client's headers, in bytes. Default: 4,096. */
  readonly headerTableBytes: number;
  /** Maximum size of a header list, in bytes as RFC 9113 §6.5.2 counts them. Default: 16 KiB. */
  readonly headerListBytes: number;
  /** Maximum number of fields of a header list. Default: 256. */
  readonly headerFields: number;
  /** Maximum size of an encoded header block, in bytes. A larger one ends the connection. Default: 32 KiB. */
  readonly headerBlockBytes: number;
  /** Maximum number of CONTINUATION frames of a header block. More end the connection. Default: 16. */
  readonly continuationFrames: number;
  /**
   * Maximum number of bytes of requests that wait for their decisions. Beyond it, no more is read from the client until a
   * decision is made. Default: 256 KiB.
   */
  readonly undecidedBytes: number;
  /**
   * Calls that a client may reset before their responses have ended, or have reset by a violation of the protocol: at once,
   * and for each second. Default: 1,000, 33.
   */
  readonly resets: Rate;
  /** Calls that may be refused because there are too many: at once, and for each second. Default: 1,000, 100. */
  readonly refusedStreams: Rate;
  /** SETTINGS frames: at once, and for each second. Default: 100, 10. */
  readonly settings: Rate;
  /** PING frames, beside one for each DATA frame: at once, and for each second. Default: 1,000, 100. */
  readonly pings: Rate;
  /** PRIORITY, PRIORITY_UPDATE and unknown frames: at once, and for each second. Default: 2,000, 200. */
  readonly hints: Rate;
  /** DATA frames without data that do not end a request: at once, and for each second. Default: 1,000, 100. */
  readonly emptyData: Rate;
  /** WINDOW_UPDATE frames, beside two for each DATA frame: at once, and for each second. Default: 20,000, 2,000. */
  readonly windowUpdates: Rate;
  /** Frames on streams that are closed: at once, and for each second. Default: 20,000, 2,000. */
  readonly lateFrames: Rate;
  /**
   * How long the frames of one peer may take, in milliseconds, before others are served. What it has sent beyond that is read
   * when the event loop has been round. Default: 5.
   */
  readonly turnMs: number;
  /** How long a client may take for TLS and its first frames, in milliseconds. Default: 10 seconds. */
  readonly setupMs: number;
  /** How long a client may take to make its first request before it is asked to leave, in milliseconds. Default: 60 seconds. */
  readonly firstRequestMs: number;
  /** How long connecting to the server may take, in milliseconds. Default: 5 seconds. */
  readonly connectMs: number;
  /** How long a frame or a header block may take from its beginning to its end, in milliseconds. Default: 30 seconds. */
  readonly frameMs: number;
  /** How long a peer may leave its socket unread while bytes wait for it, in milliseconds. Default: 30 seconds. */
  readonly stalledMs: number;
  /** How long a connection may stay without calls, in milliseconds. Default: 30 minutes. */
  readonly idleMs: number;
  /** After this time without a byte from a client with calls in progress it receives a PING. Default: 60 seconds. */
  readonly clientPingMs: number;
  /**
   * The same for the server. Servers of gRPC end connections with more than one PING in five minutes, unless they are
   * configured otherwise. Default: 330 seconds.
   */
  readonly serverPingMs: number;
  /** How long an answer to such a PING may take, in milliseconds. Default: 20 seconds. */
  readonly pingAnswerMs: number;
  /** How long a connection may take to close, in milliseconds. Default: 5 seconds. */
  readonly closeMs: number;
}

/** How often something may happen. */
export interface Rate {
  /** How often at once. */
  readonly burst: number;
  /** How often in a second, in the long run. */
  readonly perSecond: number;
}

/** The defaults of {@link RelayLimits}. */
export const RELAY_LIMITS: RelayLimits = {
  connections: 10_000,
  streams: 1000,
  frameBytes: 16 * KIB,
  headerTableBytes: 4 * KIB,
  headerListBytes: 16 * KIB,
  headerFields: 256,
  headerBlockBytes: 32 * KIB,
  continuationFrames: 16,
  undecidedBytes: 256 * KIB,
  resets: { burst: 1000, perSecond: 33 },
  refusedStreams: { burst: 1000, perSecond: 100 },
  settings: { burst: 100, perSecond: 10 },
  pings: { burst: 1000, perSecond: 100 },
  hints: { burst: 2000, perSecond: 200 },
  emptyData: { burst: 1000, perSecond: 100 },
  windowUpdates: { burst: 20_000, perSecond: 2000 },
  lateFrames: { burst: 20_000, perSecond: 2000 },
  turnMs: 5,
  setupMs: 10 * SECOND_MS,
  firstRequestMs: 60 * SECOND_MS,
  connectMs: 5 * SECOND_MS,
  frameMs: 30 * SECOND_MS,
  stalledMs: 30 * SECOND_MS,
  idleMs: 30 * 60 * SECOND_MS,
  clientPingMs: 60 * SECOND_MS,
  serverPingMs: 330 * SECOND_MS,
  pingAnswerMs: 20 * SECOND_MS,
  closeMs: 5 * SECOND_MS,
};

/** Both clocks, in milliseconds. */
export interface RelayClock {
  /** Since the Unix epoch. */
  wallMs(): number;
  /** Since an arbitrary start; never goes back. */
  monotonicMs(): number;
}

/** How much of a {@link Rate} is left. */
export class Budget {
  readonly #rate: Rate;
  #left: number;
  #sinceMs: number;

  constructor(rate: Rate, nowMs: number) {
    this.#rate = rate;
    this.#left = rate.burst;
    this.#sinceMs = nowMs;
  }

  /** Takes one. @param clock read only when nothing seems left. @returns false when none is left */
  take(clock: RelayClock): boolean {
    if (this.#left < 1) this.#refill(clock.monotonicMs());
    if (this.#left < 1) return false;
    this.#left -= 1;
    return true;
  }

  /** Gives back `amount`, up to the burst. */
  refund(amount: number): void {
    this.#left = Math.min(this.#rate.burst, this.#left + amount);
  }

  #refill(nowMs: number): void {
    const { burst, perSecond } = this.#rate;
    this.#left = Math.min(burst, this.#left + ((nowMs - this.#sinceMs) / SECOND_MS) * perSecond);
    this.#sinceMs = nowMs;
  }
}
