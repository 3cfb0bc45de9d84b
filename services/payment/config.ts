/** The configuration of payment, from environment variables. */
import { createPrivateKey, type KeyObject } from 'node:crypto';
import {
  type EnvironmentValues,
  fileContents,
  hostPort,
  hostPorts,
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
import { TLS_VARIABLES, type TlsPeer, tlsFaults, tlsSettingsOf } from '../common/tls/tls-config.js';

/** Everything that can be configured. */
export interface Config {
  readonly databaseUrl: string;
  /** The same database as a role that may change its schema; the role of `databaseUrl` does when undefined. */
  readonly migrationDatabaseUrl: string | undefined;
  readonly natsUrl: string;
  readonly listen: string;
  readonly opsListen: string;
  readonly issuer: string;
  readonly authAddress: string;
  /** File with the certificate authority that auth is known by; plaintext when undefined. */
  readonly authCaFile: string | undefined;
  readonly clientId: string;
  readonly clientKey: KeyObject;
  /** The instances of inventory. */
  readonly inventoryAddresses: readonly string[];
  /** File with the certificate authority that inventory is known by; plaintext when undefined. */
  readonly inventoryCaFile: string | undefined;
  readonly logLevel: LogLevel;
  readonly reflection: boolean;
  readonly drainMs: number;
  readonly tls: TlsSettings;
  /** Other issuers whose tokens are taken. */
  readonly trustedIssuers: readonly ConfiguredIssuer[];
}

const VARIABLES = {
  DATABASE_URL: secret(url({ protocols: ['postgres:', 'postgresql:'] })),
  PORTCULLIS_MIGRATION_DATABASE_URL: optional(secret(url({ protocols: ['postgres:', 'postgresql:'] }))),
  NATS_URL: secret(url({ protocols: ['nats:', 'tls:'] })),
  PORTCULLIS_LISTEN: withDefault(hostPort(), '127.0.0.1:50053'),
  PORTCULLIS_OPS_LISTEN: withDefault(hostPort(), '127.0.0.1:51053'),
  PORTCULLIS_ISSUER: url({ protocols: ['https:', 'http:'] }),
  PORTCULLIS_AUTH_ADDRESS: hostPort(),
  PORTCULLIS_AUTH_CA: optional(text()),
  PORTCULLIS_CLIENT_ID: text(),
  PORTCULLIS_CLIENT_KEY_FILE: fileContents(),
  PORTCULLIS_INVENTORY_ADDRESS: hostPorts(),
  PORTCULLIS_INVENTORY_CA: optional(text()),
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
    const pem = good.PORTCULLIS_CLIENT_KEY_FILE;
    clientKey = pem === undefined ? undefined : parsePrivateKey(pem);
    const faults = [...tlsFaults(good, peersOf(good)), ...parseTrustedIssuers(good, 'payment').faults];
    if (pem === undefined || clientKey !== undefined) return faults;
    const problem = 'must name a file with a private key in PKCS #8 PEM';
    return [{ variable: 'PORTCULLIS_CLIENT_KEY_FILE', problem }, ...faults];
  });
  if (clientKey === undefined) throw new TypeError('the configuration passed without a client key');
  return Object.freeze({
    databaseUrl: values.DATABASE_URL,
    migrationDatabaseUrl: values.PORTCULLIS_MIGRATION_DATABASE_URL,
    natsUrl: values.NATS_URL,
    listen: values.PORTCULLIS_LISTEN,
    opsListen: values.PORTCULLIS_OPS_LISTEN,
    issuer: values.PORTCULLIS_ISSUER,
    authAddress: values.PORTCULLIS_AUTH_ADDRESS,
    authCaFile: values.PORTCULLIS_AUTH_CA,
    clientId: values.PORTCULLIS_CLIENT_ID,
    clientKey,
    inventoryAddresses: values.PORTCULLIS_INVENTORY_ADDRESS,
    inventoryCaFile: values.PORTCULLIS_INVENTORY_CA,
    logLevel: values.PORTCULLIS_LOG_LEVEL,
    reflection: values.PORTCULLIS_REFLECTION,
    drainMs: values.PORTCULLIS_DRAIN_SECONDS * 1_000,
    tls: tlsSettingsOf(values),
    trustedIssuers: parseTrustedIssuers(values, 'payment').issuers,
  });
}

function peersOf(good: Partial<EnvironmentValues<typeof VARIABLES>>): TlsPeer[] {
  const peers = [
    { name: 'AUTH', caFile: good.PORTCULLIS_AUTH_CA, addresses: good.PORTCULLIS_AUTH_ADDRESS },
    { name: 'INVENTORY', caFile: good.PORTCULLIS_INVENTORY_CA, addresses: good.PORTCULLIS_INVENTORY_ADDRESS },
  ];
  return peers.map(({ name, caFile, addresses = [] }) => ({
    caVariable: `PORTCULLIS_${name}_CA`,
    caFile,
    addressVariable: `PORTCULLIS_${name}_ADDRESS`,
    addresses: [addresses].flat(),
  }));
}

function parsePrivateKey(pem: string): KeyObject | undefined {
  try {
    return createPrivateKey(pem);
  } catch {
    return undefined;
  }
}
