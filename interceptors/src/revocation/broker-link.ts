/** A connection to the broker that is kept: opened in the background, and opened again whenever it is lost or refused. */

import { setTimeout as sleep } from 'node:timers/promises';
import { connect, ErrorCode, type NatsConnection, NatsError } from 'nats';
import { systemClock } from '../clock.js';
import { type BrokerConnectionOptions, type BrokerFiles, brokerConnection } from './broker.js';
import { BrokerCredentialsError } from './broker-credentials.js';

/** The first delay between two attempts to connect, in milliseconds. */
const RECONNECT_MS_MIN = 100;

/** The longest delay while the broker is unreachable, in milliseconds: it should be in use soon after it is back. */
const UNREACHABLE_MS_MAX = 1000;

/** The longest delay while the broker refuses, in milliseconds: only an operator can change that. */
const REFUSED_MS_MAX = 5000;

/** A connection that lasted this long was a success; after a shorter one the delay keeps growing. */
const STABLE_MS = 2000;

/**
 * The state of a connection to the broker.
 *
 * - `connecting`: no attempt has ended yet
 * - `connected`
 * - `unreachable`: no answer, or the connection was lost
 * - `refused`: the broker answers and rejects this client: its user, password, token or key, its
 *   subscription, or one client too many
 * - `tls`: the TLS handshake fails
 * - `credentials`: the file with the credentials cannot be used
 */
export type BrokerState = 'connecting' | 'connected' | 'unreachable' | 'refused' | 'tls' | 'credentials';

/** The state of one connection, for metrics. */
export interface BrokerUse {
  /** What the connection is for. */
  readonly use: string;
  readonly state: BrokerState;
}

/** A state and its cause. */
export interface BrokerStatus {
  readonly state: BrokerState;
  /** Why there is no connection, in one phrase; empty while there is one. */
  readonly problem: string;
}

/** A connection that is kept until it is closed. */
export interface BrokerLink {
  /** The connection while the state is `connected`. */
  connection(): NatsConnection | undefined;
  status(): BrokerStatus;
  /** Ends the connection, after what it has to send if `drainMs` is given, and within that time. */
  close(drainMs?: number): Promise<void>;
}

/** Options of {@link keepConnected}. */
interface BrokerLinkOptions {
  /** As for {@link brokerConnection}. */
  readonly url: string;
  readonly name: string;
  readonly files?: BrokerFiles | undefined;
  /** Sets up a new connection. It counts as connected when this is done. */
  readonly onOpen?: (connection: NatsConnection) => void | Promise<void>;
  /** The state has changed. Called once for each change, however many attempts fail. */
  readonly onChange: (status: BrokerStatus) => void;
}

/**
 * Connects, and reconnects after every loss until it is closed.
 *
 * nats.js reconnects with one delay for every cause and does not report why an attempt has failed. Here each attempt
 * is a new connection, so files with credentials are read again.
 */
export function keepConnected(options: BrokerLinkOptions): BrokerLink {
  const { onOpen = () => {}, onChange } = options;
  const closing = new AbortController();
  let opened: NatsConnection | undefined;
  let status: BrokerStatus = { state: 'connecting', problem: '' };
  let failures = 0;
  let discovered: readonly string[] = [];

  const change = (next: BrokerStatus): void => {
    const isNew = next.state !== status.state;
    status = next;
    if (isNew && !closing.signal.aborted) onChange(next);
  };

  const use = async (connection: NatsConnection): Promise<void> => {
    opened = connection;
    if (closing.signal.aborted) return connection.close();
    discovered = connection.info?.connect_urls ?? [];
    const ended = connection.closed();
    // A broker that freezes now confirms nothing; the pings detect that and close the connection.
    await Promise.race([onOpen(connection), ended.then(throwLoss)]);
    const sinceMs = systemClock.monotonicMs();
    change({ state: 'connected', problem: '' });
    const error = await ended;
    if (systemClock.monotonicMs() - sinceMs >= STABLE_MS) failures = 0;
    throwLoss(error);
  };

  const run = async (): Promise<void> => {
    while (!closing.signal.aborted) {
      try {
        await use(await connectToAny(options, discovered));
      } catch (error) {
        if (opened !== undefined && !opened.isClosed()) await opened.close();
        change({ state: stateOf(error), problem: problemOf(error) });
      }
      const delayMs = reconnectDelayMs(status.state, failures, Math.random());
      failures += 1;
      await sleep(delayMs, undefined, { signal: closing.signal, ref: false }).catch(() => undefined);
    }
  };
  void run();

  return {
    connection: () => (status.state === 'connected' ? opened : undefined),
    status: () => status,
    close: async (drainMs = 0) => {
      closing.abort();
      if (opened === undefined || opened.isClosed()) return;
      if (drainMs > 0) await drainWithin(opened, drainMs);
      await opened.close();
    },
  };
}

