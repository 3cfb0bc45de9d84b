/** One client connection and its connection to the server, from the first byte to the last. */

import type { Socket } from 'node:net';
import { ConnectionFault, ExcessFault, INTERNAL_ERROR, NO_ERROR, PROTOCOL_ERROR } from '../http2/errors.js';
import { PREFACE, STREAM_ID_MAX, writeGoaway, writePing, writeSettings } from '../http2/frames.js';
import type { Output } from '../http2/output.js';
import { Calls } from './calls.js';
import { ClientFrames } from './client-frames.js';
import { ClientWindows } from './client-windows.js';
import type { CallerFacts, ConnectionContext } from './connection-context.js';
import type { Judge, RelayCaller } from './judge.js';
import type { Budget, RelayLimits } from './limits.js';
import { Link, type LinkOwner } from './link.js';
import type { LimitedBy, RelayEvent } from './observer.js';
import { OWN_PING } from './own-ping.js';
import { type Budgets, type ConnectionPort, createBudgets } from './port.js';
import { type ServerFollower, ServerFrames } from './server-frames.js';
import { ownSettingsForClient } from './settings.js';
import { type PeerFault, SocketWatch } from './socket-watch.js';
import type { RelayStatuses } from './statuses.js';
import { StreamTable } from './stream.js';

/**
 * How long a client may take to answer the PING after which no more of its streams are accepted, and how long one stays whose
 * server could not be reached, in milliseconds.
 */
const RETIRING_MS = 1000;

export class Connection implements ConnectionPort, LinkOwner, ServerFollower {
  readonly judge: Judge;
  readonly limits: RelayLimits;
  readonly statuses: RelayStatuses;
  readonly forwardsToken: boolean;
  readonly caller: RelayCaller;
  readonly budgets: Budgets;
  ownSettingsUnacknowledged = 0;
  serverSettingsUnacknowledged = 0;
  heldSettingsAcks = 0;
  clientPings = 0;
  serverPings = 0;
  readonly windows = new ClientWindows();
  owesTableUpdate = false;
  lastAcceptedId = STREAM_ID_MAX;
  readonly #context: ConnectionContext;
  readonly #onClosed: () => void;
  readonly #linkContext: { readonly limits: RelayLimits; readonly nowMs: () => number };
  readonly #streams: StreamTable;
  readonly #calls: Calls;
  readonly #clientFrames: ClientFrames;
  readonly #serverFrames: ServerFrames;
  readonly #client: Link;
  readonly #clientWatch: SocketWatch;
  #server: Link | undefined;
  #serverWatch: SocketWatch | undefined;
  #isServerReady = false;
  /** The bytes of the preface that have not arrived yet. */
  #prefaceLeft = PREFACE.length;
  readonly #openedMs: number;
  #connectingMs = 0;
  /** When the server could not be reached. */
  #unreachableMs = 0;
  #busyMs: number;
  #lastIdSeen = 0;
  #retiringMs = 0;
  #closingMs = 0;
  #isFlushScheduled = false;
  #isInTurn = false;
  #isClosed = false;

  /** @param onClosed called when the connection holds nothing any more */
  constructor(socket: Socket, facts: CallerFacts, context: ConnectionContext, onClosed: () => void) {
    const { limits } = context;
    this.#context = context;
    this.#onClosed = onClosed;
    this.judge = context.judge;
    this.limits = limits;
    this.statuses = context.statuses;
    this.forwardsToken = context.forwardsToken;
    this.caller = { ...facts, retireConnection: () => this.retire() };
    this.#linkContext = { limits, nowMs: () => context.clock.monotonicMs() };
    const nowMs = context.clock.monotonicMs();
    this.#openedMs = nowMs;
    this.#busyMs = nowMs;
    this.budgets = createBudgets(limits, nowMs);
    this.#streams = new StreamTable(limits.streams);
    this.#calls = new Calls(this, this.#streams);
    this.#clientFrames = new ClientFrames(this, this.#calls, this.#streams);
    this.#serverFrames = new ServerFrames(this, this.#calls, this.#streams, this);
    this.#client = new Link(socket, this.#clientFrames, this, this.#linkContext);
    this.#client.opening = (chunk) => this.#readPreface(chunk);
    this.#clientWatch = new SocketWatch(this.#client, limits, limits.clientPingMs, nowMs);
  }

  get toClient(): Output {
    return this.#client.output;
  }

  get toServer(): Output | undefined {
    return this.#isServerReady ? this.#server?.output : undefined;
  }

  /** Number of calls in progress. */
  get calls(): number {
    return this.#streams.size;
  }

