/** Credentials of grpc-js channels and servers that follow their files. */

import { createSecureContext, type SecureContextOptions } from 'node:tls';
import { ChannelCredentials, ServerCredentials } from '@grpc/grpc-js';
import { changingCredentials } from '../wire/grpc-js-internals.js';
import type { TlsWatch } from './tls-files.js';

/** Maximum duration of a TLS handshake, in milliseconds. */
const TLS_HANDSHAKE_TIMEOUT_MS = 10_000;

/** Whether callers of a listener present a certificate: never requested, verified if presented, or required. */
export const CLIENT_AUTH_MODES = ['off', 'optional', 'required'] as const;

/** One of {@link CLIENT_AUTH_MODES}. */
export type ClientAuth = (typeof CLIENT_AUTH_MODES)[number];

/**
 * Credentials for a grpc-js server that follow a watch: new connections use the current certificates, open connections
 * stay as they are.
 *
 * An optional certificate from another authority is ignored: grpc-js shows handlers only verified ones.
 */
export function serverCredentialsFrom(watch: TlsWatch, clientAuth: ClientAuth): ServerCredentials {
  return new WatchedServerCredentials(watch, clientAuth);
}

/**
 * grpc-js's own certificate provider drops a good certificate as soon as its files cannot be read or do not match,
 * rejects every connection from then on, and falls back to Node's versions and ciphers.
 */
class WatchedServerCredentials extends ServerCredentials {
  constructor(watch: TlsWatch, clientAuth: ClientAuth) {
    super(
      {
        requestCert: clientAuth !== 'off',
        rejectUnauthorized: clientAuth === 'required',
        handshakeTimeout: TLS_HANDSHAKE_TIMEOUT_MS,
      },
      watch.current(),
    );
    watch.onChange((next) => this.updateSecureContextOptions(next));
  }

  override _equals(other: ServerCredentials): boolean {
    return this === other;
  }
}

/**
 * Credentials for grpc-js channels that follow a watch: every new connection uses the current certificates, open
 * connections stay as they are.
 *
 * grpc-js's own certificate provider drops a good certificate as soon as its files cannot be read or do not match, and
 * rejects every connection from then on.
 */
export function channelCredentialsFrom(watch: TlsWatch): ChannelCredentials {
  const credentialsOf = (options: SecureContextOptions): ChannelCredentials =>
    ChannelCredentials.createFromSecureContext(createSecureContext(options));
  let current = credentialsOf(watch.current());
  watch.onChange((next) => {
    current = credentialsOf(next);
  });
  return changingCredentials(() => current);
}
