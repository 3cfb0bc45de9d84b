/** `portcullis gate` as a process that follows a running auth. */
import { type ChildProcess, spawn } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client, credentials, Metadata, status } from '@grpc/grpc-js';
import { errorOf } from '@portcullis/guard/client';
import { expect } from 'chai';
import { SignJWT } from 'jose';
import { RevokeRequest } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { ask } from '../../scripts/system/calls.js';
import { findFreePort } from '../../scripts/system/ports.js';
import { makeTemporaryFolder, type TemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { bearer, callEcho, HELLO, openEchoStream } from '../support/echo.js';
import { rejectionOf } from '../support/outcomes.js';
import { PROJECT_FOLDER } from '../support/project-copy.js';
import { clientsOf, type SystemClients, sharedSystem, type TestSystem } from '../support/system.js';
import { until } from '../support/waiting.js';
import { startUpstream, type Upstream } from './gate-support.js';

const COMMAND_LINE = join(PROJECT_FOLDER, 'cli', 'dist', 'src', 'main.js');
const RULES = `services:
  test.v1.EchoService:
    Unary: {scopes: inventory.read}
    ServerStream: {scopes: inventory.read}
`;

describe('portcullis gate', function () {
  this.timeout(120_000);
  let system: TestSystem;
  let clients: SystemClients;
  let folder: TemporaryFolder;
  let upstream: Upstream;
  const running: ChildProcess[] = [];

  before(async () => {
    system = await sharedSystem();
    clients = clientsOf(system);
    folder = await makeTemporaryFolder();
    upstream = await startUpstream(folder);
    await writeFile(join(folder.path, 'rules.yaml'), RULES);
  });
  after(async () => {
    for (const child of running) child.kill('SIGKILL');
    upstream.stop();
    clients.close();
    await folder.remove();
  });

  function start(words: readonly string[]) {
    const child = spawn(process.execPath, [COMMAND_LINE, 'gate', ...words], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    running.push(child);
    const said = { output: '', errors: '' };
    child.stdout.on('data', (part: Buffer) => {
      said.output += String(part);
    });
    child.stderr.on('data', (part: Buffer) => {
      said.errors += String(part);
    });
    const exit = new Promise<number | null>((resolve) => child.once('close', resolve));
    return { child, said, exit };
  }

  async function settings(): Promise<{ port: number; ops: number; words: string[] }> {
    const [port, ops] = [await findFreePort(), await findFreePort()];
    const nats = system.nats?.url('inventory');
    const words = [
      `--issuer=${system.issuer}`,
      `--auth=${system.auth.address}`,
      '--client-id=inventory',
      `--client-key=${system.secrets.clientKeyFiles.inventory}`,
      ...(nats === undefined ? [] : [`--nats=${nats}`]),
      `--rules=${join(folder.path, 'rules.yaml')}`,
      `--listen=127.0.0.1:${port}`,
      `--upstream=${upstream.address}`,
      `--ops-listen=127.0.0.1:${ops}`,
    ];
    return { port, ops, words };
  }

  it('stops on SIGTERM while its workers do not begin', async () => {
    const { words } = await settings();
    const { child, said, exit } = start([...words, '--workers=2', '--drain-seconds=60']);
    // A worker that is stopped says nothing until it goes on.
    let frozen: number[] = [];
    await until(async () => {
      frozen = await childrenOf(child.pid ?? 0);
      return frozen.length === 2;
    });
    for (const pid of frozen) process.kill(pid, 'SIGSTOP');
    try {
      child.kill('SIGTERM');
      await until(() => said.output.includes('"stopping"'));
    } finally {
      for (const pid of frozen) process.kill(pid, 'SIGCONT');
    }
    // Before the time that calls may take is over.
    await until(() => child.exitCode !== null, { withinMs: 40_000 });
    expect(await exit, said.errors).to.equal(0);
  });

  it('admits, refuses and cuts with two workers, publishes one key, and stops on SIGTERM', async () => {
    const { port, ops, words } = await settings();
    const { child, said, exit } = start([...words, '--workers=2', '--identity=signed']);
    const get = (path: string): Promise<Response | undefined> =>
      fetch(`http://127.0.0.1:${ops}${path}`).catch(() => undefined);
    await until(async () => (await get('/readyz'))?.status === 200 || child.exitCode !== null);
    expect(child.exitCode, said.errors).to.equal(null);
    const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
    const { accessToken } = await clients.logIn('alice');
    expect(await callEcho(client, bearer(accessToken))).to.deep.equal(HELLO);
    expect(upstream.received.at(-1)?.get('x-portcullis-identity')).to.have.length(1);
    expect(errorOf(await rejectionOf(callEcho(client))).reason).to.equal('TOKEN_MISSING');
    const keys = (await (await get('/jwks.json'))?.json()) as { keys: unknown[] };
    expect(keys.keys).to.have.length(1);
    const metrics = await (await get('/metrics'))?.text();
    expect(metrics).to.match(/portcullis_decisions_total\{[^}]*outcome="ADMITTED"[^}]*\} 1/);
    child.kill('SIGHUP');
    const stream = openEchoStream(client, bearer(accessToken));
    await new Promise((resolve) => stream.once('data', resolve));
    const ended = new Promise<unknown>((resolve) => stream.once('error', resolve));
    const { accessToken: operator } = await clients.logIn('olga');
    const request = RevokeRequest.fromPartial({
      target: { $case: 'token', value: accessToken },
      reason: 'test',
    });
    await ask(clients.revocation.revoke.bind(clients.revocation), request, { token: operator });
    expect(errorOf(await ended).reason).to.equal('TOKEN_REVOKED');
    client.close();
    child.kill('SIGTERM');
    expect(await exit).to.equal(0);
    expect(said.output).to.include('"rules_read"');
    expect(said.output + said.errors).to.not.include(accessToken);
  });

  for (const workers of [1, 2]) {
    it(`waits for calls after SIGTERM, and no longer after a second one: workers ${workers}`, async () => {
      const { port, ops, words } = await settings();
      const { child, said, exit } = start([...words, `--workers=${workers}`, '--drain-seconds=60']);
      const isReady = async (): Promise<boolean> =>
        (await fetch(`http://127.0.0.1:${ops}/readyz`).catch(() => undefined))?.status === 200;
      await until(async () => child.exitCode !== null || (await isReady()));
      expect(child.exitCode, said.errors).to.equal(null);
      const { accessToken } = await clients.logIn('alice');
      const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
      const stream = openEchoStream(client, bearer(accessToken));
      let isOver = false;
      const ended = new Promise<unknown>((resolve) => stream.once('error', resolve)).finally(() => {
        isOver = true;
      });
      await new Promise((resolve) => stream.once('data', resolve));
      stream.resume();
      child.kill('SIGTERM');
      await until(() => said.output.includes('"stopping"'));
      // The npm that runs a gate repeats a signal of the terminal.
      child.kill('SIGTERM');
      await sleep(1_100);
      expect([isOver, child.exitCode, child.signalCode]).to.deep.equal([false, null, null]);
      child.kill('SIGINT');
      expect(errorOf(await ended)).to.deep.include({ code: status.UNAVAILABLE });
      expect(await exit).to.equal(0);
      expect(said.output).to.include('"hurrying"');
      client.close();
    });
  }

  it('is ready when all workers are, and replaces one without a refused call', async () => {
    const { port, ops, words } = await settings();
    const { child, said, exit } = start([...words, '--workers=6', '--drain-seconds=0']);
    const get = (path: string): Promise<Response | undefined> =>
      fetch(`http://127.0.0.1:${ops}${path}`).catch(() => undefined);
    await until(async () => (await get('/readyz'))?.status === 200 || child.exitCode !== null);
    expect(child.exitCode, said.errors).to.equal(null);
    const { accessToken } = await clients.logIn('alice');
    // Connections go to the workers in turn.
    const callOnce = async (): Promise<string> => {
      const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), {
        'grpc.use_local_subchannel_pool': 1,
      });
      try {
        await callEcho(client, bearer(accessToken));
        return 'OK';
      } catch (error) {
        return errorOf(error).reason;
      } finally {
        client.close();
      }
    };
    for (let call = 0; call < 12; call++) expect(await callOnce()).to.equal('OK');
    const started = () =>
      [...said.output.matchAll(/"pid":(\d+).*"event":"open"/g)].map(([, pid]) => Number(pid));
    const first = started();
    expect(first).to.have.length(6);
    process.kill(first[0] ?? 0, 'SIGKILL');
    // The first process tells a worker that has just died.
    for (let signal = 0; signal < 20; signal++) child.kill('SIGHUP');
    await until(() => said.output.includes('"worker_ended"') || said.errors.includes('"worker_ended"'));
    const outcomes = new Set<string>();
    const callAll = async (): Promise<void> => {
      for (const outcome of await Promise.all(Array.from({ length: 6 }, callOnce))) outcomes.add(outcome);
    };
    // Not by polling: the new worker would be ready before the next look.
    const deadlineMs = Date.now() + 30_000;
    while (started().length < 7 && Date.now() < deadlineMs) await callAll();
    expect(started()).to.have.length(7);
    await callAll();
    expect([...outcomes]).to.deep.equal(['OK']);
    child.kill('SIGTERM');
    expect(await exit).to.equal(0);
  });

  it('keeps new workers shut while the server is away, and gives them what was reloaded meanwhile', async () => {
    const [rules, bind] = [join(folder.path, 'later.yaml'), `unix:${join(folder.path, 'away.sock')}`];
    await writeFile(rules, RULES);
    const away = await startUpstream(folder, bind);
    const { port, ops, words } = await settings();
    const kept = words.filter((word) => !/^--(?:rules|upstream)=/.test(word));
    const { child, said, exit } = start([
      ...kept,
      `--rules=${rules}`,
      `--upstream=${bind}`,
      '--workers=2',
      '--drain-seconds=0',
    ]);
    const isReady = async (): Promise<boolean> =>
      (await fetch(`http://127.0.0.1:${ops}/readyz`).catch(() => undefined))?.status === 200;
    await until(async () => child.exitCode !== null || (await isReady()));
    expect(child.exitCode, said.errors).to.equal(null);
    const { accessToken } = await clients.logIn('alice');
    const call = async (): Promise<string> => {
      const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), {
        'grpc.use_local_subchannel_pool': 1,
      });
      const outcome = await callEcho(client, bearer(accessToken)).then(
        () => 'OK',
        (error: unknown) => errorOf(error).reason || String(error),
      );
      client.close();
      return outcome;
    };
    expect(await call()).to.equal('OK');
    away.stop();
    for (const [, pid] of said.output.matchAll(/"pid":(\d+).*"event":"open"/g))
      process.kill(Number(pid), 'SIGKILL');
    const started = () => (said.output + said.errors).match(/"event":"starting"/g)?.length ?? 0;
    await until(() => started() === 4);
    await writeFile(rules, RULES.replace('Unary: {scopes: inventory.read}', 'Unary: {scopes: nobody.has}'));
    child.kill('SIGHUP');
    expect(await call()).to.include('ECONNREFUSED');
    const back = await startUpstream(folder, bind);
    await until(isReady);
    for (let turn = 0; turn < 4; turn++) expect(await call()).to.equal('SCOPE_MISSING');
    child.kill('SIGTERM');
    expect(await exit).to.equal(0);
    back.stop();
  });

  it('accepts tokens of an issuer that its settings trust, and refuses nothing while it observes', async () => {
    const { privateKey, publicKey } = generateKeyPairSync('ed25519');
    const jwks = { keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'k1', alg: 'EdDSA', use: 'sig' }] };
    await writeFile(join(folder.path, 'jwks.json'), JSON.stringify(jwks));
    await writeFile(
      join(folder.path, 'issuers.yaml'),
      [
        'trusted-issuers:',
        '  - issuer: https://other.test',
        `    keys: {jwksFile: ${join(folder.path, 'jwks.json')}, algorithms: [EdDSA]}`,
        '    scopes: {read: inventory.read}',
      ].join('\n'),
    );
    const foreign = await new SignJWT({ scope: 'read', client_id: 'other' })
      .setProtectedHeader({ alg: 'EdDSA', kid: 'k1', typ: 'at+jwt' })
      .setIssuer('https://other.test')
      .setSubject('ada')
      .setAudience('inventory')
      .setJti('one')
      .setIssuedAt()
      .setExpirationTime('5m')
      .sign(privateKey);
    for (const [mode, outcomes] of [
      ['enforce', ['ADMITTED', 'TOKEN_MISSING']],
      ['observe', ['ADMITTED', 'ADMITTED']],
    ] as const) {
      const { port, ops, words } = await settings();
      const config = `--config=${join(folder.path, 'issuers.yaml')}`;
      const { child, said, exit } = start([...words, config, `--mode=${mode}`, '--drain-seconds=0']);
      const isReady = async (): Promise<boolean> =>
        (await fetch(`http://127.0.0.1:${ops}/readyz`).catch(() => undefined))?.status === 200;
      await until(async () => child.exitCode !== null || (await isReady()));
      expect(child.exitCode, said.errors).to.equal(null);
      const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
      const outcome = (metadata = new Metadata()): Promise<string> =>
        callEcho(client, metadata).then(
          () => 'ADMITTED',
          (error: unknown) => errorOf(error).reason,
        );
      expect([await outcome(bearer(foreign)), await outcome()], mode).to.deep.equal(outcomes);
      const metrics = await (await fetch(`http://127.0.0.1:${ops}/metrics`)).text();
      const observed = /portcullis_observed_refusals_total\{[^}]*TOKEN_MISSING[^}]*\} 1/.test(metrics);
      expect(observed, mode).to.equal(mode === 'observe');
      client.close();
      child.kill('SIGTERM');
      expect(await exit).to.equal(0);
    }
  });

  it('names the faults of settings and rules together', async () => {
    const rules = join(folder.path, 'faulty.yaml');
    await writeFile(rules, 'services: {test.v1.EchoService: {Unary: {scope: x}}}');
    const { said, exit } = start(['--listen=127.0.0.1:0', `--rules=${rules}`, '--token=keep']);
    expect(await exit).to.equal(2);
    expect(said.errors)
      .to.include('  token must be strip or forward')
      .and.include('  rules: test.v1.EchoService/Unary: scope is no condition: did you mean scopes?');
  });

  it('names every fault and opens nothing when the settings cannot be used', async () => {
    const { said, exit } = start(['--listen=0.0.0.0:1', '--token=keep']);
    expect(await exit).to.equal(2);
    for (const name of ['issuer', 'auth', 'client-id', 'upstream', 'token', 'tls-cert']) {
      expect(said.errors).to.match(new RegExp(`^ {2}${name} `, 'm'));
    }
  });

  it('prints its rules with those of options that the gate itself has, too', async () => {
    const rules = join(folder.path, 'rules.yaml');
    const { said, exit } = start(['rules', rules, '--public', '/test.v1.EchoService/Public']);
    expect(await exit, said.errors).to.equal(0);
    expect(said.output)
      .to.match(/Unary .*inventory\.read/)
      .and.match(/Public .*public/);
    const faulty = start(['rules', rules, '--public', 'EchoService/Public']);
    expect(await faulty.exit).to.equal(1);
    expect(faulty.said.errors).to.include('EchoService/Public');
  });

  it('fails when a rule is missing, a port is taken, or the upstream is open', async () => {
    const { words, ops } = await settings();
    const image = join(PROJECT_FOLDER, 'interceptors', 'gen');
    const missing = start([...words, `--descriptors=${image}`]);
    expect(await missing.exit).to.equal(1);
    const taken = start([
      ...words.filter((word) => !word.startsWith('--listen')),
      `--listen=${system.auth.address}`,
    ]);
    expect(await taken.exit).to.equal(1);
    expect(taken.said.errors).to.equal(
      `listen ${system.auth.address} cannot be opened: another program listens there, or a socket was left behind (EADDRINUSE)\n`,
    );
    expect(ops).to.be.above(0);
  });
});

/** The processes that a process has started (Linux). */
async function childrenOf(pid: number): Promise<number[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8');
  return text
    .trim()
    .split(' ')
    .filter((word) => word !== '')
    .map(Number);
}
