/** A PostgreSQL server of our own: made, started, recovered after a crash of ours, and stopped. */

import { execFile } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import {
  access,
  chown,
  mkdir,
  readdir,
  readFile,
  readlink,
  realpath,
  rename,
  rm,
  writeFile,
} from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import pg from 'pg';
import { assertPortFree, findFreePort } from './ports.js';
import type { PostgresBinaries } from './postgres-binaries.js';
import { findPostgresBinaries } from './postgres-binaries.js';
import { type EndingStep, endProcess, startTimeOf } from './process-identity.js';
import { type LaunchedProcess, launch, type ProcessRegistry } from './processes.js';
import { unwatchFolder, watchFolder } from './reaper-client.js';
import { SystemError } from './system-error.js';
import type { SystemUser } from './system-user.js';
import { canUserEnter, ownerOf, postgresUser, ROOT_STATE_FOLDER } from './system-user.js';

const SUPERUSER = 'portcullis';
const STATE_FILE = 'postgres.json';
const LOG_FILE = 'postgres.log';
const CLUSTER_FOLDER = 'cluster';
const DRAFT_PREFIX = 'draft-';
const CONNECTIONS_MAX = 200;
const READY_TIMEOUT_MS = 60_000;
const READY_POLL_MS = 25;
const START_ATTEMPTS_MAX = 20;
const START_RETRY_MS = 250;

/** A fast shutdown, then an immediate one, which costs a recovery at the next start; then force. */
const POSTGRES_ENDING: readonly EndingStep[] = [
  { signal: 'SIGINT', graceMs: 15_000 },
  { signal: 'SIGQUIT', graceMs: 5_000 },
  { signal: 'SIGKILL', graceMs: 5_000 },
];

/** How to run PostgreSQL. */
export interface PostgresOptions {
  /**
   * Where its password, its log and its data are kept; made when absent. The caller sees to it that
   * one process at a time uses the folder.
   */
  readonly dataDir: string;
  /** The port on 127.0.0.1; 0 takes a free one. */
  readonly port: number;
  /** Data for a test: nothing is synced to the disk. */
  readonly ephemeral?: boolean;
  /** The flag or variable that moves the port, for the message when it is taken. */
  readonly portFlag?: string;
  /** Remembers the process across a crash of ours. */
  readonly registry?: ProcessRegistry | undefined;
}

/** A running PostgreSQL server. */
export interface Postgres {
  readonly port: number;
  /** The postmaster. */
  readonly pid: number;
  readonly logFile: string;
  /** Where the cluster lies. */
  readonly clusterDir: string;
  /** A connection string, with the password, for one database. */
  url(database: string): string;
  /** Creates a database unless it exists. */
  ensureDatabase(name: string): Promise<void>;
  /** Creates a role that may log in, unless it exists, and gives it the password. */
  ensureRole(name: string, password: string): Promise<void>;
  /** Sends a signal to the postmaster, without waiting. */
  kill(signal: NodeJS.Signals): void;
  /** Resolves when the server has ended, with how. */
  readonly ended: Promise<string>;
  /** How it ended; `undefined` while it runs. */
  hasEnded(): string | undefined;
  /** Stops the server and keeps its data. */
  stop(): Promise<void>;
  /** Stops the server and removes its data, wherever they lie. */
  destroy(): Promise<void>;
}

/**
 * Starts PostgreSQL on 127.0.0.1 and returns when it answers.
 *
 * The cluster lies in the data folder. When we are root, PostgreSQL runs as an ordinary user; where
 * that user cannot enter the data folder, the cluster lies in a folder of its own below
 * `/var/lib/portcullis`, whose name the data folder remembers, so that later starts find it again.
 * A postmaster that outlived a crashed start of the same data folder is stopped first.
 *
 * @throws SystemError when it cannot be started, with the end of its log
 */
export async function startPostgres(options: PostgresOptions): Promise<Postgres> {
  const ephemeral = options.ephemeral ?? false;
  const dataDir = await makeFolder(options.dataDir);
  const state = await loadState(dataDir);
  const user = (await ownerOf(state.place)) ?? (await postgresUser());
  const binaries = await findPostgresBinaries(user);
  const cluster = join(state.place, CLUSTER_FOLDER);
  if (ephemeral) watchFolder(state.place);
  await endSurvivor(cluster);
  if (options.port !== 0) {
    await assertPortFree(options.port, 'PostgreSQL', options.portFlag ?? 'another port');
  }
  await makeCluster({ state, cluster, user, binaries, ephemeral });
  const port = options.port === 0 ? await findFreePort() : options.port;
  const url = (database: string) =>
    `postgresql://${SUPERUSER}:${state.password}@127.0.0.1:${port}/${encodeURIComponent(database)}`;
  const server = await runUntilReady({
    url: url('postgres'),
    logFile: join(dataDir, LOG_FILE),
    start: (logFile) =>
      launch({
        name: 'PostgreSQL',
        command: binaries.postgres,
        arguments: ['-D', cluster, ...serverSettings(port, ephemeral)],
        cwd: state.place,
        environment: serverEnvironment(),
        logFile,
        user,
        ending: POSTGRES_ENDING,
        registry: options.registry,
      }),
  });
  return {
    port,
    pid: server.pid,
    logFile: server.logFile,
    clusterDir: cluster,
    url,
    ensureDatabase: (name) => ensureDatabase(url('postgres'), name),
    ensureRole: (name, password) => ensureRole(url('postgres'), name, password),
    kill: (signal) => server.kill(signal),
    ended: server.ended,
    hasEnded: () => server.hasEnded(),
    stop: () => server.stop(),
    async destroy() {
      await server.stop();
      await rm(state.place, { recursive: true, force: true });
      await rm(join(dataDir, STATE_FILE), { force: true });
      unwatchFolder(state.place);
    },
  };
}

