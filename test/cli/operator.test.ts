/** What an operator runs beside an incident, in a system with TLS and tokens that expire soon. */

import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { CLOCK_SKEW_SECONDS } from '@portcullis/guard/limits';
import { expect } from 'chai';
import { AuthServiceClient } from '../../proto/gen/auth/v1/auth_service.js';
import { InventoryServiceClient } from '../../proto/gen/inventory/v1/inventory_service.js';
import { ask } from '../../scripts/system/calls.js';
import { findFreePort } from '../../scripts/system/ports.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { createAuthority, type Identity } from '../support/certificates.js';
import { refusalOf } from '../support/outcomes.js';
import { PROJECT_FOLDER } from '../support/project-copy.js';
import { startTestSystem, type TestSystem } from '../support/system.js';
import { until } from '../support/waiting.js';
import { createCliRunner } from './cli-runner.js';

const COMMAND_LINE = join(PROJECT_FOLDER, 'cli', 'dist', 'src', 'main.js');

/** The shortest that auth allows. */
const TOKEN_SECONDS = 10;

describe('an operator on the command line', function () {
  this.timeout(120_000);
  let system: TestSystem;
  let folder: Awaited<ReturnType<typeof makeTemporaryFolder>>;
  let run: ReturnType<typeof createCliRunner>;
  let caFile: string;
  /** Auth of this system asks for a certificate of the caller. */
  let own: Identity;

  before(async () => {
    folder = await makeTemporaryFolder();
    const authority = await createAuthority(folder.path);
    caFile = authority.certFile;
    own = await authority.issue();
    system = await startTestSystem({
      tls: { ...(await authority.issue()), caFile },
      environment: { PORTCULLIS_ACCESS_TOKEN_SECONDS: String(TOKEN_SECONDS) },
    });
    run = createCliRunner(join(folder.path, 'contexts.json'));
  });
  after(async () => {
    await system.remove();
    await folder.remove();
  });

  async function login(): Promise<void> {
    const words = ['login', '--user', 'olga', '--address', system.auth.address, '--password-stdin'];
    const files = ['--ca', caFile, '--cert', own.certFile, '--key', own.keyFile];
    const { code, err } = await run([...words, ...files], { input: system.users.olga.password });
    expect(code, err).to.equal(0);
  }

  it('is told to name the CA of a certificate that no public authority has issued', async () => {
    const words = ['login', '--user', 'olga', '--address', system.auth.address, '--password-stdin'];
    const other = await createAuthority(folder.path);
    const strange = await run([...words, '--ca', other.certFile], { input: 'x' });
    expect(strange.code).to.equal(1);
    expect(strange.err).to.include('--ca');
    const anonymous = await run([...words, '--ca', caFile], { input: 'x' });
    expect(anonymous.err).to.include('log in with --cert and --key');
  });

  it('sees every instance in one reading, with decisions and refusals of those that it names', async () => {
    await login();
    const metrics = `https://${system.inventory[0].opsAddress}/metrics`;
    const closed = `https://127.0.0.1:${await findFreePort()}/metrics`;
    const readings: string[] = [];
    const interrupt = new AbortController();
    const watching = run(['--json', 'top', '--metrics', `${metrics},${closed}`, '--interval', '0.3'], {
      interrupt: interrupt.signal,
      onOutput: (text) => {
        readings.push(...text.trim().split('\n'));
        if (readings.length === 3) interrupt.abort();
      },
    });
    expect((await watching).code).to.equal(0);
    const all = readings.slice(0, 3).map((text) => JSON.parse(text));
    const last = all[2];
    const names = last.instances.map(({ name }: { name: string }) => name.split('@')[0]).sort();
    expect(names).to.deep.equal(['auth', 'inventory', 'inventory', 'payment']);
    // The leases of this system are short: a busy machine may let one end for a moment.
    const standings = all.map(({ instances }) => instances.map((one: { standing: string }) => one.standing));
    expect(standings).to.deep.include(['serving', 'serving', 'serving', 'serving']);
    const [own, missing] = last.rates;
    expect(own).to.include({ url: metrics, problem: '' });
    expect(own.decisionsPerSecond).to.be.at.least(0);
    expect(own.entries).to.be.at.least(0);
    expect(missing.problem).to.equal('unreachable (ECONNREFUSED)');
    const once = await run(['top', '--once']);
    expect(once.out.split('\n')[0]).to.match(/^INSTANCE +STATE +LAG +LEASE +LAST SYNC/);
  });

  it('is told by the doctor what is good, and what is not', async () => {
    await login();
    const good = JSON.parse((await run(['--json', 'doctor'])).out);
    const facts = Object.fromEntries(
      good.checks.map(({ check, isGood }: { check: string; isGood: boolean }) => [check, isGood]),
    );
    expect(facts).to.include({ file: true, session: true, connection: true, clock: true, instances: true });
    await run(['logout']);
    const { code, out } = await run(['doctor']);
    expect(code).to.equal(5);
    expect(out).to.match(/^✗ +session/m);
  });

  it('reviews the system, and fails when something is critical', async () => {
    await login();
    const { code, out } = await run(['--json', 'review']);
    const { findings } = JSON.parse(out);
    expect(findings).to.be.an('array').that.is.not.empty;
    const isCritical = findings.some(({ grade }: { grade: string }) => grade === 'critical');
    expect(code).to.equal(isCritical ? 5 : 0);
    for (const { reason, fact } of findings) expect([reason, fact]).to.not.include('');
  });

  it('rotates keys, and sees the former one verify only', async () => {
    await login();
    const signing = async (): Promise<string> => {
      const { keys } = JSON.parse((await run(['--json', 'keys'])).out);
      return keys.find(
        (key: { purpose: string; state: string }) => key.purpose === 'broadcast' && key.state === 'signing',
      ).kid;
    };
    const before = await signing();
    const rotate = () => run(['keys', 'rotate', '--purpose', 'broadcast', '--reason', 'test']);
    let rotated = await rotate();
    // The next key of a new system must be known everywhere first.
    await until(
      async () => {
        if (rotated.err.includes('not every instance can know the next key yet')) rotated = await rotate();
        return rotated.code === 0;
      },
      { withinMs: 30_000, pollMs: 500 },
    );
    const after = await signing();
    expect(after).to.not.equal(before);
    expect(rotated.out).to.equal(`${after} signs now; ${before} only verifies.\n`);
    expect((await run(['keys', 'rotate', '--purpose', 'nothing'])).code).to.equal(2);
    const list = await run(['keys', 'list']);
    expect(list.out).to.match(new RegExp(`^${before} +broadcast +verify-only`, 'm'));
  });

  it('ends the sessions for which all conditions hold, and finds what was revoked', async () => {
    await login();
    const auth = new AuthServiceClient(system.auth.address, system.credentials);
    const open = async (deviceName: string): Promise<string> => {
      const { username, password } = system.users.alice;
      const { session } = await ask(auth.login.bind(auth), {
        ...{ username, password, audiences: [], scopes: [], deviceName },
      });
      return session?.sessionId ?? '';
    };
    const devices = async (): Promise<string[]> => {
      const { sessions } = JSON.parse((await run(['--json', 'sessions', 'alice'])).out);
      return sessions.map(({ deviceName }: { deviceName: string }) => deviceName);
    };
    try {
      const older = await open('older');
      await new Promise((resolve) => setTimeout(resolve, 1_100));
      const time = new Date().toISOString();
      await new Promise((resolve) => setTimeout(resolve, 100));
      await open('newer');
      const conditions = ['--user', 'alice', '--logged-in-before', time, '--network', '127.0.0.1'];
      const planned = JSON.parse((await run(['--json', 'revoke', ...conditions, '--dry-run'])).out);
      expect(planned.sessions.map(({ sessionId }: { sessionId: string }) => sessionId)).to.include(older);
      expect(await devices()).to.include.members(['older', 'newer']);
      const elsewhere = ['--user', 'alice', '--network', '192.0.2.1'];
      expect((await run(['revoke', ...elsewhere, '--dry-run'])).out).to.equal('Would end 0 sessions.\n');
      const done = await run(['revoke', ...conditions, '--reason', 'test of conditions']);
      expect(done.code, done.err).to.equal(0);
      expect(await devices())
        .to.include('newer')
        .and.not.include('older');
      const of = JSON.parse((await run(['--json', 'revocations', '--of', older, '--by', 'olga'])).out);
      expect(of.revocations.map(({ reason }: { reason: string }) => reason)).to.deep.equal([
        'test of conditions',
      ]);
      const none = await run(['revocations', '--by', 'alice']);
      expect(none.out).to.equal('The log has no such revocation.\n');
    } finally {
      auth.close();
    }
  });

  it('revokes several sessions or tokens in one call, and names those that failed', async () => {
    await login();
    const auth = new AuthServiceClient(system.auth.address, system.credentials);
    const open = async (deviceName: string) => {
      const { username, password } = system.users.bob;
      const request = { username, password, audiences: [], scopes: [], deviceName };
      const { session, accessToken } = await ask(auth.login.bind(auth), request);
      return { sessionId: session?.sessionId ?? '', accessToken };
    };
    try {
      const [one, two, three] = [await open('one'), await open('two'), await open('three')];
      const names = [one, two].map(({ sessionId }) => `bob/${sessionId.slice(0, 8)}`);
      const planned = await run(['revoke', '--session', ...names, '--dry-run']);
      expect(planned.out).to.equal(names.map((name) => `Would end session ${name}.\n`).join(''));
      const done = await run(['--json', 'revoke', '--session', ...names, '--reason', 'two laptops']);
      expect(done.code, done.err).to.equal(0);
      const { receipt, results } = JSON.parse(done.out);
      expect(Number(receipt)).to.be.above(0);
      expect(
        results.map(({ name, errorReason }: Record<string, string>) => [name, errorReason]),
      ).to.deep.equal(names.map((name) => [name, '']));
      const { sessions } = JSON.parse((await run(['--json', 'sessions', 'bob'])).out);
      const left = sessions.map(({ sessionId }: { sessionId: string }) => sessionId);
      expect(left).to.include(three.sessionId).and.not.include(one.sessionId).and.not.include(two.sessionId);

      // A log has the same token many times.
      const input = `${three.accessToken}\n\n${three.accessToken}\nnonsense\n`;
      const counted = await run(['revoke', '--token', '-', '--dry-run'], { input });
      expect(counted.out).to.equal('Would revoke 2 tokens.\n');
      const some = await run(['revoke', '--token', '-', '--reason', 'leaked log'], { input });
      expect(some.code).to.equal(1);
      expect(some.out).to.match(/^Revoked 1 of 2\. Receipt \d+\.$/m);
      expect(some.err)
        .to.match(/^line 4: \w+: /m)
        .and.include('Not revoked: line 4.')
        .and.not.include(three.accessToken);
      const inventory = new InventoryServiceClient(system.inventory[0].address, system.credentials);
      const request = { pageSize: 1, pageToken: '', filter: '' };
      await until(async () => {
        const call = ask(inventory.listItems.bind(inventory), request, { token: three.accessToken });
        return (await refusalOf(call)).reason === 'TOKEN_REVOKED';
      });
      inventory.close();

      expect((await run(['revoke', '--token', '-'], { input: '\n' })).code).to.equal(2);
      const many = await run(['revoke', '--token', '-'], {
        input: Array.from({ length: 1_001 }, (_, index) => `x${index}\n`).join(''),
      });
      expect(many).to.include({ code: 2, out: '' });
      expect(many.err).to.include('At most 1000 targets at once, got 1001.');
      const both = await run(['revoke', '--user', 'alice', 'bob', '--role', 'customer']);
      expect(both.err).to.include('Conditions on sessions go with one --user at most.');
      const of = await run(['--json', 'revoke', '--user', 'alice', 'bob', '--dry-run']);
      expect(Number(JSON.parse(of.out).sessionCount)).to.be.at.least(1);
    } finally {
      auth.close();
    }
  });

  it('follows events beyond the end of its own token, and misses none', async () => {
    await login();
    const auth = new AuthServiceClient(system.auth.address, system.credentials);
    const seen: string[] = [];
    const interrupt = new AbortController();
    const following = run(
      ['--json', 'events', '--follow', '--type', 'session-established', '--user', 'alice'],
      {
        interrupt: interrupt.signal,
        onOutput: (text) => {
          for (const line of text.trim().split('\n')) seen.push(JSON.parse(line).eventId);
        },
      },
    );
    const opened: string[] = [];
    const { username, password } = system.users.alice;
    // The guard allows for clocks that differ.
    const untilMs = Date.now() + (TOKEN_SECONDS + CLOCK_SKEW_SECONDS + 3) * 1000;
    try {
      let isFollowed = false;
      while (Date.now() < untilMs) {
        const request = { username, password, audiences: [], scopes: [], deviceName: 'noise' };
        const { session } = await ask(auth.login.bind(auth), request);
        isFollowed ||= seen.length > 0;
        if (isFollowed) opened.push(session?.sessionId ?? '');
        await new Promise((resolve) => setTimeout(resolve, 300));
      }
      await until(() => seen.length >= opened.length);
    } finally {
      interrupt.abort();
      auth.close();
    }
    const outcome = await following;
    expect(outcome.code, outcome.err).to.equal(0);
    expect(new Set(seen).size).to.equal(seen.length);
    expect(opened.length).to.be.above(20);
    expect(outcome.err).to.not.include('revoked');
    expect(seen.length).to.be.within(opened.length, opened.length + 3);
  });

  it('may stop reading early, as head does', async () => {
    await login();
    const environment = { ...process.env, PORTCULLIS_CONFIG: join(folder.path, 'contexts.json') };
    for (const closed of ['stdout', 'stderr'] as const) {
      const child = spawn(
        process.execPath,
        [COMMAND_LINE, ...(closed === 'stdout' ? ['events'] : ['review'])],
        {
          env: environment,
          stdio: ['ignore', 'pipe', 'pipe'],
        },
      );
      child[closed].destroy();
      let said = '';
      child[closed === 'stdout' ? 'stderr' : 'stdout'].on('data', (part) => {
        said += String(part);
      });
      const code = await new Promise((resolve) => child.once('close', resolve));
      expect(code, said).to.equal(0);
      expect(said).to.not.match(/EPIPE|at .*\.js/);
    }
  });
});
