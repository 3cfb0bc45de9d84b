/** A private nats-server, in which every service has a user with only the permissions it needs. */

import { randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { connect as connectSocket } from 'node:net';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { BrokerKeys } from './broker-users.js';
import { writeAtomically } from './files.js';
import { findNatsServer } from './nats-binary.js';
import { assertPortFree, findFreePort } from './ports.js';
import type { LaunchedProcess, ProcessRegistry } from './processes.js';
import { launch } from './processes.js';
import { SystemError } from './system-error.js';

const STATE_FILE = 'nats.json';
const CONFIGURATION_FILE = 'nats.conf';
const LOG_FILE = 'nats.log';
const PASSWORD_BYTES = 24;
const READY_TIMEOUT_MS = 15_000;
const READY_POLL_MS = 15;

const REVOCATIONS = 'portcullis.v1.revocations';
const REPORTS = 'portcullis.v1.security';
const INBOX = '_INBOX.>';

/**
 * The users that every server has. `test` may publish and subscribe to everything, and exists only on request. The file
 * of passwords may name further services.
 */
const NATS_USERS = ['auth', 'inventory', 'payment', 'test'] as const;

export type NatsUser = (typeof NATS_USERS)[number];

/** Certificate files of a system: one certificate for all processes, and the CA that issued it. */
export interface TlsPaths {
  readonly caFile: string;
  readonly certFile: string;
  readonly keyFile: string;
}

/** How a server joins the others of its cluster, all on 127.0.0.1. */
export interface NatsClusterMember {
  readonly name: string;
  /** The port for the other servers. */
  readonly port: number;
  /** The ports of all servers of the cluster. */
  readonly routes: readonly number[];
}

interface NatsOptions {
  /** The folder of configuration, passwords and log; created when absent. */
  readonly dataDir: string;
  /** The port on 127.0.0.1; 0 means any free port. */
  readonly port: number;
  /** Adds the user `test`, who may publish and subscribe to everything. */
  readonly withTestUser?: boolean;
  /** The flag or variable that sets the port, for the message when it is in use. */
  readonly portFlag?: string;
  /** Requires TLS and client certificates issued by the CA. */
  readonly tls?: TlsPaths | undefined;
  /** The settings that authenticate clients, in place of those of the users above. */
  readonly authentication?: Readonly<Record<string, unknown>>;
  /** Makes it a member of a cluster. */
  readonly cluster?: NatsClusterMember | undefined;
  /** Records the process, so that a start after a crash can end it. */
  readonly registry?: ProcessRegistry | undefined;
  /** Where NATS_SERVER_BIN and PATH are read; `process.env` by default. */
  readonly environment?: NodeJS.ProcessEnv;
  /** Called before nats-server is downloaded. */
  readonly onFetch?: () => void;
}

/** A running nats-server. */
export interface Nats {
  readonly port: number;
  readonly pid: number;
  readonly logFile: string;
  /**
   * The address with user and password: `nats://user:password@127.0.0.1:port`. The `nats` package does not read the
   * user from a URL; the caller must pass user and password as options.
   */
  url(user: NatsUser): string;
  /** Lets services connect with their nkeys, beside the users above, without a restart. */
  allowKeys(keys: BrokerKeys): Promise<void>;
  /** Sends a signal without waiting. */
  kill(signal: NodeJS.Signals): void;
  /** Resolves when the server has ended, with its exit code or signal as text. */
  readonly ended: Promise<string>;
  /** The exit code or signal as text; `undefined` while the server runs. */
  hasEnded(): string | undefined;
  /** Stops the server; the next one on the same data folder has the same passwords. */
  stop(): Promise<void>;
}

/**
 * Starts nats-server on 127.0.0.1 and returns when it accepts connections.
 *
 * @throws SystemError when the program is missing, the port is in use, or the server does not start
 */
export async function startNats(options: NatsOptions): Promise<Nats> {
  const dataDir = resolve(options.dataDir);
  await mkdir(dataDir, { recursive: true, mode: 0o711 });
  const environment = options.environment ?? process.env;
  const command = await findNatsServer({
    environment,
    ...(options.onFetch === undefined ? {} : { onFetch: options.onFetch }),
  });
  if (options.port !== 0) {
    await assertPortFree(options.port, 'nats-server', options.portFlag ?? 'another port');
  }
  const port = options.port === 0 ? await findFreePort() : options.port;
  const passwords = await loadPasswords(join(dataDir, STATE_FILE));
  const configurationFile = join(dataDir, CONFIGURATION_FILE);
  const users = Object.keys(passwords).filter((user) => user !== 'test' || options.withTestUser === true);
  const authentication = options.authentication ?? authenticationOf(users, passwords);
  const { tls, cluster } = options;
  const configurationWith = (keys: BrokerKeys): string =>
    natsConfiguration({ port, authentication: withKeys(authentication, keys), tls, cluster });
  let configuration = configurationWith({});
  await writeFile(configurationFile, configuration, { mode: 0o600 });
  const server = await launch({
    name: 'nats-server',
    command,
    arguments: ['--config', configurationFile],
    cwd: dataDir,
    environment: { PATH: environment['PATH'] },
    logFile: join(dataDir, LOG_FILE),
    registry: options.registry,
  });
  await waitUntilReady(server, port);
  return {
    port,
    pid: server.pid,
    logFile: server.logFile,
    url: (user) =>
      `${options.tls === undefined ? 'nats' : 'tls'}://${user}:${encodeURIComponent(passwords[user])}@127.0.0.1:${port}`,
    allowKeys: async (keys) => {
      const wanted = configurationWith(keys);
      if (wanted === configuration || server.hasEnded() !== undefined) return;
      await writeAtomically(configurationFile, wanted);
      configuration = wanted;
      server.kill('SIGHUP');
    },
    kill: (signal) => server.kill(signal),
    ended: server.ended,
    hasEnded: () => server.hasEnded(),
    stop: () => server.stop(),
  };
}

type Passwords = Readonly<Record<string, string>> & Readonly<Record<NatsUser, string>>;

/**
 * Returns the users with their passwords, and creates those that are missing. An operator adds a service of their own to
 * the file: its name with a password, or with an empty one, which is replaced by a new one.
 *
 * @throws SystemError when the file was edited and cannot be understood
 */
async function loadPasswords(file: string): Promise<Passwords> {
  const text = await readFile(file, 'utf8').catch(() => '{}');
  const recorded = parsePasswords(file, text);
  const names = new Set([...NATS_USERS, ...Object.keys(recorded)]);
  const passwords = Object.fromEntries(
    [...names].map((name) => [name, recorded[name] || randomBytes(PASSWORD_BYTES).toString('hex')]),
  );
  await writeAtomically(file, `${JSON.stringify(passwords, null, 2)}\n`);
  return passwords as Passwords;
}

function parsePasswords(file: string, text: string): Record<string, string> {
  const fault = (found: string): SystemError =>
    new SystemError(
      `${file}: expected a JSON object of user names (letters, digits, - and _) and passwords, and found ${found}.`,
    );
  const parsed = objectOf(text);
  if (parsed === undefined) throw fault('something else');
  for (const [name, password] of Object.entries(parsed)) {
    // The name is one token of a subject, in which a dot or a wildcard would grant other subjects.
    if (!/^[A-Za-z0-9_-]{1,64}$/.test(name)) throw fault(`the name ${JSON.stringify(name)}`);
    if (typeof password !== 'string') throw fault(`no text as the password of ${name}`);
  }
  return parsed as Record<string, string>;
}

/** The JSON object, or `undefined`. The error of `JSON.parse` is dropped, because it quotes the passwords. */
function objectOf(text: string): object | undefined {
  try {
    const parsed: unknown = JSON.parse(text);
    return typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed) ? parsed : undefined;
  } catch {
    return undefined;
  }
}

