/** An incident on the command line: a stolen laptop, from the first command to the evidence that others can verify. */

import { readFile, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { AuthServiceClient } from '../../proto/gen/auth/v1/auth_service.js';
import { InventoryServiceClient } from '../../proto/gen/inventory/v1/inventory_service.js';
import { ask } from '../../scripts/system/calls.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { refusalOf } from '../support/outcomes.js';
import { startTestSystem, type TestSystem } from '../support/system.js';
import { until } from '../support/waiting.js';
import { createCliRunner, steady } from './cli-runner.js';

describe('an incident on the command line', () => {
  let system: TestSystem;
  let folder: Awaited<ReturnType<typeof makeTemporaryFolder>>;
  let run: ReturnType<typeof createCliRunner>;
  const path = (name: string): string => join(folder.path, name);
  /** What the first commands have printed. */
  const transcript = { sessions: '', revoked: '', receipt: '' };

  before(async function () {
    this.timeout(120_000);
    system = await startTestSystem();
    folder = await makeTemporaryFolder();
    run = createCliRunner(path('contexts.json'));
  });
  after(async () => {
    await system.remove();
    await folder.remove();
  });

  const login = (name: 'alice' | 'olga') =>
    run(['login', '--user', name, '--address', system.auth.address, '--password-stdin', '--context', name], {
      input: `${system.users[name].password}\n`,
    });

  /** A session of alice from another device. */
  async function laptop(deviceName = "alice's laptop") {
    const auth = new AuthServiceClient(system.auth.address, system.credentials);
    try {
      const { username, password } = system.users.alice;
      return await ask(auth.login.bind(auth), { username, password, audiences: [], scopes: [], deviceName });
    } finally {
      auth.close();
    }
  }

  it('takes four commands from the stolen laptop to the evidence, without an id or a token', async function () {
    this.timeout(60_000);
    const { accessToken, refreshToken } = await laptop();
    expect((await login('olga')).code).to.equal(0);

    const sessions = await run(['sessions', 'alice']);
    expect(sessions.code, sessions.err).to.equal(0);
    transcript.sessions = sessions.out;
    const line = sessions.out.split('\n').find((text) => text.includes("alice's laptop")) ?? '';
    expect(line).to.match(/^alice\/[0-9a-f]{8} .*127\.0\.0\.1$/);
    const [name = ''] = line.split(' ');

    const revoked = await run(['revoke', '--session', name, '--reason', 'laptop stolen', '--wait']);
    expect(revoked.code, revoked.err).to.equal(0);
    expect(revoked.out).to.match(/^Revoked\. Receipt (\d+)\.$/m);
    const here = hostname();
    for (const service of ['auth', 'inventory', 'payment'])
      expect(revoked.out).to.include(`✓ ${service}@${here}/`);
    transcript.revoked = revoked.out;
    const number = /Receipt (\d+)/.exec(revoked.out)?.[1] ?? '';

    const inventory = new InventoryServiceClient(system.inventory[0].address, system.credentials);
    const call = ask(
      inventory.listItems.bind(inventory),
      { pageSize: 1, pageToken: '', filter: '' },
      { token: accessToken },
    );
    expect((await refusalOf(call)).reason).to.equal('TOKEN_REVOKED');
    inventory.close();
    const auth = new AuthServiceClient(system.auth.address, system.credentials);
    const refreshed = ask(auth.refresh.bind(auth), { refreshToken, requestId: '' });
    expect((await refusalOf(refreshed)).reason).to.equal('REFRESH_INVALID');
    auth.close();

    // The receipt is final some seconds after the bound.
    const early = await run(['--json', 'receipt', number, '--export', path('early.receipt'), '--now']);
    expect([early.code, JSON.parse(early.out).final], early.err).to.deep.equal([0, false]);
    const interrupt = new AbortController();
    const interrupted = await run(['receipt', number, '--export', path('none.receipt')], {
      interrupt: interrupt.signal,
      onOutput: (text) => {
        if (text.includes('Waiting until')) interrupt.abort();
      },
    });
    expect([interrupted.code, interrupted.out]).to.deep.equal([4, '']);
    expect(await readFile(path('none.receipt'), 'utf8').catch(() => 'missing')).to.equal('missing');
    const file = path('alice.receipt');
    const exported = await run(['receipt', number, '--export', file]);
    expect(exported.code, exported.err).to.equal(0);
    expect(exported.err).to.include('Waiting until the evidence is final');
    transcript.receipt = exported.out;
    const verified = await run(['--json', 'receipt', 'verify', file, '--jwks', `${file}.jwks`]);
    expect(verified.code, verified.err).to.equal(0);
    const receipt = JSON.parse(verified.out);
    expect(receipt.revocation).to.deep.include({
      kind: 'SESSION',
      sequence: number,
      reason: 'laptop stolen',
      actor_name: 'olga',
      network: '127.0.0.1',
    });
    expect(receipt.revocation.user.name).to.equal('alice');
    const services = receipt.instances.map(
      (one: { service: string; state: string }) => `${one.service} ${one.state}`,
    );
    expect(services.sort()).to.deep.equal([
      'auth ENFORCED',
      'inventory ENFORCED',
      'inventory ENFORCED',
      'payment ENFORCED',
    ]);
    for (const one of receipt.instances) {
      expect(Date.parse(one.enforced_time)).to.be.at.least(Date.parse(receipt.revocation.revoke_time) - 1);
      expect(Date.parse(one.enforced_time)).to.be.below(
        Date.parse(receipt.revocation.enforced_everywhere_by),
      );
    }
  });

  it('prints what the page about incidents shows', async () => {
    const page = await readFile(new URL('../../docs/operating/incident.md', import.meta.url), 'utf8');
    const captured = /```console\n([\s\S]*?)```/.exec(page)?.[1] ?? '';
    const blocks = captured.split(/^\$ .*\n/m).slice(2);
    const device = "alice's laptop";
    const header = transcript.sessions
      .split('\n')
      .filter((line) => line.startsWith('SESSION') || line.includes(device));
    expect(
      [header.join('\n'), inOrder(transcript.revoked), transcript.receipt.trimEnd()].map(shown),
    ).to.deep.equal(blocks.map((block) => block.trimEnd()));
  });

  it('rejects a receipt after one changed byte, and one of another key', async () => {
    const file = path('alice.receipt');
    const text = await readFile(file, 'utf8');
    const at = text.indexOf('.') + 40;
    const changed = text.slice(0, at) + (text[at] === 'A' ? 'B' : 'A') + text.slice(at + 1);
    await writeFile(path('changed.receipt'), changed);
    const outcome = await run(['receipt', 'verify', path('changed.receipt'), '--jwks', `${file}.jwks`]);
    expect(outcome).to.include({ code: 5, out: '' });
    expect(outcome.err).to.match(/^✗ The receipt is not valid/);
    await writeFile(path('none.jwks'), '{"keys": []}');
    const unknown = await run(['receipt', 'verify', file, '--jwks', path('none.jwks')]);
    expect(unknown.code).to.equal(5);
    expect(unknown.err).to.include('do not have its key');
  });

  it('prints tables that fit the terminal', async () => {
    await laptop('a device with a long name, as people give them');
    const wide = await run(['sessions', 'alice'], { columns: 200 });
    expect(steady(wide.out).split('\n')[0]).to.match(
      /^SESSION +STARTED +LAST USED +DEVICE +CLIENT +NETWORK$/,
    );
    const narrow = await run(['sessions', 'alice'], { columns: 40 });
    expect(steady(narrow.out).split('\n\n')[0]).to.equal(
      [
        'SESSION    alice/3f9a1c0b',
        'STARTED    2026-11-30 14:03:00Z',
        'LAST USED  2026-11-30 14:03:00Z',
        'DEVICE     a device with a long name, as people give them',
        'CLIENT     direct',
        'NETWORK    127.0.0.1',
      ].join('\n'),
    );
    const instances = await run(['instances'], { columns: 120 });
    expect(instances.out).to.match(/^INSTANCE +STATE +LAG +LEASE +LAST SYNC +VERSION +STARTED$/m);
    for (const line of instances.out.trimEnd().split('\n')) expect(line.length).to.be.at.most(120);
    expect((await run(['instances'], { columns: 120, hasColor: true })).out).to.include('\u001b[32mserving');
    expect((await run(['instances'], { columns: 120 })).out).not.to.include('\u001b');
  });

  it('names a silent instance, and says that the revocation stands when the wait is interrupted', async function () {
    this.timeout(30_000);
    const stopped = system.inventory[1];
    await laptop('tablet');
    await laptop('phone');
    const { out } = await run(['--json', 'sessions', 'alice']);
    const nameOf = (device: string): string =>
      JSON.parse(out).sessions.find((one: { deviceName: string }) => one.deviceName === device).name;
    /** Works while an instance is frozen, and until it serves again. */
    const whileFrozen = async <T>(work: () => Promise<T>): Promise<T> => {
      stopped.kill('SIGSTOP');
      try {
        return await work();
      } finally {
        stopped.kill('SIGCONT');
        await until(async () => {
          const { instances } = JSON.parse((await run(['--json', 'instances'])).out);
          return instances.filter((one: { standing: string }) => one.standing === 'serving').length === 4;
        });
      }
    };
    const waited = await whileFrozen(() => run(['revoke', '--session', nameOf('tablet'), '--wait']));
    expect(waited.code, waited.err).to.equal(0);
    expect(waited.out).to.match(
      /^- inventory@\S+ is silent; its lease ended at .*, so it refuses calls since then/m,
    );

    const interrupt = new AbortController();
    const interrupted = await whileFrozen(() =>
      run(['revoke', '--session', nameOf('phone'), '--wait'], {
        interrupt: interrupt.signal,
        onOutput: (text) => {
          if (text.includes('✓')) interrupt.abort();
        },
      }),
    );
    expect(interrupted.code, interrupted.err).to.equal(4);
    expect(interrupted.err)
      .to.match(/The revocation stands/)
      .and.match(/Not confirmed yet: .*inventory@/);
  });

  it('follows events, and says when its own session was revoked', async function () {
    this.timeout(30_000);
    expect((await login('olga')).code).to.equal(0);
    const lines: string[] = [];
    const words = [
      'login',
      '--user',
      'olga',
      '--address',
      system.auth.address,
      '--password-stdin',
      '--context',
      'follower',
    ];
    expect((await run(words, { input: system.users.olga.password })).code).to.equal(0);
    const following = run(['events', '--follow', '--context', 'follower'], {
      onOutput: (text) => lines.push(text),
    });
    await until(async () => {
      await laptop('noise');
      return lines.some((line) => line.includes('session-established  alice'));
    });
    const contexts = JSON.parse(await readFile(path('contexts.json'), 'utf8'));
    const revoked = await run([
      'revoke',
      '--session',
      contexts.contexts.follower.sessionId,
      '--context',
      'olga',
    ]);
    expect(revoked.code, revoked.err).to.equal(0);
    const outcome = await following;
    expect(outcome.code, outcome.err).to.equal(3);
    expect(outcome.err).to.include('Your own session was revoked');
  });

  it('names the scope that is missing, and the role that grants it', async () => {
    expect((await login('alice')).code).to.equal(0);
    const refused = await run(['sessions', 'olga', '--context', 'alice']);
    expect(refused).to.include({ code: 1, out: '' });
    expect(refused.err)
      .to.include('requires scope auth.users.read')
      .and.include('The role admin or security grants it');
  });

  it('explains a refused call check by check, with the rules of the service', async () => {
    const { accessToken } = await laptop('explained');
    const method = 'auth.v1.UserService/GetUser';
    const refused = await run(['explain', '--method', method, '--context', 'olga'], { input: accessToken });
    expect(refused.code, refused.err).to.equal(5);
    expect(refused.out)
      .to.match(/^✓ signature: /m)
      .and.match(/^✓ revocation: /m);
    expect(refused.out)
      .to.match(/^✗ scope: SCOPE_MISSING: /m)
      .and.match(/The call would be refused/);
    const own = await run(['--json', 'token', '--context', 'olga']);
    const admitted = await run(['explain', '--method', method, '--context', 'olga'], {
      input: JSON.parse(own.out).accessToken,
    });
    expect(admitted.code, admitted.out + admitted.err).to.equal(0);
    const forged = await run(['explain', '--method', method, '--context', 'olga'], {
      input: `${accessToken}x`,
    });
    expect(forged.code).to.equal(5);
  });

  it('calls a method through reflection, and says what is wrong with a request', async () => {
    const listed = await run([
      'call',
      'auth.v1.UserService/ListUsers',
      '{"pageSize": 1}',
      '--context',
      'olga',
    ]);
    expect(listed.code, listed.err).to.equal(0);
    expect(JSON.parse(listed.out).users).to.have.length(1);
    const bad = await run(['call', 'auth.v1.UserService/GetUser', '{"nonsense": 1}', '--context', 'olga']);
    expect(bad.code).to.equal(2);
    expect(bad.err).to.include('auth.v1.GetUserRequest');
    const missing = await run([
      'call',
      'auth.v1.UserService/GetUser',
      '{"username": "nobody"}',
      '--context',
      'olga',
    ]);
    expect(missing.code).to.equal(1);
    expect(missing.err).to.match(/^NOT_FOUND/);
  });

  it('records network and request id of what an administrator did', async () => {
    const client = await run(['user', 'unlock', 'alice', '--context', 'olga']);
    expect(client.code, client.err).to.equal(0);
    const { out } = await run([
      '--json',
      'events',
      '--user',
      'alice',
      '--type',
      'account-unlocked',
      '--context',
      'olga',
    ]);
    const event = JSON.parse(out.trim().split('\n').at(-1) ?? '{}');
    expect(event.network).to.equal('127.0.0.1');
    expect(event.details.requestId).to.match(/^[0-9a-f-]{36}$/);
  });

  it('lists an instance that has shut down as stopped', async function () {
    this.timeout(30_000);
    await system.payment.stop();
    await until(
      async () => {
        const { out } = await run(['--json', 'instances', '--context', 'olga']);
        const payment = JSON.parse(out).instances.find(
          (one: { service: string }) => one.service === 'payment',
        );
        return payment?.standing === 'stopped';
      },
      { withinMs: 10_000, pollMs: 100 },
    );
  });
});

/** A text without what differs from run to run, with its columns aligned anew. */
function shown(text: string): string {
  const replaced = steady(text)
    .replaceAll(`@${hostname()}`, '@web1')
    .replaceAll(/\b\d+ ms after/g, '9 ms after')
    .replaceAll(/\.\d{3}Z/g, '.000Z')
    .replaceAll(/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, '00000000-0000-4000-8000-000000000000')
    .replaceAll(/^(Revoked\. Receipt |receipt +)\d+/gm, '$11');
  return replaced
    .split('\n')
    .map((line) => (/^(INSTANCE|\w+@)/.test(line) ? aligned(line) : line))
    .join('\n');
}

/** The lines of instances by name: they confirm in any order. */
function inOrder(text: string): string {
  const [first = '', ...lines] = text.trimEnd().split('\n');
  return [first, ...lines.sort((a, b) => a.localeCompare(b))].join('\n');
}

const COLUMNS = [23, 10, 26];

function aligned(line: string): string {
  return line
    .split(/ {2,}/)
    .map((cell, index) => cell.padEnd(COLUMNS[index] ?? 0))
    .join('')
    .trimEnd();
}
