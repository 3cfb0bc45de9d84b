/** The whole system as processes: starts them in order, ends what a crashed start left, and stops everything. */

import { access, constants, readFile, realpath, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type ChannelCredentials, credentials } from '@grpc/grpc-js';
import { type BrokerKeys, followBrokerKeys } from './broker-users.js';
import {
  closeMaintenanceDatabases,
  prepareDatabases,
  prepareGivenDatabases,
  type ServiceDatabases,
} from './databases.js';
import { createDemoData, type DemoAccounts } from './demo.js';
import { makeFolder } from './files.js';
import { lockFolder } from './folder-lock.js';
import { FORWARDED_VARIABLES, type Service } from './forwarded-variables.js';
import { type DatabaseUrls, recordDatabases } from './invariants.js';
import { type Nats, type NatsUser, startNats, type TlsPaths } from './nats.js';
import { createServiceProcess, type Part, type ServiceProcess } from './parts.js';
import { type Postgres, startPostgres } from './postgres.js';
import { endRecordedProcesses, recordProcesses } from './process-record.js';
import type { LaunchOptions, ProcessRegistry } from './processes.js';
import { PROJECT_FOLDER, programArguments } from './project.js';
import { type DemoUser, loadSecrets, type Secrets, type UserName } from './secrets.js';
import { SystemError } from './system-error.js';
import { choosePorts, type PortFlags, type SystemPorts } from './system-ports.js';

/** Variables that services inherit from this process. */
const INHERITED_VARIABLES = [
  'PATH',
  'HOME',
  'TMPDIR',
  'LANG',
  'TZ',
  'NODE_EXTRA_CA_CERTS',
  'NODE_V8_COVERAGE',
];

/** A step of the start. */
export interface Progress {
  /** The part that it is about, such as `PostgreSQL` or `auth`. */
  readonly part: string;
  readonly state: 'starting' | 'ready' | 'note';
  /** An address or a short remark; may be empty. */
  readonly detail: string;
  /** Milliseconds since the start of the part began. */
  readonly elapsedMs: number;
}

export interface SystemOptions {
  /** The folder of secrets, data and logs; created when absent. */
  readonly dataDir: string;
  /** The documented ports, or free ones. */
  readonly ports: 'default' | 'free';
  /** Ports chosen one by one. */
  readonly portOverrides?: PortFlags;
  readonly onProgress?: (progress: Progress) => void;
  /** How long an instance may rely on its revocation list; the default of auth when absent. */
  readonly leaseMs?: number;
  /** For tests: nothing is synced to the disk. */
  readonly ephemeral?: boolean;
  /** Gives nats-server the user `test`, who may publish and subscribe to everything. */
  readonly withTestUser?: boolean;
  /** Creates no items and no accounts. */
  readonly withoutDemo?: boolean;
  /** Everything but the database uses mutual TLS, and tokens are bound to client certificates. */
  readonly tls?: TlsPaths;
  /** Routes the connections of services through links that the caller controls. */
  readonly linkOf?: LinkOf;
  /** Prepares a second process of auth on this port; the caller starts it. */
  readonly authReplicaPort?: number;
  /** Prepares a second process of payment on this port; the caller starts it. */
  readonly paymentReplicaPort?: number;
  /** A program that runs in the place of payment, with variables of its own. */
  readonly paymentProgram?: { readonly program: string; readonly environment: NodeJS.ProcessEnv };
  /** Further arguments of Node for every service. */
  readonly nodeArguments?: readonly string[];
  /** Where DATABASE_URL, NATS_URL and the forwarded variables are read; none of them by default. */
  readonly environment?: NodeJS.ProcessEnv;
  /** Aborts the start; what was started is stopped. */
  readonly signal?: AbortSignal;
}

/** Returns the address that a process connects to: the given one, or one that leads there. */
type LinkOf = (link: {
  /** The process that connects, such as `inventory-1`. */
  readonly from: string;
  readonly to: 'auth' | 'nats-server';
  readonly address: string;
}) => string;