/** Permissions of one user. `allow_responses` permits publishing to the inbox of a request, and nowhere else. */
export interface Permissions {
  readonly publish: readonly string[];
  readonly subscribe: readonly string[];
  readonly allow_responses?: true;
}

/**
 * Auth publishes revocations and acknowledges reports; the other services subscribe, and each may report only under
 * its own name. A compromised service can therefore neither publish revocations nor report for another service.
 */
export function permissionsOf(user: string): Permissions {
  if (user === 'test') return { publish: ['>'], subscribe: ['>'] };
  if (user === 'auth') {
    return {
      publish: [REVOCATIONS],
      subscribe: [REVOCATIONS, `${REPORTS}.*`, INBOX],
      allow_responses: true,
    };
  }
  return servicePermissions(user);
}

/** Of a service, whatever its name is. */
function servicePermissions(user: string): Permissions {
  return { publish: [`${REPORTS}.${user}`], subscribe: [REVOCATIONS, INBOX] };
}

function authenticationOf(users: readonly string[], passwords: Passwords): Record<string, unknown> {
  return {
    authorization: {
      users: users.map((user) => ({ user, password: passwords[user], permissions: permissionsOf(user) })),
    },
  };
}

/** The same settings, with services that connect with their nkeys. */
function withKeys(
  authentication: Readonly<Record<string, unknown>>,
  keys: BrokerKeys,
): Readonly<Record<string, unknown>> {
  const { authorization } = authentication as { authorization?: { users?: readonly object[] } };
  if (authorization?.users === undefined || Object.keys(keys).length === 0) return authentication;
  const services = Object.entries(keys).map(([clientId, nkey]) => ({
    nkey,
    permissions: servicePermissions(clientId),
  }));
  return {
    ...authentication,
    authorization: { ...authorization, users: [...authorization.users, ...services] },
  };
}

