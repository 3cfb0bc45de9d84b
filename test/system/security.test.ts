/** The review and the metrics of a whole system, and that no secret appears in its output. */

import { randomBytes, randomUUID } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { REPORT_INTERVAL_MS } from '@portcullis/guard/internal';
import { expect } from 'chai';
import pg from 'pg';
import {
  FindingGrade,
  SecurityEventType,
  SecurityServiceClient,
  type WatchSecurityEventsResponse,
} from '../../proto/gen/auth/v1/security_service.js';
import { UserServiceClient } from '../../proto/gen/auth/v1/user_service.js';
import { ask, tokenMetadata } from '../../scripts/system/calls.js';
import { outcomeOf } from '../support/outcomes.js';
import { clientsOf, type SystemClients, startTestSystem, type TestSystem } from '../support/system.js';

const OPERATING = fileURLToPath(new URL('../../docs/operating/watch.md', import.meta.url));

describe('the security of a system', function () {
  this.timeout(90_000);
  let system: TestSystem;
  let clients: SystemClients;
  let security: SecurityServiceClient;
  let olga: string;

  before(async () => {
    system = await startTestSystem();
    clients = clientsOf(system);
    security = new SecurityServiceClient(system.auth.address, system.credentials);
    olga = (await clients.logIn('olga')).accessToken;
  });

  after(async () => {
    clients?.close();
    security?.close();
    await system?.remove();
  });

  const processes = () => [system.auth, ...system.inventory, system.payment];
  const metricsOf = async (opsAddress: string): Promise<string> =>
    await (await fetch(`http://${opsAddress}/metrics`)).text();

  it('is reviewed with only the findings of a system on one machine', async () => {
    // Services report their listeners with their first security reports.
    await clients.logIn('alice');
    await ask(
      clients.inventory[0].listItems.bind(clients.inventory[0]),
      { pageSize: 0, pageToken: '', filter: '' },
      {
        token: (await clients.logIn('alice')).accessToken,
      },
    );
    await sleep(REPORT_INTERVAL_MS + 1500);
    const review = await ask(security.reviewSecurity.bind(security), {}, { token: olga, timeoutMs: 30_000 });
    const critical = review.findings.filter(({ grade }) => grade === FindingGrade.FINDING_GRADE_CRITICAL);
    expect(critical).to.be.empty;
    const weak = review.findings.filter(({ grade }) => grade === FindingGrade.FINDING_GRADE_WEAK);
    expect(weak.map(({ reason, subject }) => `${reason} ${subject}`)).to.deep.equal([
      'PASSWORD_FROM_BOOTSTRAP olga',
    ]);
    const notes = review.findings.filter(({ grade }) => grade === FindingGrade.FINDING_GRADE_NOTE);
    expect([...new Set(notes.map(({ reason }) => reason))].sort()).to.deep.equal([
      'ADMIN_SINGLE',
      'BROKER_PLAINTEXT',
      'DATABASE_PLAINTEXT',
      'PASSWORD_FROM_BOOTSTRAP',
      'PLAINTEXT_LISTENER',
      'REFLECTION_ON',
    ]);
    const listeners = notes.filter(({ reason }) => reason === 'PLAINTEXT_LISTENER');
    expect(listeners.map(({ subject }) => subject.split(' ')[0])).to.include.members(['auth', 'inventory']);
    expect(review.reviewTime?.getTime()).to.be.closeTo(Date.now(), 60_000);
  });

  it('returns events and review only to callers who may read them', async () => {
    const { accessToken: alice } = await clients.logIn('alice');
    const page = { pageSize: 0, pageToken: '', filter: undefined };
    for (const [token, expected] of [
      [alice, 'PERMISSION_DENIED SCOPE_MISSING'],
      ['x', 'UNAUTHENTICATED TOKEN_INVALID'],
      [olga, 'OK'],
    ] as const) {
      expect(await outcomeOf(ask(security.listSecurityEvents.bind(security), page, { token }))).to.equal(
        expected,
      );
    }
    const filter = { types: [99], subject: '', beginTime: undefined, endTime: undefined };
    const unknown = ask(
      security.listSecurityEvents.bind(security),
      { ...page, filter: { ...filter, types: [99 as SecurityEventType] } },
      { token: olga },
    );
    expect(await outcomeOf(unknown)).to.equal('INVALID_ARGUMENT FIELD_INVALID');
  });

  it('streams events as they are recorded, and resumes where a watcher stopped', async () => {
    const watch = (resumeToken: string) =>
      security.watchSecurityEvents(
        {
          filter: {
            types: [SecurityEventType.SECURITY_EVENT_TYPE_SESSION_ESTABLISHED],
            subject: '',
            beginTime: undefined,
            endTime: undefined,
          },
          resumeToken,
        },
        tokenMetadata({ token: olga }),
      );
    const next = (stream: ReturnType<typeof watch>): Promise<WatchSecurityEventsResponse> =>
      new Promise((resolve, reject) => {
        stream.once('data', resolve);
        stream.once('error', reject);
      });
    const first = watch('');
    first.on('error', () => undefined);
    const pending = next(first);
    await sleep(500);
    const { session } = await clients.logIn('bob');
    const { event, resumeToken } = await pending;
    expect(event?.subject?.sessionId).to.equal(session?.sessionId);
    expect(event?.typeUri).to.match(/caep/);
    first.cancel();
    const later = await clients.logIn('bob');
    const second = watch(resumeToken);
    second.on('error', () => undefined);
    expect((await next(second)).event?.subject?.sessionId).to.equal(later.session?.sessionId);
    second.cancel();
  });

  it('has every metric in the table of the documentation, and no other', async () => {
    const texts = await Promise.all(processes().map(({ opsAddress }) => metricsOf(opsAddress)));
    const printed = texts.flatMap((text) =>
      [...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name ?? ''),
    );
    const ours = [...new Set(printed)].filter((name) => /^(portcullis|grpc)_/.test(name)).sort();
    const described = [...(await readFile(OPERATING, 'utf8')).matchAll(/^\| `((?:portcullis|grpc)_\w+)`/gm)]
      .map(([, name]) => name ?? '')
      .sort();
    expect(described).to.deep.equal(ours);
    expect(new Set(described).size).to.equal(described.length);
  });

  it('has metrics with few labels, none of which names a user', async () => {
    const { accessToken } = await clients.logIn('alice');
    await outcomeOf(
      ask(
        clients.auth.listSessions.bind(clients.auth),
        { pageSize: 0, pageToken: '' },
        { token: accessToken },
      ),
    );
    for (const { opsAddress, name } of processes()) {
      const text = await metricsOf(opsAddress);
      const labels = [...text.matchAll(/^portcullis_\w+\{([^}]*)\}/gm)].flatMap(([, all = '']) =>
        [...all.matchAll(/(\w+)="([^"]*)"/g)].map(([, label, value]) => ({
          label: label ?? '',
          value: value ?? '',
        })),
      );
      const names =
        'grpc_method outcome fault le service type rule purpose lane limit queue importance use reason port'.split(
          ' ',
        );
      expect(names, name).to.include.members([...new Set(labels.map(({ label }) => label))]);
      for (const { value } of labels)
        expect(value, name)
          .to.match(/^[\w./+-]{1,80}$/)
          .and.not.match(/[0-9a-f]{8}-/);
    }
  });

  it('writes no token, password or key into an event, a log line or a metric', async () => {
    const canary = `Canary-${randomBytes(9).toString('hex')}`;
    const users = new UserServiceClient(system.auth.address, system.credentials);
    const username = `canary-${randomBytes(4).toString('hex')}`;
    const password = `${canary}-password`;
    const creating = { username, password, roles: ['customer', 'operator'], requestId: randomUUID() };
    const { user } = await ask(users.createUser.bind(users), creating, { token: olga });
    const login = { audiences: [], scopes: [], deviceName: 'canary' };
    const { auth, revocation, inventory, payment } = clients;
    // Sends every secret in its own field, and in fields where users put it by mistake.
    const attempts = [
      { ...login, username: password, password },
      { ...login, username, password: `${canary}-wrong` },
      { ...login, username: `${canary}\n${password}`, password },
    ];
    for (const attempt of attempts) await outcomeOf(ask(auth.login.bind(auth), attempt));
    const session = await ask(auth.login.bind(auth), { ...login, username, password });
    const refreshed = await ask(auth.refresh.bind(auth), {
      refreshToken: session.refreshToken,
      requestId: '',
    });
    await outcomeOf(
      ask(auth.refresh.bind(auth), { refreshToken: session.refreshToken, requestId: randomUUID() }),
    );
    const forged = `${refreshed.accessToken.slice(0, -3)}AAA`;
    for (const token of [session.accessToken, refreshed.accessToken, forged, canary, password]) {
      await outcomeOf(
        ask(inventory[0].listItems.bind(inventory[0]), { pageSize: 0, pageToken: '', filter: '' }, { token }),
      );
      await outcomeOf(
        ask(payment.listPayments.bind(payment), { pageSize: 0, pageToken: '', filter: '' }, { token }),
      );
    }
    const again = await ask(auth.login.bind(auth), { ...login, username, password });
    await outcomeOf(
      ask(
        revocation.revoke.bind(revocation),
        {
          target: { $case: 'token', value: again.accessToken },
          reason: `lost: ${again.accessToken.slice(0, 150)}`,
          wait: 0,
          targets: [],
          dryRun: false,
          fences: [],
        },
        { token: olga },
      ),
    );
    const changed = { oldPassword: password, newPassword: `${canary}-new` };
    const { accessToken } = await ask(auth.login.bind(auth), { ...login, username, password });
    await outcomeOf(ask(auth.changePassword.bind(auth), changed, { token: accessToken }));
    await sleep(REPORT_INTERVAL_MS + 1500);

    const secrets = [
      canary,
      ...[session, refreshed, again].flatMap((one) => [one.accessToken, one.refreshToken]),
      ...[session, refreshed, again].map((one) => one.accessToken.split('.')[1] ?? ''),
      forged,
      (await readFile(system.secrets.keyEncryptionKeyFile, 'utf8')).trim(),
      ...(await privateKeyLines(Object.values(system.secrets.clientKeyFiles))),
      ...Object.values(system.users).map((one) => one.password),
    ];
    const places = new Map<string, string>();
    const logs = join(system.dataDir, 'logs');
    for (const file of await readdir(logs)) places.set(file, await readFile(join(logs, file), 'utf8'));
    for (const { name, opsAddress } of processes())
      places.set(`metrics of ${name}`, await metricsOf(opsAddress));
    places.set('events', await rowsOf(system.postgres?.url('portcullis_auth') ?? '', 'security_events'));
    expect(places.get('events')).to.include(user?.userId).and.to.include('session-established');
    for (const [place, text] of places) {
      expect(text, place).to.not.be.empty;
      for (const secret of secrets)
        expect(text.includes(secret), `${place}: ${secret.slice(0, 6)}…`).to.equal(false);
    }
    users.close();
  });
});

async function privateKeyLines(files: readonly string[]): Promise<string[]> {
  const texts = await Promise.all(files.map((file) => readFile(file, 'utf8')));
  return texts.flatMap((text) => text.split('\n').filter((line) => line !== '' && !line.startsWith('-----')));
}

async function rowsOf(databaseUrl: string, table: string): Promise<string> {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    const { rows } = await client.query<{ row: string }>(`SELECT t::text AS row FROM ${table} AS t`);
    return rows.map(({ row }) => row).join('\n');
  } finally {
    await client.end();
  }
}
