/** The whole system as processes: started in order, recovered after a crash, and stopped without a trace. */

import { mkdir, readFile, realpath } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ChannelCredentials, credentials } from '@grpc/grpc-js';
import { createDemoData, type DemoAccounts } from './demo.js';
import { lockFolder } from './folder-lock.js';
import { type DatabaseUrls, recordDatabases } from './invariants.js';
import { type Nats, type NatsUser, startNats, type TlsPaths } from './nats.js';
import { NODE_ARGUMENTS } from './node-arguments.js';
import { createServiceProcess, type Part, type ServiceProcess } from './parts.js';
import { ensureDatabase, ensureRole, type Postgres, startPostgres } from './postgres.js';
import { endRecordedProcesses, recordProcesses } from './process-record.js';
import type { ProcessRegistry } from './processes.js';
import { type DemoUser, loadSecrets, type Secrets, type UserName } from './secrets.js';
import { SystemError } from './system-error.js';
import { choosePorts, type PortFlags, type SystemPorts } from './system-ports.js';

const PROJECT_FOLDER = fileURLToPath(new URL('../..', import.meta.url));
const SERVICES = ['auth', 'inventory', 'payment'] as const;
/** What of our own environment the services see, when it is set. */
const INHERITED_VARIABLES = [
  'PATH',
  'HOME',
  'TMPDIR',
  'LANG',
  'TZ',
  'NODE_EXTRA_CA_CERTS',
  'NODE_V8_COVERAGE',
];

/** Variables with our prefix that a start hands on to the services they are for. */
export const FORWARDED_VARIABLES: Readonly<Record<string, readonly Service[]>> = {
  PORTCULLIS_LOG_LEVEL: SERVICES,
  PORTCULLIS_DRAIN_SECONDS: SERVICES,
  PORTCULLIS_ACCESS_TOKEN_SECONDS: ['auth'],
  PORTCULLIS_LEASE_MS: ['auth'],
  PORTCULLIS_SIGNING_ALGORITHM: ['auth'],
  PORTCULLIS_KEY_ROTATION_DAYS: ['auth'],
  PORTCULLIS_LOGIN_FAILURES_PER_NAME: ['auth'],
  PORTCULLIS_LOGIN_FAILURES_PER_PEER: ['auth'],
  PORTCULLIS_LOGIN_WINDOW_SECONDS: ['auth'],
  PORTCULLIS_ANOMALIES_REVOKE: ['auth'],
  PORTCULLIS_TRUSTED_ISSUERS: SERVICES,
  PORTCULLIS_TRUSTED_ISSUERS_FILE: SERVICES,
};

type Service = (typeof SERVICES)[number];

/** What is going on while the system comes up or goes down. */
export interface Progress {
  /** The part it is about, such as `PostgreSQL` or `auth`. */
  readonly part: string;
  readonly state: 'starting' | 'ready' | 'note';
  /** More, in a few words; empty when there is nothing to add. */
  readonly detail: string;
  /** Milliseconds since the part was begun. */
  readonly elapsedMs: number;
}

/** How to start the system. */
export interface SystemOptions {
  /** Secrets, data and logs; made when absent. */
  readonly dataDir: string;
  /** The documented ports, or free ones. */
  readonly ports: 'default' | 'free';
  /** Single ports that differ from the documented ones. */
  readonly portOverrides?: PortFlags;
  readonly onProgress?: (progress: Progress) => void;
  /** How long an instance may trust its list; the services' default when absent. */
  readonly leaseMs?: number;
  /** Data of a test: nothing is synced to the disk. */
  readonly ephemeral?: boolean;
  /** Gives nats-server the user `test`, who may do anything. */
  readonly withTestUser?: boolean;
  /** Leaves the stock and the accounts empty. */
  readonly withoutDemo?: boolean;
  /** Has everything but the database speak TLS, demand certificates of each other, and bind tokens to them. */
  readonly tls?: TlsPaths;
  /** Puts something of one's own between a service and what it depends on. */
  readonly linkOf?: LinkOf;
  /** Prepares a second process of auth, on this port; it is started by whoever wants it. */
  readonly authReplicaPort?: number;
  /** Another program that does what payment does, with variables of its own beside those of payment. */
  readonly paymentProgram?: { readonly script: string; readonly environment: NodeJS.ProcessEnv };
  /** Where DATABASE_URL, NATS_URL and what is handed on are read; nothing by default. */
  readonly environment?: NodeJS.ProcessEnv;
  /** Aborts the start; what was started is stopped. */
  readonly signal?: AbortSignal;
}