/** A running system. */
export interface System {
  readonly auth: ServiceProcess;
  /** A second process of auth on the same database, not started; `undefined` unless requested. */
  readonly authReplica: ServiceProcess | undefined;
  readonly inventory: readonly [ServiceProcess, ServiceProcess];
  readonly payment: ServiceProcess;
  /** A second process of payment on the same database, not started; `undefined` unless requested. */
  readonly paymentReplica: ServiceProcess | undefined;
  /** `undefined` when NATS_URL names another server. */
  readonly nats: (Part & { url(user: NatsUser): string }) | undefined;
  /** The databases of inventory and payment, as the roles that own their tables. */
  readonly databases: DatabaseUrls;
  /** The connection strings that the services have. */
  readonly serviceDatabases: ServiceDatabases;
  /** `undefined` when DATABASE_URL names another server; its addresses are those of the superuser. */
  readonly postgres: (Part & { readonly clusterDir: string; url(database: string): string }) | undefined;
  readonly users: Readonly<Record<UserName, DemoUser>>;
  readonly accounts: DemoAccounts | undefined;
  readonly issuer: string;
  /** The channel credentials for calls to the services: plaintext, or the given certificates. */
  readonly credentials: ChannelCredentials;
  readonly dataDir: string;
  readonly secrets: Secrets;
  /** Stops everything that was started, in reverse order, and releases the data folder. */
  stop(): Promise<void>;
}

/**
 * Starts PostgreSQL and nats-server, unless they are given, then auth, two instances of inventory, and payment.
 * Returns when all of them are ready.
 *
 * Processes that a crashed start of the same data folder left running are ended first. When a step fails, everything
 * that was started is stopped before the promise is rejected.
 *
 * @throws SystemError whose message the operator can act on
 */
export async function startSystem(options: SystemOptions): Promise<System> {
  await createDataFolder(options.dataDir);
  const dataDir = await realpath(options.dataDir);
  const stopSteps: (() => Promise<void>)[] = [];
  const stop = async (): Promise<void> => {
    const failures: unknown[] = [];
    // When one part fails to stop, the others are stopped all the same.
    for (const step of stopSteps.splice(0).reverse()) await step().catch((error) => failures.push(error));
    if (failures.length > 0) throw failures[0];
  };
  try {
    const lock = await lockFolder(dataDir, 'The data');
    stopSteps.push(() => lock.release());
    return await startParts({ options, dataDir, stopSteps, stop });
  } catch (error) {
    await stop();
    throw error;
  }
}

/** What the steps of a start share. */
interface Starting {
  readonly options: SystemOptions;
  readonly dataDir: string;
  /** What stopping does, in reverse order. */
  readonly stopSteps: (() => Promise<void>)[];
  readonly stop: () => Promise<void>;
}

/** The ports, secrets and process record of a start. */
interface Preparation {
  readonly ports: SystemPorts;
  readonly secrets: Secrets;
  readonly registry: ProcessRegistry;
}

