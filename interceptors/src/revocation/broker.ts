/** How this library and the issuer connect to the broker. */

import type { ConnectionOptions } from 'nats';

/** How often the broker is asked whether it is still there, in milliseconds. */
export const BROKER_PING_INTERVAL_MS = 1000;

/** How long one attempt to connect may last, in milliseconds. */
export const BROKER_CONNECT_TIMEOUT_MS = 2000;

/** The pause between two attempts to connect, in milliseconds. */
export const BROKER_RECONNECT_WAIT_MS = 100;

/** Files of a TLS connection to the broker. They are read with every attempt to connect, so new ones count at once. */
export interface BrokerFiles {
  /** The authorities that the broker's certificate must come from; those of the system when absent. */
  readonly caFile?: string;
  /** The certificate to show, and its key. */
  readonly certFile?: string;
  readonly keyFile?: string;
}

/**
 * Options for a connection that comes back by itself, however long the broker is away.
 *
 * @param url - addresses, separated by commas; the first may carry a user and a password. One with
 *   `tls:` makes all of them use TLS
 * @param files - certificates for TLS
 * @param name - what the broker calls the connection in its own reports
 */
export function brokerConnection(url: string, name: string, files: BrokerFiles = {}): ConnectionOptions {
  const addresses = url.split(',').map((address) => new URL(address.trim()));
  const { username = '', password = '' } = addresses[0] ?? {};
  return {
    name,
    // The package does not read a user from an address.
    servers: addresses.map(({ host }) => host),
    ...(username === '' ? {} : { user: decodeURIComponent(username), pass: decodeURIComponent(password) }),
    ...(addresses.some(({ protocol }) => protocol === 'tls:') ? { tls: { ...files } } : {}),
    timeout: BROKER_CONNECT_TIMEOUT_MS,
    // By default a connection that silently died is noticed after minutes, and given up after ten attempts.
    pingInterval: BROKER_PING_INTERVAL_MS,
    maxPingOut: 2,
    maxReconnectAttempts: -1,
    reconnectTimeWait: BROKER_RECONNECT_WAIT_MS,
    // A broker whose users are being changed refuses for a moment those whom it will know again.
    ignoreAuthErrorAbort: true,
  };
}