/** Returns the address to use instead, or the one that was given. */
export type LinkOf = (link: {
  /** The process that connects, such as `inventory-1`. */
  readonly from: string;
  readonly to: 'auth' | 'nats-server';
  readonly address: string;
}) => string;

/** A running system. */
export interface System {
  readonly auth: ServiceProcess;
  /** A second process of auth on the same database, not started yet, if one was asked for. */
  readonly authReplica: ServiceProcess | undefined;
  readonly inventory: readonly [ServiceProcess, ServiceProcess];
  readonly payment: ServiceProcess;
  /** `undefined` when NATS_URL names a server that is not ours. */
  readonly nats: (Part & { url(user: NatsUser): string }) | undefined;
  /** The databases of stock and money, for whoever may do anything in them. */
  readonly databases: DatabaseUrls;
  /** `undefined` when DATABASE_URL names a server that is not ours. */
  readonly postgres: (Part & { readonly clusterDir: string; url(database: string): string }) | undefined;
  readonly users: Readonly<Record<UserName, DemoUser>>;
  readonly accounts: DemoAccounts | undefined;
  readonly issuer: string;
  /** How the services are reached: plaintext, or with the certificates that were given. */
  readonly credentials: ChannelCredentials;
  readonly dataDir: string;
  readonly secrets: Secrets;
  /** Stops everything that was started, in order, and gives the data folder back. */
  stop(): Promise<void>;
}

/**
 * Starts PostgreSQL and nats-server, unless they are given, then auth, two instances of inventory,
 * and payment, and returns when all of them are ready.
 *
 * Processes that a crashed start of the same data folder left behind are ended first. When anything
 * fails, everything that was started is stopped before the promise is rejected.
 *
 * @throws SystemError with sentences for the person who started it
 */
export async function startSystem(options: SystemOptions): Promise<System> {
  await mkdir(options.dataDir, { recursive: true, mode: 0o711 });
  const dataDir = await realpath(options.dataDir);
  const undo: (() => Promise<void>)[] = [];
  const stop = async (): Promise<void> => {
    const failures: unknown[] = [];
    // One that fails to stop is no reason to leave the others running.
    for (const step of undo.splice(0).reverse()) await step().catch((error) => failures.push(error));
    if (failures.length > 0) throw failures[0];
  };
  try {
    const lock = await lockFolder(dataDir, 'The data');
    undo.push(() => lock.release());
    return await startParts({ options, dataDir, undo, stop });
  } catch (error) {
    await stop();
    throw error;
  }
}

/** What the steps of a start share. */
interface Starting {
  readonly options: SystemOptions;
  readonly dataDir: string;
  /** What to do when stopping, the last first. */
  readonly undo: (() => Promise<void>)[];
  readonly stop: () => Promise<void>;
}

async function startParts(starting: Starting): Promise<System> {
  const { options, dataDir } = starting;
  const environment = options.environment ?? {};
  const record = join(dataDir, 'processes.json');
  const left = await endRecordedProcesses(record);
  if (left > 0) note(options, `ended ${left} processes that an earlier start had left running`);
  const registry = recordProcesses(record);
  const given = { database: environment['DATABASE_URL'], nats: environment['NATS_URL'] };
  const ports = await choosePorts(options.ports, options.portOverrides ?? {}, {
    without: [...(given.database ? ['postgres' as const] : []), ...(given.nats ? ['nats' as const] : [])],
  });
  const secrets = await loadSecrets(dataDir, { certificateBound: options.tls !== undefined });
  options.signal?.throwIfAborted();
  const servers = await Promise.allSettled([
    given.database
      ? useDatabase(given.database, secrets)
      : ownPostgres(starting, { ports, registry, secrets }),
    given.nats ? { url: () => given.nats ?? '', part: undefined } : ownNats(starting, ports, registry),
  ]);
  const [database, broker] = servers.map((outcome) => {
    if (outcome.status === 'rejected') throw outcome.reason;
    return outcome.value;
  }) as [DatabaseServer, Broker];
  options.signal?.throwIfAborted();
  const databases = {
    inventory: database.url(databaseOf('inventory')),
    payment: database.url(databaseOf('payment')),
  };
  await recordDatabases(dataDir, databases);
  const services = createServices({ options, dataDir, ports, registry, secrets, database, broker });
  await startServices(starting, services);
  const channels = await channelCredentials(options.tls);
  const accounts = options.withoutDemo
    ? undefined
    : await timed(options, 'demo', 'items and accounts', () =>
        createDemoData({
          addresses: {
            auth: services.auth.address,
            inventory: services.inventory[0].address,
            payment: services.payment.address,
          },
          credentials: channels,
          users: secrets.users,
          file: join(dataDir, 'demo.json'),
          databases: given.database ? new URL(given.database).host : 'own',
        }),
      );
  return {
    ...services,
    nats: broker.part,
    postgres: database.part,
    databases,
    users: secrets.users,
    accounts,
    issuer: issuerOf(ports, options.tls),
    credentials: channels,
    dataDir,
    secrets,
    stop: starting.stop,
  };
}

