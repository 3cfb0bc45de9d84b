/** The configuration of inventory, from environment variables. */

import { createPrivateKey, type KeyObject } from 'node:crypto';
import {
  type ConfigurationFault,
  fileContents,
  hostPort,
  type LogLevel,
  logLevel,
  onOff,
  optional,
  parseEnvironment,
  seconds,
  secret,
  text,
  url,
  withDefault,
} from '../common/config/env.js';
import {
  type ConfiguredIssuer,
  parseTrustedIssuers,
  TRUSTED_ISSUERS_VARIABLES,
} from '../common/config/trusted-issuers.js';
import type { TlsSettings } from '../common/tls/tls.js';
import { TLS_VARIABLES, tlsFaults, tlsSettingsOf } from '../common/tls/tls-config.js';

/** Everything that can be configured. */
export interface Config {
  readonly databaseUrl: string;
  readonly natsUrl: string;
  readonly listen: string;
  readonly opsListen: string;
  readonly issuer: string;
  readonly authAddress: string;
  /** File with the certificate authority that auth is known by; plaintext when undefined. */
  readonly authCaFile: string | undefined;
  readonly clientId: string;
  readonly clientKey: KeyObject;
  readonly logLevel: LogLevel;
  readonly reflection: boolean;
  readonly drainMs: number;
  readonly tls: TlsSettings;
  /** Other issuers whose tokens are taken. */
  readonly trustedIssuers: readonly ConfiguredIssuer[];
}

const VARIABLES = {
  DATABASE_URL: secret(url({ protocols: ['postgres:', 'postgresql:'] })),
  NATS_URL: secret(url({ protocols: ['nats:', 'tls:'] })),
  PORTCULLIS_LISTEN: withDefault(hostPort(), '127.0.0.1:50052'),
  PORTCULLIS_OPS_LISTEN: withDefault(hostPort(), '127.0.0.1:51052'),
  PORTCULLIS_ISSUER: url({ protocols: ['https:', 'http:'] }),
  PORTCULLIS_AUTH_ADDRESS: hostPort(),
  PORTCULLIS_AUTH_CA: optional(text()),
  PORTCULLIS_CLIENT_ID: text(),
  PORTCULLIS_CLIENT_KEY_FILE: fileContents(),
  PORTCULLIS_LOG_LEVEL: withDefault(logLevel(), 'info'),
  PORTCULLIS_REFLECTION: withDefault(onOff(), false),
  PORTCULLIS_DRAIN_SECONDS: withDefault(seconds({ min: 0, max: 600 }), 10),
  ...TLS_VARIABLES,
  ...TRUSTED_ISSUERS_VARIABLES,
};

/**
 * Reads the configuration.
 *
 * @throws ConfigurationError with all faults together
 */
export function parseConfig(env: NodeJS.ProcessEnv): Config {
  let clientKey: KeyObject | undefined;
  const values = parseEnvironment(VARIABLES, env, (good) => {
    const faults: ConfigurationFault[] = [];
    const pem = good.PORTCULLIS_CLIENT_KEY_FILE;
    clientKey = pem === undefined ? undefined : parsePrivateKey(pem);
    if (pem !== undefined && clientKey === undefined) {
      const problem = 'must name a file with a private key in PKCS #8 PEM';
      faults.push({ variable: 'PORTCULLIS_CLIENT_KEY_FILE', problem });
    }
    const auth = {
      caVariable: 'PORTCULLIS_AUTH_CA',
      caFile: good.PORTCULLIS_AUTH_CA,
      addressVariable: 'PORTCULLIS_AUTH_ADDRESS',
      addresses: [good.PORTCULLIS_AUTH_ADDRESS ?? []].flat(),
    };
    return [...faults, ...tlsFaults(good, [auth]), ...parseTrustedIssuers(good, 'inventory').faults];
  });
  if (clientKey === undefined) throw new TypeError('the configuration passed without a client key');
  return Object.freeze({
    databaseUrl: values.DATABASE_URL,
    natsUrl: values.NATS_URL,
    listen: values.PORTCULLIS_LISTEN,
    opsListen: values.PORTCULLIS_OPS_LISTEN,
    issuer: values.PORTCULLIS_ISSUER,
    authAddress: values.PORTCULLIS_AUTH_ADDRESS,
    authCaFile: values.PORTCULLIS_AUTH_CA,
    clientId: values.PORTCULLIS_CLIENT_ID,
    clientKey,
    logLevel: values.PORTCULLIS_LOG_LEVEL,
    reflection: values.PORTCULLIS_REFLECTION,
    drainMs: values.PORTCULLIS_DRAIN_SECONDS * 1000,
    tls: tlsSettingsOf(values),
    trustedIssuers: parseTrustedIssuers(values, 'inventory').issuers,
  });
}

function parsePrivateKey(pem: string): KeyObject | undefined {
  try {
    return createPrivateKey(pem);
  } catch {
    return undefined;
  }
}