/** A new folder may be in the project of a user, whose repository must not get the secrets. */
async function createDataFolder(path: string): Promise<void> {
  try {
    const isNew = await makeFolder(path, 0o711);
    if (isNew) await writeFile(join(path, '.gitignore'), '*\n');
    await access(path, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new SystemError(
      `The data folder ${path} must be a folder that this user can read and write: ${reason}. ` +
        'Choose another one with PORTCULLIS_DATA_DIR.',
      { cause },
    );
  }
}

async function startParts(starting: Starting): Promise<System> {
  const { options, dataDir } = starting;
  const registry = await recoverProcesses(starting);
  const ports = await choosePorts(options.ports, options.portOverrides ?? {}, {
    without: givenParts(options),
  });
  const secrets = await loadSecrets(dataDir, { certificateBound: options.tls !== undefined });
  options.signal?.throwIfAborted();
  const preparation: Preparation = { ports, secrets, registry };
  const servers = await startServers(starting, preparation);
  options.signal?.throwIfAborted();
  const { inventory, payment } = servers.database.services;
  const databases = { inventory: inventory.ownerUrl, payment: payment.ownerUrl };
  await recordDatabases(dataDir, databases);
  const services = createServices({ options, dataDir, ...preparation, ...servers });
  await startServices(starting, services);
  followClients(starting, servers);
  const channels = await channelCredentials(options.tls);
  const accounts = options.withoutDemo
    ? undefined
    : await createDemo(starting, { services, channels, secrets });
  return {
    ...services,
    nats: servers.broker.part,
    postgres: servers.database.part,
    databases,
    serviceDatabases: servers.database.services,
    users: secrets.users,
    accounts,
    issuer: issuerOf(ports, options.tls),
    credentials: channels,
    dataDir,
    secrets,
    stop: starting.stop,
  };
}

/** Ends what a crashed start left running, and records the processes of this one. */
async function recoverProcesses({ options, dataDir }: Starting): Promise<ProcessRegistry> {
  const record = join(dataDir, 'processes.json');
  const ended = await endRecordedProcesses(record);
  if (ended > 0) note(options, `ended ${ended} processes that an earlier start had left running`);
  return recordProcesses(record);
}

/** The parts that the environment names, which are not started here. */
function givenParts({ environment = {} }: SystemOptions): ('postgres' | 'nats')[] {
  const given: ('postgres' | 'nats')[] = [];
  if (environment['DATABASE_URL']) given.push('postgres');
  if (environment['NATS_URL']) given.push('nats');
  return given;
}

async function createDemo(
  { options, dataDir }: Starting,
  demo: { services: Services; channels: ChannelCredentials; secrets: Secrets },
): Promise<DemoAccounts> {
  const { services, channels, secrets } = demo;
  const given = options.environment?.['DATABASE_URL'];
  return await timed(options, 'demo', 'items and accounts', () =>
    createDemoData({
      addresses: {
        auth: services.auth.address,
        inventory: services.inventory[0].address,
        payment: services.payment.address,
      },
      credentials: channels,
      users: secrets.users,
      file: join(dataDir, 'demo.json'),
      databases: given ? new URL(given).host : 'own',
    }),
  );
}

// --- database and broker

interface DatabaseServer {
  readonly services: ServiceDatabases;
  readonly part: System['postgres'];
}

/** Services that are registered while the system runs get their users at its own broker. */
function followClients({ stopSteps }: Starting, { database, broker }: Servers): void {
  if (broker.allowKeys === undefined) return;
  const following = followBrokerKeys(database.services.auth.ownerUrl, broker.allowKeys);
  stopSteps.push(() => following.stop());
}

interface Broker {
  url(user: NatsUser): string;
  readonly part: System['nats'];
  /** Lets services connect with their nkeys; undefined for a broker that was given. */
  readonly allowKeys: ((keys: BrokerKeys) => Promise<void>) | undefined;
}

interface Servers {
  readonly database: DatabaseServer;
  readonly broker: Broker;
}

/** Starts database and broker at the same time, or uses those that the environment names. */
async function startServers(starting: Starting, preparation: Preparation): Promise<Servers> {
  const { DATABASE_URL: databaseUrl, NATS_URL: natsUrl } = starting.options.environment ?? {};
  const [database, broker] = await Promise.allSettled([
    databaseUrl ? useDatabase(databaseUrl, preparation) : ownPostgres(starting, preparation),
    natsUrl ? { url: () => natsUrl, part: undefined, allowKeys: undefined } : ownNats(starting, preparation),
  ]);
  // Both have settled, so a server that came up is stopped when the other one failed.
  if (database.status === 'rejected') throw database.reason;
  if (broker.status === 'rejected') throw broker.reason;
  return { database: database.value, broker: broker.value };
}

async function useDatabase(given: string, { secrets }: Preparation): Promise<DatabaseServer> {
  return { services: await prepareGivenDatabases(given, secrets.databasePasswords), part: undefined };
}

async function ownPostgres(
  { options, dataDir, stopSteps }: Starting,
  { ports, registry, secrets }: Preparation,
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
    stopSteps.push(() => server.stop());
    const services = await prepareDatabases(server.url('postgres'), secrets.databasePasswords);
    await closeMaintenanceDatabases(server.url('postgres'));
    const part = partOf(
      'PostgreSQL',
      () => server,
      async () => {
        server = await start();
      },
    );
    const url = (database: string): string => server.url(database);
    return { services, part: Object.assign(part, { url, clusterDir: server.clusterDir }) };
  });
}

