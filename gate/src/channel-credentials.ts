/** Credentials of gRPC channels that follow their files. */

import { createSecureContext, type SecureContextOptions } from 'node:tls';
import { ChannelCredentials, credentials } from '@grpc/grpc-js';
import type { TlsWatch } from './tls-files.js';

type Connector = ReturnType<ChannelCredentials['_createSecureConnector']>;
type ConnectorArguments = Parameters<ChannelCredentials['_createSecureConnector']>;

/** Credentials with which every new connection uses the current certificates; plaintext without files. */
export function channelCredentials(watch: TlsWatch | undefined): ChannelCredentials {
  return watch === undefined ? credentials.createInsecure() : new WatchedCredentials(watch);
}

/**
 * Delegates to the current credentials at every connection. grpc-js's own certificate provider drops a good certificate as
 * soon as its files cannot be read, and rejects every connection from then on.
 */
class WatchedCredentials extends ChannelCredentials {
  readonly #watch: TlsWatch;
  #options: SecureContextOptions | undefined;
  #credentials: ChannelCredentials | undefined;

  constructor(watch: TlsWatch) {
    super();
    this.#watch = watch;
  }

  get #current(): ChannelCredentials {
    const options = this.#watch.current();
    if (this.#credentials === undefined || options !== this.#options) {
      this.#options = options;
      this.#credentials = credentials.createFromSecureContext(createSecureContext(options));
    }
    return this.#credentials;
  }

  override _isSecure(): boolean {
    return true;
  }

  override _equals(other: ChannelCredentials): boolean {
    return this === other;
  }

  override _createSecureConnector(...given: ConnectorArguments): Connector {
    const first = this.#current._createSecureConnector(...given);
    return {
      connect: (socket) => this.#current._createSecureConnector(...given).connect(socket),
      waitForReady: () => first.waitForReady(),
      getCallCredentials: () => first.getCallCredentials(),
      destroy: () => first.destroy(),
    };
  }
}
