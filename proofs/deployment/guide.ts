/**
 * docs/operating/compose.md, carried out on a copy of the checkout with podman in the place of docker; then
 * docs/operating/back-up.md, with the system that the first page has started.
 */

import { chmod, cp, mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PROJECT_FOLDER } from '../../scripts/system/project.js';
import type { Board } from '../shared/board.js';
import { copyCheckout, PROGRAM_PARTS } from '../shared/checkout.js';
import { holdsWithin } from '../shared/waiting.js';
import { followPage, runCommands, type Shell } from './page.js';
import { containerOf, type Podman } from './podman.js';
import { rehearseRestore } from './restore.js';

/** Files beside the programs that the commands use. */
const PARTS = [
  ...PROGRAM_PARTS,
  'deploy',
  'examples',
  'docs',
  'package-lock.json',
  '.npmrc',
  '.dockerignore',
];

/** The containers that have a health check. */
const CHECKED = [
  'postgres',
  'nats-1',
  'nats-2',
  'nats-3',
  'auth-1',
  'auth-2',
  'inventory',
  'payment',
  'gate',
];

/** What Prometheus scrapes: both auths, inventory, payment and the gate. */
const TARGETS = 5;
const TARGETS_URL = 'http://127.0.0.1:9090/api/v1/targets?state=active';

const HEALTH_TIMEOUT_MS = 60_000;
const POLL_MS = 1_000;

/** Follows the guide, and removes what it has started. */
export async function followGuide(options: {
  readonly podman: Podman;
  /** The program of podman-compose. */
  readonly compose: string;
  readonly folder: string;
  readonly board: Board;
  readonly onStep: (text: string) => void;
}): Promise<void> {
  const { podman, compose, folder, board, onStep } = options;
  const shell = {
    cwd: await makeCheckout(folder),
    environment: await environmentOf(podman, compose, folder),
  };
  const steps = { shell, board, onStep };
  try {
    if (!(await followPage({ ...steps, page: join('docs', 'operating', 'compose.md') }))) {
      const logs = await runCommands(
        'docker compose --file deploy/compose/compose.yaml logs --tail 5',
        shell,
      );
      board.holds('guide', 'could be followed to its end', false, logs.output);
      return;
    }
    onStep('checking the health of the containers');
    await checkHealth(podman, board);
    await checkTargets(board);
    await rehearseRestore({ ...steps, podman });
  } finally {
    const down = 'docker compose --file deploy/compose/compose.yaml down --volumes --timeout 20';
    await runCommands(down, shell).catch(() => undefined);
  }
}

/** A copy of the checkout, with what its `npm ci` has made. */
async function makeCheckout(folder: string): Promise<string> {
  const checkout = join(folder, 'checkout');
  await mkdir(checkout);
  await copyCheckout(PROJECT_FOLDER, checkout, PARTS);
  await symlink(join(PROJECT_FOLDER, 'dist'), join(checkout, 'dist'));
  for (const name of ['interceptors', 'gate', 'cli']) {
    await cp(join(PROJECT_FOLDER, name, 'dist'), join(checkout, name, 'dist'), { recursive: true });
  }
  return checkout;
}

/** Variables for the commands, with a `docker` that is podman. */
async function environmentOf(podman: Podman, compose: string, folder: string): Promise<Shell['environment']> {
  const bin = join(folder, 'bin');
  await mkdir(bin);
  const write = async (name: string, script: string): Promise<string> => {
    const file = join(bin, name);
    await writeFile(file, `#!/bin/bash\n${script}\n`);
    await chmod(file, 0o755);
    return file;
  };
  // Podman 4.3 starts no container whose requirement has one itself. Podman-compose waits for what is required by itself.
  const plain = await write(
    'plain-podman',
    `for word; do shift; [[ $word == --requires=* ]] || set -- "$@" "$word"; done\nexec '${podman.program}' "$@"`,
  );
  await write(
    'docker',
    `if [ "$1" = compose ]; then shift; exec '${compose}' --podman-path '${plain}' "$@"; fi\nexec '${podman.program}' "$@"`,
  );
  return {
    ...process.env,
    ...podman.environment,
    PATH: `${bin}:${join(PROJECT_FOLDER, 'node_modules', '.bin')}:${process.env['PATH'] ?? ''}`,
    HOME: folder,
    // Builds at the same time would each install the packages: podman shares no step that is still running.
    COMPOSE_PARALLEL_LIMIT: '1',
    PORTCULLIS_CONFIG: join(folder, 'portcullis.json'),
  };
}

/** Podman schedules health checks through systemd, which is not everywhere, so each is run here. */
async function checkHealth(podman: Podman, board: Board): Promise<void> {
  for (const name of CHECKED) {
    const isHealthy = (): Promise<boolean> =>
      podman.run('healthcheck', 'run', containerOf(name)).then(
        () => true,
        () => false,
      );
    board.same('guide', `${name} is healthy`, true, await holdsWithin(HEALTH_TIMEOUT_MS, POLL_MS, isHealthy));
  }
}

async function checkTargets(board: Board): Promise<void> {
  let reached = 0;
  const areReached = async (): Promise<boolean> => {
    const response = await fetch(TARGETS_URL);
    const { data } = (await response.json()) as {
      data: { activeTargets: readonly { readonly health: string }[] };
    };
    reached = data.activeTargets.filter(({ health }) => health === 'up').length;
    return reached === TARGETS;
  };
  await holdsWithin(HEALTH_TIMEOUT_MS, POLL_MS, areReached);
  board.same('guide', 'Prometheus scrapes every process', TARGETS, reached);
}
