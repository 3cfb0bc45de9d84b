/**
 * Runs a service: opens what every service has (log, certificates, database, guard, ports), starts what the service
 * adds, and closes all of it at the end. A service says only what differs.
 */
import type { ServiceDefinition } from '@grpc/grpc-js';
import {
  type BrokerUse,
  createGuard,
  type Guard,
  type GuardOptions,
  type SchemaMetadata,
  type ServiceHandlers,
} from '@portcullis/guard';
import { createGuardMetrics, registerStateMetrics, type StateMetric } from '@portcullis/guard/metrics';
import { Registry } from 'prom-client';
import type { ServiceConfig } from '../config/service-config.js';
import { type Database, openDatabase } from '../database/database.js';
import { registerDatabaseMetrics } from '../metrics/database-metrics.js';
import { openTelemetry, type Telemetry } from '../metrics/telemetry.js';
import { openTls, type Tls } from '../tls/tls.js';
import { type Closer, createCloser } from './closer.js';
import { type Host, hostMethods, startHost } from './host.js';
import type { HttpRoutes } from './http-port.js';
import { createLog, type Log, logCounts } from './log.js';
import type { ListenAddress } from './ports.js';
import { runUntilSignal } from './process.js';
import type { ReadinessChecks } from './readiness.js';
import { exitWith } from './run-main.js';

/** What every service has opened before its own parts are put together. */
export interface ServiceResources {
  readonly log: Log;
  readonly tls: Tls;
  /** Answers queries only once it is migrated, which `start` of {@link ServiceParts} can rely on. */
  readonly database: Database;
  /** Where the service registers its own metrics. */
  readonly registry: Registry;
  /** Its client interceptors belong to the service's own clients. */
  readonly telemetry: Telemetry;
  /** Takes what the service opens. It is closed in reverse order, after the calls have ended and before the database. */
  readonly closer: Closer;
}

/** One gRPC service, whose methods all declare an access rule. */
export interface GuardedService {
  readonly definition: ServiceDefinition;
  /** Its `protoMetadata`. */
  readonly schema: SchemaMetadata;
  readonly handlers: ServiceHandlers<ServiceDefinition>;
}

/** The parts in which services differ. */
export interface ServiceParts {
  /** Where the guard gets the revocation log. */
  readonly auth: GuardOptions['auth'];
  /** Other issuers whose tokens the guard accepts. */
  readonly trustedIssuers?: GuardOptions['trustedIssuers'];
  /** The service's databases that have a fence against revoked work. */
  readonly fences?: GuardOptions['fences'];
  readonly services: readonly GuardedService[];
  /** The service's own connections to the broker, beside those of the guard. */
  readonly brokerUses?: () => readonly BrokerUse[];
  /** Checks beside `database` and `revocations`. */
  readonly readiness?: ReadinessChecks;
  /** Further paths of the ops port. */
  readonly routes?: HttpRoutes;
  /** A port of its own for the same paths, apart from probes and metrics. */
  readonly routesListen?: ListenAddress | undefined;
  /** Ends calls that would otherwise last for the whole drain time. */
  readonly endStreams?: () => Promise<void>;
  /** Runs once, after both ports are open and the database is migrated: for work in the background. */
  readonly start: (running: RunningService) => Promise<void>;
}

/** A service whose ports are open. */
export interface RunningService {
  /** Aborted as soon as the process is to stop. */
  readonly signal: AbortSignal;
  readonly guard: Guard;
  /** Opens connections of this process to its own gRPC server. */
  readonly local: Host['local'];
  /** Adds a further HTTP port to the metrics. */
  readonly watchHttpPort: Host['watchHttpPort'];
  /** To be called when the result of a readiness check may have changed. */
  readinessChanged(): void;
}

/**
 * Runs the service until a signal stops it. Calls are drained first; then everything that was opened is closed, the
 * last first. A failure of `start` ends the process with code 1.
 *
 * @throws whatever keeps the service from opening its ports
 */