/**
 * Creates a database on a server unless it exists.
 *
 * @param url - any database of that server, as a user who may create others
 */
export async function ensureDatabase(url: string, name: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  try {
    const found = await client.query('SELECT 1 FROM pg_database WHERE datname = $1', [name]);
    if (found.rowCount === 0) await client.query(`CREATE DATABASE ${client.escapeIdentifier(name)}`);
  } catch (error) {
    // Two at once: one of them creates it, and either code tells the other.
    if (!(error instanceof pg.DatabaseError && (error.code === '42P04' || error.code === '23505')))
      throw error;
  } finally {
    await client.end();
  }
}

/**
 * Creates a role that may log in, unless it exists, and gives it the password.
 *
 * @param url - any database of that server, as a user who may create roles
 */
export async function ensureRole(url: string, name: string, password: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  try {
    const role = client.escapeIdentifier(name);
    const found = await client.query('SELECT 1 FROM pg_roles WHERE rolname = $1', [name]);
    const verb = found.rowCount === 0 ? 'CREATE' : 'ALTER';
    await client.query(`${verb} ROLE ${role} LOGIN PASSWORD ${client.escapeLiteral(password)}`);
  } finally {
    await client.end();
  }
}

/** What the data folder remembers of its server. */
interface PostgresState {
  readonly password: string;
  /** The folder that holds the cluster, relative to the data folder or absolute. */
  readonly place: string;
}

async function loadState(dataDir: string): Promise<PostgresState> {
  const file = join(dataDir, STATE_FILE);
  const known = await readFile(file, 'utf8').catch(() => undefined);
  if (known !== undefined) {
    const state = placedBelow(dataDir, JSON.parse(known) as PostgresState);
    if (await exists(state.place)) return state;
    throw new SystemError(
      `PostgreSQL's data, which ${file} says are in ${state.place}, are not there. ` +
        'Bring them back, or remove the data folder to begin with new ones.',
    );
  }
  const state: PostgresState = {
    password: randomBytes(24).toString('base64url'),
    place: await makePlace(dataDir, await postgresUser()),
  };
  // In one step: a half-written file would lose the password of a cluster that is made next.
  const draft = `${file}.${randomUUID()}`;
  await writeFile(draft, `${JSON.stringify(state, null, 2)}\n`, { mode: 0o600 });
  await rename(draft, file);
  return placedBelow(dataDir, state);
}

/** A relative place lies in the data folder, wherever that was moved to. */
function placedBelow(dataDir: string, state: PostgresState): PostgresState {
  return { ...state, place: resolve(dataDir, state.place) };
}

/** Others may pass through the folder, as PostgreSQL's user must, but read nothing in it. */
async function makeFolder(dataDir: string): Promise<string> {
  await mkdir(dataDir, { recursive: true, mode: 0o711 });
  return await realpath(dataDir);
}

async function makePlace(dataDir: string, user: SystemUser | undefined): Promise<string> {
  const within = await canUserEnter(dataDir, user);
  const place = within ? 'postgres' : join(ROOT_STATE_FOLDER, `postgres-${randomUUID()}`);
  if (!within) await mkdir(ROOT_STATE_FOLDER, { recursive: true, mode: 0o755 });
  const folder = resolve(dataDir, place);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  if (user !== undefined) await chown(folder, user.uid, user.gid);
  return place;
}

