/** `npm start` as an operator uses it: its output, its signals, and its recovery after crashes. */

import type { ChildProcess } from 'node:child_process';
import { execFile, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { credentials } from '@grpc/grpc-js';
import { expect } from 'chai';
import { AuthServiceClient } from '../../proto/gen/auth/v1/auth_service.js';
import { InventoryServiceClient } from '../../proto/gen/inventory/v1/inventory_service.js';
import { PaymentServiceClient } from '../../proto/gen/payment/v1/payment_service.js';
import { ask } from '../../scripts/system/calls.js';
import { isPortFree } from '../../scripts/system/ports.js';
import { startTimeOf } from '../../scripts/system/process-identity.js';
import type { TemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { type Program, startProgram } from '../support/programs.js';
import { PROJECT_FOLDER } from '../support/project-copy.js';
import { until } from '../support/waiting.js';

const TEST_TIMEOUT_MS = 600_000;
const POLL_MS = 50;
const GONE_WITHIN_MS = 15_000;
const SKU = 'LAMP-01';
/** Runs a program of this project in a shell, as npx runs the command of a package. */
const STAND_IN_FOR_NPM = join(PROJECT_FOLDER, 'test', 'support', 'npx-stand-in.mjs');

/** The addresses and users in the output. */
interface Printed {
  readonly auth: string;
  readonly inventory: string;
  readonly payment: string;
  readonly ports: readonly number[];
  readonly passwordOf: (user: string) => string;
  readonly accountOf: (user: string) => string;
}

describe('npm start', function () {
  this.timeout(TEST_TIMEOUT_MS);
  let folder: TemporaryFolder;
  const starts = new Set<ChildProcess>();

  before(async () => {
    folder = await makeTemporaryFolder();
  });

  after(async () => {
    for (const child of starts) child.kill('SIGTERM');
    await Promise.all([...starts].map((child) => child.exitCode ?? child.signalCode ?? once(child, 'exit')));
    await folder.remove();
  });

  it('prints examples that work, and leaves nothing running after SIGTERM', async () => {
    const start = begin('pasted');
    const printed = await readyOutput(start);
    const lines = start.output().split('\n');
    const from = lines.findIndex((line) => line.startsWith('or with buf'));
    const pasted = lines
      .slice(
        from + 1,
        lines.findIndex((line) => line.startsWith('Ctrl-C')),
      )
      .join('\n');
    const { stdout } = await promisify(execFile)('bash', ['-euo', 'pipefail', '-c', pasted], {
      cwd: PROJECT_FOLDER,
    });
    expect(stdout).to.contain(SKU).and.to.contain('RESERVATION_STATE_ACTIVE');

    start.child.kill('SIGTERM');
    const { code } = await start.ended;
    expect(code).to.equal(0);
    expect(start.output()).to.contain('nothing is left running');
    for (const port of printed.ports) expect(await isPortFree(port)).to.equal(true);
    const record = await readFile(join(folder.path, 'pasted', 'processes.json'), 'utf8');
    expect(JSON.parse(record)).to.deep.equal([]);
  });

  it('has the same users, stock and balances after SIGKILL of every process', async () => {
    const first = begin('killed');
    const before = await readyOutput(first);
    await buyOne(before);
    const picture = await pictureOf(before);
    const pids = await everyProcessOf(first.child);
    expect(pids).to.have.length.of.at.least(7);
    for (const pid of pids) process.kill(pid, 'SIGKILL');
    await once(first.child, 'exit');

    const second = begin('killed');
    const after = await readyOutput(second);
    expect(await pictureOf(after)).to.deep.equal(picture);
    expect(after.accountOf('alice')).to.equal(before.accountOf('alice'));
    await buyOne(after);
    second.child.kill('SIGINT');
    await second.ended;
  });

  it('prints one JSON object for a machine, and all else to standard error', async () => {
    const start = begin('json', ['--json']);
    await start.said('readyAfterMs');
    start.child.kill('SIGTERM');
    const { code, stdout, stderr } = await start.ended;
    expect(code, stderr).to.equal(0);
    const printed = JSON.parse(stdout);
    expect(printed).to.include.keys('readyAfterMs', 'issuer', 'dataFolder', 'nats', 'postgres');
    expect(printed.services.map(({ name }: { name: string }) => name)).to.deep.equal([
      'auth',
      'inventory-1',
      'inventory-2',
      'payment',
    ]);
    expect(printed.services[0]).to.have.keys('name', 'address', 'opsAddress');
    expect(printed.users.find(({ username }: { username: string }) => username === 'alice')).to.include.keys(
      'password',
      'roles',
    );
    expect(stderr).to.include('✓ auth').and.to.include('nothing is left running');
  });

  it('leaves nothing running when only the launcher is killed', async () => {
    const start = begin('alone');
    const { ports } = await readyOutput(start);
    start.child.kill('SIGKILL');
    await once(start.child, 'exit');
    await until(() => areFree(ports), { withinMs: GONE_WITHIN_MS, pollMs: POLL_MS });
  });

  it('stops when npm is killed that runs it in a shell, as npx does', async () => {
    const npm = spawn(process.execPath, [STAND_IN_FOR_NPM, 'scripts/start', '--free-ports'], {
      cwd: PROJECT_FOLDER,
      env: {
        ...process.env,
        npm_lifecycle_event: 'npx',
        PORTCULLIS_DATA_DIR: join(folder.path, 'npx'),
      },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    starts.add(npm);
    let output = '';
    npm.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
    // Later on, a service that starts would delay the end.
    await until(() => output.includes('✓ nats-server'), { withinMs: TEST_TIMEOUT_MS, pollMs: POLL_MS });
    npm.kill('SIGKILL');
    await until(() => output.includes('nothing is left running'), {
      withinMs: GONE_WITHIN_MS,
      pollMs: POLL_MS,
    });
  });

  it('stops what it has started when it is interrupted during the start', async () => {
    const start = begin('interrupted');
    await start.said('✓ PostgreSQL');
    start.child.kill('SIGINT');
    const { code } = await start.ended;
    expect(code).to.equal(0);
    expect(start.output()).to.contain('nothing is left running').and.not.to.contain('is ready after');
    const record = await readFile(join(folder.path, 'interrupted', 'processes.json'), 'utf8');
    expect(JSON.parse(record)).to.deep.equal([]);
  });

  it('restarts a part that ended on its own', async () => {
    const start = begin('restarted');
    const printed = await readyOutput(start);
    const record = await readFile(join(folder.path, 'restarted', 'processes.json'), 'utf8');
    const recorded = JSON.parse(record) as { pid: number }[];
    for (const { pid } of recorded.slice(-1)) process.kill(pid, 'SIGKILL');
    await start.said('is back.');
    await buyOne(printed);
    start.child.kill('SIGTERM');
    await start.ended;
  });

  function begin(name: string, flags: readonly string[] = []): Program {
    const env = { PORTCULLIS_DATA_DIR: join(folder.path, name) };
    const start = startProgram(['scripts/start', '--free-ports', ...flags], { env });
    starts.add(start.child);
    return start;
  }

  async function readyOutput({ output, said }: Program): Promise<Printed> {
    await said('Ctrl-C stops');
    const addressOf = (part: string): string =>
      new RegExp(`${part} +(127\\.0\\.0\\.1:\\d+)`).exec(output())?.[1] ?? '';
    const wordOf = (user: string, column: number): string =>
      new RegExp(`^ *${user} .*$`, 'm').exec(output())?.[0].trim().split(/ {2,}/)[column] ?? '';
    return {
      auth: addressOf('auth'),
      inventory: addressOf('inventory-1'),
      payment: addressOf('payment'),
      ports: [...output().matchAll(/127\.0\.0\.1:(\d+)/g)].map(([, port]) => Number(port)),
      passwordOf: (user) => wordOf(user, 1),
      accountOf: (user) => wordOf(user, 3),
    };
  }
});

async function logIn({ auth, passwordOf }: Printed, username: string): Promise<string> {
  const client = new AuthServiceClient(auth, credentials.createInsecure());
  try {
    const request = {
      username,
      password: passwordOf(username),
      audiences: [],
      scopes: [],
      deviceName: 'test',
    };
    return (await ask(client.login.bind(client), request)).accessToken;
  } finally {
    client.close();
  }
}

async function buyOne(printed: Printed): Promise<void> {
  const token = await logIn(printed, 'alice');
  const client = new PaymentServiceClient(printed.payment, credentials.createInsecure());
  try {
    const lines = [{ sku: SKU, quantity: 1n }];
    const request = { accountId: printed.accountOf('alice'), lines, requestId: randomUUID() };
    await ask(client.checkout.bind(client), request, { token });
  } finally {
    client.close();
  }
}

/** The state that must survive: the stock, and the balances of customers, who must be able to log in. */
async function pictureOf(printed: Printed): Promise<unknown> {
  const inventory = new InventoryServiceClient(printed.inventory, credentials.createInsecure());
  const payment = new PaymentServiceClient(printed.payment, credentials.createInsecure());
  try {
    const token = await logIn(printed, 'olga');
    const { items } = await ask(
      inventory.listItems.bind(inventory),
      { pageSize: 0, pageToken: '', filter: '' },
      { token },
    );
    const accounts = await Promise.all(
      ['alice', 'bob'].map(async (user) => {
        const request = { accountId: printed.accountOf(user) };
        return await ask(payment.getAccount.bind(payment), request, { token: await logIn(printed, user) });
      }),
    );
    return { items, accounts };
  } finally {
    inventory.close();
    payment.close();
  }
}

/** The launcher and all of its descendants, in any process group. */
async function everyProcessOf({ pid: root }: ChildProcess): Promise<number[]> {
  const parents = new Map<number, number>();
  for (const name of await readdir('/proc')) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || (await startTimeOf(pid)) === undefined) continue;
    const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
    parents.set(pid, Number(text.slice(text.lastIndexOf(')') + 2).split(' ')[1]));
  }
  const found = new Set(root === undefined ? [] : [root]);
  for (let size = 0; size !== found.size; ) {
    size = found.size;
    for (const [pid, parent] of parents) if (found.has(parent)) found.add(pid);
  }
  return [...found];
}

async function areFree(ports: readonly number[]): Promise<boolean> {
  for (const port of ports) if (!(await isPortFree(port))) return false;
  return true;
}
