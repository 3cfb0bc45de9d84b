/** The configuration that every service has, and the block of those that are clients of auth. */
import type { KeyObject } from 'node:crypto';
import type { BrokerCredentialFiles } from '@portcullis/guard';
import { parseDatabaseUrl } from '../database/database-url.js';
import { DATABASE_LIMITS_DEFAULT, type DatabaseLimits, type Importance } from '../database/lanes.js';
import { hasOpenTelemetry } from '../metrics/telemetry.js';
import type { TlsSettings } from '../tls/tls.js';
import { TLS_VARIABLES, type TlsPeer, tlsFaults, tlsSettingsOf } from '../tls/tls-config.js';
import { brokerConfigFaults, brokerCredentialsOf, brokerVariables } from './broker-config.js';
import {
  ConfigurationError,
  type ConfigurationFault,
  type EnvironmentShape,
  type EnvironmentValues,
  type EnvironmentVariable,
  hostPort,
  type LogLevel,
  logLevel,
  onOff,
  optional,
  parseEnvironment,
  privateKeyFile,
  seconds,
  secret,
  serverTarget,
  text,
  url,
  wholeNumber,
  withDefault,
} from './env.js';
import { LIMIT_VARIABLES, type LimitSettings, limitSettingsOf } from './limits.js';
import { type ConfiguredIssuer, parseTrustedIssuers, TRUSTED_ISSUERS_VARIABLES } from './trusted-issuers.js';

/** Default of how long calls may take to end when the process stops, in seconds. */
const DRAIN_SECONDS_DEFAULT = 10;
const DRAIN_SECONDS_MAX = 600;

/** How long a gRPC connection is used. */
const CONNECTION_AGE_SECONDS_DEFAULT = 3_600;
const CONNECTION_AGE_SECONDS_MAX = 86_400;
/** Connections of each HTTP port at one time; beyond it, the oldest ones are closed. */
const OPS_CONNECTIONS_DEFAULT = 256;

/** Default number of requests of one address that an HTTP port answers in a second. */
const OPS_REQUESTS_PER_ADDRESS_DEFAULT = 50;
/** Lines of one kind that the log takes in a minute; a sixth of them at once. */
const LOG_LINES_PER_MINUTE_DEFAULT = 60;
const LOG_LINES_PER_MINUTE_MAX = 1_000_000;
/** What may wait to be written to the log. */
const LOG_BUFFER_KIB_DEFAULT = 4_096;
const LOG_BUFFER_KIB_MAX = 1024 * 1024;

/** The settings of the log. */
interface LogSettings {
  readonly level: LogLevel;
  /** Lines of one kind; further ones are counted instead. */
  readonly linesPerMinute: number;
  /** Lines that wait to be written; further ones are lost, and counted. */
  readonly bufferKib: number;
}

/** The settings that every service has. */
export interface ServiceConfig {
  readonly databaseUrl: string;
  /** The same database as a role that may change its schema; the role of `databaseUrl` does when undefined. */
  readonly migrationDatabaseUrl?: string | undefined;
  readonly databaseLimits: DatabaseLimits;
  /** The broker; without one, revocations arrive by syncs alone. */
  readonly natsUrl: string | undefined;
  /** Credentials for the broker in place of those in its URL. */
  readonly natsCredentials: BrokerCredentialFiles;
  readonly issuer: string;
  readonly listen: string;
  readonly opsListen: string;
  /** After this time, the peer of a gRPC connection is asked to reconnect. */
  readonly connectionAgeMs: number;
  /** Connections of each HTTP port at one time. */
  readonly opsConnectionsMax: number;
  /** Requests of one address that an HTTP port answers in a second. */
  readonly opsRequestsPerAddress: number;
  readonly log: LogSettings;
  readonly reflection: boolean;
  /** Whether calls and the guard report to OpenTelemetry. */
  readonly openTelemetry: boolean;
  readonly drainMs: number;
  /** What a peer can make the service hold. */
  readonly limits: LimitSettings;
  readonly tls: TlsSettings;
  /** Other issuers whose tokens the service accepts. */
  readonly trustedIssuers: readonly ConfiguredIssuer[];
}

