/** Services of one's own, at an auth that sends what the real one would not. */

import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';
import { PassThrough } from 'node:stream';
import { parseEnv } from 'node:util';
import { type handleUnaryCall, Server, ServerCredentials } from '@grpc/grpc-js';
import { methodsOfDescriptorSet } from '@portcullis/guard/internal';
import { expect } from 'chai';
import { brokerUserConfig } from '../../cli/src/broker-config.js';
import { createContextStore } from '../../cli/src/contexts.js';
import { runProgram } from '../../cli/src/program.js';
import {
  ClientServiceService,
  ClientState,
  ListClientsResponse,
  type RegisteredClient,
} from '../../proto/gen/auth/v1/client_service.js';
import {
  PolicyServiceService,
  type RegisterServiceRequest,
  RegisterServiceResponse,
} from '../../proto/gen/auth/v1/policy_service.js';
import { type Nats, startNats } from '../../scripts/system/nats.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';

const NKEY = `U${'A'.repeat(55)}`;

/** What nats-server is told about one user. */
interface BrokerEntry {
  readonly nkey?: string;
  readonly permissions?: { readonly publish: readonly string[]; readonly subscribe: readonly string[] };
}

/** The user in the snippet of `service broker-config`, whose lists are JSON. */
function entryIn(snippet: string): BrokerEntry {
  const listOf = (name: string): string[] =>
    JSON.parse(new RegExp(`${name}: (\\[.*\\])`).exec(snippet)?.[1] ?? '[]');
  const nkey = /nkey: (\S+)/.exec(snippet)?.[1] ?? '';
  return { nkey, permissions: { publish: listOf('publish'), subscribe: listOf('subscribe') } };
}