/** A new cluster is made beside its place and moved there whole, so that an interrupted making leaves nothing. */
async function makeCluster(making: {
  state: PostgresState;
  cluster: string;
  user: SystemUser | undefined;
  binaries: PostgresBinaries;
  ephemeral: boolean;
}): Promise<void> {
  const { state, cluster, user, binaries, ephemeral } = making;
  const version = await readFile(join(cluster, 'PG_VERSION'), 'utf8').catch(() => undefined);
  if (version !== undefined) {
    if (version.trim() === binaries.major) return;
    throw new SystemError(
      `The data in ${cluster} were made by PostgreSQL ${version.trim()}, and this is PostgreSQL ${binaries.major}. ` +
        'Move them with pg_upgrade or pg_dump, or choose another folder with PORTCULLIS_DATA_DIR.',
    );
  }
  for (const name of await readdir(state.place)) {
    if (name.startsWith(DRAFT_PREFIX)) await rm(join(state.place, name), { recursive: true, force: true });
  }
  const draft = join(state.place, `${DRAFT_PREFIX}${randomUUID()}`);
  const passwordFile = `${draft}-password`;
  await writeFile(passwordFile, state.password, { mode: 0o600 });
  try {
    if (user !== undefined) await chown(passwordFile, user.uid, user.gid);
    await promisify(execFile)(binaries.initdb, initdbArguments({ draft, passwordFile, ephemeral }), {
      ...user,
      cwd: state.place,
      env: serverEnvironment(),
    });
    await rename(draft, cluster);
  } catch (cause) {
    const said = cause instanceof Error && 'stderr' in cause ? String(cause.stderr).trim() : String(cause);
    throw new SystemError(`PostgreSQL's initdb failed in ${state.place}: ${said}`, { cause });
  } finally {
    await rm(passwordFile, { force: true });
  }
}

function initdbArguments(options: { draft: string; passwordFile: string; ephemeral: boolean }): string[] {
  return [
    `--pgdata=${options.draft}`,
    `--username=${SUPERUSER}`,
    `--pwfile=${options.passwordFile}`,
    '--auth-host=scram-sha-256',
    '--auth-local=reject',
    '--encoding=UTF8',
    // The same order of texts on every machine, whatever locales it has.
    '--locale=C',
    '--locale-provider=builtin',
    '--builtin-locale=C.UTF-8',
    '--no-instructions',
    ...(options.ephemeral ? ['--no-sync'] : []),
  ];
}

function serverSettings(port: number, ephemeral: boolean): string[] {
  const settings: Record<string, string | number> = {
    listen_addresses: '127.0.0.1',
    port,
    unix_socket_directories: '',
    max_connections: CONNECTIONS_MAX,
    ...(ephemeral ? { fsync: 'off', synchronous_commit: 'off', full_page_writes: 'off' } : {}),
  };
  return Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
}

/** PG* variables of the caller, such as PGDATA, are not for this server. */
function serverEnvironment(): NodeJS.ProcessEnv {
  return { PATH: process.env['PATH'], LC_ALL: 'C', TZ: 'UTC' };
}

async function runUntilReady(run: {
  url: string;
  logFile: string;
  start: (logFile: string) => Promise<LaunchedProcess>;
}): Promise<LaunchedProcess> {
  for (let attempt = 1; ; attempt += 1) {
    const server = await run.start(run.logFile);
    try {
      await waitUntilReady(server, run.url);
      return server;
    } catch (error) {
      await server.stop();
      const log = await server.logTail();
      // Backends of a killed postmaster notice within moments, and hold the cluster until then.
      const survivors = log.includes('is still in use') || log.includes('lock file "postmaster.pid"');
      if (!survivors || attempt === START_ATTEMPTS_MAX) {
        const reason = error instanceof Error ? error.message : String(error);
        throw new SystemError(`${reason} The end of its log, ${run.logFile}:\n${log}`, { cause: error });
      }
      await sleep(START_RETRY_MS);
    }
  }
}

async function waitUntilReady(server: LaunchedProcess, url: string): Promise<void> {
  const deadline = performance.now() + READY_TIMEOUT_MS;
  for (;;) {
    if (server.hasEnded() !== undefined)
      throw new SystemError(`PostgreSQL ended at once (${server.hasEnded()}).`);
    if (await answers(url)) return;
    if (performance.now() > deadline) {
      throw new SystemError(`PostgreSQL did not answer within ${READY_TIMEOUT_MS / 1_000} seconds.`);
    }
    await sleep(READY_POLL_MS);
  }
}

async function answers(url: string): Promise<boolean> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  try {
    await client.connect();
    await client.query('SELECT 1');
    return true;
  } catch {
    return false;
  } finally {
    await client.end().catch(() => undefined);
  }
}

/**
 * Stops the postmaster that a crashed start left on this cluster. Its number stands in a file of the
 * cluster; whether that process is still the postmaster, and not another with a reused number, is
 * told by the folder it works in.
 */
async function endSurvivor(cluster: string): Promise<void> {
  const file = join(cluster, 'postmaster.pid');
  const text = await readFile(file, 'utf8').catch(() => undefined);
  const pid = Number(text?.split('\n')[0]);
  if (!Number.isInteger(pid) || pid <= 1) return;
  const startTime = await startTimeOf(pid);
  if (startTime !== undefined && (await worksIn(pid, cluster))) {
    await endProcess({ pid, startTime }, POSTGRES_ENDING);
  }
  // PostgreSQL refuses to start while any process has the number in this file.
  if (await exists(file)) await rm(file, { force: true });
}

async function worksIn(pid: number, cluster: string): Promise<boolean> {
  if (process.platform === 'linux') {
    return (await readlink(`/proc/${pid}/cwd`).catch(() => undefined)) === cluster;
  }
  const { stdout } = await promisify(execFile)('ps', ['-o', 'command=', '-p', String(pid)]);
  return stdout.includes(`-D ${cluster} `);
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}
