/** The outside of a service: its gRPC server with health and reflection, its ops port, readiness and drain. */
import type { ServerInterceptor, ServerOptions } from '@grpc/grpc-js';
import { Server } from '@grpc/grpc-js';
import { type Clock, systemClock } from '@portcullis/guard';
import { createCallMetrics, registerStateMetrics } from '@portcullis/guard/metrics';
import { collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import type { ListenerTls } from '../tls/tls.js';
import { createCallLog } from './call-log.js';
import type { Health } from './health.js';
import { createHealth, HEALTH_METHODS, HEALTH_SERVICE } from './health.js';
import { HTTP_LIMITS } from './http-limits.js';
import { type HttpPort, type HttpRoutes, openHttpPort } from './http-port.js';
import { createLocalConnections, type LocalConnections } from './local-connections.js';
import type { Log } from './log.js';
import type { OpsOptions } from './ops.js';
import { startOps } from './ops.js';
import { bindServer, joinHostPort, type ListenAddress, listenError, requireFreePort } from './ports.js';
import { createReadiness, type Readiness, type ReadinessChecks } from './readiness.js';
import { addReflection, REFLECTION_METHODS, REFLECTION_SERVICES, readDescriptorImage } from './reflection.js';

/** The largest message that is received or sent. */
export const MESSAGE_BYTES_MAX = 4 * 1024 * 1024;
/** A connection without traffic for this long is pinged. */
const KEEPALIVE_INTERVAL_MS = 30_000;
/** A connection that does not answer the ping for this long is closed. */
const KEEPALIVE_TIMEOUT_MS = 10_000;
/** Default of {@link HostOptions.connectionAgeMs}. */
const CONNECTION_AGE_DEFAULT_MS = 60 * 60 * 1000;
/** How often the readiness checks run when no change is reported. */
const READINESS_POLL_MS = 500;

export interface HostOptions {
  /** The name of the service in its metrics. */
  readonly service: string;
  /** Where gRPC listens, `HOST:PORT`; port 0 stands for any free one. */
  readonly listen: string;
  /** Where HTTP for operators listens. */
  readonly opsListen: string;
  readonly log: Log;
  readonly clock?: Clock;
  /** Whether any caller may read the schema. */
  readonly reflection: boolean;
  /**
   * The peer of a gRPC connection is asked to reconnect after this long: it then asks DNS again, and current certificates
   * apply. Calls under way continue on the old connection.
   */
  readonly connectionAgeMs?: number | undefined;
  /** How long calls under way may take to end when the process stops. */
  readonly drainMs: number;
  /** How long a connection without calls stays open, in milliseconds. */
  readonly connectionIdleMs: number;
  /** The first is outermost. */
  readonly interceptors: readonly ServerInterceptor[];
  /** The certificates of both ports; plaintext when undefined. */
  readonly tls?: ListenerTls | undefined;
  /** Adds the service's own methods. */
  readonly addServices: (server: Server) => void;
  /** Full names of the services added, such as `inventory.v1.InventoryService`. */
  readonly serviceNames: readonly string[];
  readonly readiness: ReadinessChecks;
  /** Further paths of the ops port. */
  readonly routes?: HttpRoutes | undefined;
  /** A port of its own for these paths, beside the ops port. */
  readonly routesListen?: ListenAddress | undefined;
  /** Connections of each HTTP port at one time. */
  readonly opsConnectionsMax?: number | undefined;
  /** Requests of one address that an HTTP port answers in a second, but for probes. */
  readonly opsRequestsPerAddress?: number | undefined;
  /** Where the service's own metrics are registered. */
  readonly registry?: Registry;
  /** Ends calls that would otherwise last for the whole drain time. */
  readonly endStreams?: (() => Promise<void>) | undefined;
}

/** A service that listens. */
export interface Host {
  /** Where gRPC listens, with the real port. */
  readonly address: string;
  /** Where HTTP for operators listens. */
  readonly opsAddress: string;
  /** Opens connections of this process to its own gRPC server. */
  readonly local: Pick<LocalConnections, 'connect'>;
  /** To be called when the result of a readiness check may have changed. */
  readinessChanged(): void;
  /**
   * Adds a further HTTP port of the process to the metrics of such ports.
   *
   * @param variable - the variable that sets its address, such as `PORTCULLIS_CONSOLE_LISTEN`
   */
  watchHttpPort(variable: string, port: HttpPort): void;
  /** Turns readiness off, lets calls under way end within the drain time, then cuts them. May be called twice. */
  stop(): Promise<void>;
}

/** The full paths of the methods that the host itself serves, which need no token. */
export function hostMethods(options: { reflection: boolean }): ReadonlySet<string> {
  return new Set([...HEALTH_METHODS, ...(options.reflection ? REFLECTION_METHODS : [])]);
}

/**
 * Opens both ports and serves; health says NOT_SERVING until every readiness check returns ''.
 *
 * @throws ListenError when a port cannot be opened, with nothing left open; else what `addServices` throws
 */
export async function startHost(options: HostOptions): Promise<Host> {
  const { log, clock = systemClock, registry = new Registry() } = options;
  const health = createHealth(options.serviceNames);
  const server = createGrpcServer(options, health, { log, clock, registry });
  const readiness = createReadiness(options.readiness, { health, log });
  registerProcessMetrics(registry, options.service);

  const listen = { address: options.listen, variable: 'PORTCULLIS_LISTEN' };
  const address = await bindServer(server, listen, options.tls?.credentials);
  const reported = { registry, missing: readiness.missing };
  const { http, opsAddress, routesAddress } = await openHttpBeside(server, options, reported);
  registerEvictions(registry, http);
  readiness.update();
  const poll = setInterval(readiness.update, READINESS_POLL_MS).unref();
  const local = createLocalConnections(server);
  log.info({ address, opsAddress, routesAddress, tls: options.tls !== undefined }, 'listening');

  let stopped: Promise<void> | undefined;
  return {
    address,
    opsAddress,
    local,
    readinessChanged: readiness.update,
    watchHttpPort: (variable, port) => void http.set(portName(variable), port),
    stop: () => {
      clearInterval(poll);
      stopped ??= stopHost(options, { server, health, readiness, http, local });
      return stopped;
    },
  };
}

function createGrpcServer(
  options: HostOptions,
  health: Health,
  { log, clock, registry }: { log: Log; clock: Clock; registry: Registry },
): Server {
  const server = new Server({
    // The metrics are outermost, so that they count calls that the other interceptors reject.
    interceptors: [
      createCallMetrics(registry, { clock, onEnd: createCallLog(log) }),
      ...options.interceptors,
    ],
    ...SERVER_LIMITS,
    'grpc.max_connection_age_ms': options.connectionAgeMs ?? CONNECTION_AGE_DEFAULT_MS,
    'grpc.max_connection_idle_ms': options.connectionIdleMs,
  });
  options.addServices(server);
  health.addTo(server);
  if (options.reflection) {
    const names = [...options.serviceNames, HEALTH_SERVICE, ...REFLECTION_SERVICES];
    addReflection(server, names, readDescriptorImage());
  }
  return server;
}

const SERVER_LIMITS: ServerOptions = {
  'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
  'grpc.max_send_message_length': MESSAGE_BYTES_MAX,
  'grpc.keepalive_time_ms': KEEPALIVE_INTERVAL_MS,
  'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT_MS,
};

function registerProcessMetrics(registry: Registry, service: string): void {
  collectDefaultMetrics({ register: registry });
  const info = new Gauge({
    name: 'portcullis_service_info',
    help: 'Always 1; which service this process is.',
    labelNames: ['service'],
    registers: [registry],
  });
  info.set({ service }, 1);
}

/** The HTTP ports, open. */
interface HttpPorts {
  /** By their names in metrics. */
  readonly http: Map<string, HttpPort>;
  readonly opsAddress: string;
  /** Undefined when the routes have no port of their own. */
  readonly routesAddress: string | undefined;
}

/** Opens the HTTP ports; when one of them cannot be opened, the others and the gRPC port are closed. */
async function openHttpBeside(
  server: Server,
  options: HostOptions,
  reported: Pick<OpsOptions, 'registry' | 'missing'>,
): Promise<HttpPorts> {
  const { routes = {}, routesListen, log, tls } = options;
  const { opsConnectionsMax: connectionsMax, opsRequestsPerAddress: requestsPerAddress } = options;
  // What these ports answer needs no drain: the next request gets the same answer from another instance.
  const settings = { routes, log, tls: tls?.watch, connectionsMax, requestsPerAddress, drainMs: 0 };
  const http = new Map<string, HttpPort>();
  const open = async (
    listen: ListenAddress,
    start: (at: ListenPoint) => Promise<HttpPort>,
  ): Promise<string> => {
    try {
      const at = await requireFreePort(listen);
      const opened = await start(at);
      http.set(portName(listen.variable), opened);
      return joinHostPort(at.host, opened.port);
    } catch (error) {
      server.forceShutdown();
      await Promise.all([...http.values()].map((port) => port.close()));
      throw listenError(listen, error);
    }
  };
  const opsListen = { address: options.opsListen, variable: 'PORTCULLIS_OPS_LISTEN' };
  const opsAddress = await open(opsListen, (at) => startOps({ ...settings, ...reported, ...at }));
  const routesAddress =
    routesListen && (await open(routesListen, (at) => openHttpPort({ ...settings, ...at })));
  return { http, opsAddress, routesAddress };
}

interface ListenPoint {
  readonly host: string;
  readonly port: number;
}

/** The name of a port in metrics: that of `PORTCULLIS_OPS_LISTEN` is `ops`. */
function portName(variable: string): string {
  return variable.replace(/^PORTCULLIS_|_LISTEN$/g, '').toLowerCase();
}

/** @param http - read at each scrape, so that ports may be added */
function registerEvictions(registry: Registry, http: ReadonlyMap<string, HttpPort>): void {
  registerStateMetrics(registry, [
    {
      name: 'http_connections_evicted_total',
      help: 'Connections to the HTTP ports closed because there were too many, by port.',
      kind: 'counter',
      labels: ['port'],
      read: () => [...http].map(([name, { evicted }]) => [evicted, name]),
    },
    {
      name: 'http_requests_refused_total',
      help: 'Requests to the HTTP ports that were refused, by port and limit.',
      kind: 'counter',
      labels: ['port', 'limit'],
      read: () =>
        [...http].flatMap(([name, { refused }]) =>
          HTTP_LIMITS.map((limit) => [refused[limit], name, limit] as const),
        ),
    },
  ]);
}

async function stopHost(
  { drainMs, log, endStreams }: HostOptions,
  running: {
    server: Server;
    health: Health;
    readiness: Readiness;
    http: ReadonlyMap<string, HttpPort>;
    local: LocalConnections;
  },
): Promise<void> {
  running.readiness.drain();
  await running.health.endWatches();
  await endStreams?.().catch((error: unknown) => log.error({ err: error }, 'could not end the streams'));
  await drainCalls(running.server, drainMs, log);
  running.local.close();
  await Promise.all([...running.http.values()].map((port) => port.close()));
}

async function drainCalls(server: Server, drainMs: number, log: Log): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const tooLate = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), drainMs);
  });
  const ended = new Promise<boolean>((resolve) => server.tryShutdown(() => resolve(true)));
  const inTime = await Promise.race([ended, tooLate]);
  clearTimeout(timer);
  if (inTime) return;
  log.warn({ drainMs }, 'cutting the calls that have not ended');
  server.forceShutdown();
}
