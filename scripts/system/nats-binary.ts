/** Finds nats-server on this machine, or downloads it once through the system's package manager. */

import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { access, constants, lstat, mkdir, readdir, rename, rm } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { delimiter, isAbsolute, join } from 'node:path';
import { promisify } from 'node:util';
import { SystemError } from './system-error.js';

const PROGRAM = 'nats-server';
const FETCH_TIMEOUT_MS = 300_000;
const PACKAGED_PROGRAM = join('usr', 'sbin', PROGRAM);

const WHAT_TO_DO =
  'Install nats-server 2.9 or newer with your package manager (for example `brew install nats-server` or ' +
  '`apk add nats-server`), set NATS_SERVER_BIN to its path, or set NATS_URL to a running server.';

interface NatsBinaryOptions {
  readonly environment: NodeJS.ProcessEnv;
  /** Called before the program is downloaded, which takes a while. */
  readonly onFetch?: () => void;
}

/**
 * Returns the path of nats-server: `NATS_SERVER_BIN`, else the program on PATH, else a copy downloaded earlier, else
 * one downloaded now as a Debian package. The package is unpacked below the user's cache folder, not installed: that
 * needs no privileges and starts no service.
 *
 * @throws SystemError that says what to do when the program cannot be obtained
 */
export async function findNatsServer({ environment, onFetch }: NatsBinaryOptions): Promise<string> {
  const named = environment['NATS_SERVER_BIN'];
  if (named !== undefined && named !== '') {
    if (await isExecutable(named)) return named;
    throw new SystemError(`NATS_SERVER_BIN is ${named}, which is not a program that can be run.`);
  }
  for (const folder of (environment['PATH'] ?? '').split(delimiter)) {
    const path = join(folder, PROGRAM);
    if (isAbsolute(folder) && (await isExecutable(path))) return path;
  }
  const cache = await cacheFolder(environment);
  const cached = join(cache, PROGRAM, PACKAGED_PROGRAM);
  if (await isExecutable(cached)) return cached;
  onFetch?.();
  await fetchPackage(cache, environment);
  return cached;
}

/** The user's cache folder; when it is not writable, a private folder below the temporary folder. */
async function cacheFolder(environment: NodeJS.ProcessEnv): Promise<string> {
  const given = environment['XDG_CACHE_HOME'];
  const home = environment['HOME'] ?? homedir();
  const base = given !== undefined && isAbsolute(given) ? given : join(home, '.cache');
  const usual = join(base, 'portcullis');
  const isUsable = await mkdir(usual, { recursive: true })
    .then(() => access(usual, constants.W_OK))
    .then(
      () => true,
      () => false,
    );
  if (isUsable) return usual;
  const ownUid = process.getuid?.();
  const fallback = join(tmpdir(), `portcullis-cache-${ownUid}`);
  await mkdir(fallback, { recursive: true, mode: 0o700 });
  const { uid, mode } = await lstat(fallback);
  // Another user can create a folder of this name first, and put a program into it.
  if (uid === ownUid && (mode & 0o022) === 0) return fallback;
  throw new SystemError(`nats-server is not installed, and ${usual} cannot be written to. ${WHAT_TO_DO}`);
}

async function fetchPackage(cache: string, environment: NodeJS.ProcessEnv): Promise<void> {
  const work = join(cache, `fetch-${randomUUID()}`);
  try {
    await mkdir(work, { recursive: true });
    await run('apt-get', ['--version'], work, environment);
  } catch (cause) {
    throw new SystemError(
      `nats-server is not installed, and there is no apt-get to download it. ${WHAT_TO_DO}`,
      {
        cause,
      },
    );
  }
  try {
    await downloadPackage(work, environment);
    const file = (await readdir(work)).find((name) => name.endsWith('.deb'));
    if (file === undefined) throw new Error('apt-get left no package behind');
    await run('dpkg-deb', ['--extract', file, 'unpacked'], work, environment);
    await access(join(work, 'unpacked', PACKAGED_PROGRAM), constants.X_OK);
    await moveIntoPlace(join(work, 'unpacked'), join(cache, PROGRAM));
  } catch (cause) {
    throw new SystemError(
      `nats-server is not installed, and downloading it through apt-get failed: ${textOf(cause)} ${WHAT_TO_DO}`,
      { cause },
    );
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Uses the machine's package lists; when they are missing or outdated, private lists, which need no privileges. */
async function downloadPackage(work: string, environment: NodeJS.ProcessEnv): Promise<void> {
  const asRoot = process.getuid?.() === 0 ? ['-o', 'APT::Sandbox::User=root'] : [];
  try {
    await run('apt-get', [...asRoot, 'download', PROGRAM], work, environment);
  } catch {
    for (const folder of ['lists/partial', 'cache/archives/partial']) {
      await mkdir(join(work, 'apt', folder), { recursive: true });
    }
    const ownLists = [
      ...asRoot,
      `--option=Dir::State::Lists=${join(work, 'apt', 'lists')}`,
      `--option=Dir::Cache=${join(work, 'apt', 'cache')}`,
    ];
    await run('apt-get', [...ownLists, 'update'], work, environment);
    await run('apt-get', [...ownLists, 'download', PROGRAM], work, environment);
  }
}

/** Several processes may download at once: the first one moves its copy into place, and the others use it. */
async function moveIntoPlace(unpacked: string, place: string): Promise<void> {
  try {
    await rename(unpacked, place);
  } catch (error) {
    if (!(await isExecutable(join(place, PACKAGED_PROGRAM)))) throw error;
  }
}

async function run(
  command: string,
  commandArguments: readonly string[],
  cwd: string,
  environment: NodeJS.ProcessEnv,
): Promise<void> {
  await promisify(execFile)(command, commandArguments, {
    cwd,
    timeout: FETCH_TIMEOUT_MS,
    env: { ...environment, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' },
  });
}

async function isExecutable(path: string): Promise<boolean> {
  return await access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
}

function textOf(cause: unknown): string {
  const said = cause instanceof Error && 'stderr' in cause ? String(cause.stderr).trim() : '';
  const text = said === '' ? String(cause instanceof Error ? cause.message : cause) : said;
  return text.endsWith('.') ? text : `${text}.`;
}
