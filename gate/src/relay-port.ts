/** The port at which callers connect, and the connections to the upstream. */

import { connect as connectTcp, createServer as createTcpServer, type Server, type Socket } from 'node:net';
import {
  connect as connectTls,
  createServer as createTlsServer,
  TLSSocket,
  type Server as TlsServer,
} from 'node:tls';
import { systemClock } from '@portcullis/guard/clock';
import type { Decision, Engine, EngineCall, EngineCaller } from '@portcullis/guard/engine';
import { type TlsWatch, watchTlsFiles } from '@portcullis/guard/tls';
import type { Address } from './addresses.js';
import { isLoopbackAddress } from './decide.js';
import type { OpenPort } from './ext-authz.js';
import type { Identity } from './identity.js';
import type { GateLog } from './log.js';
import type { GateMetrics } from './metrics.js';
import type { OwnHealth } from './own-health.js';
import { refusalOf } from './refusals.js';
import type { Judge, OwnMethod, Verdict } from './relay/judge.js';
import type { RelayEvent } from './relay/observer.js';
import { type RelayOptions, startRelay } from './relay/relay.js';
import type { ListenSettings, UpstreamSettings } from './settings.js';

/** The port, open. */
export interface RelayPort extends OpenPort {
  /** Number of client connections. */
  readonly connections: number;
  /** Number of calls in progress. */
  readonly calls: number;
  /** Asks callers to leave, waits for their calls until it has to hurry, and closes the port. */
  drain(waitMs: number, hurry?: AbortSignal): Promise<void>;
}

/** What the port needs. */
export interface RelayPortOptions {
  readonly listen: ListenSettings;
  readonly upstream: UpstreamSettings;
  /** The certificates for the upstream; undefined: plaintext. */
  readonly upstreamTls: TlsWatch | undefined;
  readonly admit: Engine['admit'];
  readonly identity: Identity;
  readonly health: Pick<OwnHealth, 'methodAt'>;
  readonly engine: Pick<Engine, 'connections' | 'limits' | 'recordConnection'>;
  readonly metrics: GateMetrics;
  readonly log: GateLog;
}

/** Events that operators should see at once; the metrics count all of them. */
const LOGGED: ReadonlySet<RelayEvent> = new Set<RelayEvent>([
  'internal_error',
  'malformed_response',
  'server_fault',
  'server_lost',
  'server_unreachable',
]);

/** At most one line of a kind in this time, in milliseconds. */
const LINE_INTERVAL_MS = 1_000;

const H2 = ['h2'];

/** What is known of a connection, and kept beside what the engine asks for. */
interface KnownConnection {
  readonly session: {
    readonly socket: { readonly remoteAddress: string | undefined; readonly remotePort: number | undefined };
  };
}

/** Opens the port. */
export async function openRelay(options: RelayPortOptions): Promise<RelayPort> {
  const { listen, upstream, upstreamTls, engine, metrics, log } = options;
  const own = listen.tls && watchTlsFiles({ files: listen.tls, log });
  const server = own === undefined ? createTcpServer() : tlsServer(own, listen);
  // The engine counts connections before TLS.
  server.prependListener('connection', (socket: Socket) => engine.connections.accepted(socket));
  const relay = startRelay({
    server,
    connectServer: () => connectUpstream(upstream, upstreamTls),
    judge: createJudge(options),
    callerOf: (socket) => callerOf(socket, engine),
    forwardsToken: !options.identity.stripsToken,
    clock: systemClock,
    limits: {
      headerListBytes: engine.limits.headerBytes,
      streams: finite(engine.limits.streamsPerConnection),
      connections: finite(engine.limits.connections),
    },
    observer: createObserver(metrics, log),
  });
  const address = await listenAt(server, listen.address);
  server.on('error', (error) =>
    log.error({ event: 'listen_error', err: error }, 'error of the listening socket'),
  );
  return {
    address,
    get connections() {
      return relay.connections;
    },
    get calls() {
      return relay.calls;
    },
    reload: async () => await own?.reload(),
    drain: (waitMs, hurry) => relay.drain(waitMs, hurry),
    close: async () => {
      own?.close();
      await relay.close();
    },
  };
}

