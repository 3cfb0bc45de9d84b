/** TLS over real sockets: accepted peers, protocol versions, and changes of certificates during calls. */

import { X509Certificate } from 'node:crypto';
import { copyFile, mkdir, readFile, rename, symlink, writeFile } from 'node:fs/promises';
import { createServer as createHttp2Server } from 'node:http2';
import { request as httpsRequest } from 'node:https';
import { type AddressInfo, connect as connectTcp, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls';
import {
  type ChannelCredentials,
  Client,
  credentials,
  Metadata,
  Server,
  ServerCredentials,
  ServerInterceptingCall,
  type ServerInterceptor,
  ServerListenerBuilder,
  status,
} from '@grpc/grpc-js';
import { type ClientAuth, TlsFilesError, tlsFaultsOf, watchTlsFiles } from '@portcullis/guard/tls';
import { expect } from 'chai';
import { makeTemporaryFolder } from '../../../../scripts/system/temporary-folder.js';
import { openTls, type Tls, type TlsSettings } from '../../../../services/common/tls/tls.js';
import { type Authority, createAuthority, type Identity } from '../../../support/certificates.js';
import { refusalOf, rejectionOf } from '../../../support/outcomes.js';
import { until } from '../../../support/waiting.js';
import { EchoService, type RunningHost, runHost } from '../host/running-host.js';

const SETUP_TIMEOUT_MS = 60_000;
const POLL_MS = 20;
const ROTATIONS = 8;
/** A call that hangs fails; one on a busy machine does not. */
const CALL_TIMEOUT_MS = 15_000;
const { requestSerialize, responseDeserialize } = EchoService.echo;

interface LogLine {
  readonly level: 'info' | 'error';
  readonly event: string;
  readonly why: string;
}

describe('TLS', function () {
  this.timeout(SETUP_TIMEOUT_MS);
  let folder: Awaited<ReturnType<typeof makeTemporaryFolder>>;
  let authority: Authority;
  let stranger: Authority;
  let own: Identity;
  let expired: Identity;
  let elsewhere: Identity;
  let callers: Identity;
  let strangersCaller: Identity;
  const undo: (() => Promise<void> | void)[] = [];

  before(async () => {
    folder = await makeTemporaryFolder();
    authority = await createAuthority(folder.path);
    stranger = await createAuthority(folder.path);
    own = await authority.issue();
    expired = await authority.issue({ days: -1 });
    elsewhere = await authority.issue({ names: ['DNS:elsewhere.example', 'IP:192.0.2.1'] });
    callers = await authority.issue({ names: ['DNS:caller'] });
    strangersCaller = await stranger.issue({ names: ['DNS:caller'] });
  });
  afterEach(async () => {
    for (const step of undo.splice(0).reverse()) await step();
  });
  after(() => folder?.remove());

  const lines: LogLine[] = [];
  beforeEach(() => {
    lines.length = 0;
  });
  const log = {
    info: (fields: object) => void lines.push({ level: 'info', event: '', why: '', ...fields }),
    error: (fields: object) => void lines.push({ level: 'error', event: '', why: '', ...fields }),
  };

  function open(settings: Partial<TlsSettings>, pollMs = POLL_MS): Tls {
    const rest = {
      listener: undefined,
      client: undefined,
      natsCaFile: undefined,
      plaintext: 'loopback',
    } as const;
    const tls = openTls({ ...rest, ...settings }, { log, pollMs });
    undo.push(() => tls.close());
    return tls;
  }

  async function serve(
    identity: Identity,
    callersOf: { clientAuth: ClientAuth; clientCaFile?: string } = { clientAuth: 'off' },
    interceptors: ServerInterceptor[] = [],
  ): Promise<RunningHost> {
    const tls = open({ listener: { ...identity, clientCaFile: undefined, ...callersOf } });
    const running = await runHost({ tls: tls.listener, interceptors });
    undo.push(() => running.close());
    return running;
  }

  function clientOf(address: string, creds: ChannelCredentials): Client {
    const client = new Client(address, creds, { 'grpc.use_local_subchannel_pool': 1 });
    undo.push(() => client.close());
    return client;
  }

  function trusting(caFile: string | undefined, client?: Identity): ChannelCredentials {
    return open({ client }).credentialsFor(caFile);
  }

  function portOf(running: RunningHost): number {
    return Number(running.host.address.split(':').at(-1));
  }

  function copied(name: string): Identity {
    return { certFile: join(folder.path, `${name}.crt`), keyFile: join(folder.path, `${name}.key`) };
  }

  async function put(from: Identity, to: Identity): Promise<void> {
    for (const file of ['certFile', 'keyFile'] as const) {
      await copyFile(from[file], `${to[file]}.draft`);
      await rename(`${to[file]}.draft`, to[file]);
    }
  }

  it('serves calls and the ops port to clients that trust the authority', async () => {
    const running = await serve(own);
    expect(await echo(clientOf(running.host.address, trusting(authority.certFile)), 'hello')).to.equal(
      'hello',
    );
    const ca = await readFile(authority.certFile);
    expect(await httpsStatus(running.host.opsAddress, { ca })).to.equal(200);
    expect(running.lines.join('')).to.include('"tls":true');
  });

  it('is rejected by clients with a certificate of an unknown authority, for another name, or expired', async () => {
    const known = trusting(authority.certFile);
    const byStranger = await serve(await stranger.issue());
    expect(await statusOf(clientOf(byStranger.host.address, known))).to.equal(status.UNAVAILABLE);
    const ca = await readFile(authority.certFile);
    const refused = await rejectionOf(httpsStatus(byStranger.host.opsAddress, { ca }));
    expect(refused).to.have.property('code', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE');

    const otherName = await serve(elsewhere);
    expect(await statusOf(clientOf(otherName.host.address, known))).to.equal(status.UNAVAILABLE);

    // Our own host rejects an expired certificate at the start.
    const server = new Server();
    undo.push(() => server.forceShutdown());
    const pair = {
      private_key: await readFile(expired.keyFile),
      cert_chain: await readFile(expired.certFile),
    };
    const port = await bind(server, ServerCredentials.createSsl(null, [pair]));
    expect(await statusOf(clientOf(`127.0.0.1:${port}`, known))).to.equal(status.UNAVAILABLE);

    const good = await serve(own);
    expect(await echo(clientOf(good.host.address, known), 'good')).to.equal('good');
  });

  it('rejects plaintext, and survives bytes that are not TLS', async () => {
    const running = await serve(own);
    expect(await statusOf(clientOf(running.host.address, credentials.createInsecure()))).to.equal(
      status.UNAVAILABLE,
    );
    await rejectionOf(fetch(`http://${running.host.opsAddress}/livez`));
    for (const garbage of [
      Buffer.alloc(4096),
      Buffer.from('GET / HTTP/1.1\r\n\r\n'),
      Buffer.from([22, 3, 1]),
    ]) {
      await sendAndHangUp(portOf(running), garbage);
      await sendAndHangUp(Number(running.host.opsAddress.split(':').at(-1)), garbage);
    }
    expect(await echo(clientOf(running.host.address, trusting(authority.certFile)), 'alive')).to.equal(
      'alive',
    );
  });

  it('does not send a call to a server that speaks plaintext', async () => {
    let requests = 0;
    const server = createHttp2Server(() => {
      requests += 1;
    });
    const sockets: Socket[] = [];
    server.on('connection', (socket: Socket) => void sockets.push(socket));
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve);
    });
    undo.push(() => {
      server.close();
      for (const socket of sockets) socket.destroy();
    });
    const { port } = server.address() as AddressInfo;
    const client = clientOf(`127.0.0.1:${port}`, trusting(authority.certFile));
    expect(await statusOf(client)).to.be.oneOf([status.UNAVAILABLE, status.DEADLINE_EXCEEDED]);
    expect(requests).to.equal(0);
  });

  it('speaks TLS 1.2 and 1.3 with authenticated encryption, before and after a change of certificates', async () => {
    const files = copied('versions');
    await put(own, files);
    const tls = open({ listener: { ...files, clientCaFile: undefined, clientAuth: 'off' } });
    const running = await runHost({ tls: tls.listener });
    undo.push(() => running.close());
    const ca = await readFile(authority.certFile);
    const ports = [portOf(running), Number(running.host.opsAddress.split(':').at(-1))];

    const spoken = async (port: number, options: ConnectionOptions): Promise<string> => {
      const socket = await shakeHands(port, { ca, ...options }).catch(() => undefined);
      const what = socket === undefined ? 'refused' : `${socket.getProtocol()} ${socket.getCipher().name}`;
      socket?.destroy();
      return what;
    };
    const weak = { minVersion: 'TLSv1' as const, ciphers: 'ALL:@SECLEVEL=0' };
    for (const change of [false, true]) {
      if (change) {
        await put(await authority.issue(), files);
        await tls.reload();
        expect(lines.map(({ event }) => event)).to.include('certificates_changed');
      }
      for (const port of ports) {
        expect(await spoken(port, {})).to.match(/^TLSv1\.3 TLS_/);
        expect(await spoken(port, { maxVersion: 'TLSv1.2' })).to.match(
          /^TLSv1\.2 ECDHE-ECDSA-.*(GCM|POLY1305)/,
        );
        expect(await spoken(port, { ...weak, maxVersion: 'TLSv1.1' }), 'TLS 1.1').to.equal('refused');
        const cbc = { maxVersion: 'TLSv1.2' as const, ciphers: 'ECDHE-ECDSA-AES128-SHA256' };
        expect(await spoken(port, cbc), 'CBC').to.equal('refused');
      }
    }
  });

  describe('certificates of callers', () => {
    const seen: (string | undefined)[] = [];
    const look: ServerInterceptor = (_method, call) =>
      new ServerInterceptingCall(call, {
        start: (next) => {
          const listener = new ServerListenerBuilder().withOnReceiveMetadata((metadata, pass) => {
            seen.push(call.getAuthContext().sslPeerCertificate?.subjectaltname);
            pass(metadata);
          });
          next(listener.build());
        },
      });
    beforeEach(() => {
      seen.length = 0;
    });

    it('are required for calls but not for probes when client authentication is required', async () => {
      const demanding = { clientAuth: 'required', clientCaFile: authority.certFile } as const;
      const running = await serve(own, demanding, [look]);
      const { address } = running.host;
      expect(await statusOf(clientOf(address, trusting(authority.certFile)))).to.equal(status.UNAVAILABLE);
      const asStranger = clientOf(address, trusting(authority.certFile, strangersCaller));
      expect(await statusOf(asStranger)).to.equal(status.UNAVAILABLE);
      expect(seen).to.be.empty;
      expect(await echo(clientOf(address, trusting(authority.certFile, callers)), 'known')).to.equal('known');
      expect(seen).to.deep.equal(['DNS:caller']);
      const ca = await readFile(authority.certFile);
      expect(await httpsStatus(running.host.opsAddress, { ca })).to.equal(200);
    });

    it('reach handlers only when a configured authority issued them, when they are optional', async () => {
      const asking = { clientAuth: 'optional', clientCaFile: authority.certFile } as const;
      const { address } = (await serve(own, asking, [look])).host;
      for (const client of [undefined, strangersCaller, callers]) {
        await echo(clientOf(address, trusting(authority.certFile, client)), 'hello');
      }
      expect(seen).to.deep.equal([undefined, undefined, 'DNS:caller']);
    });

    it('are checked against the current authorities, also for a session that is resumed', async () => {
      const caFile = join(folder.path, 'callers-authority.pem');
      await copyFile(authority.certFile, caFile);
      const tls = open({ listener: { ...own, clientAuth: 'required', clientCaFile: caFile } });
      const running = await runHost({ tls: tls.listener });
      undo.push(() => running.close());
      const ca = await readFile(authority.certFile);
      const identity = { cert: await readFile(callers.certFile), key: await readFile(callers.keyFile) };
      // TLS 1.2, whose handshake ends only after the server has accepted the certificate.
      const options = { ca, ...identity, maxVersion: 'TLSv1.2' as const, ALPNProtocols: ['h2'] };
      const first = await shakeHands(portOf(running), options);
      const session = first.getSession();
      first.destroy();
      const resumed = await shakeHands(portOf(running), { ...options, ...(session && { session }) });
      expect(resumed.isSessionReused()).to.equal(true);
      resumed.destroy();

      await copyFile(stranger.certFile, caFile);
      await tls.reload();
      const late = shakeHands(portOf(running), { ...options, ...(session && { session }) });
      expect(await rejectionOf(late)).to.be.instanceOf(Error);
    });
  });

  describe('when files change', () => {
    it('uses new certificates under load without a failed call', async () => {
      const files = copied('rotating');
      await put(own, files);
      const tls = open({ listener: { ...files, clientAuth: 'off', clientCaFile: undefined } });
      const running = await runHost({ tls: tls.listener });
      undo.push(() => running.close());
      const { address } = running.host;
      const known = trusting(authority.certFile);
      const steady = clientOf(address, known);
      let calls = 0;
      let stopped = false;
      const load = async (): Promise<void> => {
        while (!stopped) {
          // One client stays connected, the other connects again.
          const fresh = new Client(address, known, { 'grpc.use_local_subchannel_pool': 1 });
          await Promise.all([echo(steady, 'steady'), echo(fresh, 'fresh')]);
          fresh.close();
          calls += 2;
        }
      };
      undo.push(() => {
        stopped = true;
      });
      const next = await Promise.all(Array.from({ length: ROTATIONS }, () => authority.issue()));
      const loads = Promise.all([load(), load(), load()]);
      const serials = new Set<string>();
      const rotate = async (): Promise<void> => {
        for (const identity of next) {
          await put(identity, files);
          await until(async () => (await serialAt(address, authority)) === (await serialIn(identity)));
          serials.add(await serialAt(address, authority));
          expect(await serialAt(running.host.opsAddress, authority)).to.equal(await serialIn(identity));
        }
        stopped = true;
      };
      await Promise.all([rotate(), loads]);
      expect(serials.size).to.equal(ROTATIONS);
      expect(calls).to.be.greaterThan(50);
    });

    it('keeps the previous certificates when the new files cannot be used, and logs why', async () => {
      const files = copied('bad');
      await put(own, files);
      const running = await serve(files);
      const before = await serialIn(own);
      const other = await authority.issue();
      const spoils: [string, RegExp, () => Promise<void>][] = [
        ['a key of another certificate', /key does not belong/, () => copyFile(other.keyFile, files.keyFile)],
        ['no key', /key names no private key/, () => writeFile(files.keyFile, 'no key')],
        [
          'half a certificate',
          /cert names no certificate/,
          () => writeFile(files.certFile, '-----BEGIN CERT'),
        ],
        ['an expired certificate', /cert names a certificate that expired/, () => put(expired, files)],
        [
          'no file',
          /cert names a file that cannot be read \(ENOENT\)/,
          () => rename(files.certFile, `${files.certFile}.away`),
        ],
      ];
      for (const [name, why, spoil] of spoils) {
        await put(own, files);
        lines.length = 0;
        await spoil();
        await until(async () => lines.some((line) => line.level === 'error' && why.test(line.why)));
        // After several checks it was still logged once per fault. Files that are replaced one by one cause two faults.
        await sleep(5 * POLL_MS);
        const said = lines.filter(({ level }) => level === 'error').map((line) => line.why);
        expect(said, name).to.deep.equal([...new Set(said)]);
        expect(await serialAt(running.host.address, authority), name).to.equal(before);
        expect(await echo(clientOf(running.host.address, trusting(authority.certFile)), name)).to.equal(name);
      }
      await put(other, files);
      await until(async () => (await serialAt(running.host.address, authority)) === (await serialIn(other)));
    });

    it('follows a symbolic link that is moved, as Kubernetes does', async () => {
      const mount = join(folder.path, 'mount');
      await mkdir(mount);
      const lead = async (name: string, identity: Identity): Promise<void> => {
        await mkdir(join(mount, name));
        await copyFile(identity.certFile, join(mount, name, 'tls.crt'));
        await copyFile(identity.keyFile, join(mount, name, 'tls.key'));
        await symlink(name, join(mount, '..data_tmp'));
        await rename(join(mount, '..data_tmp'), join(mount, '..data'));
      };
      await lead('..first', own);
      await symlink('..data/tls.crt', join(mount, 'tls.crt'));
      await symlink('..data/tls.key', join(mount, 'tls.key'));
      const running = await serve({ certFile: join(mount, 'tls.crt'), keyFile: join(mount, 'tls.key') });
      expect(await serialAt(running.host.address, authority)).to.equal(await serialIn(own));
      const next = await authority.issue();
      await lead('..second', next);
      await until(async () => (await serialAt(running.host.address, authority)) === (await serialIn(next)));
    });

    it('checks the server against the current authorities when a channel connects again', async () => {
      const caFile = join(folder.path, 'moving-authority.pem');
      await copyFile(stranger.certFile, caFile);
      const running = await serve(own);
      const tls = open({});
      const client = clientOf(running.host.address, tls.credentialsFor(caFile));
      expect(await statusOf(client)).to.equal(status.UNAVAILABLE);
      await copyFile(authority.certFile, caFile);
      await tls.reload();
      await until(async () => (await echo(client, 'now').catch(() => '')) === 'now');
    });

    it('reach every listener, also when another one fails', async () => {
      const files = copied('listeners');
      await put(own, files);
      const watch = watchTlsFiles({
        files: { cert: files.certFile, key: files.keyFile },
        log,
        pollMs: 3_600_000,
      });
      undo.push(() => watch.close());
      let told = 0;
      watch.onChange(() => {
        throw new Error('a fault');
      });
      watch.onChange(() => {
        told += 1;
      });
      await put(await authority.issue(), files);
      await watch.reload();
      expect(told).to.equal(1);
    });

    it('reads the files at once on reload', async () => {
      const files = copied('reload');
      await put(own, files);
      const watch = watchTlsFiles({
        files: { cert: files.certFile, key: files.keyFile },
        log,
        pollMs: 3_600_000,
      });
      undo.push(() => watch.close());
      await put(await authority.issue(), files);
      await watch.reload();
      expect(String(watch.current().cert)).to.equal(await readFile(files.certFile, 'utf8'));
    });
  });

  it('names every file that cannot be used, without its contents', async () => {
    const wrong = join(folder.path, 'wrong.pem');
    await writeFile(wrong, 'a secret');
    const faults = tlsFaultsOf({ cert: wrong, key: wrong, ca: wrong });
    expect(faults.map(({ file }) => file)).to.deep.equal(['cert', 'key', 'ca']);
    expect(JSON.stringify(faults)).to.not.include('secret').and.not.include(folder.path);
    expect(tlsFaultsOf({ cert: own.certFile, key: callers.keyFile }).map(({ file }) => file)).to.deep.equal([
      'key',
    ]);
    expect(tlsFaultsOf({ cert: expired.certFile, key: expired.keyFile })[0]?.problem).to.match(/expired on/);
    expect(() => open({ client: expired }).credentialsFor(authority.certFile)).to.throw(TlsFilesError);
    expect(tlsFaultsOf({ cert: own.certFile, key: own.keyFile, ca: authority.certFile })).to.be.empty;
  });
});

