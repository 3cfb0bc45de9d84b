/** The database connections of auth by importance, with the parts as they are composed for a running service. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import pg from 'pg';
import { parseConfig } from '../../../services/auth/config.js';
import { createParts, type Parts } from '../../../services/auth/parts.js';
import { LOCK_WAITS_MAX } from '../../../services/auth/revocation/revocation-groups.js';
import {
  type Database,
  type Importance,
  type LaneStatus,
  openDatabase,
} from '../../../services/common/database/database.js';
import { ROW_CONNECTIONS_MAX } from '../../../services/common/database/lane.js';
import { type Closer, createCloser } from '../../../services/common/host/closer.js';
import { createLog } from '../../../services/common/host/log.js';
import { codeOf, codeOrOk, serviceErrorOf } from '../../support/outcomes.js';
import { type FreshDatabase, freshDatabase } from '../../support/postgres.js';
import { until } from '../../support/waiting.js';
import { installDemoPolicy } from './demo-policy.js';
import { MIGRATIONS } from './revocation/revocation-support.js';

const PASSWORD = 'correct horse battery';
const WAITING_FOR_ROW = 5;

describe('the work of auth', () => {
  let fresh: FreshDatabase;
  let database: Database;
  let parts: Parts;
  let closer: Closer;

  before(async () => {
    fresh = await freshDatabase();
    const config = parseConfig({
      DATABASE_URL: fresh.url,
      PORTCULLIS_ISSUER: 'http://127.0.0.1:1',
      PORTCULLIS_LISTEN: '127.0.0.1:0',
      PORTCULLIS_OPS_LISTEN: '127.0.0.1:0',
      PORTCULLIS_KEY_ENCRYPTION_KEY: Buffer.alloc(32, 7).toString('base64url'),
      PORTCULLIS_DATABASE_UNKNOWN_QUEUE: '20',
      PORTCULLIS_DATABASE_KNOWN_QUEUE: '20',
      PORTCULLIS_DATABASE_ROW_QUEUE: String(WAITING_FOR_ROW),
      // So that the limits of the database are reached.
      PORTCULLIS_REFRESHES_PER_TOKEN: '1000',
    });
    const log = createLog({ service: 'auth', level: 'silent' });
    closer = createCloser(log);
    database = openDatabase({
      url: fresh.url,
      migrations: MIGRATIONS,
      log,
      limits: config.databaseLimits,
    });
    closer.add('database', database.close);
    parts = createParts(config, { database, log, closer, onRevoked: () => {} });
    await database.ready(AbortSignal.timeout(45_000));
    await installDemoPolicy(database);
    await parts.keys.open();
    await parts.secrets.open();
  });
  after(async () => {
    await closer.closeAll();
    await fresh.drop();
  });

  const statusOf = (importance: Importance): LaneStatus => {
    const status = database.lanes().find((lane) => lane.importance === importance);
    if (status === undefined) throw new Error(`there is no lane ${importance}`);
    return status;
  };

  async function addUser(): Promise<string> {
    const username = `user-${randomUUID()}`;
    const request = {
      actor: 'test',
      username,
      password: PASSWORD,
      roles: ['customer'],
      requestId: randomUUID(),
    };
    await parts.users.create(request);
    return username;
  }

  const logIn = (username: string, peer = '192.0.2.1:4000') =>
    parts.sessions.login({ username, password: PASSWORD, audiences: [], scopes: [], deviceName: '', peer });

  const refresh = (refreshToken: string, requestId = randomUUID(), peer = '192.0.2.1:4000') =>
    parts.sessions.refresh({ refreshToken, requestId, peer });

  /** Takes all connections of lanes and fills their queues, until the returned function is called. */
  async function fill(...importances: Importance[]): Promise<() => Promise<void>> {
    let open = (): void => {};
    const gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    const held = importances.flatMap((importance) => {
      const { connections } = statusOf(importance);
      return Array.from({ length: connections + 20 }, () =>
        database
          .lane(importance)
          .transaction(() => gate)
          .catch(() => {}),
      );
    });
    await until(() => importances.every((importance) => statusOf(importance).waiting === 20));
    return async () => {
      open();
      await Promise.all(held);
    };
  }

  it('that keeps the promise goes on while all other connections are in use and their queues are full', async () => {
    const username = await addUser();
    const sessions = await Promise.all([logIn(username), logIn(username)]);
    const [first, second] = sessions;
    const clientId = `client-${randomUUID()}`;
    await parts.clients.create({
      clientId,
      credential: { kind: 'secret', secret: 's'.repeat(40) },
      audiences: ['auth'],
      scopes: ['auth.sync'],
      exchangeAudiences: [],
      exchangeScopes: [],
      certificateBound: false,
      actor: 'test',
      requestId: randomUUID(),
    });
    const leave = await fill('known', 'unknown');
    try {
      const question = {
        service: 'inventory',
        instance: Buffer.alloc(16, 1),
        epoch: Buffer.alloc(0),
        applied: 0n,
        entryIdAtApplied: Buffer.alloc(0),
        keySetVersion: Buffer.alloc(0),
        seen: [],
        fences: [],
        heldTo: 0n,
        heldDigest: Buffer.alloc(0),
      };
      expect(await parts.revocations.sync(question)).to.include({ pull: true });
      const pulled: string[] = [];
      for await (const { part } of parts.revocations.pull(question)) pulled.push(part);
      expect(pulled.at(-1)).to.equal('end');
      const by = { reason: 'test', actor: 'test' };
      const { userId } = first.session;
      for (const target of [
        { kind: 'token', token: first.access.token },
        { kind: 'token-id', tokenId: randomUUID() },
        { kind: 'session', sessionId: second.session.sessionId },
        { kind: 'user', userId },
        { kind: 'client', clientId },
      ] as const) {
        const { sequence } = await parts.revocations.revoke({ target, ...by });
        expect(sequence > 0n, target.kind).to.equal(true);
      }
      await parts.accountChanges.disable({ userId, requestId: randomUUID(), actor: 'test' });
      const rotation = { purpose: 'token', emergency: true, requestId: randomUUID(), ...by } as const;
      expect((await parts.keyLife.rotate(rotation)).revocation).not.to.equal(undefined);
      await parts.keyLife.maintain();
      expect((await parts.publicKeys.read()).keySet.keys).not.to.deep.equal([]);
      await parts.revocations.purge();
      await parts.instances.deleteSilent();
    } finally {
      await leave();
    }
  });

  it('for known callers goes on while what anyone may ask for is stuck, and that is rejected with a time', async () => {
    const username = await addUser();
    const { session, refreshToken } = await logIn(username);
    const leave = await fill('unknown');
    try {
      // All that fills the queue comes from one caller, so others take its places; then they are rejected, too.
      const others = Array.from({ length: 20 }, () => refresh(refreshToken).catch((error: unknown) => error));
      void Promise.all(others);
      const error = await serviceErrorOf(refresh(refreshToken, randomUUID(), '192.0.2.1:4001'));
      expect(error).to.include({ code: 'RATE_LIMITED' });
      expect(error.message).to.include('PORTCULLIS_DATABASE_UNKNOWN_QUEUE');
      expect(error.retryAfterMs).to.be.greaterThan(0);
      await parts.sessions.logout(session);
    } finally {
      await leave();
    }
  });

  it('for known callers is done in turns: one who fills the queue with lists refuses only its own', async () => {
    const [one, other] = await Promise.all([logIn(await addUser()), logIn(await addUser())]);
    const { connections } = statusOf('known');
    let open = (): void => {};
    const gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    const held = Array.from({ length: connections }, () => database.transaction(() => gate));
    try {
      await until(() => statusOf('known').inUse === connections);
      const list = ({ session }: typeof one) => parts.sessions.list(session, { pageSize: 0, pageToken: '' });
      const flood = Array.from({ length: 60 }, () => codeOrOk(list(one)));
      await until(() => statusOf('known').waiting === 20);
      const turn = list(other);
      open();
      expect((await turn).sessions).to.have.length(1);
      expect(await Promise.all(flood)).to.include('RATE_LIMITED');
    } finally {
      open();
      await Promise.all(held);
    }
  });

  it('for one session leaves connections to all others, and bounds what waits for it', async () => {
    const [one, other] = await Promise.all([logIn(await addUser()), logIn(await addUser())]);
    const holder = new pg.Client({ connectionString: fresh.url });
    await holder.connect();
    try {
      await holder.query('BEGIN');
      await holder.query('SELECT FROM sessions WHERE session_id = $1 FOR UPDATE', [one.session.sessionId]);
      const requestId = randomUUID();
      const flood = Array.from({ length: 1000 }, () => codeOf(refresh(one.refreshToken, requestId)));
      const before = statusOf('unknown').rejected.get('row') ?? 0;
      await until(() => (statusOf('unknown').rejected.get('row') ?? 0) > before);
      await until(
        () =>
          statusOf('unknown').inUse === ROW_CONNECTIONS_MAX &&
          statusOf('unknown').waiting === WAITING_FOR_ROW,
      );
      // The same network, so nothing but the row tells them apart.
      expect(await refresh(other.refreshToken)).to.have.property('refreshToken');
      await holder.query('ROLLBACK');
      const outcomes = await Promise.allSettled(flood);
      const codes = new Set(
        outcomes.map((outcome) => (outcome.status === 'fulfilled' ? outcome.value : 'OK')),
      );
      codes.delete('DEPENDENCY_UNAVAILABLE');
      expect([...codes].sort()).to.deep.equal(['OK', 'RATE_LIMITED']);
    } finally {
      await holder.end();
    }
  });

  // Revocations of sessions are written in groups, and few of them wait for locks; others share a row's connections.
  for (const [what, waitsMax, ask] of [
    ['Logout', LOCK_WAITS_MAX, ({ session }) => parts.sessions.logout(session)],
    ['RevokeOtherSessions', ROW_CONNECTIONS_MAX, ({ session }) => parts.sessions.revokeOthers(session)],
    ['RevokeSession', LOCK_WAITS_MAX, ({ session }) => parts.sessions.revoke(session, session.sessionId)],
  ] as [string, number, (login: Awaited<ReturnType<typeof logIn>>) => Promise<unknown>][]) {
    it(`leaves connections to others when one user calls ${what} very often`, async () => {
      const [one, other] = await Promise.all([logIn(await addUser()), logIn(await addUser())]);
      const holder = new pg.Client({ connectionString: fresh.url });
      // A transaction sees the activity as it was when it first looked.
      const observer = new pg.Client({ connectionString: fresh.url });
      await Promise.all([holder.connect(), observer.connect()]);
      const waits = async (): Promise<number> => {
        const { rows } = await observer.query<{ count: string }>(
          `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
        );
        return Number(rows[0]?.count);
      };
      try {
        await holder.query('BEGIN');
        await holder.query('SELECT FROM sessions WHERE session_id = $1 FOR UPDATE', [one.session.sessionId]);
        const flood = Array.from({ length: 100 }, () => ask(one).catch((error: unknown) => error));
        await until(async () => (await waits()) === waitsMax);
        await ask(other);
        expect(await waits()).to.be.at.most(waitsMax);
        await holder.query('ROLLBACK');
        await Promise.all(flood);
      } finally {
        await Promise.all([holder.end(), observer.end()]);
      }
    });
  }
});
