/** The limits of a guard: what a peer can make the process hold. */

const SECOND_MS = 1000;

/** The limits of a guard. Every one is a positive number; `Infinity` switches a count or a time off. */
export interface GuardLimits {
  /** Maximum size of a request message of a method that requires a token, in bytes. Default: 4 MiB. */
  readonly requestBytes: number;
  /** Maximum size of a request message of a public method, in bytes. Default: 16 KiB. */
  readonly publicRequestBytes: number;
  /** How long the only message of a request may take to arrive, in milliseconds. Default: 20 seconds. */
  readonly requestMs: number;
  /** How long a caller of a public method may leave its stream of requests without a message. Default: 60 seconds. */
  readonly publicIdleMs: number;
  /** How long a peer may take to read a message of a response, in milliseconds. Default: 60 seconds. */
  readonly responseMs: number;
  /**
   * Maximum number of bytes of requests that have not reached their handlers. Callers of public methods from
   * networks that have not shown a valid token within the last hour may use a quarter of it, all others three quarters,
   * and one caller an eighth. Default: 64 MiB.
   */
  readonly bytesInFlight: number;
  /**
   * Maximum number of calls of public methods from networks that have not shown a valid token within the last hour. Half
   * of them may be streams. Default: 1,000.
   */
  readonly publicCalls: number;
  /**
   * The part of them that one network may have open: an IPv4 address, or a /64 of IPv6. Half of them may be streams.
   * Default: 100.
   */
  readonly publicCallsPerAddress: number;
  /** Maximum number of calls of one user in progress. Default: 200. */
  readonly callsPerUser: number;
  /** The part of them that may be streams. Default: 100. */
  readonly streamsPerUser: number;
  /** Maximum number of calls of one service in progress. All its instances count together. Default: 2,000. */
  readonly callsPerService: number;
  /** The part of them that may be streams. Default: 1,000. */
  readonly streamsPerService: number;
  /**
   * Maximum number of connections. Networks that have not shown a valid token within the last hour may have three
   * quarters of them. Default: 4,096.
   */
  readonly connections: number;
  /** The part of them that one network may have. Default: 250. */
  readonly connectionsPerAddress: number;
  /** How long a connection may take for TLS and the first HTTP/2 frame, in milliseconds. Default: 10 seconds. */
  readonly connectionSetupMs: number;
  /** How long a connection may then take to make its first request, in milliseconds. Default: 60 seconds. */
  readonly firstRequestMs: number;
  /** Maximum number of calls in progress on one connection. Default: 1,000. */
  readonly streamsPerConnection: number;
  /**
   * Maximum number of open HTTP/2 streams of one network, on connections on which no call was admitted with a token so
   * far. The stream of a call whose response is not read stays open. Beyond the maximum, the connection with most of them
   * is closed. Default: 1,000.
   */
  readonly newStreamsPerAddress: number;
  /** Maximum size of the headers of a call, in bytes as RFC 9113 §6.5.2 counts them. Default: 16 KiB. */
  readonly headerBytes: number;
}

/** The names of the limits, as errors and metrics have them. */
export const LIMIT_NAMES = [
  'request_bytes',
  'request_seconds',
  'public_idle_seconds',
  'response_seconds',
  'bytes_in_flight',
  'public_calls',
  'public_calls_per_address',
  'calls_per_user',
  'streams_per_user',
  'calls_per_service',
  'streams_per_service',
  'connections',
  'connections_per_address',
  'connection_setup_seconds',
  'first_request_seconds',
  'new_streams_per_address',
  'verifications',
] as const;

/** The name of a limit, as errors and metrics have it. */
export type LimitName = (typeof LIMIT_NAMES)[number];

/** The defaults of {@link GuardLimits}. */
export const DEFAULT_LIMITS: GuardLimits = {
  requestBytes: 4 * 1024 * 1024,
  publicRequestBytes: 16 * 1024,
  requestMs: 20 * SECOND_MS,
  publicIdleMs: 60 * SECOND_MS,
  responseMs: 60 * SECOND_MS,
  bytesInFlight: 64 * 1024 * 1024,
  publicCalls: 1000,
  publicCallsPerAddress: 100,
  callsPerUser: 200,
  streamsPerUser: 100,
  callsPerService: 2000,
  streamsPerService: 1000,
  connections: 4096,
  connectionsPerAddress: 250,
  connectionSetupMs: 10 * SECOND_MS,
  firstRequestMs: 60 * SECOND_MS,
  streamsPerConnection: 1000,
  newStreamsPerAddress: 1000,
  headerBytes: 16 * 1024,
};

/** The options with the defaults of those that are missing. @throws TypeError naming every limit that is not positive */
export function guardLimitsOf(options: Partial<GuardLimits> = {}): GuardLimits {
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  const faults = given.filter(([, value]) => !(value > 0)).map(([name, value]) => `${name} is ${value}`);
  if (faults.length > 0) throw new TypeError(`expected positive limits, but ${faults.join(', ')}`);
  return { ...DEFAULT_LIMITS, ...Object.fromEntries(given) };
}
