/** TLS of listeners and clients, with certificates that follow their files. */
import { type ChannelCredentials, credentials, type ServerCredentials } from '@grpc/grpc-js';
import type { BrokerFiles, Clock, Plaintext } from '@portcullis/guard';
import {
  type ClientAuth,
  channelCredentialsFrom,
  serverCredentialsFrom,
  type TlsLog,
  type TlsWatch,
  watchTlsFiles,
} from '@portcullis/guard/tls';

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
