/** Proxies that ask the gate about each request: Envoy by ext_authz, nginx by auth_request, with the documented settings. */

import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { findFreePort } from '../../scripts/system/ports.js';
import { PROJECT_FOLDER } from '../../scripts/system/project.js';
import type { Board } from '../shared/board.js';
import { type ServerProgram, withServer } from './behind-gate.js';
import { openStream, Target, unary } from './calls.js';
import type { Environment } from './environment.js';
import { LIBRARIES } from './peers.js';
import { type Program, startProgram, waitForPort } from './programs.js';

/** The settings that docs/gate.md shows. */
const EXAMPLES = join(PROJECT_FOLDER, 'docs', 'gate');

/** How long a revoked stream is watched behind a proxy that asks once. */
const WATCHED_MS = 500;

/** What nginx keeps in temporary folders. */
const TEMPORARY = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];

/** The ports and sockets that the settings name, and those of a run. */
type Places = Readonly<Record<string, string>>;

async function settingsFrom(name: string, places: Places, folder: string): Promise<string> {
  let text = await readFile(join(EXAMPLES, name), 'utf8');
  for (const [documented, actual] of Object.entries(places)) {
    if (!text.includes(documented)) throw new Error(`docs/gate/${name} does not name ${documented}`);
    text = text.replaceAll(documented, actual);
  }
  const file = join(folder, name);
  await writeFile(file, text);
  return file;
}

/** Checks Envoy. */
export async function checkEnvoy(
  envoy: string,
  server: ServerProgram,
  environment: Environment,
  board: Board,
): Promise<void> {
  const { folder } = environment;
  const socket = join(folder, 'authz.sock');
  const gate = await environment.startGate({ 'ext-authz': `unix:${socket}` });
  try {
    await withServer(server, '127.0.0.1:0', async (upstream) => {
      const port = await findFreePort();
      const file = await settingsFrom(
        'envoy.yaml',
        {
          'port_value: 8443': `port_value: ${port}`,
          'port_value: 50060': `port_value: ${upstream}`,
          '/run/portcullis/authz.sock': socket,
        },
        folder,
      );
      const words = ['-c', file, '--concurrency', '1', '--log-level', 'error', '--base-id', String(port)];
      await withProxy(startProgram(envoy, words), port, () => checkProxy('Envoy', port, environment, board));
    });
  } finally {
    await gate.stop();
  }
}

/** Checks nginx. */
export async function checkNginx(
  nginx: string,
  server: ServerProgram,
  environment: Environment,
  board: Board,
): Promise<void> {
  const folder = join(environment.folder, 'nginx');
  await mkdir(folder, { recursive: true });
  const check = await findFreePort();
  const gate = await environment.startGate({ 'http-check': `127.0.0.1:${check}` });
  try {
    await withServer(server, '127.0.0.1:0', async (upstream) => {
      const port = await findFreePort();
      const file = await settingsFrom(
        'nginx.conf',
        {
          '/var/log/nginx/error.log': 'stderr',
          '/run/nginx.pid': join(folder, 'nginx.pid'),
          // The folders of a package that was unpacked and not installed.
          'access_log off;': `access_log off; ${TEMPORARY.map((kind) => `${kind}_temp_path ${join(folder, kind)};`).join(' ')}`,
          'listen 8443': `listen 127.0.0.1:${port}`,
          'grpc://127.0.0.1:50060': `grpc://127.0.0.1:${upstream}`,
          'http://127.0.0.1:9091': `http://127.0.0.1:${check}`,
        },
        folder,
      );
      const words = ['-p', folder, '-c', file, '-g', 'daemon off;'];
      await withProxy(startProgram(nginx, words), port, () => checkProxy('nginx', port, environment, board));
    });
  } finally {
    await gate.stop();
  }
}

