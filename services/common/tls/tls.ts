/** TLS of listeners and clients, with certificates that follow their files. */
import { createSecureContext, type SecureContextOptions } from 'node:tls';
import { ChannelCredentials, credentials, ServerCredentials } from '@grpc/grpc-js';
import type { BrokerFiles, Clock, Plaintext } from '@portcullis/guard';
import { type TlsLog, type TlsWatch, watchTlsFiles } from './tls-files.js';

/** Maximum duration of a TLS handshake. */
const TLS_HANDSHAKE_TIMEOUT_MS = 10_000;

/** Whether callers of a listener present a certificate: never requested, verified if presented, or required. */
export const CLIENT_AUTH_MODES = ['off', 'optional', 'required'] as const;

/** One of {@link CLIENT_AUTH_MODES}. */
export type ClientAuth = (typeof CLIENT_AUTH_MODES)[number];

/** The TLS settings of a service. */
export interface TlsSettings {
  /** The certificate of both listeners; plaintext when undefined. */
  readonly listener:
    | {
        readonly certFile: string;
        readonly keyFile: string;
        /** The certificate authorities of callers. */
        readonly clientCaFile: string | undefined;
        readonly clientAuth: ClientAuth;
      }
    | undefined;
  /** The certificate that the service presents to the servers that it calls. */
  readonly client: { readonly certFile: string; readonly keyFile: string } | undefined;
  /** The certificate authorities of the broker; those of the system when undefined. */
  readonly natsCaFile: string | undefined;
  /** Where tokens may travel in plaintext. */
  readonly plaintext: Plaintext;
}

/** The certificates of the listeners. */
export interface ListenerTls {
  readonly credentials: ServerCredentials;
  /** The same certificate for HTTPS, which requests no client certificate. */
  readonly watch: TlsWatch;
}

/** TLS of one process. */
export interface Tls {
  /** Undefined when the listeners speak plaintext. */
  readonly listener: ListenerTls | undefined;
  /** For a server whose certificate authorities are in a file; plaintext without a file. */
  credentialsFor(caFile: string | undefined): ChannelCredentials;
  /** Empty with the system's authorities and no client certificate. */
  readonly broker: BrokerFiles;
  /** Reads all files at once. Never rejects. */
  reload(): Promise<void>;
  close(): void;
}

/**
 * Reads all certificates, and follows their files until it is closed.
 *
 * @throws TlsFilesError when files cannot be used, which a configuration that was checked just before rules out
 */
export function openTls(
  settings: TlsSettings,
  options: { readonly log: TlsLog; readonly clock?: Clock; readonly pollMs?: number },
): Tls {
  const watches: TlsWatch[] = [];
  const watch = (files: Parameters<typeof watchTlsFiles>[0]['files']): TlsWatch => {
    const opened = watchTlsFiles({ ...options, files });
    watches.push(opened);
    return opened;
  };
  const { listener, client, natsCaFile } = settings;
  return {
    listener: listener && listenerTls(listener, watch),
    credentialsFor: (caFile) =>
      caFile === undefined
        ? credentials.createInsecure()
        : channelCredentialsFrom(watch({ ca: caFile, cert: client?.certFile, key: client?.keyFile })),
    broker: { ...(natsCaFile === undefined ? {} : { caFile: natsCaFile }), ...client },
    reload: async () => {
      await Promise.all(watches.map((one) => one.reload()));
    },
    close: () => {
      for (const one of watches) one.close();
    },
  };
}

function listenerTls(
  { certFile, keyFile, clientCaFile, clientAuth }: NonNullable<TlsSettings['listener']>,
  watch: (files: Parameters<typeof watchTlsFiles>[0]['files']) => TlsWatch,
): ListenerTls {
  const watched = watch({ cert: certFile, key: keyFile, ca: clientCaFile });
  return { credentials: serverCredentialsFrom(watched, clientAuth), watch: watched };
}

/**
 * Credentials for a grpc-js server that follow a watch: new connections use the current certificates, open connections
 * stay as they are.
 *
 * An optional certificate from another authority is ignored: grpc-js shows handlers only verified ones.
 */
function serverCredentialsFrom(watch: TlsWatch, clientAuth: ClientAuth): ServerCredentials {
  return new WatchedServerCredentials(watch, clientAuth);
}

/** Credentials for grpc-js channels that follow a watch: every new connection uses the current certificates. */
export function channelCredentialsFrom(watch: TlsWatch): ChannelCredentials {
  return new WatchedChannelCredentials(watch);
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

type Connector = ReturnType<ChannelCredentials['_createSecureConnector']>;
type ConnectorArguments = Parameters<ChannelCredentials['_createSecureConnector']>;

/** Delegates to the current credentials at every connection. */
class WatchedChannelCredentials extends ChannelCredentials {
  #current: ChannelCredentials;

  constructor(watch: TlsWatch) {
    super();
    const credentialsOf = (options: SecureContextOptions): ChannelCredentials =>
      ChannelCredentials.createFromSecureContext(createSecureContext(options));
    this.#current = credentialsOf(watch.current());
    watch.onChange((next) => {
      this.#current = credentialsOf(next);
    });
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