  spend(budget: Budget, limit: LimitedBy): void {
    if (budget.take(this.#context.clock)) return;
    this.event(`limit_${limit}`);
    throw new ExcessFault();
  }

  wallMs(): number {
    return this.#context.clock.wallMs();
  }

  event(event: RelayEvent, detail?: unknown): void {
    this.#context.observer.event(event, this.caller.peer, detail);
  }

  scheduleFlush(): void {
    // The end of a turn writes everything in any case.
    if (this.#isFlushScheduled || this.#isInTurn) return;
    this.#isFlushScheduled = true;
    process.nextTick(this.#flushScheduled);
  }

  readonly #flushScheduled = (): void => {
    this.#isFlushScheduled = false;
    this.#settle();
  };

  /** Reads the preface, before frames begin (RFC 9113 §3.4). @returns the bytes after it */
  #readPreface(chunk: Buffer): Buffer {
    const taken = Math.min(this.#prefaceLeft, chunk.length);
    const from = PREFACE.length - this.#prefaceLeft;
    if (chunk.compare(PREFACE, from, from + taken, 0, taken) !== 0) {
      throw new ConnectionFault(PROTOCOL_ERROR, 'not HTTP/2');
    }
    this.#prefaceLeft -= taken;
    if (this.#prefaceLeft === 0) {
      this.#client.opening = undefined;
      writeSettings(this.toClient, ownSettingsForClient(this.limits));
      this.ownSettingsUnacknowledged = 1;
      this.#connect();
    }
    return chunk.subarray(taken);
  }

  get #hasPreface(): boolean {
    return this.#prefaceLeft === 0;
  }

  turnBegins(): void {
    this.#isInTurn = true;
  }

  turnEnded(link: Link, error: unknown): void {
    this.#isInTurn = false;
    if (error !== undefined) this.#failed(link, error);
    else this.#settle();
  }

  #failed(link: Link, error: unknown): void {
    if (this.#closingMs > 0) return;
    const isFault = error instanceof ConnectionFault;
    const isClient = link === this.#client || error instanceof ExcessFault;
    const code = isFault ? error.code : INTERNAL_ERROR;
    const message = isFault ? error.message : '';
    if (!isFault) this.event('internal_error', error);
    else this.event(isClient ? 'client_fault' : 'server_fault', message);
    if (isClient) {
      writeGoaway(this.toClient, this.#streams.lastId, code, message);
      this.#end();
    } else {
      writeGoaway(link.output, 0, code, message);
      link.end();
      this.#serverGone(false);
    }
  }

  /** Writes what was collected, and reads on where that is possible again. */
  #settle(): void {
    try {
      do {
        this.#serverFrames.release();
        this.#calls.flushOwn();
        this.toServer?.flush();
        this.toClient.flush();
      } while (
        this.#settleLink(this.#client) ||
        (this.#server !== undefined && this.#settleLink(this.#server))
      );
    } catch (error) {
      this.event('internal_error', error);
      this.#end();
    }
    if (this.#closingMs > 0 || this.#streams.size > 0) return;
    if (this.lastAcceptedId < STREAM_ID_MAX) this.#end();
    else if (this.#unreachableMs > 0 && this.#streams.lastId > 0) this.retire();
  }

  #settleLink(link: Link): boolean {
    if (this.#closingMs > 0) return false;
    try {
      return link.settle();
    } catch (error) {
      this.#failed(link, error);
      return false;
    }
  }

  lost(link: Link): void {
    if (link === this.#client) this.#end();
    else if (!this.#isServerReady && this.#closingMs === 0) this.#unreachable();
    else this.#serverGone(this.#streams.size > 0);
  }

  closed(): void {
    if (this.#isClosed || !this.#client.isClosed || this.#server?.isClosed === false) return;
    this.#isClosed = true;
    this.#onClosed();
  }

  #connect(): void {
    this.#connectingMs = this.#context.clock.monotonicMs();
    const socket = this.#context.connectServer();
    const server = new Link(socket, this.#serverFrames, this, this.#linkContext);
    this.#server = server;
    const isTls = 'encrypted' in socket;
    socket.once(isTls ? 'secureConnect' : 'connect', () => this.#connected(server));
  }

  #connected(server: Link): void {
    if (this.#closingMs > 0 || this.#server !== server) return;
    this.#connectingMs = 0;
    this.#isServerReady = true;
    this.#serverWatch = new SocketWatch(
      server,
      this.limits,
      this.limits.serverPingMs,
      this.#context.clock.monotonicMs(),
    );
    server.output.append(PREFACE, 0, PREFACE.length);
    this.#clientFrames.isStopped = false;
    this.#settle();
  }

  #unreachable(): void {
    this.event('server_unreachable');
    this.#connectingMs = 0;
    this.#unreachableMs = this.#context.clock.monotonicMs();
    this.#server = undefined;
    this.#clientFrames.isStopped = false;
    // Not at once: the client's first call may be on its way, and would be refused without a status.
    this.#settle();
  }

  /** The connection to the server is lost. Its calls end; the client can open a new connection. */
  #serverGone(isEvent: boolean): void {
    if (!this.#isServerReady || this.#closingMs > 0) return;
    if (isEvent) this.event('server_lost');
    this.#isServerReady = false;
    this.#serverFrames.isStopped = true;
    this.#calls.finishAll(this.statuses.serverUnavailable);
    this.#finishRetiring();
    this.#settle();
  }

  serverLeaves(serverLastId: number, code: number, debug: string): void {
    const { lastId, unprocessed } = this.#streams.lastProcessed(serverLastId);
    const announced = Math.min(lastId, this.lastAcceptedId);
    writeGoaway(this.toClient, announced, code, debug);
    if (lastId === STREAM_ID_MAX) return;
    this.lastAcceptedId = announced;
    this.#calls.isServerLeaving = true;
    this.#calls.refuseUnprocessed(unprocessed, announced);
  }

  /** Asks the client to open a new connection. Calls in progress go on, and those that are on their way are accepted. */
  retire(): void {
    if (this.#retiringMs > 0 || this.#closingMs > 0 || this.lastAcceptedId < STREAM_ID_MAX) return;
    this.#retiringMs = this.#context.clock.monotonicMs();
    if (this.#hasPreface) {
      writeGoaway(this.toClient, STREAM_ID_MAX, NO_ERROR, '');
      writePing(this.toClient, 0, OWN_PING);
    } else {
      this.#finishRetiring();
    }
    this.scheduleFlush();
  }

  ownPingAnswered(): void {
    if (this.#retiringMs > 0) this.#finishRetiring();
  }

  #finishRetiring(): void {
    if (this.lastAcceptedId < STREAM_ID_MAX) return;
    this.lastAcceptedId = this.#streams.lastId;
    if (this.#hasPreface) writeGoaway(this.toClient, this.lastAcceptedId, NO_ERROR, '');
    this.scheduleFlush();
  }

  /** Ends all calls, and closes. */
  shutDown(): void {
    if (this.#closingMs > 0) return;
    this.#calls.finishAll(this.statuses.serverUnavailable);
    this.#calls.finishOwn(this.statuses.serverUnavailable);
    this.#finishRetiring();
    this.#end();
  }

  /** Looks at both peers; called once a second. */
  look(nowMs: number): void {
    if (this.#closingMs > 0) {
      if (nowMs - this.#closingMs > this.limits.closeMs) this.destroy();
      return;
    }
    if (
      !this.#clientFrames.hasSettings &&
      this.#connectingMs === 0 &&
      nowMs - this.#openedMs > this.limits.setupMs
    ) {
      this.#limited('setup');
      return;
    }
    if (this.#connectingMs > 0 && nowMs - this.#connectingMs > this.limits.connectMs) {
      this.event('limit_connect');
      this.#server?.socket.destroy();
      return;
    }
    if (this.#unreachableMs > 0 && nowMs - this.#unreachableMs > RETIRING_MS) this.retire();
    if (this.#retiringMs > 0 && nowMs - this.#retiringMs > RETIRING_MS) this.#finishRetiring();
    const hasCalls = this.#streams.size > 0;
    const { connection, stream } = this.windows;
    this.#streams.reportRoom(this.#serverFrames.isBlocked ? -1 : connection, stream);
    this.#checkUse(nowMs, hasCalls);
    const clientFault = this.#clientWatch.look(nowMs, hasCalls);
    if (clientFault !== undefined) {
      this.#limited(clientFault);
      return;
    }
    const serverFault = this.toServer === undefined ? undefined : this.#serverWatch?.look(nowMs, hasCalls);
    if (serverFault === undefined) return;
    this.event(`limit_${serverFault}`);
    this.#server?.socket.destroy();
  }

  /** Retires a connection that is not used. */
  #checkUse(nowMs: number, hasCalls: boolean): void {
    if (hasCalls || this.#streams.lastId !== this.#lastIdSeen) {
      this.#lastIdSeen = this.#streams.lastId;
      this.#busyMs = nowMs;
    }
    if (this.#retiringMs > 0) return;
    const isUnused = this.#streams.lastId === 0;
    if (nowMs - this.#busyMs <= (isUnused ? this.limits.firstRequestMs : this.limits.idleMs)) return;
    this.event(isUnused ? 'limit_first_request' : 'limit_idle');
    this.retire();
  }

  #limited(limit: PeerFault | 'setup'): void {
    this.event(`limit_${limit}`);
    this.#end();
    // Such a peer reads no farewell.
    this.destroy();
  }

  #end(): void {
    if (this.#closingMs > 0) return;
    this.#closingMs = this.#context.clock.monotonicMs();
    this.#clientFrames.isStopped = true;
    this.#serverFrames.isStopped = true;
    this.#calls.abandonAll();
    this.#client.end();
    if (this.#isServerReady) this.#server?.end();
    else this.#server?.socket.destroy();
    // Whatever the server is still sent would be lost as well.
    this.closed();
  }

  destroy(): void {
    this.#client.socket.destroy();
    this.#server?.socket.destroy();
  }
}