export async function runService(options: {
  /** The service's name in log and metrics, and its audience. */
  readonly name: string;
  readonly config: ServiceConfig;
  /** The folder with the database's migrations. */
  readonly migrations: URL;
  /** Puts the service's parts together; nothing is served yet. */
  readonly compose: (resources: ServiceResources) => ServiceParts | Promise<ServiceParts>;
}): Promise<void> {
  const { name, config, migrations } = options;
  const telemetry = await openTelemetry(config.openTelemetry);
  const resources = { ...openResources(name, config, migrations), telemetry };
  const { log, tls, database, closer } = resources;
  if (telemetry.fault !== undefined) log.warn(telemetry.fault);
  const parts = await options.compose(resources);
  const guard = await openGuard(name, config, parts, resources);
  const host = await openHost(name, config, parts, { ...resources, guard });

  const stopping = new AbortController();
  runUntilSignal({
    log,
    drainMs: config.drainMs,
    reload: tls.reload,
    stop: async () => {
      stopping.abort();
      await host.stop();
      await closer.closeAll();
    },
  });
  try {
    await database.ready(stopping.signal);
    const { local, watchHttpPort, readinessChanged } = host;
    await parts.start({ signal: stopping.signal, guard, local, watchHttpPort, readinessChanged });
  } catch (error) {
    if (!stopping.signal.aborted) exitWith(error);
  }
}

function openResources(
  name: string,
  config: ServiceConfig,
  migrations: URL,
): Omit<ServiceResources, 'telemetry'> {
  const log = createLog({ service: name, ...config.log });
  const closer = createCloser(log);
  const tls = openTls(config.tls, { log });
  closer.add('tls', tls.close);
  const { databaseUrl: url, migrationDatabaseUrl: migrationUrl, databaseLimits: limits } = config;
  const database = openDatabase({ url, migrationUrl, migrations, log, limits });
  closer.add('database', database.close);
  const registry = new Registry();
  registerDatabaseMetrics(registry, database);
  registerStateMetrics(registry, logMetrics(log));
  return { log, tls, database, closer, registry };
}

function logMetrics(log: Log): readonly StateMetric[] {
  return [
    {
      name: 'log_lines_lost_total',
      help: 'Lines of the log that could not be written.',
      kind: 'counter',
      read: () => [[logCounts(log).lost]],
    },
    {
      name: 'log_lines_suppressed_total',
      help: 'Lines of the log beyond the limit of their kind.',
      kind: 'counter',
      read: () => [[logCounts(log).suppressed]],
    },
  ];
}

async function openGuard(
  audience: string,
  config: ServiceConfig,
  { auth, trustedIssuers, fences, brokerUses }: ServiceParts,
  { log, tls, registry, telemetry, closer }: ServiceResources,
): Promise<Guard> {
  const { issuer, natsUrl, natsCredentials } = config;
  const metrics = createGuardMetrics(registry);
  const guard = await createGuard({
    issuer,
    audience,
    auth,
    trustedIssuers,
    fences,
    nats: natsUrl === undefined ? undefined : { url: natsUrl, files: { ...tls.broker, ...natsCredentials } },
    plaintext: config.tls.plaintext,
    publicMethods: hostMethods(config),
    limits: config.limits.guard,
    log,
    observer: telemetry.observe(metrics.observer),
  });
  closer.add('guard', () => guard.close());
  metrics.attach(guard, { brokerUses });
  telemetry.attach(guard);
  return guard;
}

async function openHost(
  service: string,
  {
    listen,
    opsListen,
    opsConnectionsMax,
    opsRequestsPerAddress,
    connectionAgeMs,
    reflection,
    drainMs,
    limits,
  }: ServiceConfig,
  { services, readiness, routes, routesListen, endStreams }: ServiceParts,
  { log, tls, database, registry, telemetry, guard }: ServiceResources & { readonly guard: Guard },
): Promise<Host> {
  const host = await startHost({
    service,
    listen,
    opsListen,
    opsConnectionsMax,
    opsRequestsPerAddress,
    connectionAgeMs,
    log,
    registry,
    reflection,
    drainMs,
    connectionIdleMs: limits.connectionIdleMs,
    interceptors: [...telemetry.server, guard.interceptor],
    tls: tls.listener,
    addServices: (server) => {
      for (const { definition, schema, handlers } of services) {
        guard.addService(server, definition, schema, handlers);
      }
    },
    serviceNames: services.map(({ definition }) => serviceNameOf(definition)),
    readiness: { database: database.missing, ...readiness, revocations: () => guard.state().staleReason },
    routes,
    routesListen,
    endStreams,
  });
  guard.onStateChange(host.readinessChanged);
  database.onStateChange(host.readinessChanged);
  return host;
}

/** The full name, such as `inventory.v1.InventoryService`, out of the paths of its methods. */
function serviceNameOf(definition: ServiceDefinition): string {
  const [, name = ''] = Object.values(definition)[0]?.path.split('/') ?? [];
  return name;
}