async function ownNats(
  { options, dataDir, stopSteps }: Starting,
  { ports, registry }: Preparation,
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
      onFetch: () => note(options, 'nats-server is not installed; downloading it once, which takes a while'),
    });
  return await timed(options, 'nats-server', `127.0.0.1:${ports.nats}`, async () => {
    let server = await start();
    stopSteps.push(() => server.stop());
    const part = partOf(
      'nats-server',
      () => server,
      async () => {
        server = await start();
      },
    );
    const url = (user: NatsUser): string => server.url(user);
    return { url, part: Object.assign(part, { url }), allowKeys: (keys) => server.allowKeys(keys) };
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

// --- services

interface Services {
  readonly auth: ServiceProcess;
  readonly authReplica: ServiceProcess | undefined;
  readonly inventory: readonly [ServiceProcess, ServiceProcess];
  readonly payment: ServiceProcess;
  readonly paymentReplica: ServiceProcess | undefined;
}

/** Everything that determines the processes and variables of the services. */
interface ServiceSettings extends Preparation, Servers {
  readonly options: SystemOptions;
  readonly dataDir: string;
}

function createServices(settings: ServiceSettings): Services {
  const { options, ports } = settings;
  const inventory = [
    createInventory(settings, 'inventory-1', ports.inventory1),
    createInventory(settings, 'inventory-2', ports.inventory2),
  ] as const;
  const { authReplicaPort, paymentReplicaPort } = options;
  const inventoryAddresses = inventory.map(({ address }) => address);
  return {
    inventory,
    auth: createAuth(settings, 'auth', ports.auth),
    authReplica:
      authReplicaPort === undefined ? undefined : createAuth(settings, 'auth-replica', authReplicaPort),
    payment: createPayment(settings, { name: 'payment', port: ports.payment, inventoryAddresses }),
    paymentReplica:
      paymentReplicaPort === undefined
        ? undefined
        : createPayment(settings, { name: 'payment-replica', port: paymentReplicaPort, inventoryAddresses }),
  };
}

function createAuth(settings: ServiceSettings, name: string, port: number): ServiceProcess {
  const { options, secrets } = settings;
  const variables = {
    ...(options.leaseMs !== undefined && { PORTCULLIS_LEASE_MS: String(options.leaseMs) }),
    PORTCULLIS_KEY_ENCRYPTION_KEY_FILE: secrets.keyEncryptionKeyFile,
    PORTCULLIS_BOOTSTRAP_FILE: secrets.bootstrapFile,
    ...(options.tls !== undefined && { PORTCULLIS_LOGIN_BINDING: 'optional' }),
  };
  return createService(settings, { name, service: 'auth', port, variables });
}

function createInventory(settings: ServiceSettings, name: string, port: number): ServiceProcess {
  const variables = clientVariables(settings, 'inventory', name);
  return createService(settings, { name, service: 'inventory', port, variables });
}

function createPayment(
  settings: ServiceSettings,
  {
    name,
    port,
    inventoryAddresses,
  }: { readonly name: string; readonly port: number; readonly inventoryAddresses: readonly string[] },
): ServiceProcess {
  const { options } = settings;
  const variables = {
    ...clientVariables(settings, 'payment', name),
    PORTCULLIS_INVENTORY_ADDRESS: inventoryAddresses.join(','),
    ...(options.tls !== undefined && { PORTCULLIS_INVENTORY_CA: options.tls.caFile }),
    ...options.paymentProgram?.environment,
  };
  return createService(settings, {
    name,
    service: 'payment',
    port,
    variables,
    program: options.paymentProgram?.program,
  });
}

/** The variables of a service that is a client of auth. */
function clientVariables(
  { options, ports, secrets }: ServiceSettings,
  client: 'inventory' | 'payment',
  from: string,
): NodeJS.ProcessEnv {
  const address = `127.0.0.1:${ports.auth}`;
  return {
    PORTCULLIS_AUTH_ADDRESS: options.linkOf?.({ from, to: 'auth', address }) ?? address,
    ...(options.tls !== undefined && { PORTCULLIS_AUTH_CA: options.tls.caFile }),
    PORTCULLIS_CLIENT_ID: client,
    PORTCULLIS_CLIENT_KEY_FILE: secrets.clientKeyFiles[client],
  };
}

function createService(
  settings: ServiceSettings,
  process: {
    readonly name: string;
    readonly service: Service;
    readonly port: number;
    readonly variables: NodeJS.ProcessEnv;
    readonly program?: string | undefined;
  },
): ServiceProcess {
  const { options, ports } = settings;
  const address = `127.0.0.1:${process.port}`;
  const opsAddress = `127.0.0.1:${process.port + ports.opsOffset}`;
  const environment = {
    ...commonVariables(settings, process),
    PORTCULLIS_LISTEN: address,
    PORTCULLIS_OPS_LISTEN: opsAddress,
    ...process.variables,
  };
  const launch = launchOptions(settings, process, environment);
  return createServiceProcess({ address, opsAddress, caFile: options.tls?.caFile, launch });
}

/** The variables that every service has. */
function commonVariables(
  { options, ports, database, broker }: ServiceSettings,
  { name, service }: { readonly name: string; readonly service: Service },
): NodeJS.ProcessEnv {
  const { linkOf } = options;
  // A broker that was given may have several addresses; links lead to our own, which has one.
  const natsUrl =
    linkOf === undefined
      ? broker.url(service)
      : withHost(broker.url(service), (address) => linkOf({ from: name, to: 'nats-server', address }));
  return {
    ...forwardedVariables(options, service),
    DATABASE_URL: database.services[service].url,
    PORTCULLIS_MIGRATION_DATABASE_URL: database.services[service].ownerUrl,
    NATS_URL: natsUrl,
    PORTCULLIS_ISSUER: issuerOf(ports, options.tls),
    PORTCULLIS_REFLECTION: 'on',
    ...(options.tls !== undefined && tlsVariables(options.tls)),
  };
}

function launchOptions(
  { dataDir, registry, options }: ServiceSettings,
  {
    name,
    service,
    program,
  }: { readonly name: string; readonly service: Service; readonly program?: string | undefined },
  environment: NodeJS.ProcessEnv,
): LaunchOptions {
  return {
    name,
    command: process.execPath,
    arguments: [...(options.nodeArguments ?? []), ...programArguments(program ?? `services/${service}/main`)],
    cwd: PROJECT_FOLDER,
    environment,
    logFile: join(dataDir, 'logs', `${name}.log`),
    registry,
  };
}

async function startServices({ options, stopSteps }: Starting, services: Services): Promise<void> {
  const all = [services.auth, ...services.inventory, services.payment];
  // A client stops before the service that it calls.
  stopSteps.push(
    () => services.auth.stop(),
    async () => await services.authReplica?.stop(),
    async () => void (await Promise.all(services.inventory.map((instance) => instance.stop()))),
    () => services.payment.stop(),
    async () => await services.paymentReplica?.stop(),
  );
  const failed = new AbortController();
  const signal =
    options.signal === undefined ? failed.signal : AbortSignal.any([options.signal, failed.signal]);
  const outcomes = await Promise.allSettled(
    all.map(async (service) => {
      try {
        await timed(options, service.name, service.address, async () => {
          await service.launch();
          await service.ready({ signal });
        });
      } catch (error) {
        // The first failure ends the wait for the others, and is the one that is reported.
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
  const forwarded = Object.entries(FORWARDED_VARIABLES)
    .filter(([, services]) => services.includes(service))
    .map(([name]) => [name, environment[name]] as const);
  return Object.fromEntries([...inherited, ...forwarded].filter(([, value]) => value !== undefined));
}

/** The URL with another host and port. */
function withHost(text: string, change: (host: string) => string): string {
  const url = new URL(text);
  url.host = change(url.host);
  return url.href;
}

/** The issuer: the HTTP address at which auth publishes its keys. */
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
