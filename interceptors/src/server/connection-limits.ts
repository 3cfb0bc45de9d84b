/** How many connections a peer may have, and how long one may stay without a request. */

import type { AcceptedSocket, ConnectionListener, Http2Session } from '../wire/grpc-js-internals.js';
import { networkOf } from '../wire/networks.js';
import type { GuardLimits, LimitName } from './guard-limits.js';

/** The part of the connections that networks without a valid token may have together. */
const UNKNOWN_PART = 3 / 4;

/** One TCP connection. */
interface Connection {
  readonly socket: AcceptedSocket;
  readonly acceptedMs: number;
  isEstablished: boolean;
}

export class ConnectionLimits implements ConnectionListener {
  readonly #limits: GuardLimits;
  readonly #nowMs: () => number;
  readonly #isKnownNetwork: (network: string) => boolean;
  readonly #onLimit: (limit: LimitName) => void;
  /** Connections without a request so far, by their peer's address and port. */
  readonly #silent = new Map<string, Connection>();
  readonly #byNetwork = new Map<string, number>();
  #count = 0;

  constructor(options: {
    limits: GuardLimits;
    /** The monotonic clock. */
    nowMs: () => number;
    isKnownNetwork: (network: string) => boolean;
    onLimit: (limit: LimitName) => void;
  }) {
    this.#limits = options.limits;
    this.#nowMs = options.nowMs;
    this.#isKnownNetwork = options.isKnownNetwork;
    this.#onLimit = options.onLimit;
  }

  /** Number of open connections. */
  get count(): number {
    return this.#count;
  }

  // ConnectionListener.

  accepted(socket: AcceptedSocket): void {
    // The peers of a Unix socket have no address, and are on this machine.
    if (socket.remoteAddress === undefined) return;
    const network = networkOf(socket.remoteAddress);
    const ofNetwork = this.#byNetwork.get(network) ?? 0;
    const { connections, connectionsPerAddress } = this.#limits;
    if (ofNetwork >= connectionsPerAddress) {
      this.#refuse(socket, 'connections_per_address');
      return;
    }
    if (this.#count >= (this.#isKnownNetwork(network) ? connections : connections * UNKNOWN_PART)) {
      this.#refuse(socket, 'connections');
      return;
    }
    const key = keyOf(socket);
    this.#count += 1;
    this.#byNetwork.set(network, ofNetwork + 1);
    this.#silent.set(key, { socket, acceptedMs: this.#nowMs(), isEstablished: false });
    socket.once('close', () => {
      this.#count -= 1;
      this.#silent.delete(key);
      const left = (this.#byNetwork.get(network) ?? 1) - 1;
      if (left === 0) this.#byNetwork.delete(network);
      else this.#byNetwork.set(network, left);
    });
  }

  established(session: Pick<Http2Session, 'socket'>): void {
    const connection = this.#silent.get(keyOf(session.socket));
    if (connection !== undefined) connection.isEstablished = true;
  }

  requested(session: Pick<Http2Session, 'socket'>): void {
    if (this.#silent.size > 0) this.#silent.delete(keyOf(session.socket));
  }

  /** Closes the connections that have taken too long. */
  sweep(): void {
    const nowMs = this.#nowMs();
    const { connectionSetupMs, firstRequestMs } = this.#limits;
    for (const { socket, acceptedMs, isEstablished } of this.#silent.values()) {
      const ageMs = nowMs - acceptedMs;
      if (!isEstablished && ageMs >= connectionSetupMs) this.#refuse(socket, 'connection_setup_seconds');
      else if (ageMs >= connectionSetupMs + firstRequestMs) this.#refuse(socket, 'first_request_seconds');
    }
  }

  #refuse(socket: AcceptedSocket, limit: LimitName): void {
    this.#onLimit(limit);
    socket.destroy();
  }
}

function keyOf(socket: Http2Session['socket']): string {
  return `${socket?.remoteAddress} ${socket?.remotePort}`;
}
