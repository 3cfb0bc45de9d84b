/** The TLS settings of every service. */

import { CLIENT_AUTH_MODES, type TlsFiles, tlsFaultsOf } from '@portcullis/guard/tls';
import {
  type ConfigurationFault,
  type EnvironmentValues,
  isLoopback,
  oneOf,
  optional,
  text,
  withDefault,
} from '../config/env.js';
import type { TlsSettings } from './tls.js';

/** The variables, the same in all services. They hold the names of files, because the files are read again later. */
export const TLS_VARIABLES = {
  PORTCULLIS_TLS_CERT_FILE: optional(text()),
  PORTCULLIS_TLS_KEY_FILE: optional(text()),
  PORTCULLIS_TLS_CLIENT_AUTH: withDefault(oneOf(CLIENT_AUTH_MODES), 'off'),
  PORTCULLIS_TLS_CLIENT_CA_FILE: optional(text()),
  PORTCULLIS_TLS_CLIENT_CERT_FILE: optional(text()),
  PORTCULLIS_TLS_CLIENT_KEY_FILE: optional(text()),
  PORTCULLIS_NATS_CA: optional(text()),
  PORTCULLIS_PLAINTEXT: withDefault(oneOf(['loopback', 'allow']), 'loopback'),
};

type Values = EnvironmentValues<typeof TLS_VARIABLES>;

/** A server that the service calls: the variable with its certificate authorities, and where it listens. */
export interface TlsPeer {
  readonly caVariable: string;
  readonly caFile: string | undefined;
  readonly addressVariable: string;
  readonly addresses: readonly string[];
}

/** The settings out of the values of the variables. */
export function tlsSettingsOf(values: Values): TlsSettings {
  const { PORTCULLIS_TLS_CERT_FILE: certFile, PORTCULLIS_TLS_KEY_FILE: keyFile } = values;
  const { PORTCULLIS_TLS_CLIENT_CERT_FILE: clientCert, PORTCULLIS_TLS_CLIENT_KEY_FILE: clientKey } = values;
  const listener = {
    clientCaFile: values.PORTCULLIS_TLS_CLIENT_CA_FILE,
    clientAuth: values.PORTCULLIS_TLS_CLIENT_AUTH,
  };
  return {
    listener:
      certFile === undefined || keyFile === undefined ? undefined : { certFile, keyFile, ...listener },
    client:
      clientCert === undefined || clientKey === undefined
        ? undefined
        : { certFile: clientCert, keyFile: clientKey },
    natsCaFile: values.PORTCULLIS_NATS_CA,
    plaintext: values.PORTCULLIS_PLAINTEXT,
  };
}

/** The faults of the files, and every listener and peer whose plaintext would leave this machine. */
export function tlsFaults(
  good: Partial<Values> & {
    readonly PORTCULLIS_LISTEN?: string;
    readonly PORTCULLIS_OPS_LISTEN?: string;
    readonly PORTCULLIS_KEYS_LISTEN?: string | undefined;
    readonly PORTCULLIS_CONSOLE_LISTEN?: string | undefined;
    readonly NATS_URL?: string | undefined;
  },
  peers: readonly TlsPeer[] = [],
): readonly ConfigurationFault[] {
  return [
    ...listenerFaults(good),
    ...pairFaults('PORTCULLIS_TLS', good.PORTCULLIS_TLS_CERT_FILE, good.PORTCULLIS_TLS_KEY_FILE),
    ...clientAuthFaults(good),
    ...pairFaults(
      'PORTCULLIS_TLS_CLIENT',
      good.PORTCULLIS_TLS_CLIENT_CERT_FILE,
      good.PORTCULLIS_TLS_CLIENT_KEY_FILE,
    ),
    ...peers.flatMap((peer) => peerFaults(peer, good)),
    ...brokerFaults(good),
  ];
}

const LISTENERS = [
  'PORTCULLIS_LISTEN',
  'PORTCULLIS_OPS_LISTEN',
  'PORTCULLIS_KEYS_LISTEN',
  'PORTCULLIS_CONSOLE_LISTEN',
] as const;

