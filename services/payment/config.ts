/** The configuration of payment, from environment variables. */
import { createPrivateKey, type KeyObject } from 'node:crypto';
import {
  type ConfigurationFault,
  type EnvironmentValues,
  fileContents,
  hostPort,
  hostPorts,
  isLoopback,
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
} from '../common/env.js';

/** Everything that can be configured. */
export interface Config {
  readonly databaseUrl: string;
  readonly natsUrl: string;
  readonly listen: string;
  readonly opsListen: string;
  readonly issuer: string;
  readonly authAddress: string;
  /** The certificate authority that auth is known by, as PEM; plaintext on loopback when undefined. */
  readonly authCa: string | undefined;
  readonly clientId: string;
  readonly clientKey: KeyObject;
  /** The instances of inventory. */
  readonly inventoryAddresses: readonly string[];
  /** The certificate authority that inventory is known by, as PEM; plaintext on loopback when undefined. */
  readonly inventoryCa: string | undefined;
  readonly logLevel: LogLevel;
  readonly reflection: boolean;
  readonly drainMs: number;
}

const VARIABLES = {
  DATABASE_URL: secret(url({ protocols: ['postgres:', 'postgresql:'] })),
  NATS_URL: secret(url({ protocols: ['nats:', 'tls:'] })),
  PORTCULLIS_LISTEN: withDefault(hostPort(), '127.0.0.1:50053'),
  PORTCULLIS_OPS_LISTEN: withDefault(hostPort(), '127.0.0.1:51053'),
  PORTCULLIS_ISSUER: url({ protocols: ['https:', 'http:'] }),
  PORTCULLIS_AUTH_ADDRESS: hostPort(),
  PORTCULLIS_AUTH_CA: optional(fileContents()),
  PORTCULLIS_CLIENT_ID: text(),
  PORTCULLIS_CLIENT_KEY_FILE: fileContents(),
  PORTCULLIS_INVENTORY_ADDRESS: hostPorts(),
  PORTCULLIS_INVENTORY_CA: optional(fileContents()),
  PORTCULLIS_LOG_LEVEL: withDefault(logLevel(), 'info'),
  PORTCULLIS_REFLECTION: withDefault(onOff(), false),
  PORTCULLIS_DRAIN_SECONDS: withDefault(seconds({ min: 0, max: 600 }), 10),
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
    if (pem === undefined || clientKey !== undefined) return plaintextFaults(good);
    const problem = 'must name a file with a private key in PKCS #8 PEM';
    return [{ variable: 'PORTCULLIS_CLIENT_KEY_FILE', problem }, ...plaintextFaults(good)];
  });
  if (clientKey === undefined) throw new TypeError('the configuration passed without a client key');
  return Object.freeze({
    databaseUrl: values.DATABASE_URL,
    natsUrl: values.NATS_URL,
    listen: values.PORTCULLIS_LISTEN,
    opsListen: values.PORTCULLIS_OPS_LISTEN,
    issuer: values.PORTCULLIS_ISSUER,
    authAddress: values.PORTCULLIS_AUTH_ADDRESS,
    authCa: values.PORTCULLIS_AUTH_CA,
    clientId: values.PORTCULLIS_CLIENT_ID,
    clientKey,
    inventoryAddresses: values.PORTCULLIS_INVENTORY_ADDRESS,
    inventoryCa: values.PORTCULLIS_INVENTORY_CA,
    logLevel: values.PORTCULLIS_LOG_LEVEL,
    reflection: values.PORTCULLIS_REFLECTION,
    drainMs: values.PORTCULLIS_DRAIN_SECONDS * 1_000,
  });
}

/** In plaintext anyone on the way could pose as auth, or take the tokens that are sent to inventory. */
function plaintextFaults(good: Partial<EnvironmentValues<typeof VARIABLES>>): readonly ConfigurationFault[] {
  const peers = [
    { name: 'AUTH', addresses: good.PORTCULLIS_AUTH_ADDRESS, ca: good.PORTCULLIS_AUTH_CA },
    { name: 'INVENTORY', addresses: good.PORTCULLIS_INVENTORY_ADDRESS, ca: good.PORTCULLIS_INVENTORY_CA },
  ];
  return peers
    .filter(({ addresses = [], ca }) => ca === undefined && ![addresses].flat().every(isLoopback))
    .map(({ name }) => ({
      variable: `PORTCULLIS_${name}_CA`,
      problem: `is required unless PORTCULLIS_${name}_ADDRESS is on this machine`,
    }));
}

function parsePrivateKey(pem: string): KeyObject | undefined {
  try {
    return createPrivateKey(pem);
  } catch {
    return undefined;
  }
}
