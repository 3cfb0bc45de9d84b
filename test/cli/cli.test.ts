/** The command line against a running system: logins, the policy, and a service of one's own from its schema to its broker. */

import { randomUUID } from 'node:crypto';
import { chmod, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { credentials, Server } from '@grpc/grpc-js';
import { codeRules, createGuard } from '@portcullis/guard';
import { expect } from 'chai';
import { connect as connectNats, nkeyAuthenticator } from 'nats';
import { createContextStore } from '../../cli/src/contexts.js';
import { runProgram } from '../../cli/src/program.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { descriptorSetWith } from '../support/descriptor-set.js';
import { identity } from '../support/echo.js';
import { sharedSystem, type TestSystem } from '../support/system.js';
import { until } from '../support/waiting.js';

interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

describe('the command line', () => {
  let system: TestSystem;
  let folder: Awaited<ReturnType<typeof makeTemporaryFolder>>;
  const path = (name: string): string => join(folder.path, name);

  before(async function () {
    this.timeout(120_000);
    system = await sharedSystem();
    folder = await makeTemporaryFolder();
  });
  after(() => folder.remove());

  async function run(words: readonly string[], input = ''): Promise<Outcome> {
    const [output, notes, stdin] = [new PassThrough(), new PassThrough(), new PassThrough()];
    stdin.end(input);
    const texts = [output, notes].map(async (stream) => {
      const parts: string[] = [];
      for await (const part of stream) parts.push(String(part));
      return parts.join('');
    });
    const terminal = { input: stdin, output, notes };
    const store = createContextStore({ PORTCULLIS_CONFIG: path('config/contexts.json') });
    const code = await runProgram({ terminal, store, words });
    output.end();
    notes.end();
    const [out = '', err = ''] = await Promise.all(texts);
    return { code, out, err };
  }

  const logIn = (name: 'alice' | 'olga', context = 'default', password = system.users[name].password) =>
    run(
      ['login', '--user', name, '--address', system.auth.address, '--password-stdin', '--context', context],
      `${password}\n`,
    );

  it('tells who has not logged in what to do', async () => {
    expect(await run(['policy', 'get'])).to.deep.equal({
      code: 3,
      out: '',
      err: 'Nobody is logged in: begin with portcullis login.\n',
    });
    const wrong = await logIn('olga', 'default', 'wrong password');
    expect(wrong).to.include({ code: 1, out: '' });
    expect(wrong.err).to.match(/^LOGIN_FAILED: /);
    expect((await run(['login', '--user', 'olga', '--address', system.auth.address])).code).to.equal(2);
    expect((await run(['policy', 'get'])).code).to.equal(3);
  });

  it('keeps a session in a file of its owner alone, and ends it everywhere', async () => {
    expect(await logIn('alice', 'hers')).to.include({ code: 0, out: 'Logged in as alice.\n' });
    const file = path('config/contexts.json');
    expect((await stat(file)).mode & 0o777).to.equal(0o600);
    expect((await stat(path('config'))).mode & 0o777).to.equal(0o700);
    expect(await readFile(file, 'utf8')).not.to.include(system.users.alice.password);
    const { out } = await run(['--json', 'token', '--context', 'hers']);
    expect(JSON.parse(out))
      .to.have.property('accessToken')
      .that.matches(/^[\w-]+\.[\w-]+\.[\w-]+$/);
    expect(await run(['logout', '--context', 'hers'])).to.include({ code: 0 });
    expect((await run(['token', '--context', 'hers'])).code).to.equal(3);
  });

  it('renews the session in two commands at once, and the session survives it', async () => {
    await logIn('alice', 'twice');
    const file = path('config/contexts.json');
    const contexts = JSON.parse(await readFile(file, 'utf8'));
    contexts.contexts.twice.accessTokenExpireTime = new Date(0).toISOString();
    await writeFile(file, JSON.stringify(contexts));
    const both = await Promise.all([1, 2].map(() => run(['token', '--context', 'twice'])));
    expect(both.map(({ code }) => code)).to.deep.equal([0, 0]);
    contexts.contexts.twice = JSON.parse(await readFile(file, 'utf8')).contexts.twice;
    contexts.contexts.twice.accessTokenExpireTime = new Date(0).toISOString();
    await writeFile(file, JSON.stringify(contexts));
    expect((await run(['token', '--context', 'twice'])).code).to.equal(0);
  });

  it('refuses a file of another version without showing it', async () => {
    const other = path('other.json');
    await writeFile(other, '{"version":2,"secret":"abc"}');
    const store = createContextStore({ PORTCULLIS_CONFIG: other });
    const error = await store.load(undefined).then(undefined, (failure: unknown) => failure);
    expect(String(error)).to.include('another version').and.not.include('abc');
  });

  it('sends no password in plaintext to another machine', async () => {
    const { code, err } = await run(
      ['login', '--user', 'olga', '--address', '192.0.2.1:50051', '--password-stdin'],
      'secret',
    );
    expect(code).to.equal(1);
    expect(err).to.include('plaintext').and.not.include('secret');
  });

  describe('of an administrator', () => {
    before(async () => {
      expect((await logIn('olga')).code).to.equal(0);
    });

    it('prints the policy, plans a change of it, applies it, and takes it back', async () => {
      const { out: before } = await run(['policy', 'get', '--context', 'default']);
      expect(before).to.include('- audience: inventory').and.include('role: customer');
      const file = path('policy.yaml');
      await writeFile(file, before);
      expect(await run(['policy', 'plan', file])).to.include({ code: 0, out: 'Nothing would change.\n' });
      const visitor = '  - role: visitor\n    description: May look\n    scopes:\n      - inventory.read\n';
      const changed = before.replace('roles:\n', `roles:\n${visitor}`);
      await writeFile(file, changed);
      const planned = await run(['policy', 'plan', file]);
      expect(planned.out).to.include('+ role visitor: scope inventory.read').and.include('etag: ');
      const etag = /etag: (\S+)/.exec(planned.out)?.[1] ?? '';
      expect((await run(['policy', 'apply', file, '--etag', etag])).out).to.equal(
        planned.out.replace(/\n\netag.*/s, '\n'),
      );
      const late = await run(['policy', 'apply', file, '--etag', etag]);
      expect(late.code).to.equal(1);
      expect(late.err).to.match(/^ETAG_MISMATCH: .*\n.*policy plan again/);
      await writeFile(file, before);
      expect((await run(['policy', 'apply', file])).out).to.include('- role visitor');
    });

    it('changes what a client may ask for, once for each request id', async () => {
      const { out: before } = await run(['policy', 'get']);
      expect(before).to.include('clients:').and.include('- client_id: payment');
      const file = path('rights.yaml');
      const clients = '\nclients:\n  - client_id: inventory\n';
      const withRights = (rights: string) => before.replace(/\nclients:\n.*$/s, `${clients}${rights}`);
      const had = '    audiences:\n      - auth\n    scopes:\n      - auth.sync\n';
      await writeFile(file, withRights(`${had}    exchange_audiences:\n      - payment\n`));
      const planned = await run(['policy', 'plan', file]);
      const etag = /etag: (\S+)/.exec(planned.out)?.[1] ?? '';
      const words = ['policy', 'apply', file, '--etag', etag, '--request-id', randomUUID()];
      const applied = await run(words);
      expect(applied).to.include({ code: 0, out: '+ client inventory: exchange audience payment\n' });
      expect(await run(words)).to.deep.equal(applied);
      await writeFile(file, withRights(had));
      const back = await run(['policy', 'apply', file]);
      expect(back).to.include({ code: 0, out: '- client inventory: exchange audience payment\n' });
      expect(back.err).to.include('0 users and 1 clients');
    });

    it('names every fault of a policy file, and its place', async () => {
      const file = path('bad.yaml');
      for (const [text, fault] of [
        ['services: [{audience: a, scope: [x]}]', /services\.0.*scope/],
        ['roles: [{role: a}, {scopes: [x]}]', /roles\.1\.role/],
        ['roles: [', /fault in line 1: .*bracket/],
        ['a: &x [1]\nb: [*x, *x]', /uses aliases/],
      ] as const) {
        await writeFile(file, text);
        const { code, err } = await run(['policy', 'plan', file]);
        expect(code, text).to.equal(2);
        expect(err, text).to.match(fault);
      }
      expect((await run(['policy', 'plan', path('missing.yaml')])).code).to.equal(2);
    });

    it('brings a service in: its scopes, its client, its keys, and its user at the broker', async function () {
      this.timeout(60_000);
      const proto = path('greeter.binpb');
      await writeFile(proto, descriptorSetWith('greeter', 'greeter.call'));
      const nats = `nats://127.0.0.1:${new URL(system.nats?.url('auth') ?? '').port}`;
      const words = ['service', 'add', 'greeter', '--proto', proto, '--role', 'customer'];
      words.push('--out', path('keys'), '--nats-url', nats, '--env', path('greeter.env'));

      const dry = await run([...words, '--dry-run']);
      expect(dry.out).to.include('+ role customer: scope greeter.call');
      expect(await stat(path('keys')).catch(() => undefined)).to.equal(undefined);

      const added = await run(words);
      expect(added.code, added.err).to.equal(0);
      expect(added.out).to.include('+ service greeter: scope greeter.call');
      for (const name of ['greeter.key.pem', 'greeter.nkey']) {
        expect((await stat(join(path('keys'), name))).mode & 0o777, name).to.equal(0o600);
      }
      const key = await readFile(join(path('keys'), 'greeter.key.pem'), 'utf8');
      expect(added.out + added.err).not.to.include(key.split('\n')[1]);
      const again = JSON.parse((await run(['--json', ...words])).out);
      expect(again).to.deep.include({ clientCreated: false, changes: [] });

      const settings = Object.fromEntries(
        (await readFile(path('greeter.env'), 'utf8'))
          .trim()
          .split('\n')
          .map((line) => line.split(/=(.*)/s).slice(0, 2) as [string, string]),
      );
      expect(settings).to.include({ ISSUER: system.issuer, CLIENT_ID: 'greeter', NATS_URL: nats });
      const config = await run(['service', 'broker-config']);
      expect(config.out).to.include('# greeter').and.include('portcullis.v1.security.greeter');

      // The broker takes the new user without a restart, with the rights of a service and no others.
      const seed = Buffer.from(await readFile(settings['NATS_NKEY_FILE'] ?? '', 'utf8'));
      const authenticator = nkeyAuthenticator(new Uint8Array(Buffer.from(seed.toString().trim())));
      await until(() =>
        connectNats({ servers: nats, authenticator, reconnect: false }).then(
          async (connection) => {
            await connection.close();
            return true;
          },
          () => false,
        ),
      );

      const guard = await createGuard({
        issuer: settings['ISSUER'] ?? '',
        audience: 'greeter',
        auth: {
          address: settings['AUTH_ADDRESS'] ?? '',
          credentials: credentials.createInsecure(),
          clientId: 'greeter',
          clientKey: key,
        },
        nats: { url: nats, files: { nkeyFile: settings['NATS_NKEY_FILE'] ?? '' } },
        log: 'silent',
      });
      try {
        const definition = {
          Call: {
            path: '/greeter.v1.Service/Call',
            requestStream: false as const,
            responseStream: false as const,
            requestSerialize: identity,
            requestDeserialize: identity,
            responseSerialize: identity,
            responseDeserialize: identity,
          },
        };
        const server = new Server({ interceptors: [guard.interceptor] });
        guard.addService(server, definition, codeRules(definition, { Call: { scopes: 'greeter.call' } }), {
          Call: (request) => request,
        });
        await guard.ready;
        await until(() => guard.state().broker.every(({ state }) => state === 'connected'));
        await logIn('alice', 'hers');
        const { accessToken } = JSON.parse((await run(['--json', 'token', '--context', 'hers'])).out);
        expect(await guard.authenticateToken(accessToken, 'greeter')).to.have.property('scopes');
        await run(['logout', '--context', 'hers']);
        await until(() =>
          guard.authenticateToken(accessToken, 'greeter').then(
            () => false,
            () => true,
          ),
        );
      } finally {
        await guard.close();
      }
    });

    it('does not take the client of somebody else', async () => {
      const proto = path('stolen.binpb');
      await writeFile(proto, descriptorSetWith('payment2', 'payment2.call'));
      await run([
        '--context',
        'default',
        'service',
        'add',
        'payment2',
        '--proto',
        proto,
        '--out',
        path('first'),
      ]);
      const { code, err } = await run([
        '--context',
        'default',
        'service',
        'add',
        'payment2',
        '--proto',
        proto,
        '--out',
        path('second'),
      ]);
      expect(code).to.equal(1);
      expect(err).to.include('another key');
    });

    it('takes no key that others could know, nor one behind a link', async () => {
      const proto = path('shared.binpb');
      await writeFile(proto, descriptorSetWith('shared', 'shared.call'));
      const words = [
        '--context',
        'default',
        'service',
        'add',
        'shared',
        '--proto',
        proto,
        '--out',
        path('shared'),
      ];
      expect((await run(words)).code).to.equal(0);
      await chmod(join(path('shared'), 'shared.key.pem'), 0o644);
      const open = await run(words);
      expect(open.code).to.equal(1);
      expect(open.err).to.include('only you can read');
      await chmod(join(path('shared'), 'shared.key.pem'), 0o600);
      await symlink(join(path('shared'), 'shared.key.pem'), path('linked.key.pem'));
      const linked = await run([
        '--context',
        'default',
        'service',
        'add',
        'linked',
        '--proto',
        proto,
        '--out',
        folder.path,
      ]);
      expect(linked.code).to.equal(1);
    });

    it('says which file is missing, and which key is none', async () => {
      const missing = await run([
        '--context',
        'default',
        'service',
        'add',
        'x',
        '--proto',
        path('none.binpb'),
      ]);
      expect(missing.code).to.equal(2);
      expect(missing.err).to.include('buf build');
      await writeFile(path('broken.key.pem'), 'no key', { mode: 0o600 });
      const proto = path('broken.binpb');
      await writeFile(proto, descriptorSetWith('broken', 'broken.call'));
      const broken = await run([
        '--context',
        'default',
        'service',
        'add',
        'broken',
        '--proto',
        proto,
        '--out',
        folder.path,
      ]);
      expect(broken.err).to.include('no private key in PEM');
      expect(broken.err).not.to.include('no key\n');
    });
  });
});
