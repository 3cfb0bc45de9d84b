/** Certificate-bound tokens (RFC 8705) over real TLS. */

import { generateKeyPairSync, X509Certificate } from 'node:crypto';
import { copyFile, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { SecureContextOptions } from 'node:tls';
import {
  type ChannelCredentials,
  Client,
  type ClientReadableStream,
  credentials,
  type ServiceError as GrpcError,
  type handleUnaryCall,
  Metadata,
  Server,
  ServerCredentials,
  type ServiceDefinition,
} from '@grpc/grpc-js';
import { channelCredentialsFrom, type TlsWatch, watchTlsFiles } from '@portcullis/guard/tls';
import { expect } from 'chai';
import {
  authenticate,
  createServiceTokenSource,
  type ServiceTokenSource,
} from '../../../interceptors/src/client.js';
import { IssueServiceTokenResponse } from '../../../proto/gen/portcullis/token/v1/token.js';
import { makeTemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { type Authority, createAuthority, type Identity } from '../../support/certificates.js';
import {
  bearer,
  callEcho,
  type Echo,
  HELLO,
  identity,
  openEchoStream,
  startEcho,
} from '../../support/echo.js';
import { TestIssuer } from '../../support/issuer.js';
import { outcomeOf } from '../../support/outcomes.js';
import { until } from '../../support/waiting.js';

const SETUP_TIMEOUT_MS = 60_000;
const CALL_TIMEOUT_MS = 10_000;

/** Requests a client certificate, and requires it or not; grpc-js's own credentials either require one or request none. */
class AskingCredentials extends ServerCredentials {
  constructor(files: SecureContextOptions, demands: boolean) {
    super({ requestCert: true, rejectUnauthorized: demands }, files);
  }

  override _equals(other: ServerCredentials): boolean {
    return this === other;
  }
}

/** A caller with its own certificate. */
interface Holder {
  readonly client: Client;
  readonly thumbprint: string;
}

describe('a token bound to a certificate', () => {
  let folder: Awaited<ReturnType<typeof makeTemporaryFolder>>;
  let authority: Authority;
  let listener: Identity;
  let files: { ca: Buffer; cert: Buffer; key: Buffer };
  let issuer: TestIssuer;
  let echo: Echo;
  const open: Client[] = [];

  before(async function () {
    this.timeout(SETUP_TIMEOUT_MS);
    folder = await makeTemporaryFolder();
    authority = await createAuthority(folder.path);
    listener = await authority.issue();
    files = {
      ca: await readFile(authority.certFile),
      cert: await readFile(listener.certFile),
      key: await readFile(listener.keyFile),
    };
    issuer = await TestIssuer.create();
  });
  after(() => folder?.remove());
  afterEach(async () => {
    for (const client of open.splice(0)) client.close();
    await echo.stop();
  });

  /** Whether the listener requires client certificates. */
  async function start(clientAuth: 'optional' | 'required', faults: string[] = []): Promise<void> {
    const server = new AskingCredentials(files, clientAuth === 'required');
    const client = credentials.createSsl(files.ca);
    const observer = { tokenInvalid: (fault: string) => void faults.push(fault) };
    echo = await startEcho(issuer, { observer }, { bind: '127.0.0.1:0', server, client });
    await echo.guard.ready;
  }

  function connect(channel: ChannelCredentials): Client {
    const client = new Client(`127.0.0.1:${echo.port}`, channel, { 'grpc.use_local_subchannel_pool': 1 });
    open.push(client);
    return client;
  }

  async function holder(of: Authority = authority): Promise<Holder> {
    const { certFile, keyFile } = await of.issue();
    const [cert, key] = [await readFile(certFile), await readFile(keyFile)];
    const fingerprint = new X509Certificate(cert).fingerprint256.replaceAll(':', '');
    return {
      client: connect(credentials.createSsl(files.ca, key, cert)),
      thumbprint: Buffer.from(fingerprint, 'hex').toString('base64url'),
    };
  }

  const boundTo = ({ thumbprint }: Holder): Promise<string> =>
    issuer.token({ cnf: { 'x5t#S256': thumbprint } });

  function call(client: Client, token: string, method = 'Unary'): Promise<string> {
    return outcomeOf(callEcho(client, bearer(token), { method }));
  }

  /** How a streaming call ended; `OK` once its first message or its response has arrived. */
  function stream(
    client: Client,
    token: string,
    kind: 'ServerStream' | 'ClientStream' | 'Bidi',
  ): Promise<string> {
    const path = `/test.v1.EchoService/${kind}`;
    const options = { deadline: Date.now() + CALL_TIMEOUT_MS };
    const answered = new Promise<void>((resolve, reject) => {
      const watch = (readable: ClientReadableStream<Buffer>): void => {
        readable.on('error', reject);
        readable.on('data', () => {
          resolve();
          readable.cancel();
        });
      };
      if (kind === 'ServerStream') {
        watch(openEchoStream(client, bearer(token), options));
        return;
      }
      if (kind === 'Bidi') {
        const both = client.makeBidiStreamRequest(path, identity, identity, bearer(token), options);
        watch(both);
        both.write(HELLO);
        return;
      }
      const ended = (error: GrpcError | null): void => (error === null ? resolve() : reject(error));
      const writable = client.makeClientStreamRequest(
        path,
        identity,
        identity,
        bearer(token),
        options,
        ended,
      );
      writable.write(HELLO);
      writable.end();
    });
    return outcomeOf(answered);
  }

  for (const clientAuth of ['optional', 'required'] as const) {
    it(`is accepted only on connections with that certificate, cached or not (${clientAuth})`, async () => {
      const faults: string[] = [];
      await start(clientAuth, faults);
      const [mine, thief] = [await holder(), await holder()];
      const token = await boundTo(mine);
      // The first call is the thief's: its rejection must not affect the rightful client.
      expect(await call(thief.client, token)).to.equal('UNAUTHENTICATED TOKEN_INVALID');
      expect(echo.trace.started).to.equal(0);
      for (let round = 0; round < 3; round += 1) {
        expect(await call(mine.client, token)).to.equal('OK');
        expect(await call(thief.client, token)).to.equal('UNAUTHENTICATED TOKEN_INVALID');
      }
      expect(echo.trace.started).to.equal(3);
      expect(new Set(faults)).to.deep.equal(new Set(['cnf']));
    });
  }

  it('is checked in every kind of call', async () => {
    await start('optional');
    const [mine, thief] = [await holder(), await holder()];
    const token = await boundTo(mine);
    for (const kind of ['ServerStream', 'ClientStream', 'Bidi'] as const) {
      expect(await stream(thief.client, token, kind), kind).to.equal('UNAUTHENTICATED TOKEN_INVALID');
      expect(await stream(mine.client, token, kind), kind).to.equal('OK');
    }
  });

  it('is rejected without a client certificate or with an untrusted one, where unbound tokens are accepted', async () => {
    await start('optional');
    const mine = await holder();
    const self = await holder(await createAuthority(folder.path));
    const bare = connect(credentials.createSsl(files.ca));
    expect(await call(mine.client, await boundTo(mine))).to.equal('OK');
    expect(await call(bare, await boundTo(mine))).to.equal('UNAUTHENTICATED TOKEN_INVALID');
    expect(await call(self.client, await boundTo(self))).to.equal('UNAUTHENTICATED TOKEN_INVALID');
    for (const { client } of [mine, self, { client: bare }]) {
      expect(await call(client, await issuer.token())).to.equal('OK');
    }
  });

  it('is rejected in plaintext', async () => {
    echo = await startEcho(issuer);
    await echo.guard.ready;
    const token = await issuer.token({ cnf: { 'x5t#S256': 'A'.repeat(43) } });
    expect(await call(echo.client, token)).to.equal('UNAUTHENTICATED TOKEN_INVALID');
  });

  it('makes a client that renewed its certificate reconnect, without ending its open calls', async () => {
    await start('required');
    const before = await holder();
    const after = await holder();
    const live = before.client.makeBidiStreamRequest(
      '/test.v1.EchoService/Bidi',
      identity,
      identity,
      bearer(await boundTo(before)),
      { deadline: Date.now() + 10_000 },
    );
    const echoes: string[] = [];
    live.on('data', (message: Buffer) => echoes.push(message.toString()));
    live.on('error', () => echoes.push('error'));
    live.write(Buffer.from('one'));
    await until(() => echoes.length === 1);
    // The connection has the former certificate; the token is bound to the renewed one.
    expect(await call(before.client, await boundTo(after))).to.equal('UNAUTHENTICATED TOKEN_INVALID');
    live.write(Buffer.from('two'));
    await until(() => echoes.length === 2);
    expect(echoes).to.deep.equal(['one', 'two']);
    // New calls of the same channel succeed.
    expect(await call(before.client, await boundTo(before))).to.equal('OK');
    live.cancel();
  });

  describe('whose client renews the certificate', () => {
    let own: Identity;
    let watch: TlsWatch;
    let channel: ChannelCredentials;
    let issuing: { port: number; stop: () => void };
    let source: ServiceTokenSource;
    let issued: string[];

    beforeEach(async () => {
      await start('required');
      own = { certFile: join(folder.path, 'own.crt'), keyFile: join(folder.path, 'own.key') };
      await renew();
      const { certFile: cert, keyFile: key } = own;
      watch = watchTlsFiles({ files: { ca: authority.certFile, cert, key }, log: SILENT });
      channel = channelCredentialsFrom(watch);
      issued = [];
      issuing = await startIssuing();
      source = createServiceTokenSource({
        address: `127.0.0.1:${issuing.port}`,
        credentials: channel,
        clientId: 'caller',
        clientKey: generateKeyPairSync('ed25519').privateKey,
        issuer: 'https://issuer.test',
      });
    });
    afterEach(() => {
      source.close();
      issuing.stop();
      watch.close();
    });

    async function renew(): Promise<void> {
      const next = await authority.issue();
      await copyFile(next.certFile, own.certFile);
      await copyFile(next.keyFile, own.keyFile);
    }

    /** An issuer that binds each token to the certificate of the connection on which it is requested. */
    async function startIssuing(): Promise<{ port: number; stop: () => void }> {
      const server = new Server();
      const issueServiceToken: handleUnaryCall<unknown, IssueServiceTokenResponse> = (served, callback) => {
        const fingerprint = served.getAuthContext().sslPeerCertificate?.fingerprint256 ?? '';
        const thumbprint = Buffer.from(fingerprint.replaceAll(':', ''), 'hex').toString('base64url');
        issued.push(thumbprint);
        const expireTime = new Date(Date.now() + 300_000);
        void issuer
          .token({ cnf: { 'x5t#S256': thumbprint } })
          .then((accessToken) => callback(null, { accessToken, expireTime, scopes: [], audiences: [] }));
      };
      server.addService(ISSUING, { issueServiceToken });
      const port = await new Promise<number>((resolve, reject) =>
        server.bindAsync('127.0.0.1:0', new AskingCredentials(files, true), (error, bound) =>
          error === null ? resolve(bound) : reject(error),
        ),
      );
      return { port, stop: () => server.forceShutdown() };
    }

    function ask(client: Client): Promise<string> {
      return outcomeOf(callEcho(client, new Metadata(), { interceptors: [authenticate(source)] }));
    }

    it('loses no call while the called service sees the former certificate', async () => {
      const client = connect(channel);
      expect(await ask(client)).to.equal('OK');
      await renew();
      await watch.reload();
      expect(await ask(client)).to.equal('OK');
      expect(new Set(issued).size).to.equal(1);
      // A token of the new certificate, on a connection with the former one.
      source.reject(await source.get());
      expect(await ask(client)).to.equal('OK');
      expect(new Set(issued).size).to.equal(2);
      expect(echo.trace.started).to.equal(3);
    });

    it('loses no call while the issuer sees the former certificate', async () => {
      expect(await ask(connect(channel))).to.equal('OK');
      await renew();
      await watch.reload();
      // A connection with the new certificate, and a token of the former one.
      expect(await ask(connect(channel))).to.equal('OK');
      expect(new Set(issued).size).to.equal(2);
    });
  });
});

const SILENT = { info: () => undefined, warn: () => undefined, error: () => undefined };

/** The issuer's method that issues service tokens. */
const ISSUING: ServiceDefinition = {
  issueServiceToken: {
    path: '/auth.v1.AuthService/IssueServiceToken',
    requestStream: false,
    responseStream: false,
    requestSerialize: identity,
    requestDeserialize: identity,
    responseSerialize: (message: IssueServiceTokenResponse) =>
      Buffer.from(IssueServiceTokenResponse.encode(message).finish()),
    responseDeserialize: identity,
  },
};