/** A PostgreSQL URL; it usually holds a password. */
function databaseUrl(): EnvironmentVariable<string> {
  return secret({
    secret: true,
    parse: (given) => {
      if (given === undefined) return { problem: 'is required' };
      const parsed = parseDatabaseUrl(given);
      return 'problem' in parsed ? parsed : { value: given };
    },
  });
}

/** Maximum of the configurable numbers of connections and of waiting requests. */
const DATABASE_CONNECTIONS_MAX = 1_000;
const DATABASE_QUEUE_MAX = 100_000;

function connectionsOf(importance: Importance): EnvironmentVariable<number> {
  const { connections } = DATABASE_LIMITS_DEFAULT.lanes[importance];
  return withDefault(
    wholeNumber({ min: 1, max: DATABASE_CONNECTIONS_MAX, unit: 'connections' }),
    connections,
  );
}

function queueOf(importance: Importance): EnvironmentVariable<number> {
  const { queue } = DATABASE_LIMITS_DEFAULT.lanes[importance];
  return withDefault(wholeNumber({ min: 1, max: DATABASE_QUEUE_MAX, unit: 'requests' }), queue);
}

/** The limits of the lane of unknown callers, which only auth has. */
export const UNKNOWN_LANE_VARIABLES = {
  PORTCULLIS_DATABASE_UNKNOWN_CONNECTIONS: connectionsOf('unknown'),
  PORTCULLIS_DATABASE_UNKNOWN_QUEUE: queueOf('unknown'),
};

const DATABASE_VARIABLES = {
  PORTCULLIS_DATABASE_PROMISE_CONNECTIONS: connectionsOf('promise'),
  PORTCULLIS_DATABASE_PROMISE_QUEUE: queueOf('promise'),
  PORTCULLIS_DATABASE_KNOWN_CONNECTIONS: connectionsOf('known'),
  PORTCULLIS_DATABASE_KNOWN_QUEUE: queueOf('known'),
  PORTCULLIS_DATABASE_ROW_QUEUE: withDefault(
    wholeNumber({ min: 1, max: DATABASE_QUEUE_MAX, unit: 'requests' }),
    DATABASE_LIMITS_DEFAULT.rowQueue,
  ),
};

type DatabaseValues = EnvironmentValues<typeof DATABASE_VARIABLES> &
  Partial<EnvironmentValues<typeof UNKNOWN_LANE_VARIABLES>>;

function databaseLimitsOf(values: DatabaseValues): DatabaseLimits {
  const { unknown } = DATABASE_LIMITS_DEFAULT.lanes;
  return {
    rowQueue: values.PORTCULLIS_DATABASE_ROW_QUEUE,
    lanes: {
      promise: {
        connections: values.PORTCULLIS_DATABASE_PROMISE_CONNECTIONS,
        queue: values.PORTCULLIS_DATABASE_PROMISE_QUEUE,
      },
      known: {
        connections: values.PORTCULLIS_DATABASE_KNOWN_CONNECTIONS,
        queue: values.PORTCULLIS_DATABASE_KNOWN_QUEUE,
      },
      unknown: {
        connections: values.PORTCULLIS_DATABASE_UNKNOWN_CONNECTIONS ?? unknown.connections,
        queue: values.PORTCULLIS_DATABASE_UNKNOWN_QUEUE ?? unknown.queue,
      },
    },
  };
}

const LOG_VARIABLES = {
  PORTCULLIS_LOG_LEVEL: withDefault(logLevel(), 'info'),
  PORTCULLIS_LOG_LINES_PER_MINUTE: withDefault(
    wholeNumber({ min: 1, max: LOG_LINES_PER_MINUTE_MAX }),
    LOG_LINES_PER_MINUTE_DEFAULT,
  ),
  PORTCULLIS_LOG_BUFFER_KIB: withDefault(
    wholeNumber({ min: 64, max: LOG_BUFFER_KIB_MAX, unit: 'KiB' }),
    LOG_BUFFER_KIB_DEFAULT,
  ),
};