/** haproxy in front of a gate: calls pass, and a revoked stream ends at its client. */
export async function checkHaproxy(
  haproxy: string,
  server: ServerProgram,
  environment: Environment,
  board: Board,
): Promise<void> {
  const peer = 'haproxy';
  const socket = join(environment.folder, 'behind-haproxy.sock');
  await withServer(server, `unix:${socket}`, async () => {
    const gate = await environment.startGate({ upstream: `unix:${socket}` });
    const port = await findFreePort();
    const places = { '127.0.0.1:8443': `127.0.0.1:${port}`, '127.0.0.1:50061': `127.0.0.1:${gate.port}` };
    const file = await settingsFrom('haproxy.cfg', places, environment.folder);
    const proxy = startProgram(haproxy, ['-db', '-f', file], { environment: LIBRARIES });
    try {
      await withProxy(proxy, port, async () => {
        const token = await environment.logIn('alice');
        const target = new Target(`127.0.0.1:${port}`, token);
        const passed = await unary(target, 'Unary', Buffer.alloc(100_000, 97), target.metadata());
        board.same(peer, 'passes 100 kB to the gate', '100000 bytes of 97', passed['response']);
        const failed = await unary(target, 'Fail', Buffer.alloc(0), target.metadata());
        board.same(peer, 'passes an error', 'ABORTED', failed['code']);
        const stream = openStream(target);
        await stream.begun;
        await environment.revoke(token, await environment.logIn('olga'));
        const { code, details } = await stream.ended;
        const isRight = code === 'UNAUTHENTICATED' && details.includes('TOKEN_REVOKED');
        board.holds(peer, 'a revoked stream ends with TOKEN_REVOKED', isRight, `${code} ${details}`);
        target.close();
      });
    } finally {
      await gate.stop();
    }
  });
}

async function withProxy(proxy: Program, port: number, work: () => Promise<void>): Promise<void> {
  try {
    await waitForPort(port, proxy);
    await work();
  } finally {
    await proxy.stop();
  }
}

/** The same refusals as the guard's, and what a proxy that asks once cannot do. */
async function checkProxy(peer: string, port: number, environment: Environment, board: Board): Promise<void> {
  const address = `127.0.0.1:${port}`;
  const token = await environment.logIn('alice');
  const good = new Target(address, token);
  const admitted = await unary(
    good,
    'Metadata',
    Buffer.alloc(0),
    good.metadata({ 'x-portcullis-roles': 'admin' }),
  );
  board.same(peer, 'admits a good token', 'OK', admitted['code']);
  const long = await unary(good, 'Unary', Buffer.alloc(100_000, 97), good.metadata());
  board.same(peer, 'passes 100 kB', '100000 bytes of 97', long['response']);
  for (const [name, given, method, code, reason] of [
    ['refuses a call without a token', undefined, 'Unary', 'UNAUTHENTICATED', 'TOKEN_MISSING'],
    ['refuses a bad token', 'nonsense', 'Unary', 'UNAUTHENTICATED', 'TOKEN_INVALID'],
    ['refuses a caller without the role', token, 'Operators', 'PERMISSION_DENIED', 'ROLE_MISSING'],
  ] as const) {
    const target = new Target(address, given);
    const ended = await unary(target, method, Buffer.alloc(0), target.metadata());
    const details = Buffer.from(String(ended['details']), 'hex').toString('latin1');
    const isRight = ended['code'] === code && details.includes(reason) && ended['message'] !== '';
    board.holds(
      peer,
      `${name}, with status, message and details`,
      isRight,
      JSON.stringify({ ...ended, details }),
    );
    target.close();
  }
  const stream = openStream(good);
  await stream.begun;
  await environment.revoke(token, await environment.logIn('olga'));
  const refused = await unary(good, 'Unary', Buffer.alloc(0), good.metadata());
  board.same(peer, 'refuses a revoked token', 'UNAUTHENTICATED', refused['code']);
  const goesOn = await Promise.race([
    stream.ended.then(() => false),
    new Promise<boolean>((resolve) => setTimeout(() => resolve(true), WATCHED_MS)),
  ]);
  board.holds(
    peer,
    'a stream that had begun goes on, as documented: it is asked about once',
    goesOn,
    'it has ended',
  );
  stream.cancel();
  good.close();
}
