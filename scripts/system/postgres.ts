/** A private PostgreSQL server: created, started, recovered after a crashed start, and stopped. */

import { execFile } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { chown, mkdir, readdir, readFile, readlink, realpath, rename, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import pg from 'pg';
import { exists, writeAtomically } from './files.js';
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

/** Fast shutdown; then immediate shutdown, which makes the next start recover; then SIGKILL. */
const POSTGRES_ENDING: readonly EndingStep[] = [
  { signal: 'SIGINT', graceMs: 15_000 },
  { signal: 'SIGQUIT', graceMs: 5_000 },
  { signal: 'SIGKILL', graceMs: 5_000 },
];

interface PostgresOptions {
  /**
   * The folder of password, log and data; created when absent. The caller makes sure that one process at a time
   * uses it.
   */
  readonly dataDir: string;
  /** The port on 127.0.0.1; 0 means any free port. */
  readonly port: number;
  /** For tests: nothing is synced to the disk. */
  readonly ephemeral?: boolean;
  /** The flag or variable that sets the port, for the message when it is in use. */
  readonly portFlag?: string;
  /** Records the process, so that a start after a crash can end it. */
  readonly registry?: ProcessRegistry | undefined;
}

/** A running PostgreSQL server. */
export interface Postgres {
  readonly port: number;
  /** The postmaster. */
  readonly pid: number;
  readonly logFile: string;
  /** The folder of the cluster. */
  readonly clusterDir: string;
  /** The connection string of one database, as the superuser. */
  url(database: string): string;
  /** Creates a database unless it exists. */
  ensureDatabase(name: string): Promise<void>;
  /** Sends a signal to the postmaster without waiting. */
  kill(signal: NodeJS.Signals): void;
  /** Resolves when the server has ended, with its exit code or signal as text. */
  readonly ended: Promise<string>;
  /** The exit code or signal as text; `undefined` while the server runs. */
  hasEnded(): string | undefined;
  /** Stops the server and keeps its data. */
  stop(): Promise<void>;
  /** Stops the server and removes its data. */
  destroy(): Promise<void>;
}

/**
 * Starts PostgreSQL on 127.0.0.1 and returns when it accepts queries.
 *
 * The cluster is in the data folder. When this process is root, PostgreSQL runs as an ordinary user; when that user
 * cannot enter the data folder, the cluster is in a folder below `/var/lib/portcullis`, whose name is recorded in the
 * data folder. A postmaster that survived a crashed start of the same data folder is stopped first.
 *
 * @throws SystemError with the end of the log when PostgreSQL does not start
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
 * @param url - any database of that server, as a role that may create databases
 */
export async function ensureDatabase(url: string, name: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  try {
    const found = await client.query('SELECT 1 FROM pg_database WHERE datname = $1', [name]);
    if (found.rowCount === 0) await client.query(`CREATE DATABASE ${client.escapeIdentifier(name)}`);
  } catch (error) {
    // When two callers create it at once, one of them gets either of these codes.
    if (!(error instanceof pg.DatabaseError && (error.code === '42P04' || error.code === '23505')))
      throw error;
  } finally {
    await client.end();
  }
}

/** What the data folder records about its server. */
interface PostgresState {
  readonly password: string;
  /** The folder of the cluster, relative to the data folder or absolute. */
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
        'Restore them, or remove the data folder to start with new data.',
    );
  }
  const state: PostgresState = {
    password: randomBytes(24).toString('base64url'),
    place: await makePlace(dataDir, await postgresUser()),
  };
  // Written atomically: a partial file would lose the password of the cluster created next.
  await writeAtomically(file, `${JSON.stringify(state, null, 2)}\n`);
  return placedBelow(dataDir, state);
}

/** A relative place stays valid when the data folder is moved. */
function placedBelow(dataDir: string, state: PostgresState): PostgresState {
  return { ...state, place: resolve(dataDir, state.place) };
}

/** Other users can traverse the folder, which PostgreSQL's user must, but read nothing in it. */
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

/** Creates a cluster beside its place and moves it there, so that an interrupted start leaves no partial cluster. */
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
    // The same collation on every machine, whatever locales are installed.
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

/** PG* variables of the caller, such as PGDATA, must not affect this server. */
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
      // Backends of a killed postmaster exit within a second, and hold the cluster until then.
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
 * Stops the postmaster that a crashed start left on this cluster. A file of the cluster holds its process number; the
 * working directory shows whether that process is the postmaster or another one that reuses the number.
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
