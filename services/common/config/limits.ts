/** The limits on what a peer can make a service hold: the guard's, by the names of their variables. */

import { DEFAULT_LIMITS, type GuardLimits } from '@portcullis/guard';
import {
  type EnvironmentValues,
  type EnvironmentVariable,
  seconds,
  wholeNumber,
  withDefault,
} from './env.js';

const SECOND_MS = 1000;
const HOUR_SECONDS = 3600;
const MEBIBYTE = 1024 * 1024;
const COUNT_MAX = 1_000_000;

/** Default of how long a connection without calls stays open, in seconds. */
const CONNECTION_IDLE_SECONDS_DEFAULT = 300;

const bytes = (min: number, max: number, fallback: number): EnvironmentVariable<number> =>
  withDefault(wholeNumber({ min, max, unit: 'bytes' }), fallback);
const time = (fallbackMs: number): EnvironmentVariable<number> =>
  withDefault(seconds({ min: 1, max: HOUR_SECONDS }), fallbackMs / SECOND_MS);
const count = (fallback: number): EnvironmentVariable<number> =>
  withDefault(wholeNumber({ min: 1, max: COUNT_MAX }), fallback);

/** The variables of {@link LimitSettings}. */
export const LIMIT_VARIABLES = {
  PORTCULLIS_REQUEST_BYTES: bytes(1024, 64 * MEBIBYTE, DEFAULT_LIMITS.requestBytes),
  PORTCULLIS_PUBLIC_REQUEST_BYTES: bytes(1024, 64 * MEBIBYTE, DEFAULT_LIMITS.publicRequestBytes),
  PORTCULLIS_REQUEST_SECONDS: time(DEFAULT_LIMITS.requestMs),
  PORTCULLIS_PUBLIC_IDLE_SECONDS: time(DEFAULT_LIMITS.publicIdleMs),
  PORTCULLIS_RESPONSE_SECONDS: time(DEFAULT_LIMITS.responseMs),
  PORTCULLIS_BYTES_IN_FLIGHT: bytes(MEBIBYTE, 16 * 1024 * MEBIBYTE, DEFAULT_LIMITS.bytesInFlight),
  PORTCULLIS_PUBLIC_CALLS: count(DEFAULT_LIMITS.publicCalls),
  PORTCULLIS_PUBLIC_CALLS_PER_ADDRESS: count(DEFAULT_LIMITS.publicCallsPerAddress),
  PORTCULLIS_CALLS_PER_USER: count(DEFAULT_LIMITS.callsPerUser),
  PORTCULLIS_STREAMS_PER_USER: count(DEFAULT_LIMITS.streamsPerUser),
  PORTCULLIS_CALLS_PER_SERVICE: count(DEFAULT_LIMITS.callsPerService),
  PORTCULLIS_STREAMS_PER_SERVICE: count(DEFAULT_LIMITS.streamsPerService),
  PORTCULLIS_CONNECTIONS: count(DEFAULT_LIMITS.connections),
  PORTCULLIS_CONNECTIONS_PER_ADDRESS: count(DEFAULT_LIMITS.connectionsPerAddress),
  PORTCULLIS_CONNECTION_SETUP_SECONDS: time(DEFAULT_LIMITS.connectionSetupMs),
  PORTCULLIS_FIRST_REQUEST_SECONDS: time(DEFAULT_LIMITS.firstRequestMs),
  PORTCULLIS_CONNECTION_IDLE_SECONDS: time(CONNECTION_IDLE_SECONDS_DEFAULT * SECOND_MS),
  PORTCULLIS_STREAMS_PER_CONNECTION: count(DEFAULT_LIMITS.streamsPerConnection),
  PORTCULLIS_NEW_STREAMS_PER_ADDRESS: count(DEFAULT_LIMITS.newStreamsPerAddress),
  PORTCULLIS_HEADER_BYTES: bytes(4096, MEBIBYTE, DEFAULT_LIMITS.headerBytes),
};

/** The limits of a service. */
export interface LimitSettings {
  readonly guard: GuardLimits;
  /** How long a connection without calls stays open, in milliseconds. */
  readonly connectionIdleMs: number;
}

/** The limits out of the values of the variables. */
export function limitSettingsOf(values: EnvironmentValues<typeof LIMIT_VARIABLES>): LimitSettings {
  return {
    guard: {
      requestBytes: values.PORTCULLIS_REQUEST_BYTES,
      publicRequestBytes: values.PORTCULLIS_PUBLIC_REQUEST_BYTES,
      requestMs: values.PORTCULLIS_REQUEST_SECONDS * SECOND_MS,
      publicIdleMs: values.PORTCULLIS_PUBLIC_IDLE_SECONDS * SECOND_MS,
      responseMs: values.PORTCULLIS_RESPONSE_SECONDS * SECOND_MS,
      bytesInFlight: values.PORTCULLIS_BYTES_IN_FLIGHT,
      publicCalls: values.PORTCULLIS_PUBLIC_CALLS,
      publicCallsPerAddress: values.PORTCULLIS_PUBLIC_CALLS_PER_ADDRESS,
      callsPerUser: values.PORTCULLIS_CALLS_PER_USER,
      streamsPerUser: values.PORTCULLIS_STREAMS_PER_USER,
      callsPerService: values.PORTCULLIS_CALLS_PER_SERVICE,
      streamsPerService: values.PORTCULLIS_STREAMS_PER_SERVICE,
      connections: values.PORTCULLIS_CONNECTIONS,
      connectionsPerAddress: values.PORTCULLIS_CONNECTIONS_PER_ADDRESS,
      connectionSetupMs: values.PORTCULLIS_CONNECTION_SETUP_SECONDS * SECOND_MS,
      firstRequestMs: values.PORTCULLIS_FIRST_REQUEST_SECONDS * SECOND_MS,
      streamsPerConnection: values.PORTCULLIS_STREAMS_PER_CONNECTION,
      newStreamsPerAddress: values.PORTCULLIS_NEW_STREAMS_PER_ADDRESS,
      headerBytes: values.PORTCULLIS_HEADER_BYTES,
    },
    connectionIdleMs: values.PORTCULLIS_CONNECTION_IDLE_SECONDS * SECOND_MS,
  };
}