function logSettingsOf(values: EnvironmentValues<typeof LOG_VARIABLES>): LogSettings {
  return {
    level: values.PORTCULLIS_LOG_LEVEL,
    linesPerMinute: values.PORTCULLIS_LOG_LINES_PER_MINUTE,
    bufferKib: values.PORTCULLIS_LOG_BUFFER_KIB,
  };
}

/**
 * The variables of {@link ServiceConfig}.
 *
 * @param differences - where services differ: the ports are required unless a default is given
 */
export function serviceVariables(differences: {
  readonly broker: 'required' | 'optional';
  readonly listen?: string;
  readonly opsListen?: string;
}) {
  const { broker, listen, opsListen } = differences;
  return {
    DATABASE_URL: databaseUrl(),
    PORTCULLIS_MIGRATION_DATABASE_URL: optional(databaseUrl()),
    ...DATABASE_VARIABLES,
    ...brokerVariables(broker),
    PORTCULLIS_ISSUER: url({ protocols: ['https:', 'http:'] }),
    PORTCULLIS_LISTEN: listen === undefined ? hostPort() : withDefault(hostPort(), listen),
    PORTCULLIS_OPS_LISTEN: opsListen === undefined ? hostPort() : withDefault(hostPort(), opsListen),
    PORTCULLIS_CONNECTION_AGE_SECONDS: withDefault(
      seconds({ min: 10, max: CONNECTION_AGE_SECONDS_MAX }),
      CONNECTION_AGE_SECONDS_DEFAULT,
    ),
    PORTCULLIS_OPS_CONNECTIONS: withDefault(wholeNumber({ min: 8, max: 65_535 }), OPS_CONNECTIONS_DEFAULT),
    PORTCULLIS_OPS_REQUESTS_PER_ADDRESS: withDefault(
      wholeNumber({ min: 1, max: 1_000_000 }),
      OPS_REQUESTS_PER_ADDRESS_DEFAULT,
    ),
    ...LOG_VARIABLES,
    PORTCULLIS_REFLECTION: withDefault(onOff(), false),
    PORTCULLIS_OPENTELEMETRY: withDefault(onOff(), false),
    PORTCULLIS_DRAIN_SECONDS: withDefault(seconds({ min: 0, max: DRAIN_SECONDS_MAX }), DRAIN_SECONDS_DEFAULT),
    ...LIMIT_VARIABLES,
    ...TLS_VARIABLES,
    ...TRUSTED_ISSUERS_VARIABLES,
  };
}

type ServiceValues = EnvironmentValues<ReturnType<typeof serviceVariables>>;

/**
 * The faults that concern several variables at once.
 *
 * @param service - the service's audience
 * @param peers - the servers that it calls
 */
export function serviceFaults(
  good: Partial<ServiceValues>,
  service: string,
  peers: readonly TlsPeer[] = [],
): readonly ConfigurationFault[] {
  return [
    ...tlsFaults(good, peers),
    ...brokerConfigFaults(good),
    ...parseTrustedIssuers(good, service).faults,
    ...telemetryFaults(good),
  ];
}

function telemetryFaults({ PORTCULLIS_OPENTELEMETRY: isOn }: Partial<ServiceValues>): ConfigurationFault[] {
  if (isOn !== true || hasOpenTelemetry()) return [];
  return [{ variable: 'PORTCULLIS_OPENTELEMETRY', problem: 'needs the package @opentelemetry/api' }];
}

