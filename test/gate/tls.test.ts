/** TLS on both sides of a gate, with real servers: certificates of callers, of the gate and of the upstream. */

import { createHash, X509Certificate } from 'node:crypto';
import { copyFile, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import {
  type ChannelCredentials,
  Client,
  connectivityState,
  credentials,
  ServerCredentials,
  status,
} from '@grpc/grpc-js';
import { errorOf } from '@portcullis/guard/client';
import { expect } from 'chai';
import { AuthorizationClient, CheckRequest } from '../../gate/gen/envoy/service/auth/v3/external_auth.js';
import type { ListenSettings, UpstreamSettings } from '../../gate/src/settings.js';
import { makeTemporaryFolder, type TemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { type Authority, createAuthority, type Identity } from '../support/certificates.js';
import { bearer, callEcho, HELLO } from '../support/echo.js';
import { rejectionOf } from '../support/outcomes.js';
import { until } from '../support/waiting.js';
import {
  type GateUnderTest,
  keptLog,
  startGateUnderTest,
  startUpstream,
  type Upstream,
} from './gate-support.js';

describe('TLS of a gate', () => {
  let folder: TemporaryFolder;
  let authority: Authority;
  let other: Authority;
  /** Certificates of the upstream, the gate and a caller. */
  let server: Identity;
  let gate: Identity;
  let caller: Identity;

  before(async () => {
    folder = await makeTemporaryFolder();
    [authority, other] = [await createAuthority(folder.path), await createAuthority(folder.path)];
    [server, gate, caller] = [await authority.issue(), await authority.issue(), await authority.issue()];
  });
  after(() => folder.remove());

  describe('towards the upstream', () => {
    let upstream: Upstream;
    let under: GateUnderTest | undefined;

    afterEach(async () => {
      await under?.stop();
      under = undefined;
      upstream.stop();
    });

    async function listen(identity: Identity, callers: Authority, demands = true): Promise<void> {
      const [ca, cert, key] = await Promise.all(
        [callers.certFile, identity.certFile, identity.keyFile].map((file) => readFile(file)),
      );
      if (ca === undefined || cert === undefined || key === undefined) throw new Error('no certificate');
      upstream = await startUpstream(folder, '127.0.0.1:0', {
        credentials: ServerCredentials.createSsl(ca, [{ cert_chain: cert, private_key: key }], demands),
      });
    }

    async function start(
      files: Identity | undefined,
      ca: string,
      exposed: UpstreamSettings['exposed'] = 'refuse',
    ): Promise<GateUnderTest> {
      under = await startGateUnderTest({
        upstream: {
          address: { kind: 'tcp', host: '127.0.0.1', port: Number(upstream.address.split(':')[1]) },
          tls: { cert: files?.certFile, key: files?.keyFile, ca },
          serverName: 'localhost',
          exposed,
        },
      });
      return under;
    }

    const call = ({ client, kit }: GateUnderTest): Promise<Buffer> =>
      callEcho(client, bearer(kit.user({ scopes: ['echo.call'] }).token));

    async function expectUnavailable(started: GateUnderTest): Promise<void> {
      expect(errorOf(await rejectionOf(call(started))).code).to.equal(status.UNAVAILABLE);
      await until(() => started.gate.missing()['upstream']?.includes('not reachable') === true);
      expect(upstream.received).to.be.empty;
    }

    it('passes calls when both certificates are good', async () => {
      await listen(server, authority);
      const started = await start(gate, authority.certFile);
      expect(await call(started)).to.deep.equal(HELLO);
      await until(() => Object.keys(started.gate.missing()).length === 0);
    });

    it('passes none to an upstream that another authority has signed', async () => {
      await listen(await other.issue(), authority);
      await expectUnavailable(await start(gate, authority.certFile));
    });

    it('passes none to an upstream whose certificate has expired, or has another name', async () => {
      await listen(await authority.issue({ days: -1 }), authority);
      await expectUnavailable(await start(gate, authority.certFile));
      await under?.stop();
      upstream.stop();
      await listen(await authority.issue({ names: ['DNS:elsewhere.test'] }), authority);
      await expectUnavailable(await start(gate, authority.certFile));
    });

    it('passes none when the upstream does not know the authority of the gate', async () => {
      await listen(server, other);
      await expectUnavailable(await start(gate, authority.certFile));
    });

    it('does not start in front of an upstream that demands no certificate, unless it may', async () => {
      await listen(server, authority, false);
      expect(String(await rejectionOf(start(gate, authority.certFile)))).to.include(
        'the upstream answers callers without a certificate',
      );
      const started = await start(gate, authority.certFile, 'warn');
      expect(await call(started)).to.deep.equal(HELLO);
    });

    it('uses new certificates with the next connection, also to ask for the health', async () => {
      await listen(server, authority);
      const files = { certFile: join(folder.path, 'own.pem'), keyFile: join(folder.path, 'own-key.pem') };
      await install(await other.issue(), files);
      const started = await start(files, authority.certFile);
      await expectUnavailable(started);
      await install(gate, files);
      await started.gate.reload();
      await until(() => Object.keys(started.gate.missing()).length === 0, { withinMs: 20_000 });
      const client = new Client(started.gate.addresses.listen ?? '', credentials.createInsecure());
      expect(await call({ ...started, client })).to.deep.equal(HELLO);
      client.close();
    });
  });

  describe('towards callers', () => {
    let under: GateUnderTest;
    const { log, lines } = keptLog();
    const clients: Client[] = [];

    afterEach(async () => {
      for (const client of clients.splice(0)) client.close();
      await under.stop();
    });

    async function start(
      clientAuth: ListenSettings['clientAuth'],
      identity: Identity = server,
      ca: string | undefined = authority.certFile,
    ): Promise<void> {
      const tls = {
        cert: identity.certFile,
        key: identity.keyFile,
        ca: clientAuth === 'off' ? undefined : ca,
      };
      under = await startGateUnderTest(
        { listen: { address: { kind: 'tcp', host: '127.0.0.1', port: 0 }, tls, clientAuth } },
        log,
      );
    }

    const port = (): number => Number(under.gate.addresses.listen?.split(':')[1]);

    async function open(identity?: Identity): Promise<Client> {
      const [ca, key, cert] = await Promise.all(
        [authority.certFile, ...(identity === undefined ? [] : [identity.keyFile, identity.certFile])].map(
          (file) => readFile(file),
        ),
      );
      const made: ChannelCredentials = credentials.createSsl(ca, key ?? null, cert ?? null);
      // Of its own, so that no connection of another certificate is used.
      const client = new Client(`localhost:${port()}`, made, { 'grpc.use_local_subchannel_pool': 1 });
      clients.push(client);
      return client;
    }

    async function outcome(client: Client, token: string): Promise<string> {
      return await callEcho(client, bearer(token)).then(
        () => 'ADMITTED',
        (error: unknown) => errorOf(error).reason || status[errorOf(error).code] || '',
      );
    }

    it('admits without a certificate where none is asked for, and not in plaintext', async () => {
      await start('off');
      const { token } = under.kit.user({ scopes: ['echo.call'] });
      expect(await outcome(await open(), token)).to.equal('ADMITTED');
      const plain = new Client(`127.0.0.1:${port()}`, credentials.createInsecure());
      clients.push(plain);
      expect(await outcome(plain, token)).to.equal('UNAVAILABLE');
    });

    it('accepts no connection without a good certificate where one is required', async () => {
      await start('require');
      const { token } = under.kit.user({ scopes: ['echo.call'] });
      expect(await outcome(await open(caller), token)).to.equal('ADMITTED');
      expect(await outcome(await open(), token)).to.equal('UNAVAILABLE');
      expect(await outcome(await open(await other.issue()), token)).to.equal('UNAVAILABLE');
      expect(await outcome(await open(await authority.issue({ days: -1 })), token)).to.equal('UNAVAILABLE');
    });

    it('admits a token that is bound to a certificate with that certificate alone', async () => {
      await start('request');
      const bound = under.kit.user({
        scopes: ['echo.call'],
        certificateThumbprint: await thumbprintOf(caller),
      }).token;
      expect(await outcome(await open(caller), bound)).to.equal('ADMITTED');
      expect(await outcome(await open(await authority.issue()), bound)).to.equal('TOKEN_INVALID');
      expect(await outcome(await open(), bound)).to.equal('TOKEN_INVALID');
      // A certificate that was not verified is none, even if the token is bound to it.
      const stranger = await other.issue();
      const strange = under.kit.user({
        scopes: ['echo.call'],
        certificateThumbprint: await thumbprintOf(stranger),
      }).token;
      expect(await outcome(await open(stranger), strange)).to.equal('TOKEN_INVALID');
      const { token } = under.kit.user({ scopes: ['echo.call'] });
      expect(await outcome(await open(), token), 'a token that is not bound').to.equal('ADMITTED');
    });

    it('shows a new certificate to new connections, keeps the former when the new one is no good', async () => {
      const files = { certFile: join(folder.path, 'tls.pem'), keyFile: join(folder.path, 'tls-key.pem') };
      await install(server, files);
      await start('request', files);
      const { token } = under.kit.user({ scopes: ['echo.call'] });
      const before = await open();
      expect(await outcome(before, token)).to.equal('ADMITTED');
      expect(await shown(port())).to.equal(await thumbprintOf(server));
      const next = await authority.issue();
      await copyFile(next.certFile, files.certFile);
      lines.length = 0;
      await under.gate.reload();
      expect(
        lines.some(({ event }) => event === 'certificates_refused'),
        'the key is missing',
      ).to.equal(true);
      expect(await shown(port())).to.equal(await thumbprintOf(server));
      await install(next, files);
      await under.gate.reload();
      expect(await shown(port())).to.equal(await thumbprintOf(next));
      expect(await outcome(before, token), 'the connection of before').to.equal('ADMITTED');
      expect(await outcome(await open(), token)).to.equal('ADMITTED');
    });

    it('does not resume a session of an authority that has left', async () => {
      const ca = join(folder.path, 'callers.pem');
      await copyFile(authority.certFile, ca);
      await start('require', server, ca);
      const [cert, key] = await Promise.all([caller.certFile, caller.keyFile].map((file) => readFile(file)));
      const dial = (session?: Buffer) =>
        connectTls({
          port: port(),
          host: '127.0.0.1',
          rejectUnauthorized: false,
          ALPNProtocols: ['h2'],
          ...(cert && { cert }),
          ...(key && { key }),
          ...(session && { session }),
        });
      const first = dial();
      const session = await new Promise<Buffer>((resolve, reject) => {
        first.once('session', resolve);
        first.once('error', reject);
      });
      first.destroy();
      await copyFile(other.certFile, ca);
      await under.gate.reload();
      const second = dial(session);
      const end = await new Promise<string>((resolve) => {
        second.on('data', () => resolve('served'));
        second.once('error', () => resolve('refused'));
        second.once('close', () => resolve('refused'));
        second.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
      });
      second.destroy();
      expect(end).to.equal('refused');
    });
  });

  it('asks proxies for certificates, and changes its own without ending their connections', async () => {
    const files = { certFile: join(folder.path, 'authz.pem'), keyFile: join(folder.path, 'authz-key.pem') };
    await install(server, files);
    const under = await startGateUnderTest({
      listen: undefined,
      upstream: undefined,
      extAuthz: {
        address: { kind: 'tcp', host: '127.0.0.1', port: 0 },
        tls: { cert: files.certFile, key: files.keyFile, ca: authority.certFile },
      },
    });
    const port = Number(under.gate.addresses.extAuthz?.split(':')[1]);
    const [ca, cert, key] = await Promise.all(
      [authority.certFile, caller.certFile, caller.keyFile].map((file) => readFile(file)),
    );
    const clientWith = (own: ChannelCredentials): AuthorizationClient =>
      new AuthorizationClient(`localhost:${port}`, own, { 'grpc.use_local_subchannel_pool': 1 });
    const proxies = [clientWith(credentials.createSsl(ca, key ?? null, cert ?? null))];
    const check = (proxy: AuthorizationClient): Promise<string> =>
      new Promise((resolve) => {
        proxy.check(CheckRequest.fromPartial({ attributes: {} }), (error) =>
          resolve(error === null ? 'answered' : (status[error.code] ?? '')),
        );
      });
    try {
      const [first] = proxies;
      if (first === undefined) return;
      expect(await check(first)).to.equal('answered');
      const states: number[] = [];
      const channel = first.getChannel();
      const watch = (): void => {
        channel.watchConnectivityState(
          channel.getConnectivityState(false),
          Number.POSITIVE_INFINITY,
          (error) => {
            const state = channel.getConnectivityState(false);
            if (error !== undefined || state === connectivityState.SHUTDOWN) return;
            states.push(state);
            watch();
          },
        );
      };
      watch();
      const next = await authority.issue();
      await install(next, files);
      await under.gate.reload();
      expect(await shown(port)).to.equal(await thumbprintOf(next));
      expect([await check(first), states]).to.deep.equal(['answered', []]);
      const stranger = clientWith(credentials.createSsl(ca));
      proxies.push(stranger);
      expect(await check(stranger)).to.equal('UNAVAILABLE');
    } finally {
      for (const proxy of proxies) proxy.close();
      await under.stop();
    }
  });
});

/** Puts a certificate where a gate reads it. */
async function install(identity: Identity, files: Identity): Promise<void> {
  await copyFile(identity.certFile, files.certFile);
  await copyFile(identity.keyFile, files.keyFile);
}

/** The certificate that a new connection is shown: the SHA-256 of its DER in base64url. */
async function shown(port: number): Promise<string> {
  const socket = connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false, ALPNProtocols: ['h2'] });
  try {
    await new Promise((resolve, reject) => {
      socket.once('secureConnect', resolve);
      socket.once('error', reject);
    });
    const raw = socket.getPeerX509Certificate()?.raw ?? Buffer.alloc(0);
    return createHash('sha256').update(raw).digest('base64url');
  } finally {
    socket.destroy();
  }
}

async function thumbprintOf({ certFile }: Identity): Promise<string> {
  return createHash('sha256')
    .update(new X509Certificate(await readFile(certFile)).raw)
    .digest('base64url');
}
