/** Relays HTTP/2 between clients and one server, and asks a judge about every call. */

import type { Server, Socket } from 'node:net';
import { Connection } from './connection.js';
import type { CallerFacts, ConnectionContext } from './connection-context.js';
import type { Judge, RelayCall } from './judge.js';
import { RELAY_LIMITS, type RelayClock, type RelayLimits } from './limits.js';
import type { RelayObserver } from './observer.js';
import { RELAY_STATUSES, type RelayStatuses } from './statuses.js';

export interface RelayOptions {
  /** Accepts clients: a server of `node:net` or `node:tls`, which its owner lets listen. With TLS, ALPN must offer `h2`. */
  readonly server: Server;
  /** Opens a connection to the server behind the gate; called once for each client. With TLS, ALPN must offer `h2`. */
  readonly connectServer: () => Socket;
  /** Decides calls. */
  readonly judge: Judge<RelayCall>;
  /** What the judge may know of a client. The facts must come from the socket. */
  readonly callerOf: (socket: Socket) => CallerFacts;
  /** Whether the server receives `authorization`. Default: false. */
  readonly forwardsToken?: boolean;
  readonly clock: RelayClock;
  readonly limits?: Partial<RelayLimits>;
  readonly statuses?: RelayStatuses;
  readonly observer?: RelayObserver;
}

export interface Relay {
  /** Number of client connections. */
  readonly connections: number;
  /** Number of calls in progress. */
  readonly calls: number;
  /**
   * Accepts nobody any more, and asks all clients to leave. Calls in progress may end until `waitMs` milliseconds have
   * passed, or `hurry` is aborted; then they end with UNAVAILABLE.
   */
  drain(waitMs: number, hurry?: AbortSignal): Promise<void>;
  /** Ends everything. */
  close(): Promise<void>;
}

const LOOK_INTERVAL_MS = 1000;

/** A silent peer is found by the operating system, too, in seconds after the last byte. */
const KEEPALIVE_MS = 30_000;

/** Starts to relay what `options.server` accepts. */
export function startRelay(options: RelayOptions): Relay {
  return new RunningRelay(options);
}

class RunningRelay implements Relay {
  readonly #server: Server;
  readonly #options: RelayOptions;
  readonly #limits: RelayLimits;
  readonly #connections = new Set<Connection>();
  readonly #context: ConnectionContext;
  readonly #timer: NodeJS.Timeout;
  #emptied: (() => void) | undefined;
  #isClosing = false;

  constructor(options: RelayOptions) {
    this.#options = options;
    this.#server = options.server;
    this.#limits = { ...RELAY_LIMITS, ...options.limits };
    this.#context = {
      judge: options.judge,
      limits: this.#limits,
      statuses: options.statuses ?? RELAY_STATUSES,
      forwardsToken: options.forwardsToken ?? false,
      observer: options.observer ?? { event: () => {} },
      connectServer: () => {
        const socket = options.connectServer();
        socket.setNoDelay(true);
        socket.setKeepAlive(true, KEEPALIVE_MS);
        return socket;
      },
      clock: options.clock,
    };
    // A TLS server emits `connection` as well, for the socket below.
    const isTls = 'setSecureContext' in options.server;
    this.#server.on(isTls ? 'secureConnection' : 'connection', this.#accept);
    this.#timer = setInterval(() => {
      const nowMs = options.clock.monotonicMs();
      for (const connection of this.#connections) connection.look(nowMs);
    }, LOOK_INTERVAL_MS);
    this.#timer.unref();
  }

  get connections(): number {
    return this.#connections.size;
  }

  get calls(): number {
    let calls = 0;
    for (const connection of this.#connections) calls += connection.calls;
    return calls;
  }

  readonly #accept = (socket: Socket): void => {
    const facts = this.#options.callerOf(socket);
    if (this.#isClosing || this.#connections.size >= this.#limits.connections) {
      if (!this.#isClosing) this.#context.observer.event('limit_connections', facts.peer);
      socket.on('error', () => {});
      socket.destroy();
      return;
    }
    socket.setNoDelay(true);
    socket.setKeepAlive(true, KEEPALIVE_MS);
    const connection = new Connection(socket, facts, this.#context, () => this.#closed(connection));
    this.#connections.add(connection);
  };

  #closed(connection: Connection): void {
    this.#connections.delete(connection);
    if (this.#connections.size === 0) this.#emptied?.();
  }

  async drain(waitMs: number, hurry?: AbortSignal): Promise<void> {
    this.#stopAccepting();
    for (const connection of this.#connections) connection.retire();
    await this.#empty(waitMs, hurry);
    await this.close();
  }

  async close(): Promise<void> {
    this.#stopAccepting();
    for (const connection of this.#connections) connection.shutDown();
    await this.#empty(this.#limits.closeMs);
    for (const connection of this.#connections) connection.destroy();
    clearInterval(this.#timer);
  }

  #stopAccepting(): void {
    this.#isClosing = true;
    this.#server.close();
  }

  /** Waits until there is no connection, at most for a time, or until it has to hurry. */
  async #empty(waitMs: number, hurry?: AbortSignal): Promise<void> {
    if (this.#connections.size === 0 || hurry?.aborted === true) return;
    await new Promise<void>((resolve) => {
      const end = (): void => {
        clearTimeout(timer);
        hurry?.removeEventListener('abort', end);
        resolve();
      };
      const timer = setTimeout(end, waitMs);
      this.#emptied = end;
      hurry?.addEventListener('abort', end);
    });
  }
}