interface DatabaseServer {
  url(database: string): string;
  readonly part: System['postgres'];
}

interface Broker {
  url(user: NatsUser): string;
  readonly part: System['nats'];
}

/** The database of one service. */
function databaseOf(service: Service): string {
  return `portcullis_${service}`;
}

/** The role with which payment works, which can change nothing that is written in its books. */
const PAYMENT_ROLE = 'portcullis_payment';

async function useDatabase(given: string, secrets: Secrets): Promise<DatabaseServer> {
  if (!URL.canParse(given)) throw new SystemError('DATABASE_URL is not a URL.');
  for (const service of SERVICES) {
    await ensureDatabase(given, databaseOf(service)).catch((cause: unknown) => {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new SystemError(`The server that DATABASE_URL names cannot be used: ${reason}.`, { cause });
    });
  }
  await ensureRole(given, PAYMENT_ROLE, secrets.paymentDatabasePassword).catch((cause: unknown) => {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new SystemError(`The server that DATABASE_URL names lets no role be made: ${reason}.`, { cause });
  });
  const url = (database: string): string => {
    const changed = new URL(given);
    changed.pathname = `/${database}`;
    return changed.href;
  };
  return { url, part: undefined };
}

async function ownPostgres(
  { options, dataDir, undo }: Starting,
  { ports, registry, secrets }: { ports: SystemPorts; registry: ProcessRegistry; secrets: Secrets },
): Promise<DatabaseServer> {
  const start = (): Promise<Postgres> =>
    startPostgres({
      dataDir: join(dataDir, 'postgresql'),
      port: ports.postgres,
      portFlag: '--postgres-port',
      ephemeral: options.ephemeral ?? false,
      registry,
    });
  return await timed(options, 'PostgreSQL', `127.0.0.1:${ports.postgres}`, async () => {
    let server = await start();
    undo.push(() => server.stop());
    for (const service of SERVICES) await server.ensureDatabase(databaseOf(service));
    await server.ensureRole(PAYMENT_ROLE, secrets.paymentDatabasePassword);
    const part = partOf(
      'PostgreSQL',
      () => server,
      async () => {
        server = await start();
      },
    );
    const url = (database: string): string => server.url(database);
    return { url, part: Object.assign(part, { url, clusterDir: server.clusterDir }) };
  });
}

async function ownNats(
  { options, dataDir, undo }: Starting,
  ports: SystemPorts,
  registry: ProcessRegistry,
): Promise<Broker> {
  const start = (): Promise<Nats> =>
    startNats({
      dataDir: join(dataDir, 'nats'),
      port: ports.nats,
      portFlag: '--nats-port',
      withTestUser: options.withTestUser ?? false,
      tls: options.tls,
      registry,
      environment: { ...process.env, ...options.environment },
      onFetch: () => note(options, 'nats-server is not installed; it is fetched once, which takes a while'),
    });
  return await timed(options, 'nats-server', `127.0.0.1:${ports.nats}`, async () => {
    let server = await start();
    undo.push(() => server.stop());
    const part = partOf(
      'nats-server',
      () => server,
      async () => {
        server = await start();
      },
    );
    const url = (user: NatsUser): string => server.url(user);
    return { url, part: Object.assign(part, { url }) };
  });
}

