/**
 * The streams of connections: how many a network may have open before a valid token has come, and when their calls begin.
 * Streams are counted apart from calls: the call of a peer that does not read its response has ended, its stream has not.
 */

import type { Server } from '@grpc/grpc-js';
import { type Http2Session, type ObservedStream, scheduleStreamsOf } from '../wire/grpc-js-internals.js';
import { networkOf } from '../wire/networks.js';
import type { GuardLimits, LimitName } from './guard-limits.js';
import { type ArrivalPeer, Turns } from './turns.js';

/**
 * Maximum number of calls that begin in one turn of the event loop: some 3 ms of work. Node accepts one connection in a
 * turn, so the length of a turn is also the time that a new connection waits for each one before it.
 */
export const CALLS_PER_TURN_MAX = 16;

const CONNECTION = Symbol('connection');

interface CountedSession extends Http2Session {
  [CONNECTION]?: Connection;
}

/** The streams of the new connections of one network. */
interface NetworkStreams {
  open: number;
  readonly connections: Set<Connection>;
}

/** One connection. It is new until a call on it was admitted with a token. */
class Connection implements ArrivalPeer {
  readonly network: string;
  readonly connection: string;
  /** The streams of its network; undefined when the connection is not new. */
  streams: NetworkStreams | undefined;
  /** Number of its open streams while it is new. */
  open = 0;
  readonly session: Http2Session;
  readonly #limits: StreamLimits;

  constructor(limits: StreamLimits, session: Http2Session) {
    this.#limits = limits;
    this.session = session;
    const address = session.socket?.remoteAddress ?? '';
    this.network = networkOf(address);
    this.connection = `${address} ${session.socket?.remotePort}`;
  }

  get isKnown(): boolean {
    return this.streams === undefined || this.#limits.isKnownNetwork(this.network);
  }

  /** A stream has closed. */
  readonly closed = (): void => {
    if (this.streams === undefined) return;
    this.open -= 1;
    this.streams.open -= 1;
  };
}

export class StreamLimits {
  readonly isKnownNetwork: (network: string) => boolean;
  readonly #limits: GuardLimits;
  readonly #onLimit: (limit: LimitName) => void;
  readonly #byNetwork = new Map<string, NetworkStreams>();
  readonly #turns = new Turns(CALLS_PER_TURN_MAX);

  constructor(options: {
    limits: GuardLimits;
    isKnownNetwork: (network: string) => boolean;
    onLimit: (limit: LimitName) => void;
  }) {
    this.#limits = options.limits;
    this.isKnownNetwork = options.isKnownNetwork;
    this.#onLimit = options.onLimit;
  }

  /** Number of streams whose calls have not begun. */
  get waiting(): number {
    return this.#turns.waiting;
  }

  /** Number of open streams on new connections. */
  get open(): number {
    let open = 0;
    for (const streams of this.#byNetwork.values()) open += streams.open;
    return open;
  }

  /** @throws TypeError when the HTTP/2 servers of this version of grpc-js cannot be found */
  watch(server: Server): void {
    scheduleStreamsOf(server, (stream) => this.#arrived(stream));
  }

  /** A call on the connection was admitted with a token. */
  trust(session: Http2Session | undefined): void {
    const connection = (session as CountedSession | undefined)?.[CONNECTION];
    if (connection !== undefined) this.#forget(connection);
  }

  #arrived(stream: ObservedStream): void {
    const connection = this.#connectionOf(stream.session);
    if (connection.streams !== undefined && !this.#count(connection, connection.streams, stream)) return;
    this.#turns.arrive(connection, stream);
  }

  #connectionOf(session: CountedSession): Connection {
    const known = session[CONNECTION];
    if (known !== undefined) return known;
    const connection = new Connection(this, session);
    session[CONNECTION] = connection;
    // The peers of a Unix socket have no address, and are on this machine.
    if (session.socket?.remoteAddress === undefined) return connection;
    let streams = this.#byNetwork.get(connection.network);
    if (streams === undefined) {
      streams = { open: 0, connections: new Set() };
      this.#byNetwork.set(connection.network, streams);
    }
    streams.connections.add(connection);
    connection.streams = streams;
    session.once?.('close', () => this.#forget(connection));
    return connection;
  }

  /** Counts a stream of a new connection. @returns false when its connection was closed for it */
  #count(connection: Connection, streams: NetworkStreams, stream: ObservedStream): boolean {
    connection.open += 1;
    streams.open += 1;
    stream.onceClosed(connection.closed);
    if (streams.open <= this.#limits.newStreamsPerAddress) return true;
    let largest = connection;
    for (const other of streams.connections) if (other.open > largest.open) largest = other;
    this.#onLimit('new_streams_per_address');
    this.#forget(largest);
    largest.session.destroy?.();
    return largest !== connection;
  }

  /** Stops counting the streams of a connection. */
  #forget(connection: Connection): void {
    const { streams } = connection;
    if (streams === undefined) return;
    connection.streams = undefined;
    streams.open -= connection.open;
    streams.connections.delete(connection);
    if (streams.connections.size === 0) this.#byNetwork.delete(connection.network);
  }
}
