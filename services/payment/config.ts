/** The configuration of payment, from environment variables. */
import { type EnvironmentValues, hostPorts, optional, parseEnvironment, text } from '../common/config/env.js';
import {
  authPeer,
  CLIENT_VARIABLES,
  type ClientConfig,
  clientConfigOf,
  type ServiceConfig,
  serviceConfigOf,
  serviceFaults,
  serviceVariables,
} from '../common/config/service-config.js';
import type { TlsPeer } from '../common/tls/tls-config.js';

/** Everything that can be configured. */
export interface Config extends ServiceConfig, ClientConfig {
  /** The instances of inventory. */
  readonly inventoryAddresses: readonly string[];
  /** File with the certificate authority of inventory; plaintext when undefined. */
  readonly inventoryCaFile: string | undefined;
}

/** All variables, by name. */
export const VARIABLES = {
  ...serviceVariables({ broker: 'required', listen: '127.0.0.1:50053', opsListen: '127.0.0.1:51053' }),
  ...CLIENT_VARIABLES,
  PORTCULLIS_INVENTORY_ADDRESS: hostPorts(),
  PORTCULLIS_INVENTORY_CA: optional(text()),
};

type Values = EnvironmentValues<typeof VARIABLES>;

/**
 * Reads the configuration.
 *
 * @throws ConfigurationError with all faults together
 */
export function parseConfig(env: NodeJS.ProcessEnv): Config {
  const values = parseEnvironment(VARIABLES, env, (good) =>
    serviceFaults(good, 'payment', [authPeer(good), inventoryPeer(good)]),
  );
  return Object.freeze({
    ...serviceConfigOf(values, 'payment'),
    ...clientConfigOf(values),
    inventoryAddresses: values.PORTCULLIS_INVENTORY_ADDRESS,
    inventoryCaFile: values.PORTCULLIS_INVENTORY_CA,
  });
}

function inventoryPeer(good: Partial<Values>): TlsPeer {
  return {
    caVariable: 'PORTCULLIS_INVENTORY_CA',
    caFile: good.PORTCULLIS_INVENTORY_CA,
    addressVariable: 'PORTCULLIS_INVENTORY_ADDRESS',
    addresses: good.PORTCULLIS_INVENTORY_ADDRESS ?? [],
  };
}