function finite(limit: number): number {
  return Number.isFinite(limit) ? limit : Number.MAX_SAFE_INTEGER;
}

function tlsServer(watch: TlsWatch, { clientAuth }: ListenSettings): TlsServer {
  const server = createTlsServer({
    ...watch.current(),
    ALPNProtocols: H2,
    requestCert: clientAuth !== 'off',
    rejectUnauthorized: clientAuth === 'require',
  });
  watch.onChange((next) => server.setSecureContext(next));
  return server;
}

async function listenAt(server: Server, address: Address): Promise<Address> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    const listening = (): void => {
      server.off('error', reject);
      resolve();
    };
    if (address.kind === 'unix') server.listen(address.path, listening);
    else server.listen({ host: address.host, port: address.port }, listening);
  });
  const bound = server.address();
  if (address.kind === 'unix' || bound === null || typeof bound === 'string') return address;
  return { ...address, port: bound.port };
}

function connectUpstream({ address, serverName }: UpstreamSettings, tls: TlsWatch | undefined): Socket {
  const target =
    address.kind === 'unix' ? { path: address.path } : { host: address.host, port: address.port };
  if (tls === undefined) return connectTcp(target);
  return connectTls({ ...target, ...tls.current(), servername: serverName, ALPNProtocols: H2 });
}

/** The facts of a connection, from its socket alone. */
function callerOf(
  socket: Socket,
  engine: RelayPortOptions['engine'],
): Omit<EngineCaller, 'retireConnection'> & KnownConnection {
  const { remoteAddress, remotePort } = socket;
  const address = (remoteAddress ?? '').replace(/^::ffff:(?=\d+\.)/, '');
  const isEncrypted = socket instanceof TLSSocket;
  const isLocal = isLoopbackAddress(address);
  engine.recordConnection(isEncrypted ? 'none' : isLocal ? 'local' : 'remote');
  const session = { socket: { remoteAddress, remotePort } };
  engine.connections.established(session);
  return {
    peer: remoteAddress === undefined ? 'unix' : `${remoteAddress}:${remotePort}`,
    address,
    isPrivate: isEncrypted || isLocal,
    certificateThumbprint: isEncrypted ? thumbprintOf(socket) : undefined,
    session,
  };
}

/** With client-auth request, a certificate that was not verified is none. */
function thumbprintOf(socket: TLSSocket): string | undefined {
  if (!socket.authorized) return undefined;
  const { fingerprint256 } = socket.getPeerCertificate();
  return fingerprint256 && Buffer.from(fingerprint256.replaceAll(':', ''), 'hex').toString('base64url');
}

function createJudge({ admit, identity, health, engine }: RelayPortOptions): Judge<EngineCall> {
  return {
    judge: (path, authorizations, caller) => {
      if ('session' in caller)
        engine.connections.requested((caller as EngineCaller & KnownConnection).session);
      const decision = admit(path, authorizations, caller);
      const own = health.methodAt(path);
      if (own === undefined) return decision;
      return decision instanceof Promise
        ? decision.then((decided) => answeredBy(own, decided))
        : answeredBy(own, decision);
    },
    identityHeaders: (call) => identity.headersOf(call.principal),
    foreignResponse: ({ method, path, fields }, status) =>
      refusalOf(status, {
        method,
        path,
        header: (wanted) => fields.find(({ name }) => name === wanted)?.value,
      }),
  };
}

/** The gate answers what it admits here. */
function answeredBy(own: OwnMethod, decision: Decision): Verdict<EngineCall> {
  return decision.kind === 'refused' ? decision : { ...decision, own };
}

function createObserver(metrics: GateMetrics, log: GateLog): NonNullable<RelayOptions['observer']> {
  const lines = new Map<RelayEvent, number>();
  return {
    event: (event, peer, detail) => {
      metrics.relayEvent(event);
      if (!LOGGED.has(event)) return;
      const nowMs = systemClock.monotonicMs();
      if (nowMs - (lines.get(event) ?? Number.NEGATIVE_INFINITY) < LINE_INTERVAL_MS) return;
      lines.set(event, nowMs);
      log.warn(
        { event, peer, ...(detail instanceof Error ? { err: detail } : { detail }) },
        'event of the relay',
      );
    },
  };
}