/**
 * The delay before the next attempt, in milliseconds. It doubles with each failure; jitter of up to half keeps
 * instances from connecting together.
 *
 * @param failures - failures since the last connection that lasted
 * @param random - a number in [0, 1)
 */
export function reconnectDelayMs(state: BrokerState, failures: number, random: number): number {
  const maxMs = state === 'unreachable' ? UNREACHABLE_MS_MAX : REFUSED_MS_MAX;
  return Math.min(maxMs, RECONNECT_MS_MIN * 2 ** failures) * (1 - random / 2);
}

/** Tries each server once. @throws the error that says most */
async function connectToAny(
  { url, name, files }: BrokerLinkOptions,
  discovered: readonly string[],
): Promise<NatsConnection> {
  const options = brokerConnection(url, name, files);
  let cause: unknown;
  for (const server of serversOf(options, discovered)) {
    try {
      return await connect({ ...options, servers: [server], reconnect: false });
    } catch (error) {
      // A dead server says nothing about the one that refuses.
      if (cause === undefined || stateOf(cause) === 'unreachable') cause = error;
    }
  }
  throw cause;
}

/** The configured servers, from any of them on, then those of their cluster. */
function serversOf(
  { servers: configured, tls }: BrokerConnectionOptions,
  discovered: readonly string[],
): string[] {
  const first = Math.floor(Math.random() * configured.length);
  const rotated = [...configured.slice(first), ...configured.slice(0, first)];
  // A cluster names its servers by address, which their certificates need not contain.
  return tls ? rotated : [...new Set([...rotated, ...discovered])];
}

async function drainWithin(connection: NatsConnection, ms: number): Promise<void> {
  const timeout = new AbortController();
  // A frozen broker never confirms that it has read what was sent.
  await Promise.race([
    connection.drain().catch(() => undefined),
    sleep(ms, undefined, { signal: timeout.signal }).catch(() => undefined),
  ]);
  timeout.abort();
}

function throwLoss(error: unknown): never {
  throw error instanceof Error ? error : new Error('the connection to the broker was lost');
}

/** Messages of the broker that are about the connection and not about the client. */
const BROKEN = /stale connection|slow consumer|server shutdown|connection closed/i;

/**
 * Codes of errors in a TLS handshake, which nats.js passes on: OpenSSL's and Node's, and the reasons for which Node rejects
 * a certificate (https://nodejs.org/api/tls.html#x509-certificate-error-codes).
 */
const TLS_CODES =
  /^(?:EPROTO$|ERR_(?:SSL|TLS)_|UNABLE_TO_|CERT_|CRL_|DEPTH_ZERO_|SELF_SIGNED_|INVALID_(?:CA|PURPOSE)|PATH_LENGTH_|HOSTNAME_)/;

function stateOf(error: unknown): BrokerState {
  if (error instanceof BrokerCredentialsError) return 'credentials';
  if (!(error instanceof NatsError)) {
    const { code = '' }: { code?: string } = Object(error);
    return TLS_CODES.test(code) ? 'tls' : 'unreachable';
  }
  if (error.isAuthError() || error.isAuthTimeout() || error.isPermissionError()) return 'refused';
  if (error.code === ErrorCode.Tls || error.code === ErrorCode.ServerOptionNotAvailable) return 'tls';
  return error.isProtocolError() && !BROKEN.test(error.message) ? 'refused' : 'unreachable';
}

function problemOf(error: unknown): string {
  if (!(error instanceof Error)) return 'the connection to the broker was lost';
  const cause = error instanceof NatsError ? error.chainedError?.message : undefined;
  return cause === undefined || cause === error.message ? error.message : `${error.message}: ${cause}`;
}
