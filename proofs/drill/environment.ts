/** The environment of the drill: a private system, with controllable links between its processes. */

import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { createServiceProcess, type ServiceProcess } from '../../scripts/system/parts.js';
import { findFreePort, isPortFree } from '../../scripts/system/ports.js';
import { PROJECT_FOLDER, programArguments } from '../../scripts/system/project.js';
import { loadSecrets } from '../../scripts/system/secrets.js';
import { type Progress, type System, startSystem } from '../../scripts/system/system.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { ECHO_CLIENT } from './echo-service.js';
import { type DrillGate, type GateName, openGate, type UpstreamProgram } from './gates.js';
import { type Link, openLink } from './link.js';

/** Distance of a process's ops port from its port. */
export const OPS_OFFSET = 1_000;
const PORT_ATTEMPTS_MAX = 50;
const PASSWORD_BYTES = 12;

/** The processes with a guard. */
const GUARDED = ['auth', 'inventory-1', 'inventory-2', 'payment', 'echo'] as const;

/** The name of a process with a guard. */
type GuardedName = (typeof GUARDED)[number];

/** The name of a process that verifies tokens. */
export type InstanceName = GuardedName | GateName;

/** The drill's client, whose tokens are revoked together with it. */
export const VICTIM_CLIENT = 'drill-service';

/** A customer of the drill. */
export interface Customer {
  readonly username: string;
  readonly password: string;
}

/** The environment. */
export interface Environment {
  readonly system: System;
  /** The processes that verify tokens. */
  readonly instances: readonly InstanceName[];
  readonly processes: Readonly<Record<GuardedName, ServiceProcess>>;
  /** Gates, with the servers behind them. */
  readonly gates: readonly DrillGate[];
  /** The process of an instance. */
  processOf(instance: InstanceName): ServiceProcess;
  readonly authReplica: ServiceProcess;
  readonly nats: NonNullable<System['nats']>;
  readonly postgres: NonNullable<System['postgres']>;
  /** The links of every instance; auth reads its own database, so it has no link to auth. */
  readonly links: {
    readonly auth: ReadonlyMap<InstanceName, Link>;
    readonly broker: ReadonlyMap<InstanceName, Link>;
  };
  readonly customers: readonly Customer[];
  readonly victimClientSecret: string;
  /** Where instances record their steps. */
  readonly traceFolder: string;
  /** The data folder of nats-server. */
  readonly natsFolder: string;
  readonly ports: { readonly auth: number; readonly authReplica: number };
  stop(): Promise<void>;
}

/** Options of {@link buildEnvironment}. */
export interface EnvironmentOptions {
  readonly leaseMs: number;
  readonly customers: number;
  /** Servers that get a gate. */
  readonly upstreams: readonly UpstreamProgram[];
  readonly signal: AbortSignal;
  readonly onProgress: (progress: Progress) => void;
}

/** Another issuer. Its tokens are only exchanged, so that the drill needs no calls of its users. */
export const OTHER_ISSUER = 'https://issuer.invalid';
export const OTHER_ISSUER_SECRET = randomBytes(32).toString('base64url');

const TRUSTED_ISSUER = {
  issuer: OTHER_ISSUER,
  legacy_secret: OTHER_ISSUER_SECRET,
  types: ['JWT'],
  scopes: { read: 'inventory.read' },
  revocable: ['tenant'],
};

/** Builds the environment in a temporary folder; stopping it removes the folder. */
export async function buildEnvironment(options: EnvironmentOptions): Promise<Environment> {
  const folder = await makeTemporaryFolder();
  const undo: (() => Promise<void>)[] = [() => folder.remove()];
  const stop = async (): Promise<void> => {
    const failures: unknown[] = [];
    for (const step of undo.splice(0).reverse()) await step().catch((error) => failures.push(error));
    if (failures.length > 0) throw failures[0];
  };
  try {
    return await buildIn(folder.path, options, undo, stop);
  } catch (error) {
    await stop();
    throw error;
  }
}

