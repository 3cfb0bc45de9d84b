/** The configuration of inventory, from environment variables. */
import { parseEnvironment, seconds, wholeNumber, withDefault } from '../common/config/env.js';
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
import {
  OPEN_RESERVATIONS_DEFAULT,
  RESERVATION_SECONDS_DEFAULT,
  type ReservationLimits,
  SHARE_PERCENT_DEFAULT,
} from './reservation-limits.js';

/** Everything that can be configured. */
export type Config = ServiceConfig & ClientConfig & { readonly reservationLimits: ReservationLimits };

/** Smallest maximum of the duration of a reservation, in seconds: purchases reserve for this long. */
const RESERVATION_SECONDS_MAX_MIN = 60;

/** All variables, by name. */
export const VARIABLES = {
  ...serviceVariables({ broker: 'required', listen: '127.0.0.1:50052', opsListen: '127.0.0.1:51052' }),
  ...CLIENT_VARIABLES,
  PORTCULLIS_RESERVATIONS_PER_USER_MAX: withDefault(
    wholeNumber({ min: 1, max: 1_000_000 }),
    OPEN_RESERVATIONS_DEFAULT,
  ),
  PORTCULLIS_RESERVED_SHARE_PERCENT_MAX: withDefault(
    wholeNumber({ min: 1, max: 100 }),
    SHARE_PERCENT_DEFAULT,
  ),
  PORTCULLIS_RESERVATION_SECONDS_MAX: withDefault(
    seconds({ min: RESERVATION_SECONDS_MAX_MIN, max: 3600 }),
    RESERVATION_SECONDS_DEFAULT,
  ),
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
  return Object.freeze({
    ...serviceConfigOf(values, 'inventory'),
    ...clientConfigOf(values),
    reservationLimits: {
      openMax: values.PORTCULLIS_RESERVATIONS_PER_USER_MAX,
      sharePercent: values.PORTCULLIS_RESERVED_SHARE_PERCENT_MAX,
      secondsMax: values.PORTCULLIS_RESERVATION_SECONDS_MAX,
    },
  });
}
