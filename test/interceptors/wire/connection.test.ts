/** Tokens in plaintext: the calls that the guard rejects, and the channels that the library does not open. */

import { generateKeyPairSync } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { type Client, credentials, Metadata, ServerCredentials } from '@grpc/grpc-js';
import { expect } from 'chai';
import {
  channelOptionsFor,
  createExchange,
  createServiceTokenSource,
  type Plaintext,
} from '../../../interceptors/src/client.js';
import { createGuard } from '../../../interceptors/src/index.js';
import { makeTemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { createAuthority, THIS_MACHINE } from '../../support/certificates.js';
import { bearer, callEcho, type Echo, type EchoListener, startEcho } from '../../support/echo.js';
import { AUDIENCE, ISSUER, TestIssuer } from '../../support/issuer.js';
import { outcomeOf, rejectionOf } from '../../support/outcomes.js';

const SETUP_TIMEOUT_MS = 60_000;
const insecure = credentials.createInsecure();
const tls = credentials.createSsl();

describe('a token in plaintext', () => {
  let folder: Awaited<ReturnType<typeof makeTemporaryFolder>>;
  let issuer: TestIssuer;
  let echo: Echo | undefined;
  let sockets = 0;
  /** Addresses whose peers do not use loopback. A Unix socket has no address, and exists everywhere. */
  let beyond: string[];

  before(async function () {
    this.timeout(SETUP_TIMEOUT_MS);
    folder = await makeTemporaryFolder();
    issuer = await TestIssuer.create();
    beyond = [unixSocket(), ...addressesOfThisMachine()];
  });
  afterEach(async () => {
    await echo?.stop();
    echo = undefined;
  });
  after(() => folder?.remove());

  function unixSocket(): string {
    sockets += 1;
    return `unix:${join(folder.path, `${sockets}.sock`)}`;
  }

  async function start(
    listener: EchoListener,
    options: { plaintext?: Plaintext; faults?: string[] } = {},
  ): Promise<Echo> {
    await echo?.stop();
    const { plaintext, faults = [] } = options;
    const observer = { tokenInvalid: (fault: string) => void faults.push(fault) };
    echo = await startEcho(issuer, { plaintext, observer }, listener);
    await echo.guard.ready;
    return echo;
  }

  function plain(bind: string): EchoListener {
    return { bind, server: ServerCredentials.createInsecure(), client: insecure };
  }

  it('from another machine is rejected without verification', async () => {
    for (const bind of beyond) {
      const faults: string[] = [];
      const { client, trace } = await start(plain(bind), { faults });
      for (const token of [await issuer.token(), 'forged', await issuer.sign({})]) {
        expect(await call(client, 'Unary', bearer(token)), bind).to.equal('UNAUTHENTICATED TLS_REQUIRED');
      }
      expect(trace.started, bind).to.equal(0);
      expect(faults, bind).to.deep.equal(['plaintext', 'plaintext', 'plaintext']);
      expect(echo?.guard.state().tokens, 'verified tokens').to.equal(0);
    }
  });

  it('does not affect calls without a token and public methods', async () => {
    const { client } = await start(plain(unixSocket()));
    expect(await call(client, 'Unary', new Metadata())).to.equal('UNAUTHENTICATED TOKEN_MISSING');
    expect(await call(client, 'Public', new Metadata())).to.equal('OK');
    expect(await call(client, 'Public', bearer('whatever'))).to.equal('OK');
  });

  it('is accepted on loopback, and where the operator allows it', async () => {
    for (const bind of ['127.0.0.1:0', 'localhost:0']) {
      const { client } = await start(plain(bind));
      expect(await call(client, 'Unary', bearer(await issuer.token())), bind).to.equal('OK');
    }
    for (const bind of beyond) {
      const { client } = await start(plain(bind), { plaintext: 'allow' });
      expect(await call(client, 'Unary', bearer(await issuer.token())), bind).to.equal('OK');
    }
  });

  it('is not found on encrypted connections', async function () {
    this.timeout(SETUP_TIMEOUT_MS);
    const authority = await createAuthority(folder.path);
    const names = [...THIS_MACHINE, ...addressesOfThisMachine().map((address) => `IP:${hostOf(address)}`)];
    const identity = await authority.issue({ names });
    const pair = {
      private_key: await readFile(identity.keyFile),
      cert_chain: await readFile(identity.certFile),
    };
    const server = ServerCredentials.createSsl(null, [pair]);
    const client = credentials.createSsl(await readFile(authority.certFile));
    for (const bind of [unixSocket(), ...addressesOfThisMachine()]) {
      const started = await start({ bind, server, client });
      expect(await call(started.client, 'Unary', bearer(await issuer.token())), bind).to.equal('OK');
    }
  });

  describe('is never sent by a channel', () => {
    const local = [
      '127.0.0.1:50051',
      '127.9.9.9:1',
      'localhost:50051',
      'LOCALHOST:1',
      '[::1]:50051',
      'dns:localhost:50051',
      'dns:///localhost:50051',
      'ipv4:127.0.0.1:1,127.0.0.2:1',
      'ipv6:[::1]:1',
      'unix:/run/auth.sock',
      'unix:///run/auth.sock',
    ];
    const remote = [
      'auth.example:50051',
      '10.0.0.1:50051',
      '0.0.0.0:50051',
      '[::]:50051',
      '[fd00::1]:50051',
      'localhost.example:50051',
      '127.0.0.1.example:50051',
      '128.0.0.1:50051',
      'dns:auth.example:50051',
      'dns://127.0.0.1/auth.example:50051',
      'ipv4:127.0.0.1:1,10.0.0.1:1',
      'xds:///auth',
      '',
    ];

    it('that leaves this machine, unless it is encrypted or allowed', () => {
      for (const address of local) channelOptionsFor({ address, credentials: insecure });
      for (const address of remote) {
        const open = (more: { plaintext?: Plaintext }) => () =>
          channelOptionsFor({ address, credentials: insecure, ...more });
        expect(open({}), address).to.throw(TypeError, 'in plaintext');
        expect(open({ plaintext: 'loopback' }), address).to.throw(TypeError, 'in plaintext');
        open({ plaintext: 'allow' })();
        channelOptionsFor({ address, credentials: tls });
      }
    });

    it('through a proxy that the environment names', () => {
      const address = '127.0.0.1:50051';
      const proxy = (options: object): unknown =>
        Object.entries(options).find(([name]) => /proxy/.test(name))?.[1];
      expect(proxy(channelOptionsFor({ address, credentials: insecure }))).to.equal(0);
      expect(proxy(channelOptionsFor({ address, credentials: tls }))).to.equal(undefined);
    });

    it('opened by any part of the library', async () => {
      const { privateKey: clientKey } = generateKeyPairSync('ed25519');
      const auth = { address: 'auth.example:50051', credentials: insecure, clientId: 'echo', clientKey };
      const identity = { ...auth, issuer: ISSUER };
      expect(() => createServiceTokenSource(identity)).to.throw(TypeError, 'in plaintext');
      expect(() => createExchange(identity)).to.throw(TypeError, 'in plaintext');
      const guard = createGuard({ log: 'silent', issuer: ISSUER, audience: AUDIENCE, auth });
      expect(await rejectionOf(guard)).to.be.instanceOf(TypeError);
      createServiceTokenSource({ ...identity, plaintext: 'allow' }).close();
      createExchange({ ...identity, credentials: tls }).close();
    });
  });
});

/** Addresses of this machine beside loopback, as targets with a free port. */
function addressesOfThisMachine(): string[] {
  const all = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
  return all
    .filter(({ internal, family }) => !internal && family === 'IPv4')
    .map(({ address }) => `${address}:0`);
}

function hostOf(address: string): string {
  return address.replace(/:0$/, '');
}

function call(client: Client, method: string, metadata: Metadata): Promise<string> {
  return outcomeOf(callEcho(client, metadata, { method }));
}