/** The text of the configuration file. nats-server reads JSON as well as its own format. */
export function natsConfiguration(settings: {
  readonly port: number;
  readonly authentication: Readonly<Record<string, unknown>>;
  readonly tls?: TlsPaths | undefined;
  readonly cluster?: NatsClusterMember | undefined;
}): string {
  const { port, authentication, tls, cluster } = settings;
  return JSON.stringify(
    {
      host: '127.0.0.1',
      port,
      // A client that hangs is disconnected within seconds.
      ping_interval: '1s',
      ping_max: 3,
      ...(tls === undefined
        ? {}
        : { tls: { cert_file: tls.certFile, key_file: tls.keyFile, ca_file: tls.caFile, verify: true } }),
      ...(cluster === undefined ? {} : { cluster: clusterSettings(cluster) }),
      ...authentication,
    },
    null,
    2,
  );
}

function clusterSettings({ name, port, routes }: NatsClusterMember): Record<string, unknown> {
  return { name, host: '127.0.0.1', port, routes: routes.map((other) => `nats://127.0.0.1:${other}`) };
}

async function waitUntilReady(server: LaunchedProcess, port: number): Promise<void> {
  const deadline = performance.now() + READY_TIMEOUT_MS;
  while (!(await accepts(port))) {
    const ended = server.hasEnded();
    if (ended === undefined && performance.now() < deadline) {
      await sleep(READY_POLL_MS);
      continue;
    }
    await server.stop();
    const what = ended === undefined ? 'did not accept connections' : `ended at once (${ended})`;
    throw new SystemError(
      `nats-server ${what}. The end of its log, ${server.logFile}:\n${await server.logTail()}`,
    );
  }
}

async function accepts(port: number): Promise<boolean> {
  return await new Promise((settle) => {
    const socket = connectSocket({ host: '127.0.0.1', port });
    socket.once('connect', () => {
      socket.destroy();
      settle(true);
    });
    socket.once('error', () => settle(false));
  });
}
