/** The configuration of inventory, from environment variables. */
import { parseEnvironment } from '../common/config/env.js';
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

/** Everything that can be configured. */
export type Config = ServiceConfig & ClientConfig;

/** All variables, by name. */
export const VARIABLES = {
  ...serviceVariables({ broker: 'required', listen: '127.0.0.1:50052', opsListen: '127.0.0.1:51052' }),
  ...CLIENT_VARIABLES,
};

/**
 * Reads the configuration.
 *
 * @throws ConfigurationError with all faults together
 */
export function parseConfig(env: NodeJS.ProcessEnv): Config {
  const values = parseEnvironment(VARIABLES, env, (good) =>
    serviceFaults(good, 'inventory', [authPeer(good)]),
  );
  return Object.freeze({ ...serviceConfigOf(values, 'inventory'), ...clientConfigOf(values) });
}