function echo(client: Client, request: string): Promise<string> {
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      EchoService.echo.path,
      requestSerialize,
      responseDeserialize,
      request,
      new Metadata(),
      { deadline: Date.now() + CALL_TIMEOUT_MS },
      (error: Error | null, value?: string) => (error === null ? resolve(value ?? '') : reject(error)),
    );
  });
}

async function statusOf(client: Client): Promise<status> {
  return (await refusalOf(echo(client, 'confidential'))).code;
}

function bind(server: Server, creds: ServerCredentials): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', creds, (error, port) => (error === null ? resolve(port) : reject(error)));
  });
}

function httpsStatus(address: string, options: { ca: Buffer }): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const asking = httpsRequest(`https://${address}/livez`, { ...options, agent: false }, (response) => {
      response.resume();
      response.on('end', () => resolve(response.statusCode));
    });
    asking.on('error', reject);
    asking.end();
  });
}

function shakeHands(port: number, options: ConnectionOptions): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const socket = connectTls({ host: '127.0.0.1', port, ...options }, () => resolve(socket));
    socket.on('error', reject);
  });
}

async function serialAt(address: string, authority: Authority): Promise<string> {
  const ca = await readFile(authority.certFile);
  const socket = await shakeHands(Number(address.split(':').at(-1)), {
    ca,
    ALPNProtocols: ['h2', 'http/1.1'],
  });
  const { serialNumber } = socket.getPeerCertificate();
  socket.destroy();
  return serialNumber;
}

async function serialIn(identity: Identity): Promise<string> {
  return new X509Certificate(await readFile(identity.certFile)).serialNumber;
}

function sendAndHangUp(port: number, bytes: Buffer): Promise<void> {
  return new Promise((resolve) => {
    const socket = connectTcp(port, '127.0.0.1', () => socket.end(bytes));
    socket.on('error', () => undefined);
    socket.on('close', () => resolve());
    socket.resume();
    setTimeout(() => socket.destroy(), 200).unref();
  });
}