/** The settings out of the values of the variables. */
export function serviceConfigOf(values: ServiceValues & DatabaseValues, service: string): ServiceConfig {
  return {
    databaseUrl: values.DATABASE_URL,
    migrationDatabaseUrl: values.PORTCULLIS_MIGRATION_DATABASE_URL,
    databaseLimits: databaseLimitsOf(values),
    natsUrl: values.NATS_URL,
    natsCredentials: brokerCredentialsOf(values),
    issuer: values.PORTCULLIS_ISSUER,
    listen: values.PORTCULLIS_LISTEN,
    opsListen: values.PORTCULLIS_OPS_LISTEN,
    connectionAgeMs: values.PORTCULLIS_CONNECTION_AGE_SECONDS * 1000,
    opsConnectionsMax: values.PORTCULLIS_OPS_CONNECTIONS,
    opsRequestsPerAddress: values.PORTCULLIS_OPS_REQUESTS_PER_ADDRESS,
    log: logSettingsOf(values),
    reflection: values.PORTCULLIS_REFLECTION,
    openTelemetry: values.PORTCULLIS_OPENTELEMETRY,
    drainMs: values.PORTCULLIS_DRAIN_SECONDS * 1000,
    limits: limitSettingsOf(values),
    tls: tlsSettingsOf(values),
    trustedIssuers: parseTrustedIssuers(values, service).issuers,
  };
}

/** The settings of a service that is a client of auth. */
export interface ClientConfig {
  /** A target for grpc-js. */
  readonly authAddress: string;
  /** File with the certificate authority of auth; plaintext when undefined. */
  readonly authCaFile: string | undefined;
  readonly clientId: string;
  readonly clientKey: KeyObject;
}

/** The variables of {@link ClientConfig}. */
export const CLIENT_VARIABLES = {
  PORTCULLIS_AUTH_ADDRESS: serverTarget(),
  PORTCULLIS_AUTH_CA: optional(text()),
  PORTCULLIS_CLIENT_ID: text(),
  PORTCULLIS_CLIENT_KEY_FILE: privateKeyFile(),
};

type ClientValues = EnvironmentValues<typeof CLIENT_VARIABLES>;

/** The settings out of the values of the variables. */
export function clientConfigOf(values: ClientValues): ClientConfig {
  return {
    authAddress: values.PORTCULLIS_AUTH_ADDRESS.target,
    authCaFile: values.PORTCULLIS_AUTH_CA,
    clientId: values.PORTCULLIS_CLIENT_ID,
    clientKey: values.PORTCULLIS_CLIENT_KEY_FILE,
  };
}

/** Auth, as a server that the service calls. */
export function authPeer(good: Partial<ClientValues>): TlsPeer {
  const { PORTCULLIS_AUTH_ADDRESS: server, PORTCULLIS_AUTH_CA: caFile } = good;
  return {
    caVariable: 'PORTCULLIS_AUTH_CA',
    caFile,
    addressVariable: 'PORTCULLIS_AUTH_ADDRESS',
    addresses: server?.addresses ?? [],
  };
}

/** The settings of the command that only migrates a database. */
export interface MigrationConfig {
  /** The database, as the role that owns its tables. */
  readonly url: string;
  readonly log: LogSettings;
}

const MIGRATION_VARIABLES = {
  DATABASE_URL: optional(databaseUrl()),
  PORTCULLIS_MIGRATION_DATABASE_URL: optional(databaseUrl()),
  ...LOG_VARIABLES,
};

/**
 * Reads what a migration requires. It needs no other secret of the service, and ignores the service's other variables, so
 * that it can be run in the environment of the service too.
 *
 * @param variables - all variables of the service
 * @throws ConfigurationError with all faults together
 */
export function parseMigrationConfig(variables: EnvironmentShape, env: NodeJS.ProcessEnv): MigrationConfig {
  const ignored = new Set(
    Object.keys(variables)
      .filter((name) => !Object.hasOwn(MIGRATION_VARIABLES, name))
      .flatMap((name) => [name, `${name}_FILE`]),
  );
  const read = Object.fromEntries(Object.entries(env).filter(([name]) => !ignored.has(name)));
  const values = parseEnvironment(MIGRATION_VARIABLES, read);
  const url = values.PORTCULLIS_MIGRATION_DATABASE_URL ?? values.DATABASE_URL;
  if (url === undefined) {
    throw new ConfigurationError([
      { variable: 'PORTCULLIS_MIGRATION_DATABASE_URL', problem: 'is required, or DATABASE_URL' },
    ]);
  }
  return { url, log: logSettingsOf(values) };
}
