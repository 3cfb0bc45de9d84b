/** Podman with storage of its own, and the images that are built in it. */

import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PROJECT_FOLDER } from '../../scripts/system/project.js';
import { CACHE, exec, exists, onPath } from '../shared/programs.js';

const STANDINS = join(PROJECT_FOLDER, 'proofs', 'deployment', 'standins');
const STANDIN = 'localhost/portcullis-standin';
/** The root file system of root.sh from which an image of others is made. */
const rootOf = (target: string): string => `${STANDIN}/root-${target === 'node' ? 'node' : 'servers'}`;
/** The Node of the images, from npm's packages. */
const NODE = '24';
const NPM = '11';

/** Where the state of running containers is: paths of sockets must be short. */
const RUN_FOLDER = '/run/portcullis-deployment';

/** The images that deploy/ takes from others: the variable that names each, and the target that stands in for it. */
const BASES = {
  NODE_IMAGE: 'node',
  PYTHON_IMAGE: 'python',
  POSTGRES_IMAGE: 'postgres',
  NATS_IMAGE: 'nats',
  PROMETHEUS_IMAGE: 'prometheus',
} as const;
type Base = keyof typeof BASES;
/** All of them. */
export const ALL_BASES = Object.keys(BASES) as Base[];

const NODE_IMAGE = 'docker.io/library/node:24-bookworm-slim';

/** The container that podman-compose makes of a service of deploy/compose. */
export const containerOf = (service: string): string => `portcullis_${service}_1`;

/** Podman, ready to build and run. */
export interface Podman {
  /** The program itself, which needs {@link environment}. */
  readonly program: string;
  /** Variables for programs that call podman, such as podman-compose; they name the stand-ins. */
  readonly environment: NodeJS.ProcessEnv;
  /** Whether the images of others are stand-ins, because no registry of images can be reached. */
  readonly hasStandIns: boolean;
  /** Runs podman. @returns what it has printed */
  run(...words: readonly string[]): Promise<string>;
}

/**
 * Prepares podman. Its images are below the folder of fetched programs, so that it touches no others of this machine.
 *
 * @param options.folder - for its settings
 * @param options.bases - the images of others that are needed
 * @param options.signal - ends what podman does, but for the removal of containers
 */
export async function openPodman(
  program: string,
  options: { readonly folder: string; readonly bases: readonly Base[]; readonly signal?: AbortSignal },
): Promise<Podman> {
  const { folder, signal } = options;
  const settings = join(folder, 'containers.conf');
  // crun, the default, refuses some layouts of cgroups; limits above those of this process cannot be set everywhere.
  const runtime = (await onPath('runc')) === undefined ? '' : 'runtime = "runc"\n';
  await writeFile(
    settings,
    `[containers]\ndefault_ulimits = ["nofile=8192:8192", "nproc=4096:4096"]\n\n[engine]\n${runtime}events_logger = "file"\n`,
  );
  const storage = join(folder, 'storage.conf');
  const graph = join(CACHE, 'containers');
  await mkdir(graph, { recursive: true });
  await writeFile(
    storage,
    `[storage]\ndriver = "overlay"\ngraphroot = ${JSON.stringify(graph)}\nrunroot = "${RUN_FOLDER}"\n`,
  );
  const own = {
    CONTAINERS_CONF: settings,
    CONTAINERS_STORAGE_CONF: storage,
    // Only this format has health checks.
    BUILDAH_FORMAT: 'docker',
  };
  const run = async (...words: readonly string[]): Promise<string> =>
    (await exec(program, words, PROJECT_FOLDER, own, words[0] === 'rm' ? undefined : signal)).stdout.trim();
  const hasStandIns = !(await run('pull', '--quiet', NODE_IMAGE).then(
    () => true,
    () => false,
  ));
  const standIns = hasStandIns ? await buildStandIns(run, folder, options.bases) : {};
  // Fails on a machine on which containers cannot run.
  await run('run', '--rm', '--network=none', standIns['NODE_IMAGE'] ?? NODE_IMAGE, 'node', '--version');
  return { program, environment: { ...own, ...standIns }, hasStandIns, run };
}

/** @returns the variables that name them */
async function buildStandIns(
  run: Podman['run'],
  folder: string,
  bases: readonly Base[],
): Promise<NodeJS.ProcessEnv> {
  const roots = [...new Set(bases.map((variable) => rootOf(BASES[variable])))];
  const areThere = await Promise.all(roots.map((root) => run('image', 'exists', root))).then(
    () => true,
    () => false,
  );
  if (!areThere) await importRoots(run, join(folder, 'roots'), roots);
  const names = bases.map(async (variable) => {
    const target = BASES[variable];
    const image = `${STANDIN}/${target}`;
    await run('build', '--pull=never', '--quiet', '--target', target, '--tag', image, STANDINS);
    return [variable, image] as const;
  });
  return Object.fromEntries(await Promise.all(names));
}

async function importRoots(run: Podman['run'], folder: string, roots: readonly string[]): Promise<void> {
  if ((await onPath('debootstrap')) === undefined)
    throw new Error(
      'no registry of images can be reached, and debootstrap is not installed: apt-get install debootstrap',
    );
  const node = `node-${process.platform}-${process.arch}`;
  const home = join(CACHE, `node-${NODE}`);
  await mkdir(home, { recursive: true });
  await writeFile(join(home, 'package.json'), '{ "private": true }');
  if (!(await exists(join(home, 'node_modules', 'npm')))) {
    await exec('npm', ['install', '--no-audit', '--no-fund', `${node}@${NODE}`, `npm@${NPM}`], home);
  }
  const modules = join(home, 'node_modules');
  try {
    await mkdir(folder);
    const script = join(STANDINS, 'root.sh');
    const servers = roots.includes(rootOf('postgres')) ? ['servers'] : [];
    await exec('sh', [script, folder, join(modules, node, 'bin', 'node'), join(modules, 'npm'), ...servers]);
    for (const root of roots) {
      await run('import', '--quiet', join(folder, `${root.replace(/.*root-/, '')}.tar`), root);
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
