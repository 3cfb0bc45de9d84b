/** How the library and the issuer connect to the broker. */

import type { ConnectionOptions } from 'nats';
import { type BrokerCredentialFiles, readBrokerCredentials } from './broker-credentials.js';

/** Interval between two pings of the broker, in milliseconds. */
const BROKER_PING_INTERVAL_MS = 1000;

/** Timeout of one attempt to connect, in milliseconds. */
const BROKER_CONNECT_TIMEOUT_MS = 2000;

/** Delay between two attempts to connect, in milliseconds. */
const BROKER_RECONNECT_WAIT_MS = 100;

/**
 * Files for a connection to the broker: its TLS, and credentials in place of those in the URL. They are read at every
 * attempt to connect, so renewed files are used without a restart.
 */
export interface BrokerFiles extends BrokerCredentialFiles {
  /** The CA certificates that verify the broker. Default: those of the system. */
  readonly caFile?: string;
  /** The client certificate, and its key. */
  readonly certFile?: string;
  readonly keyFile?: string;
}

/** Options of nats.js that name the servers. */
export type BrokerConnectionOptions = ConnectionOptions & { readonly servers: string[] };

/**
 * Options of a connection that reconnects by itself, without a limit.
 *
 * @param url - URLs, or hosts behind the first URL, separated by commas. The first may contain user and password, or a
 *   token in the place of the user; one with `tls:` turns TLS on for all
 * @param name - the name of the connection in the broker's monitoring
 * @param files - files for TLS, and with credentials
 * @throws BrokerCredentialsError when the file with the credentials cannot be used
 */
export function brokerConnection(
  url: string,
  name: string,
  files: BrokerFiles = {},
): BrokerConnectionOptions {
  const addresses = url.split(',').map((address) => new URL(withScheme(address.trim())));
  const { username = '', password = '' } = addresses[0] ?? {};
  const { nkeyFile, credsFile, ...tls } = files;
  const authenticator = readBrokerCredentials({ nkeyFile, credsFile });
  return {
    name,
    // nats.js does not read user and password from a URL.
    servers: addresses.map(({ host }) => host),
    ...(authenticator === undefined
      ? credentialsOf(decodeURIComponent(username), decodeURIComponent(password))
      : { authenticator }),
    ...(addresses.some(({ protocol }) => protocol === 'tls:') ? { tls } : {}),
    timeout: BROKER_CONNECT_TIMEOUT_MS,
    // By default nats.js detects a dead connection after minutes, and gives up after ten attempts.
    pingInterval: BROKER_PING_INTERVAL_MS,
    maxPingOut: 2,
    maxReconnectAttempts: -1,
    reconnectTimeWait: BROKER_RECONNECT_WAIT_MS,
    // While the broker's users are being changed, it may reject a valid user for a moment.
    ignoreAuthErrorAbort: true,
  };
}

function withScheme(address: string): string {
  return address.includes('://') ? address : `nats://${address}`;
}

/** As in other clients of NATS: a user without a password is a token. */
function credentialsOf(user: string, pass: string): Pick<ConnectionOptions, 'user' | 'pass' | 'token'> {
  if (user === '') return {};
  return pass === '' ? { token: user } : { user, pass };
}