describe('services at the command line', () => {
  let folder: Awaited<ReturnType<typeof makeTemporaryFolder>>;
  let server: Server;
  let address: string;
  let clients: Partial<RegisteredClient>[];
  /** The requests to register a service. */
  let registered: RegisterServiceRequest[];

  beforeEach(async () => {
    folder = await makeTemporaryFolder();
    clients = [];
    registered = [];
    server = new Server();
    const answering =
      (answer: () => object): handleUnaryCall<unknown, unknown> =>
      (_call, respond) =>
        respond(null, answer());
    const all = (definition: object) =>
      Object.fromEntries(Object.keys(definition).map((name) => [name, answering(() => ({}))]));
    server.addService(ClientServiceService, {
      ...all(ClientServiceService),
      listClients: answering(() => ListClientsResponse.fromPartial({ clients })),
    });
    server.addService(PolicyServiceService, {
      ...all(PolicyServiceService),
      registerService: (({ request }, respond) => {
        registered.push(request);
        respond(null, RegisterServiceResponse.fromPartial({}));
      }) satisfies handleUnaryCall<RegisterServiceRequest, RegisterServiceResponse>,
    });
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
        error === null ? resolve(bound) : reject(error),
      );
    });
    address = `127.0.0.1:${port}`;
  });
  afterEach(async () => {
    server.forceShutdown();
    await folder.remove();
  });

  async function run(words: readonly string[], issuer = 'https://auth.example') {
    const store = createContextStore({ PORTCULLIS_CONFIG: join(folder.path, 'contexts.json') });
    const payload = Buffer.from(JSON.stringify({ iss: issuer })).toString('base64url');
    await store.save('default', {
      address,
      username: 'olga',
      sessionId: '',
      accessToken: `e30.${payload}.e30`,
      accessTokenExpireTime: new Date(Date.now() + 300_000).toISOString(),
      refreshToken: 'refresh',
    });
    const [output, notes] = [new PassThrough(), new PassThrough()];
    const code = await runProgram({ terminal: { input: new PassThrough(), output, notes }, store, words });
    return { code, out: String(output.read() ?? ''), err: String(notes.read() ?? '') };
  }

  describe('that are registered', () => {
    const add = async (issuer: string) => {
      const proto = join(folder.path, 'shop.binpb');
      await writeFile(proto, '');
      const env = join(folder.path, 'shop.env');
      const outcome = await run(
        ['service', 'add', 'shop', '--proto', proto, '--out', folder.path, '--env', env],
        issuer,
      );
      return { ...outcome, env };
    };

    it('have settings that node reads', async () => {
      const { code, env } = await add('https://auth.example/a b#c');
      expect(code).to.equal(0);
      expect(await readFile(env, 'utf8')).to.include('ISSUER="https://auth.example/a b#c"\n');
    });

    it('have settings whose paths hold in any folder', async () => {
      const before = process.cwd();
      process.chdir(folder.path);
      try {
        await writeFile('shop.binpb', '');
        const { code } = await run(['service', 'add', 'shop', '--proto', 'shop.binpb', '--env', 'shop.env']);
        expect(code).to.equal(0);
        const { CLIENT_KEY_FILE, NATS_NKEY_FILE } = parseEnv(await readFile('shop.env', 'utf8'));
        for (const file of [CLIENT_KEY_FILE, NATS_NKEY_FILE]) {
          expect(isAbsolute(file ?? ''), file).to.equal(true);
          expect((await stat(file ?? '')).isFile()).to.equal(true);
        }
      } finally {
        process.chdir(before);
      }
    });

    it('have the rules of a file where the schema has none, or there is no schema', async () => {
      const rules = join(folder.path, 'rules.yaml');
      await writeFile(rules, 'services: {shop.v1.ShopService: {Buy: {scopes: shop.buy}, List: public}}');
      const { code, err } = await run(['service', 'add', 'shop', '--rules', rules, '--out', folder.path]);
      expect(code, err).to.equal(0);
      const [planned, done] = registered;
      expect([planned?.dryRun, done?.dryRun]).to.deep.equal([true, false]);
      const methods = methodsOfDescriptorSet(done?.descriptorSet ?? Buffer.alloc(0));
      expect(methods.map(({ path, rule }) => [path, rule?.scopes, rule?.isPublic])).to.deep.equal([
        ['/shop.v1.ShopService/Buy', ['shop.buy'], false],
        ['/shop.v1.ShopService/List', [], true],
      ]);
    });

    it('are not registered with rules that cannot be used, or without any', async () => {
      const rules = join(folder.path, 'rules.yaml');
      await writeFile(rules, 'services: {shop.v1.ShopService: {Buy: {scope: shop.buy}}}');
      const faulty = await run(['service', 'add', 'shop', '--rules', rules, '--out', folder.path]);
      expect(faulty.code).to.equal(2);
      expect(faulty.err).to.include('shop.v1.ShopService/Buy: scope is no condition: did you mean scopes?');
      const none = await run(['service', 'add', 'shop', '--out', folder.path]);
      expect([none.code, none.err.includes('--rules')]).to.deep.equal([2, true]);
      expect(registered).to.be.empty;
      expect(await stat(join(folder.path, 'shop.key.pem')).catch(() => 'missing')).to.equal('missing');
    });

    it('have no settings with a character that would begin another one', async () => {
      for (const issuer of ['https://auth.example\nNODE_OPTIONS=--require=/tmp/x', 'a"b', 'a\u0085b']) {
        const { code, err, env } = await add(issuer);
        expect(code).to.equal(1);
        expect(err).to.equal('ISSUER has a character that a settings file cannot have.\n');
        expect(await stat(env).catch(() => 'missing')).to.equal('missing');
      }
    });
  });

  describe('at the broker', () => {
    it('are those of the clients that are active and have a key', async () => {
      const state = ClientState.CLIENT_STATE_ACTIVE;
      clients = [
        { clientId: 'shop', brokerPublicKey: NKEY, state },
        { clientId: 'gone', brokerPublicKey: NKEY, state: ClientState.CLIENT_STATE_DISABLED },
        { clientId: 'keyless', brokerPublicKey: '', state },
      ];
      const { code, out } = await run(['service', 'broker-config']);
      expect(code).to.equal(0);
      expect(out).to.equal(`${brokerUserConfig({ clientId: 'shop', nkey: NKEY })}\n`);
    });

    it('are printed for none when one has a name or a key that would be a part of the configuration', async () => {
      const good = { clientId: 'shop', brokerPublicKey: NKEY, state: ClientState.CLIENT_STATE_ACTIVE };
      for (const strange of [
        { clientId: 'shop"] }, { user: "all' },
        { clientId: '*' },
        { clientId: 'shop.>' },
        { clientId: '' },
        { brokerPublicKey: `${NKEY} }` },
        { brokerPublicKey: NKEY.replace('U', 'S') },
      ]) {
        clients = [good, { ...good, ...strange }];
        const { code, out, err } = await run(['service', 'broker-config']);
        expect([code, out], JSON.stringify(strange)).to.deep.equal([1, '']);
        expect(err).to.equal('Auth has sent a client that no configuration can name.\n');
      }
    });

    it('have the rights that npm start gives them, also when one is named test', async () => {
      const dataDir = join(folder.path, 'nats');
      await mkdir(dataDir, { recursive: true });
      const nats: Nats = await startNats({ dataDir, port: 0, withTestUser: true });
      try {
        const keys = { shop: NKEY, test: NKEY.replace(/A$/, 'B') };
        await nats.allowKeys(keys);
        const { authorization } = JSON.parse(await readFile(join(dataDir, 'nats.conf'), 'utf8'));
        const given = (authorization.users as BrokerEntry[]).filter(({ nkey }) => nkey !== undefined);
        expect(given).to.deep.equal(
          Object.entries(keys).map(([clientId, nkey]) => entryIn(brokerUserConfig({ clientId, nkey }))),
        );
        expect(given[1]?.permissions?.publish).to.deep.equal(['portcullis.v1.security.test']);
      } finally {
        await nats.stop();
      }
    });
  });
});
