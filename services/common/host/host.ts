/** The outside of a service: its gRPC server with health and reflection, its ops port, readiness and drain. */
import type { ServerInterceptor, ServerOptions } from '@grpc/grpc-js';
import { Server } from '@grpc/grpc-js';
import { type Clock, systemClock } from '@portcullis/guard';
import { collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import { observeCalls } from '../metrics/metrics.js';
import type { ListenerTls } from '../tls/tls.js';
import type { Health } from './health.js';
import { createHealth, HEALTH_METHODS, HEALTH_SERVICE } from './health.js';
import type { Log } from './log.js';
import type { Ops, OpsOptions, OpsRoute } from './ops.js';
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
/** The peer of a TLS connection is asked to reconnect after this long, so that the current certificates apply. */
const TLS_CONNECTION_AGE_MAX_MS = 60 * 60 * 1000;
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
  readonly routes?: { readonly [path: string]: OpsRoute } | undefined;
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
  /** To be called when the result of a readiness check may have changed. */
  readinessChanged(): void;
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
  const { ops, opsAddress } = await startOpsBeside(server, options, { registry, missing: readiness.missing });
  readiness.update();
  const poll = setInterval(readiness.update, READINESS_POLL_MS).unref();
  log.info({ address, opsAddress, tls: options.tls !== undefined }, 'listening');

  let stopped: Promise<void> | undefined;
  return {
    address,
    opsAddress,
    readinessChanged: readiness.update,
    stop: () => {
      clearInterval(poll);
      stopped ??= stopHost(options, { server, health, readiness, ops });
      return stopped;
    },
  };
}

function createGrpcServer(
  options: HostOptions,
  health: Health,
  observer: { log: Log; clock: Clock; registry: Registry },
): Server {
  const server = new Server({
    // The observer is outermost, so that it counts calls that the other interceptors reject.
    interceptors: [observeCalls(observer), ...options.interceptors],
    ...SERVER_LIMITS,
    'grpc.max_connection_idle_ms': options.connectionIdleMs,
    ...(options.tls === undefined ? {} : TLS_SERVER_LIMITS),
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

const TLS_SERVER_LIMITS: ServerOptions = { 'grpc.max_connection_age_ms': TLS_CONNECTION_AGE_MAX_MS };

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

/** Opens the ops port; when it cannot be opened, the gRPC port is closed as well. */
async function startOpsBeside(
  server: Server,
  { opsListen, routes = {}, log, tls }: HostOptions,
  reported: Pick<OpsOptions, 'registry' | 'missing'>,
): Promise<{ ops: Ops; opsAddress: string }> {
  const listen: ListenAddress = { address: opsListen, variable: 'PORTCULLIS_OPS_LISTEN' };
  try {
    const { host, port } = await requireFreePort(listen);
    const ops = await startOps({ ...reported, host, port, routes, log, tls: tls?.watch });
    return { ops, opsAddress: joinHostPort(host, ops.port) };
  } catch (error) {
    server.forceShutdown();
    throw listenError(listen, error);
  }
}

async function stopHost(
  { drainMs, log, endStreams }: HostOptions,
  running: { server: Server; health: Health; readiness: Readiness; ops: Ops },
): Promise<void> {
  running.readiness.drain();
  running.health.endWatches();
  await endStreams?.().catch((error: unknown) => log.error({ err: error }, 'could not end the streams'));
  await drainCalls(running.server, drainMs, log);
  await running.ops.close();
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