async function buildIn(
  dataDir: string,
  { leaseMs, customers: count, upstreams, signal, onProgress }: EnvironmentOptions,
  undo: (() => Promise<void>)[],
  stop: () => Promise<void>,
): Promise<Environment> {
  const ports = { auth: await freePair(), authReplica: await freePair(), nats: await findFreePort() };
  const links = { auth: new Map<InstanceName, Link>(), broker: new Map<InstanceName, Link>() };
  const instances: readonly InstanceName[] = [...GUARDED, ...upstreams.map(({ gate }) => gate)];
  for (const name of instances) {
    links.broker.set(name, await openLink(ports.nats));
    if (name !== 'auth') links.auth.set(name, await openLink(ports.auth));
  }
  undo.push(async () => {
    await Promise.all([...links.auth.values(), ...links.broker.values()].map((link) => link.close()));
  });
  const addressOf = (kind: 'auth' | 'broker', from: string): string | undefined =>
    [...links[kind]].find(([name]) => name === from)?.[1].address;

  const traceFolder = join(dataDir, 'traces');
  await mkdir(traceFolder);
  const nodeArguments = ['--import', recorderOf(traceFolder)];
  const { customers, victimClientSecret, keyFile } = await addParticipants(dataDir, count);
  const system = await startSystem({
    dataDir,
    ports: 'free',
    portOverrides: { auth: ports.auth, nats: ports.nats },
    authReplicaPort: ports.authReplica,
    ephemeral: true,
    withTestUser: true,
    leaseMs,
    nodeArguments,
    signal,
    onProgress,
    environment: { PORTCULLIS_TRUSTED_ISSUERS: JSON.stringify([TRUSTED_ISSUER]) },
    linkOf: ({ from, to, address }) => addressOf(to === 'auth' ? 'auth' : 'broker', from) ?? address,
  });
  undo.push(() => system.stop());
  const { nats, postgres, authReplica } = system;
  if (nats === undefined || postgres === undefined || authReplica === undefined) {
    throw new TypeError('the drill breaks servers, so they have to be its own');
  }
  const natsUrlOf = (instance: InstanceName): string => {
    const url = new URL(nats.url('inventory'));
    url.host = addressOf('broker', instance) ?? url.host;
    return url.href;
  };
  const echo = await prepareEcho({
    dataDir,
    nodeArguments,
    environment: {
      PATH: process.env['PATH'],
      DRILL_ISSUER: system.issuer,
      DRILL_AUTH_ADDRESS: addressOf('auth', 'echo'),
      DRILL_CLIENT_KEY_FILE: keyFile,
      DRILL_NATS_URL: natsUrlOf('echo'),
    },
  });
  undo.push(() => echo.stop());
  await echo.launch();
  await echo.ready({ signal });
  const gates: DrillGate[] = [];
  for (const program of upstreams) {
    const port = await freePair();
    const gate = await openGate(program, {
      dataDir,
      system,
      authAddress: addressOf('auth', program.gate) ?? system.auth.address,
      natsUrl: natsUrlOf(program.gate),
      address: `127.0.0.1:${port}`,
      opsAddress: `127.0.0.1:${port + OPS_OFFSET}`,
      nodeArguments,
      signal,
    });
    undo.push(() => gate.stop());
    gates.push(gate);
  }
  const [one, two] = system.inventory;
  const processes = {
    auth: system.auth,
    'inventory-1': one,
    'inventory-2': two,
    payment: system.payment,
    echo,
  };
  const all = new Map<InstanceName, ServiceProcess>([
    ...(Object.entries(processes) as [GuardedName, ServiceProcess][]),
    ...gates.map(({ name, process: gate }) => [name, gate] as const),
  ]);
  return {
    system,
    instances,
    processes,
    gates,
    processOf: (instance) => {
      const found = all.get(instance);
      if (found === undefined) throw new TypeError(`${instance} does not run`);
      return found;
    },
    authReplica,
    nats,
    postgres,
    links,
    customers,
    victimClientSecret,
    traceFolder,
    natsFolder: join(dataDir, 'nats'),
    ports,
    stop,
  };
}

/** Adds the drill's customers and clients to auth's bootstrap file. */
async function addParticipants(
  dataDir: string,
  count: number,
): Promise<{ customers: Customer[]; victimClientSecret: string; keyFile: string }> {
  const { bootstrapFile, folder } = await loadSecrets(dataDir);
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  const keyFile = join(folder, 'drill-echo-key.pem');
  await writeFile(keyFile, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
  const customers = Array.from({ length: count }, (_, index) => ({
    username: `drill-${index + 1}`,
    password: randomBytes(PASSWORD_BYTES).toString('base64url'),
  }));
  const victimClientSecret = randomBytes(2 * PASSWORD_BYTES).toString('base64url');
  const bootstrap = JSON.parse(await readFile(bootstrapFile, 'utf8')) as {
    users: object[];
    clients: object[];
  };
  bootstrap.users.push(...customers.map((customer) => ({ ...customer, roles: ['customer'] })));
  bootstrap.clients.push(
    {
      client_id: ECHO_CLIENT,
      public_key_pem: publicKey.export({ type: 'spki', format: 'pem' }),
      audiences: ['auth'],
      scopes: ['auth.sync'],
      exchange_audiences: [],
    },
    {
      client_id: VICTIM_CLIENT,
      secret: victimClientSecret,
      audiences: ['inventory'],
      scopes: ['inventory.read'],
      exchange_audiences: [],
    },
  );
  await writeFile(bootstrapFile, JSON.stringify(bootstrap, null, 2), { mode: 0o600 });
  return { customers, victimClientSecret, keyFile };
}

async function prepareEcho({
  dataDir,
  nodeArguments,
  environment,
}: {
  dataDir: string;
  nodeArguments: readonly string[];
  environment: NodeJS.ProcessEnv;
}): Promise<ServiceProcess> {
  const port = await freePair();
  const address = `127.0.0.1:${port}`;
  const opsAddress = `127.0.0.1:${port + OPS_OFFSET}`;
  return createServiceProcess({
    address,
    opsAddress,
    launch: {
      name: 'echo',
      command: process.execPath,
      arguments: [...nodeArguments, ...programArguments('proofs/drill/echo-process')],
      cwd: PROJECT_FOLDER,
      environment: { ...environment, DRILL_LISTEN: address, DRILL_OPS_LISTEN: opsAddress },
      logFile: join(dataDir, 'logs', 'echo.log'),
    },
  });
}

/** The module that records the steps of a process, for Node's `--import`. */
function recorderOf(folder: string): string {
  const url = pathToFileURL(join(PROJECT_FOLDER, 'dist', 'proofs', 'spec', 'record-process.js'));
  url.searchParams.set('folder', folder);
  return url.href;
}

/** A free port whose ops port is free, too. */
export async function freePair(): Promise<number> {
  for (let attempt = 0; attempt < PORT_ATTEMPTS_MAX; attempt += 1) {
    const port = await findFreePort();
    if (await isPortFree(port + OPS_OFFSET)) return port;
  }
  throw new Error('No free pair of ports was found.');
}