/** Tokens, passwords and verification keys all pass the listeners. */
function listenerFaults(good: Parameters<typeof tlsFaults>[0]): ConfigurationFault[] {
  if (good.PORTCULLIS_TLS_CERT_FILE !== undefined || good.PORTCULLIS_PLAINTEXT !== 'loopback') return [];
  const open = LISTENERS.filter((variable) => !isLoopback(good[variable] ?? 'localhost:0'));
  if (open.length === 0) return [];
  const problem = `is required unless ${open.join(' and ')} stays on this machine, or PORTCULLIS_PLAINTEXT is allow`;
  return [{ variable: 'PORTCULLIS_TLS_CERT_FILE', problem }];
}

function pairFaults(
  prefix: string,
  cert: string | undefined,
  key: string | undefined,
): readonly ConfigurationFault[] {
  const names = { cert: `${prefix}_CERT_FILE`, key: `${prefix}_KEY_FILE`, ca: prefix };
  if (cert === undefined && key === undefined) return [];
  if (cert === undefined) return [{ variable: names.cert, problem: `is required by ${names.key}` }];
  if (key === undefined) return [{ variable: names.key, problem: `is required by ${names.cert}` }];
  return fileFaults({ cert, key }, names);
}

function clientAuthFaults(good: Parameters<typeof tlsFaults>[0]): readonly ConfigurationFault[] {
  const variable = 'PORTCULLIS_TLS_CLIENT_CA_FILE';
  const { PORTCULLIS_TLS_CLIENT_AUTH: mode, [variable]: ca } = good;
  if (mode === undefined) return [];
  if (mode === 'off') {
    // The operator believes that certificates are checked.
    const problem = 'has no effect while PORTCULLIS_TLS_CLIENT_AUTH is off';
    return ca === undefined ? [] : [{ variable, problem }];
  }
  const faults: ConfigurationFault[] = [];
  if (good.PORTCULLIS_TLS_CERT_FILE === undefined) {
    const problem = 'can be other than off only with PORTCULLIS_TLS_CERT_FILE';
    faults.push({ variable: 'PORTCULLIS_TLS_CLIENT_AUTH', problem });
  }
  // Without it every public certificate authority could vouch for callers.
  if (ca === undefined) {
    faults.push({ variable, problem: `is required while PORTCULLIS_TLS_CLIENT_AUTH is ${mode}` });
  }
  return [...faults, ...authorityFaults(variable, ca)];
}

/** In plaintext an attacker on the path could impersonate the peer, or steal the tokens that are sent to it. */
function peerFaults(peer: TlsPeer, good: Partial<Values>): readonly ConfigurationFault[] {
  const { caVariable, caFile, addressVariable, addresses } = peer;
  if (caFile !== undefined) return authorityFaults(caVariable, caFile);
  if (good.PORTCULLIS_PLAINTEXT !== 'loopback' || addresses.every(isLoopback)) return [];
  const problem = `is required unless ${addressVariable} is on this machine, or PORTCULLIS_PLAINTEXT is allow`;
  return [{ variable: caVariable, problem }];
}

function brokerFaults(good: Parameters<typeof tlsFaults>[0]): readonly ConfigurationFault[] {
  const { NATS_URL: url, PORTCULLIS_NATS_CA: ca } = good;
  if (ca === undefined) return [];
  const usesTls = url?.split(',').some((address) => address.trim().startsWith('tls:')) ?? false;
  const unused = {
    variable: 'PORTCULLIS_NATS_CA',
    problem: 'has no effect unless NATS_URL begins with tls://',
  };
  return [...(usesTls ? [] : [unused]), ...authorityFaults('PORTCULLIS_NATS_CA', ca)];
}

function authorityFaults(variable: string, ca: string | undefined): readonly ConfigurationFault[] {
  return ca === undefined ? [] : fileFaults({ ca }, { cert: variable, key: variable, ca: variable });
}

function fileFaults(
  files: TlsFiles,
  names: Readonly<Record<keyof TlsFiles, string>>,
): readonly ConfigurationFault[] {
  return tlsFaultsOf(files).map(({ file, problem }) => ({ variable: names[file], problem }));
}
