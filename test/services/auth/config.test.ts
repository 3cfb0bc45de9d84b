/** Tests of the configuration and of the bootstrap file. */

import { generateKeyPairSync } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { infinityPem, pemOf, weakKeys } from '../../../proofs/attack/weak-keys.js';
import { parseBootstrap, parseConfig } from '../../../services/auth/config.js';
import { OWN_SERVICE } from '../../../services/auth/policy/document.js';
import { ConfigurationError } from '../../../services/common/config/env.js';
import { createAuthority } from '../../support/certificates.js';
import { makeFolder, type TestFolder } from '../../support/folders.js';

const KEY_ENCRYPTION_KEY = Buffer.alloc(32, 7).toString('base64url');
const GOOD = {
  DATABASE_URL: 'postgresql://localhost/auth',
  PORTCULLIS_ISSUER: 'https://auth.example',
  PORTCULLIS_LISTEN: '127.0.0.1:0',
  PORTCULLIS_OPS_LISTEN: '127.0.0.1:0',
  PORTCULLIS_KEY_ENCRYPTION_KEY: KEY_ENCRYPTION_KEY,
};
const PUBLIC_KEY = generateKeyPairSync('ed25519')
  .publicKey.export({ type: 'spki', format: 'pem' })
  .toString();

describe('the configuration of auth', () => {
  let folder: TestFolder;

  before(async () => {
    folder = await makeFolder();
  });
  after(() => folder.remove());

  const fileOf = (contents: string): string => {
    const path = join(folder.path, 'bootstrap.json');
    writeFileSync(path, contents);
    return path;
  };
  const faultsOf = (env: NodeJS.ProcessEnv): string[] => {
    try {
      parseConfig(env);
    } catch (error) {
      if (error instanceof ConfigurationError) return error.faults.map(({ variable }) => variable).sort();
      throw error;
    }
    return [];
  };

  it('has defaults for everything but secrets, addresses and names', () => {
    expect(parseConfig(GOOD)).to.deep.include({
      natsUrl: undefined,
      signingAlgorithm: 'EdDSA',
      accessTokenSeconds: 300,
      leaseMs: 5000,
      loginBinding: 'off',
      loginLimits: { failuresPerName: 20, failuresPerPeer: 300, windowSeconds: 300 },
      reflection: false,
      bootstrap: { users: [], clients: [] },
    });
  });

  it('requires the database, the issuer, the ports and the key-encryption key, and reports all faults together', () => {
    expect(faultsOf({})).to.deep.equal(Object.keys(GOOD).sort());
  });

  it('accepts several hosts of the broker, with a password or a token, and says what is wrong with others', () => {
    for (const url of ['nats://u:p@a:1,b:2', 'nats://t@a', 'tls://u:p@[::1]:1,tls://b', 'nats://a, b']) {
      expect(parseConfig({ ...GOOD, NATS_URL: url }).natsUrl, url).to.equal(url);
    }
    for (const url of ['http://a:1', 'a:1', 'nats://u:p/w@a', 'nats://u:10%@a', 'nats://a,', 'nats://a;b']) {
      expect(() => parseConfig({ ...GOOD, NATS_URL: url }), url).to.throw('NATS_URL must be nats://');
    }
  });

  it('rejects values out of range, and unknown variables', () => {
    const bad = {
      PORTCULLIS_ACCESS_TOKEN_SECONDS: '3601',
      PORTCULLIS_ASSERTIONS_AT_ONCE: '65',
      PORTCULLIS_ASSERTIONS_WAITING: '0',
      PORTCULLIS_KEY_ENCRYPTION_KEY: Buffer.alloc(31).toString('base64url'),
      PORTCULLIS_LEASE_MS: '0',
      PORTCULLIS_LOGIN_BINDING: 'always',
      PORTCULLIS_LOGIN_FAILURES_PER_NAME: '0',
      PORTCULLIS_LOGIN_FAILURES_PER_PEER: 'many',
      PORTCULLIS_LOGIN_WINDOW_SECONDS: '86401',
      PORTCULLIS_PASSWORD_HASHES_AT_ONCE: '0',
      PORTCULLIS_PASSWORD_HASHES_WAITING: '10001',
      PORTCULLIS_QUEUE_WAIT_MS: '99',
      PORTCULLIS_REFRESHES_PER_TOKEN: '0',
      PORTCULLIS_REFRESH_RETRY_SECONDS: '301',
      PORTCULLIS_SIGNING_ALGORITHM: 'HS256',
      PORTCULLIS_TYPO: '1',
    };
    expect(faultsOf({ ...GOOD, ...bad })).to.deep.equal(Object.keys(bad).sort());
  });

  it('takes another key-encryption key, as a former or a next one, unless it is the same', () => {
    const another = Buffer.alloc(32, 9);
    for (const which of ['PREVIOUS', 'NEXT'] as const) {
      const variable = `PORTCULLIS_KEY_ENCRYPTION_KEY_${which}`;
      const member = ({ PREVIOUS: 'previous', NEXT: 'next' } as const)[which];
      const config = parseConfig({ ...GOOD, [variable]: another.toString('base64url') });
      expect(config.keyEncryptionKeys[member]).to.deep.equal(another);
      const same = { ...GOOD, [variable]: GOOD.PORTCULLIS_KEY_ENCRYPTION_KEY };
      expect(faultsOf(same)).to.deep.equal([variable]);
      expect(faultsOf({ ...GOOD, [variable]: 'short' })).to.deep.equal([variable]);
    }
  });

  it('allows the login binding only with client certificates', () => {
    for (const binding of ['optional', 'required']) {
      expect(faultsOf({ ...GOOD, PORTCULLIS_LOGIN_BINDING: binding })).to.deep.equal([
        'PORTCULLIS_LOGIN_BINDING',
      ]);
    }
    expect(parseConfig({ ...GOOD, PORTCULLIS_LOGIN_BINDING: 'off' }).loginBinding).to.equal('off');
  });

  it('opens a console only where browsers can tell its origin, and never beside a required certificate', () => {
    const listen = { PORTCULLIS_CONSOLE_LISTEN: '127.0.0.1:52051' };
    expect(parseConfig(GOOD).consoleListen).to.equal(undefined);
    expect(parseConfig({ ...GOOD, ...listen }).consoleListen).to.equal('127.0.0.1:52051');
    const origin = { PORTCULLIS_CONSOLE_ORIGIN: 'https://console.example' };
    const open = { PORTCULLIS_CONSOLE_LISTEN: '0.0.0.0:52051', PORTCULLIS_PLAINTEXT: 'allow' };
    expect(parseConfig({ ...GOOD, ...listen, ...origin }).consoleOrigin).to.equal('https://console.example');
    expect(faultsOf({ ...GOOD, ...open })).to.deep.equal([
      'PORTCULLIS_CONSOLE_ORIGIN',
      'PORTCULLIS_TLS_CERT_FILE',
    ]);
    expect(faultsOf({ ...GOOD, ...open, ...origin })).to.deep.equal(['PORTCULLIS_TLS_CERT_FILE']);
    expect(faultsOf({ ...GOOD, ...origin })).to.deep.equal(['PORTCULLIS_CONSOLE_ORIGIN']);
    for (const wrong of ['https://console.example/', 'https://Console.example', 'ftp://console.example']) {
      const given = { ...GOOD, ...listen, PORTCULLIS_CONSOLE_ORIGIN: wrong };
      expect(faultsOf(given), wrong).to.deep.equal(['PORTCULLIS_CONSOLE_ORIGIN']);
    }
    const exposed = { PORTCULLIS_CONSOLE_LISTEN: '0.0.0.0:52051', ...origin };
    expect(faultsOf({ ...GOOD, ...exposed })).to.deep.equal(['PORTCULLIS_TLS_CERT_FILE']);
    expect(faultsOf({ ...GOOD, ...listen, PORTCULLIS_LOGIN_BINDING: 'required' })).to.include(
      'PORTCULLIS_CONSOLE_LISTEN',
    );
  });

  it('requires HTTPS in the origin of the console, except on loopback without a certificate', async () => {
    const listen = { PORTCULLIS_CONSOLE_LISTEN: '127.0.0.1:52051' };
    const faults = (origin: string, tls: NodeJS.ProcessEnv = {}): string[] =>
      faultsOf({ ...GOOD, ...listen, ...tls, PORTCULLIS_CONSOLE_ORIGIN: origin });
    for (const origin of ['http://localhost:52051', 'http://127.0.0.2', 'http://[::1]:52051']) {
      expect(faults(origin), origin).to.deep.equal([]);
    }
    expect(faults('http://console.example')).to.deep.equal(['PORTCULLIS_CONSOLE_ORIGIN']);
    const { certFile, keyFile } = await (await createAuthority(folder.path)).issue();
    const tls = { PORTCULLIS_TLS_CERT_FILE: certFile, PORTCULLIS_TLS_KEY_FILE: keyFile };
    expect(faults('https://localhost:52051', tls)).to.deep.equal([]);
    expect(faults('http://localhost:52051', tls)).to.deep.equal(['PORTCULLIS_CONSOLE_ORIGIN']);
  });

  it('reads the bootstrap file', () => {
    const contents = {
      users: [{ username: 'Alice', password: 'long enough', roles: ['customer'] }],
      clients: [
        { client_id: 'payment', public_key_pem: PUBLIC_KEY, audiences: ['auth'], scopes: ['auth.sync'] },
        {
          client_id: 'legacy',
          secret: 'x'.repeat(32),
          audiences: ['auth'],
          scopes: [],
          exchange_audiences: ['a'],
          exchange_scopes: ['a.read'],
          certificate_bound: true,
        },
      ],
    };
    const config = parseConfig({ ...GOOD, PORTCULLIS_BOOTSTRAP_FILE: fileOf(JSON.stringify(contents)) });
    expect(config.bootstrap.users).to.deep.equal([
      { username: 'alice', password: 'long enough', roles: ['customer'] },
    ]);
    expect(
      config.bootstrap.clients.map((client) => [
        client.clientId,
        client.exchangeAudiences,
        client.exchangeScopes,
        client.certificateBound,
      ]),
    ).to.deep.equal([
      ['payment', [], undefined, false],
      ['legacy', ['a'], ['a.read'], true],
    ]);
  });

  it('reports every fault of the bootstrap file with its place, and without secrets', () => {
    const secret = 'hunter2';
    const contents = {
      users: [
        { username: 'a b', password: secret, roles: ['Root'] },
        { username: 'alice', password: 'long enough', roles: [], extra: 1 },
      ],
      clients: [
        { client_id: 'UPPER', secret, audiences: [], scopes: [] },
        { client_id: 'none', audiences: [], scopes: [] },
        { client_id: 'both', secret: 'x'.repeat(32), public_key_pem: PUBLIC_KEY, audiences: [], scopes: [] },
        { client_id: 'bad', public_key_pem: 'no pem', audiences: [], scopes: [] },
      ],
    };
    const parsed = parseBootstrap(JSON.stringify(contents));
    const faults = 'faults' in parsed ? parsed.faults : [];
    const text = faults.join('\n');
    const places = [
      'users.0.username',
      'users.0.password',
      'users.0.roles.0',
      'users.1',
      'clients.0.client_id',
    ];
    for (const place of [
      ...places,
      'clients.0.secret',
      'clients.1',
      'clients.2',
      'clients.3.public_key_pem',
    ]) {
      expect(text).to.contain(`at ${place}: `);
    }
    expect(text).to.not.contain(secret);
    expect(faultsOf({ ...GOOD, PORTCULLIS_BOOTSTRAP_FILE: fileOf('{') })).to.deep.equal([
      'PORTCULLIS_BOOTSTRAP_FILE',
    ]);
  });

  it('reads the policy of the bootstrap file, and completes it with what is built in', () => {
    const greeter = { audience: 'greeter', scopes: ['greeter.hello'] };
    const policy = {
      services: [greeter],
      roles: [{ role: 'guest', scopes: ['auth.self', 'greeter.hello'] }],
    };
    const users = [{ username: 'alice', password: 'long enough', roles: ['guest', 'admin'] }];
    const parsed = parseBootstrap(JSON.stringify({ policy, users }));
    if ('faults' in parsed) throw new Error(parsed.faults.join('\n'));
    expect(parsed.policy?.services).to.deep.equal([
      { ...greeter, description: '', clientIds: [] },
      OWN_SERVICE,
    ]);
    expect(parsed.policy?.roles.map(({ role }) => role)).to.deep.equal(['guest', 'admin', 'security']);
  });

  it('reports the faults of the policy, and roles of users that it lacks', () => {
    const service = { audience: 'greeter', scopes: ['greeter.hello', 'auth.revoke'] };
    const user = { username: 'alice', password: 'long enough', roles: ['guest', 'security'] };
    const faultsIn = (contents: object) => {
      const parsed = parseBootstrap(JSON.stringify(contents));
      return 'faults' in parsed ? parsed.faults : [];
    };
    expect(faultsIn({ policy: { services: [service], roles: [] } })).to.deep.equal([
      'has a fault at policy: services[0].scopes[1] must not be auth or begin with auth., which is reserved',
    ]);
    expect(faultsIn({ policy: { services: [], roles: [] }, users: [user] })).to.deep.equal([
      'has a fault at users.0.roles.0: must be one of admin, security',
    ]);
    expect(faultsIn({ policy: { services: [], roles: [], more: 1 } })).to.have.length(1);
  });

  it('rejects client keys that are weak, private or of an unsupported type', function () {
    this.timeout(180_000);
    const rsa = generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey;
    const curve = generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).publicKey;
    const own = generateKeyPairSync('ed25519').privateKey;
    const pems = [
      rsa.export({ type: 'spki', format: 'pem' }),
      curve.export({ type: 'spki', format: 'pem' }),
      own.export({ type: 'pkcs8', format: 'pem' }),
      infinityPem(),
      ...weakKeys().map(({ jwk }) => pemOf(jwk)),
    ];
    for (const pem of pems) {
      const client = { client_id: 'x', public_key_pem: pem.toString(), audiences: [], scopes: [] };
      expect(parseBootstrap(JSON.stringify({ clients: [client] }))).to.have.property('faults');
    }
  });
});
