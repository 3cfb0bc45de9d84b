/** The outside of a service: its gRPC server with health and reflection, its ops port, readiness and drain. */
import { lookup } from 'node:dns/promises';
import { createServer, isIP } from 'node:net';
import type { ServerInterceptor, ServerOptions } from '@grpc/grpc-js';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { type Clock, systemClock } from '@portcullis/guard';
import { collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import { parseHostPort } from '../config/env.js';
import { observeCalls } from '../metrics/metrics.js';
import type { ListenerTls } from '../tls/tls.js';
import type { Health } from './health.js';
import { createHealth, HEALTH_METHODS, HEALTH_SERVICE } from './health.js';
import type { Log } from './log.js';
import type { Ops, OpsRoute } from './ops.js';
import { startOps } from './ops.js';
import { addReflection, REFLECTION_METHODS, REFLECTION_SERVICES, readDescriptorImage } from './reflection.js';

/** The largest message that is received or sent. */
export const MESSAGE_BYTES_MAX = 4 * 1024 * 1024;
/** Calls at one time on one connection. */
export const STREAMS_PER_CONNECTION_MAX = 1_000;
/** A connection that is silent for so long is asked whether it lives. */
export const KEEPALIVE_INTERVAL_MS = 30_000;
/** A connection that does not answer for so long is closed. */
export const KEEPALIVE_TIMEOUT_MS = 10_000;
/** After so long the peer of a TLS connection is asked to make a new one: by the certificates that count by then. */
export const TLS_CONNECTION_AGE_MAX_MS = 60 * 60 * 1000;
/** How often readiness is looked at, should nobody have told of a change. */
export const READINESS_POLL_MS = 500;

/** What {@link startHost} needs. */
export interface HostOptions {
  /** The name of the service in its metrics. */
  readonly service: string;
  /** Where gRPC listens, `HOST:PORT`; port 0 takes a free one. */
  readonly listen: string;
  /** Where HTTP for operators listens. */
  readonly opsListen: string;
  /** The variables that set the two, for the sentence that tells of a taken port. */
  readonly variables?: { readonly listen: string; readonly opsListen: string };
  readonly log: Log;
  readonly clock?: Clock;
  /** Whether the schema is shown to anybody who asks. */
  readonly reflection: boolean;
  /** How long calls under way may take to end when the process stops. */
  readonly drainMs: number;
  /** The first is outermost. */
  readonly interceptors: readonly ServerInterceptor[];
  /** The certificates of both ports; plaintext when undefined. */
  readonly tls?: ListenerTls | undefined;
  /** Adds the service's own methods. */
  readonly addServices: (server: Server) => void;
  /** Full names of the services added, such as `inventory.v1.InventoryService`. */
  readonly serviceNames: readonly string[];
  /** By name, what is missing in one phrase; '' when nothing is. */
  readonly readiness: { readonly [name: string]: () => string };
  /** Further paths of the ops port. */
  readonly routes?: { readonly [path: string]: OpsRoute };
  /** Where the service's own metrics are registered. */
  readonly registry?: Registry;
}

/** A service that listens. */
export interface Host {
  /** Where gRPC listens, with the real port. */
  readonly address: string;
  /** Where HTTP for operators listens. */
  readonly opsAddress: string;
  /** To be called when something that readiness depends on may have changed. */
  readinessChanged(): void;
  /** Turns readiness off, lets calls under way end within the drain time, then cuts them. May be called twice. */
  stop(): Promise<void>;
}

/** A port or an address that could not be opened; the message is meant for the operator. */
export class ListenError extends Error {
  constructor(message: string, cause: unknown) {
    super(message, { cause });
    this.name = 'ListenError';
  }
}

/** The full paths of the methods that the host itself serves, which ask for no token. */
export function hostMethods(options: { reflection: boolean }): ReadonlySet<string> {
  return new Set([...HEALTH_METHODS, ...(options.reflection ? REFLECTION_METHODS : [])]);
}

/**
 * Opens both ports and serves; health says NOT_SERVING until every readiness is ''.
 *
 * @throws ListenError when a port cannot be opened, with nothing left open; else what `addServices` throws
 */
export async function startHost(options: HostOptions): Promise<Host> {
  const { log, clock = systemClock, registry = new Registry() } = options;
  const health = createHealth(options.serviceNames);
  const server = createServerFor(options, health, { log, clock, registry });
  const readiness = createReadiness(options, health);
  const variables = options.variables ?? { listen: 'PORTCULLIS_LISTEN', opsListen: 'PORTCULLIS_OPS_LISTEN' };
  registerProcessMetrics(registry, options.service);

  const address = await bind(server, options, variables.listen);
  let ops: Ops;
  let opsAddress: string;
  try {
    const { host, port } = await demandFree(options.opsListen, variables.opsListen);
    const { routes = {} } = options;
    const tls = options.tls?.watch;
    ops = await startOps({ host, port, registry, missing: readiness.missing, routes, log, tls });
    opsAddress = joinHostPort(host, ops.port);
  } catch (error) {
    server.forceShutdown();
    throw error instanceof ListenError ? error : listenError(options.opsListen, variables.opsListen, error);
  }
  readiness.update();
  const poll = setInterval(readiness.update, READINESS_POLL_MS).unref();
  log.info({ address, opsAddress, tls: options.tls !== undefined }, 'listening');

  async function stopOnce(): Promise<void> {
    clearInterval(poll);
    readiness.drain();
    health.endWatches();
    await drain(server, options.drainMs, log);
    await ops.close();
  }
  let stopped: Promise<void> | undefined;
  return {
    address,
    opsAddress,
    readinessChanged: readiness.update,
    stop: () => {
      stopped ??= stopOnce();
      return stopped;
    },
  };
}

function createServerFor(
  options: HostOptions,
  health: Health,
  observer: { log: Log; clock: Clock; registry: Registry },
): Server {
  const server = new Server({
    // The observer is outermost, so that it counts what the others refuse.
    interceptors: [observeCalls(observer), ...options.interceptors],
    ...SERVER_LIMITS,
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
  'grpc.max_concurrent_streams': STREAMS_PER_CONNECTION_MAX,
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

/** Keeps health equal to what the readiness functions say, and tells the log of every change. */
function createReadiness({ readiness, log }: HostOptions, health: Health) {
  let draining = false;
  let told: string | undefined;

  function missing(): Record<string, string> {
    if (draining) return { process: 'shutting down' };
    const all = Object.entries(readiness).map(([name, phrase]) => [name, phrase()] as const);
    return Object.fromEntries(all.filter(([, phrase]) => phrase !== ''));
  }
  function update(): void {
    const what = missing();
    const ready = Object.keys(what).length === 0;
    const now = JSON.stringify(what);
    if (now === told) return;
    told = now;
    health.setReady(ready);
    if (ready) log.info('ready');
    else log.warn({ missing: what }, 'not ready');
  }
  function drainNow(): void {
    draining = true;
    update();
  }
  return { missing, update, drain: drainNow };
}

async function drain(server: Server, drainMs: number, log: Log): Promise<void> {
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

async function bind(server: Server, options: HostOptions, variable: string): Promise<string> {
  const { host } = await demandFree(options.listen, variable);
  return new Promise((resolve, reject) => {
    const credentials = options.tls?.credentials ?? ServerCredentials.createInsecure();
    server.bindAsync(options.listen, credentials, (error, port) => {
      if (error === null) resolve(joinHostPort(host, port));
      else reject(listenError(options.listen, variable, error));
    });
  });
}

/**
 * Finds out by itself whether the port is free: grpc-js is content when one of a name's addresses could be bound,
 * and tells why another could not only in words.
 */
async function demandFree(listen: string, variable: string): Promise<{ host: string; port: number }> {
  const parsed = parseHostPort(listen);
  if (parsed === undefined) throw new ListenError(`${variable} must be HOST:PORT`, undefined);
  try {
    for (const host of await addressesOf(parsed.host)) await openOnce(host, parsed.port);
  } catch (error) {
    throw listenError(listen, variable, error);
  }
  return parsed;
}

async function addressesOf(host: string): Promise<string[]> {
  if (isIP(host) !== 0) return [host];
  const all = await lookup(host, { all: true });
  return all.map(({ address }) => address);
}

function openOnce(host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = createServer();
    socket.once('error', reject);
    socket.listen({ host, port, exclusive: true }, () => socket.close(() => resolve()));
  });
}

function listenError(listen: string, variable: string, error: unknown): ListenError {
  const { host = '', port = 0 } = parseHostPort(listen) ?? {};
  const text = error instanceof Error ? `${'code' in error ? String(error.code) : ''} ${error.message}` : '';
  if (text.includes('EADDRINUSE')) {
    const advice = `Stop the program that uses it, or set ${variable} to another HOST:PORT.`;
    return new ListenError(`Port ${port} on ${host} is taken. ${advice}`, error);
  }
  if (text.includes('EACCES')) {
    return new ListenError(
      `Port ${port} on ${host} may not be opened by this user. Set ${variable} to another HOST:PORT.`,
      error,
    );
  }
  const advice = `Set ${variable} to an address of this machine.`;
  return new ListenError(`Cannot listen on ${listen}. ${advice}`, error);
}

function joinHostPort(host: string, port: number): string {
  return isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`;
}