function partOf(name: string, current: () => Postgres | Nats, start: () => Promise<void>): Part {
  return {
    name,
    get pid() {
      return current().pid;
    },
    get logFile() {
      return current().logFile;
    },
    isRunning: () => current().hasEnded() === undefined,
    kill: (signal) => current().kill(signal),
    ended: () => current().ended,
    stop: () => current().stop(),
    async restart() {
      await current().stop();
      await start();
    },
  };
}

interface Services {
  readonly auth: ServiceProcess;
  readonly authReplica: ServiceProcess | undefined;
  readonly inventory: readonly [ServiceProcess, ServiceProcess];
  readonly payment: ServiceProcess;
}

function createServices(all: {
  options: SystemOptions;
  dataDir: string;
  ports: SystemPorts;
  registry: ProcessRegistry;
  secrets: Secrets;
  database: DatabaseServer;
  broker: Broker;
}): Services {
  const { options, dataDir, ports, registry, secrets, database, broker } = all;
  const linkOf: LinkOf = options.linkOf ?? (({ address }) => address);
  // A server that was given may have several addresses; links lead to our own, which has one.
  const brokerOf = (name: string, service: Service): string =>
    options.linkOf === undefined
      ? broker.url(service)
      : linked(broker.url(service), (host) => linkOf({ from: name, to: 'nats-server', address: host }));
  const create = (
    name: string,
    service: Service,
    port: number,
    own: NodeJS.ProcessEnv,
    script = join('services', service, 'main.ts'),
  ): ServiceProcess => {
    const address = `127.0.0.1:${port}`;
    const opsAddress = `127.0.0.1:${port + ports.opsOffset}`;
    const environment = {
      ...forwardedVariables(options, service),
      DATABASE_URL: database.url(databaseOf(service)),
      NATS_URL: brokerOf(name, service),
      PORTCULLIS_LISTEN: address,
      PORTCULLIS_OPS_LISTEN: opsAddress,
      PORTCULLIS_ISSUER: issuerOf(ports, options.tls),
      PORTCULLIS_REFLECTION: 'on',
      ...(options.tls === undefined ? {} : tlsVariables(options.tls)),
      ...own,
    };
    return createServiceProcess({
      address,
      opsAddress,
      caFile: options.tls?.caFile,
      launch: {
        name,
        command: process.execPath,
        arguments: [...NODE_ARGUMENTS, script],
        cwd: PROJECT_FOLDER,
        environment,
        logFile: join(dataDir, 'logs', `${name}.log`),
        registry,
      },
    });
  };
  const client = (name: 'inventory' | 'payment', from: string = name): NodeJS.ProcessEnv => ({
    PORTCULLIS_AUTH_ADDRESS: linkOf({ from, to: 'auth', address: `127.0.0.1:${ports.auth}` }),
    ...(options.tls === undefined ? {} : { PORTCULLIS_AUTH_CA: options.tls.caFile }),
    PORTCULLIS_CLIENT_ID: name,
    PORTCULLIS_CLIENT_KEY_FILE: secrets.clientKeyFiles[name],
  });
  const lease = options.leaseMs === undefined ? {} : { PORTCULLIS_LEASE_MS: String(options.leaseMs) };
  const inventory = [
    create('inventory-1', 'inventory', ports.inventory1, client('inventory', 'inventory-1')),
    create('inventory-2', 'inventory', ports.inventory2, client('inventory', 'inventory-2')),
  ] as const;
  const auth = {
    ...lease,
    PORTCULLIS_KEY_ENCRYPTION_KEY_FILE: secrets.keyEncryptionKeyFile,
    PORTCULLIS_BOOTSTRAP_FILE: secrets.bootstrapFile,
    ...(options.tls === undefined ? {} : { PORTCULLIS_LOGIN_BINDING: 'optional' }),
  };
  const payment = {
    ...client('payment'),
    DATABASE_URL: asRole(database.url(databaseOf('payment')), PAYMENT_ROLE, secrets.paymentDatabasePassword),
    PORTCULLIS_MIGRATION_DATABASE_URL: database.url(databaseOf('payment')),
    PORTCULLIS_INVENTORY_ADDRESS: inventory.map(({ address }) => address).join(','),
    ...(options.tls === undefined ? {} : { PORTCULLIS_INVENTORY_CA: options.tls.caFile }),
    ...options.paymentProgram?.environment,
  };
  const { authReplicaPort } = options;
  return {
    inventory,
    auth: create('auth', 'auth', ports.auth, auth),
    authReplica:
      authReplicaPort === undefined ? undefined : create('auth-replica', 'auth', authReplicaPort, auth),
    payment: create('payment', 'payment', ports.payment, payment, options.paymentProgram?.script),
  };
}

async function startServices({ options, undo }: Starting, services: Services): Promise<void> {
  const all = [services.auth, ...services.inventory, services.payment];
  // Whoever asks another stops before the one that is asked.
  undo.push(
    () => services.auth.stop(),
    async () => await services.authReplica?.stop(),
    async () => void (await Promise.all(services.inventory.map((instance) => instance.stop()))),
    () => services.payment.stop(),
  );
  const failed = new AbortController();
  const signal =
    options.signal === undefined ? failed.signal : AbortSignal.any([options.signal, failed.signal]);
  const outcomes = await Promise.allSettled(
    all.map(async (proc) => {
      try {
        await timed(options, proc.name, proc.address, async () => {
          await proc.launch();
          await proc.ready({ signal });
        });
      } catch (error) {
        // One that cannot start is reason enough not to wait for the others; it is also what is reported.
        if (!failed.signal.aborted) failed.abort(error);
        throw error;
      }
    }),
  );
  options.signal?.throwIfAborted();
  failed.signal.throwIfAborted();
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
}

function forwardedVariables({ environment = {} }: SystemOptions, service: Service): NodeJS.ProcessEnv {
  const inherited = INHERITED_VARIABLES.map((name) => [name, process.env[name]] as const);
  const ours = Object.entries(FORWARDED_VARIABLES)
    .filter(([, services]) => services.includes(service))
    .map(([name]) => [name, environment[name]] as const);
  return Object.fromEntries([...inherited, ...ours].filter(([, value]) => value !== undefined));
}

/** The same URL with another host and port in it. */
function linked(text: string, linkOf: (host: string) => string): string {
  const url = new URL(text);
  url.host = linkOf(url.host);
  return url.href;
}

/** The same database for another role. */
function asRole(text: string, role: string, password: string): string {
  const url = new URL(text);
  url.username = role;
  url.password = password;
  return url.href;
}

/** The address at which auth publishes its keys over HTTP. */
function issuerOf(ports: SystemPorts, tls: TlsPaths | undefined): string {
  return `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${ports.auth + ports.opsOffset}`;
}

function tlsVariables({ caFile, certFile, keyFile }: TlsPaths): NodeJS.ProcessEnv {
  return {
    PORTCULLIS_TLS_CERT_FILE: certFile,
    PORTCULLIS_TLS_KEY_FILE: keyFile,
    PORTCULLIS_TLS_CLIENT_AUTH: 'required',
    PORTCULLIS_TLS_CLIENT_CA_FILE: caFile,
    PORTCULLIS_TLS_CLIENT_CERT_FILE: certFile,
    PORTCULLIS_TLS_CLIENT_KEY_FILE: keyFile,
    PORTCULLIS_NATS_CA: caFile,
  };
}

async function channelCredentials(tls: TlsPaths | undefined): Promise<ChannelCredentials> {
  if (tls === undefined) return credentials.createInsecure();
  const [ca, key, cert] = await Promise.all(
    [tls.caFile, tls.keyFile, tls.certFile].map((file) => readFile(file)),
  );
  return credentials.createSsl(ca, key, cert);
}

async function timed<T>(
  { onProgress }: SystemOptions,
  part: string,
  detail: string,
  work: () => Promise<T>,
): Promise<T> {
  const began = performance.now();
  onProgress?.({ part, state: 'starting', detail, elapsedMs: 0 });
  const result = await work();
  onProgress?.({ part, state: 'ready', detail, elapsedMs: performance.now() - began });
  return result;
}

function note({ onProgress }: SystemOptions, detail: string): void {
  onProgress?.({ part: '', state: 'note', detail, elapsedMs: 0 });
}
