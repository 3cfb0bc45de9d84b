/** The record of security events: its transactions, its readers, and failures to write it. */

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { applyBootstrap } from '../../../../services/auth/accounts/bootstrap.js';
import type {
  Initiator,
  SecurityEvent,
  SecurityEventType,
} from '../../../../services/auth/records/security-events.js';
import { ROLLED_UP_MIN } from '../../../../services/auth/revocation/rolled-up-events.js';
import type { EventFilter } from '../../../../services/auth/security/event-access.js';
import { EVENTS_WAITING_MAX } from '../../../../services/auth/security/event-recorder.js';
import {
  EVENT_KEPT_DAYS,
  isRoutine,
  ROUTINE_EVENT_KEPT_DAYS,
  SECURITY_EVENT_TYPES,
  sanitizeText,
  typeUriOf,
} from '../../../../services/auth/security/events.js';
import { createSecurityStore } from '../../../../services/auth/security/store.js';
import type { Database } from '../../../../services/common/database/database.js';
import { codeOf, serviceErrorOf } from '../../../support/outcomes.js';
import { until } from '../../../support/waiting.js';
import {
  addClient,
  addUser,
  attemptOf,
  type FreshAuth,
  ISSUER,
  issue,
  logIn,
  openAuth,
  openFreshAuth,
  signAssertion,
} from '../instance.js';

const NO_PROOF = {
  credential: { kind: 'secret', secret: 'x'.repeat(32) },
  audiences: [],
  scopes: [],
} as const;

/** A database that records the plans of the statements that read placed events. */
function explaining(database: Database, plans: string[]): Database {
  return {
    ...database,
    query: async <Row extends object>(text: string, values?: readonly unknown[]) => {
      if (text.includes('security_events_lasting')) {
        const { rows } = await database.query<{ 'QUERY PLAN': string }>(`EXPLAIN ${text}`, values);
        plans.push(...rows.map((row) => row['QUERY PLAN']));
      }
      return await database.query<Row>(text, values);
    },
  };
}

describe('security events', () => {
  let auth: FreshAuth;

  beforeEach(async () => {
    auth = await openFreshAuth();
  });

  afterEach(() => auth.close());

  /** Every event of a filter, newest first. */
  async function eventsOf(filter: EventFilter = {}): Promise<SecurityEvent[]> {
    const found: SecurityEvent[] = [];
    for (let pageToken = ''; ; ) {
      const page = await auth.events.list(filter, { pageSize: 200, pageToken });
      found.push(...page.events);
      pageToken = page.nextPageToken;
      if (pageToken === '') return found;
    }
  }

  /** The partition of a table that takes the next events. */
  async function partitionOf(table: string): Promise<string> {
    const { rows } = await auth.database.query<{ name: string }>(
      `SELECT inhrelid::regclass::text AS name FROM pg_inherits
       WHERE inhparent = $1::regclass ORDER BY name LIMIT 1`,
      [table],
    );
    return rows[0]?.name ?? '';
  }

  /** Waits until events that were recorded outside of a transaction are written. */
  async function written(type: SecurityEventType, count = 1): Promise<SecurityEvent[]> {
    let events: SecurityEvent[] = [];
    await until(async () => {
      events = await eventsOf({ types: [type] });
      return events.length >= count;
    });
    return events;
  }

  describe('are recorded', () => {
    it('of a login, a refresh, a reuse and a logout, each with its session and its network', async () => {
      const user = await addUser(auth);
      const { session, refreshToken } = await logIn(auth, user, { peer: '198.51.100.7:1' });
      const next = await auth.sessions.refresh({
        refreshToken,
        requestId: randomUUID(),
        peer: '198.51.100.8:2',
      });
      await codeOf(auth.sessions.refresh({ refreshToken, requestId: randomUUID(), peer: '203.0.113.9:3' }));
      await codeOf(auth.sessions.refresh({ refreshToken: next.refreshToken, requestId: randomUUID() }));
      const second = await logIn(auth, user);
      await auth.sessions.logout({ userId: user.userId, sessionId: second.session.sessionId });
      const subject = { userId: user.userId, sessionId: session.sessionId };
      const events = (await eventsOf({ subject: user.userId })).reverse();
      expect(events.map(({ type, network }) => [type, network])).to.deep.equal([
        ['account-created', ''],
        ['session-established', '198.51.100.7'],
        ['token-refreshed', '198.51.100.8'],
        ['refresh-token-reused', '203.0.113.9'],
        ['session-revoked', '203.0.113.9'],
        ['session-established', '192.0.2.1'],
        ['session-revoked', ''],
      ]);
      expect(events[4]?.subject).to.deep.equal(subject);
      expect(events.slice(4).map(({ reason, actor }) => [reason, actor])).to.deep.equal([
        ['refresh token reused', 'auth'],
        ['login', user.userId],
        ['logout', user.userId],
      ]);
      expect(await eventsOf({ subject: session.sessionId })).to.have.length(4);
      expect(await eventsOf({ subject: session.sessionId.toUpperCase() })).to.have.length(4);
    });

    it('of a refused client with the fault, by how many seconds a time was missed, and one event for each', async () => {
      const client = await addClient(auth);
      const seconds = () => Math.floor(Date.now() / 1000);
      const used = await signAssertion(client);
      await issue(auth, client, used);
      const faults: readonly [fault: string, assertion: string][] = [
        ['clock', await signAssertion(client, { iat: seconds() + 20, exp: seconds() + 60 })],
        ['aud', await signAssertion(client, { aud: `${ISSUER}/` })],
        ['exp', await signAssertion(client, { iat: seconds() - 90, exp: seconds() - 30 })],
        ['lifetime', await signAssertion(client, { exp: seconds() + 900 })],
        ['replay', used],
        ['sub', await signAssertion(client, { sub: 'other' })],
        ['malformed', 'a.b.c'],
      ];
      for (const [, assertion] of faults) {
        for (let times = 0; times < 2; times += 1) {
          const error = await serviceErrorOf(issue(auth, client, assertion));
          expect([error.code, error.message]).to.deep.equal([
            'CLIENT_AUTHENTICATION_FAILED',
            'the client is unknown or its proof is wrong',
          ]);
        }
      }
      const events = (await written('client-authentication-failed', faults.length)).filter(
        (event) => event.type === 'client-authentication-failed',
      );
      expect(events.map(({ details }) => details.fault)).to.have.members(faults.map(([fault]) => fault));
      for (const { subject } of events) expect(subject).to.deep.equal({ clientId: client.clientId });
      const missedBy = (fault: string) =>
        events.find(({ details }) => details.fault === fault)?.details.seconds;
      expect(missedBy('clock')).to.be.within(10, 20);
      expect(missedBy('exp')).to.be.at.least(30);
      expect(missedBy('replay')).to.equal(undefined);
    });

    it('of a failed login with the user or a hash of an unknown name, and never with the typed text', async () => {
      const user = await addUser(auth);
      const typed = `canary-password-${randomUUID()}`;
      await codeOf(auth.sessions.login(attemptOf(user.username, typed)));
      await codeOf(auth.sessions.login(attemptOf(typed, 'x')));
      await codeOf(auth.sessions.login(attemptOf(typed, 'y')));
      const [third, second, first] = await written('login-failed', 3);
      expect(first?.subject).to.deep.equal({ userId: user.userId });
      expect(second?.subject.nameHash)
        .to.match(/^[\w-]{22}$/)
        .and.to.equal(third?.subject.nameHash);
      expect(JSON.stringify([first, second, third])).to.not.include('canary');
    });

    it('of a client that fails to authenticate, by its name if it exists, once a minute', async () => {
      const client = await addClient(auth);
      const peer = '198.51.100.5:1';
      for (const clientId of [client.clientId, client.clientId, 'canary-secret', 'canary-secret']) {
        await codeOf(auth.serviceTokens.issue({ ...NO_PROOF, clientId, peer }));
      }
      const events = await written('client-authentication-failed', 2);
      expect(events.map(({ subject, network }) => [subject, network])).to.have.deep.members([
        [{ clientId: client.clientId }, '198.51.100.5'],
        [{}, '198.51.100.5'],
      ]);
    });

    it('of the users and clients that the bootstrap file names', async () => {
      const client = {
        publicKeyPem: undefined,
        secret: undefined,
        audiences: [],
        scopes: [],
        exchangeAudiences: [],
        exchangeScopes: [],
        certificateBound: false,
      };
      const bootstrap = {
        users: [{ username: 'olga', password: 'long enough', roles: ['admin'] as const }],
        clients: [{ clientId: 'shop', ...client }],
      };
      await applyBootstrap(bootstrap, auth);
      await applyBootstrap(bootstrap, auth);
      const events = await eventsOf();
      expect(events.map(({ type, actor }) => [type, actor])).to.deep.equal([
        ['account-created', 'bootstrap'],
        ['client-created', 'bootstrap'],
      ]);
      expect(events[1]?.subject).to.deep.equal({ clientId: 'shop' });
    });

    it('of every kind of revocation, with actor and reason', async () => {
      const user = await addUser(auth);
      const { session } = await logIn(auth, user);
      const [tokenId, by] = [randomUUID(), { reason: 'lost laptop', actor: 'olga' }];
      await auth.revocations.revoke({ ...by, target: { kind: 'token-id', tokenId } });
      await auth.revocations.revoke({ ...by, target: { kind: 'session', sessionId: session.sessionId } });
      await auth.revocations.revoke({ ...by, target: { kind: 'user', userId: user.userId } });
      await auth.revocations.revoke({ ...by, target: { kind: 'client', clientId: 'direct' } });
      const foreign = { issuer: 'https://other.example', what: 'USER', id: 'alice' } as const;
      await auth.revocations.revoke({ ...by, target: { kind: 'foreign', foreign } });
      const [key] = (await auth.publicKeys.read()).keySet.keys;
      const keyId = key?.kid ?? '';
      await auth.revocations.revoke({ ...by, target: { kind: 'key', keyId } });
      const events = (await eventsOf()).filter(({ reason }) => reason === 'lost laptop').reverse();
      expect(events.map(({ type, subject }) => [type, subject])).to.deep.equal([
        ['token-revoked', { tokenId }],
        ['session-revoked', { userId: user.userId, sessionId: session.sessionId }],
        ['session-revoked', { userId: user.userId }],
        ['client-revoked', { clientId: 'direct' }],
        ['session-revoked', { issuer: 'https://other.example', userId: 'alice' }],
        ['key-revoked', { keyId }],
      ]);
      expect(new Set(events.map(({ actor }) => actor))).to.deep.equal(new Set(['olga']));
      const initiator: Initiator = 'admin';
      expect(events[2]?.details).to.deep.equal({ initiator });
    });

    it('of other roles, another password, a disabled and an enabled user, a rotation and an epoch', async () => {
      const user = await addUser(auth);
      const request = { actor: 'ada', userId: user.userId, requestId: randomUUID() };
      await auth.accountChanges.setRoles({ ...request, roles: ['operator'] });
      await auth.accountChanges.changePassword({
        userId: user.userId,
        oldPassword: user.password,
        newPassword: 'another password',
        peer: '198.51.100.1:1',
      });
      await auth.accountChanges.disable({ ...request, requestId: randomUUID() });
      await auth.accountChanges.enable({ ...request, requestId: randomUUID() });
      const rotate = { purpose: 'token', reason: 'leak', actor: 'ada', requestId: randomUUID() } as const;
      const { signingKey, formerKey } = await auth.keyLife.rotate({ ...rotate, emergency: true });
      await auth.epochs.open({ reason: 'restored', actor: 'ada', requestId: randomUUID() });
      const events = (await eventsOf()).reverse();
      expect(events.map(({ type }) => type)).to.deep.equal([
        'account-created',
        'token-claims-change',
        'credential-change',
        'account-disabled',
        'account-enabled',
        'key-rotated',
        'key-revoked',
        'epoch-opened',
      ]);
      expect(events[1]?.details).to.have.property('requestId', request.requestId);
      expect(events[1]?.details).to.deep.include({ roles: ['operator'] });
      expect(events[5]?.details).to.deep.include({
        purpose: 'token',
        formerKeyId: formerKey.kid,
        emergency: true,
      });
      expect(events[5]?.subject).to.deep.equal({ keyId: signingKey.kid });
    });

    it('once for many sessions that are revoked at once, and found by each of them while its tokens live', async () => {
      const user = await addUser(auth);
      const sessions: string[] = [];
      for (let count = 0; count <= ROLLED_UP_MIN; count += 1) {
        sessions.push((await logIn(auth, user)).session.sessionId);
      }
      const targets = sessions.map((sessionId) => ({ kind: 'session', sessionId }) as const);
      await auth.revocations.revokeMany({ targets, reason: 'stolen laptop', actor: 'olga' });
      const revoked = await eventsOf({ types: ['session-revoked'] });
      // The first waits for no other, so it may have been written alone.
      const shared = revoked.find(({ details }) => 'revocations' in details);
      expect(revoked).to.have.length.at.most(2);
      expect(shared).to.deep.include({
        actor: 'olga',
        reason: 'stolen laptop',
        subject: { userId: user.userId },
      });
      const listed = await auth.revocationRecords.list({
        ...{ pageSize: 100, pageToken: '', target: '', actor: '', eventId: shared?.eventId ?? '' },
      });
      expect(shared?.details).to.include({ revocations: listed.revocations.length });
      expect(listed.revocations).to.have.length.at.least(ROLLED_UP_MIN - 1);
      for (const { target } of listed.revocations) {
        const about = await eventsOf({ subject: target, types: ['session-revoked'] });
        expect(about.map(({ eventId }) => eventId)).to.deep.equal([shared?.eventId]);
      }
      expect(await eventsOf({ subject: randomUUID() })).to.be.empty;
    });

    it('together with the change that they report, or not at all', async () => {
      const event = {
        type: 'log-changed',
        subject: {},
        actor: 'a',
        reason: 'r',
        network: '',
        details: {},
      } as const;
      const failing = auth.store.transaction(async (tx) => {
        await tx.events.record(event);
        throw new Error('the work fails');
      });
      expect(await failing.catch(String)).to.equal('Error: the work fails');
      expect(await eventsOf()).to.be.empty;
    });
  });

  describe('are kept', () => {
    it('unchanged, and until their time', async () => {
      await addUser(auth);
      await eventsOf();
      for (const statement of [
        "UPDATE security_events_lasting SET actor = 'changed'",
        'UPDATE security_events_lasting SET position = position + 100',
        'DELETE FROM security_events_lasting',
        'TRUNCATE security_events_lasting',
        `TRUNCATE ${await partitionOf('security_events_lasting')}`,
      ]) {
        const outcome = await auth.database.query(statement).catch(String);
        expect(outcome, statement).to.include('neither changed nor dropped');
      }
      await addUser(auth);
      for (const statement of [
        "UPDATE security_events_unplaced SET actor = 'changed'",
        'DELETE FROM security_events_unplaced',
        'TRUNCATE security_events_unplaced',
      ]) {
        const outcome = await auth.database.query(statement).catch(String);
        expect(outcome, statement).to.include('neither changed nor dropped');
      }
      expect(await auth.securityStore.keepPartitions()).to.equal(0);
      expect(await eventsOf()).to.have.length(2);
    });

    it('for a year, and routine events for a month', async () => {
      expect([isRoutine('session-revoked'), isRoutine('token-refreshed')]).to.deep.equal([false, true]);
      await logIn(auth, await addUser(auth));
      const days =
        'SELECT round(extract(epoch FROM keep_until - event_time) / 86400)::int AS days FROM security_events ORDER BY days';
      expect((await auth.database.query<{ days: number }>(days)).rows).to.deep.equal([
        { days: ROUTINE_EVENT_KEPT_DAYS },
        { days: EVENT_KEPT_DAYS },
      ]);
    });

    it('under the names of OpenID where they exist', () => {
      expect(typeUriOf('session-revoked')).to.equal(
        'https://schemas.openid.net/secevent/caep/event-type/session-revoked',
      );
      expect(typeUriOf('account-disabled')).to.equal(
        'https://schemas.openid.net/secevent/risc/event-type/account-disabled',
      );
      expect(typeUriOf('login-failed')).to.equal('urn:portcullis:event-type:login-failed');
      expect(new Set(SECURITY_EVENT_TYPES.map(typeUriOf)).size).to.equal(SECURITY_EVENT_TYPES.length);
    });

    it('without tokens that callers have pasted into a reason', async () => {
      const user = await addUser(auth);
      const { access, refreshToken } = await logIn(auth, user);
      const reason = `see ${access.token} and ${refreshToken}`.slice(0, 200);
      await auth.revocations.revoke({
        target: { kind: 'token-id', tokenId: randomUUID() },
        reason,
        actor: 'olga',
      });
      const [event] = await eventsOf({ types: ['token-revoked'] });
      expect(event?.reason).to.equal('see [token]');
      expect(sanitizeText(`a ${refreshToken} b\n`)).to.equal('a [token] b ');
    });
  });

  describe('are partitioned by time', () => {
    /** The names of a table's partitions, in the order of their times. */
    async function partitionsOf(table: string): Promise<string[]> {
      const { rows } = await auth.database.query<{ name: string }>(
        'SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = $1::regclass ORDER BY name',
        [table],
      );
      return rows.map(({ name }) => name);
    }

    /** Makes the events of a partition expire, as if their time had passed. */
    async function expire(table: string, where = 'true'): Promise<void> {
      await auth.database.transaction(async (sql) => {
        await sql.query("SELECT set_config('session_replication_role', 'replica', true)");
        await sql.query(
          `UPDATE ${table} SET keep_until = clock_timestamp() - interval '1 second' WHERE ${where}`,
        );
      });
    }

    /** Moves the end of the record, so that the next events are placed that much later. */
    async function skip(days: number): Promise<void> {
      await auth.database.query(
        'UPDATE security_stream SET position = security_position(clock_timestamp() + make_interval(days => $1))',
        [days],
      );
    }

    it('whose coming ones exist ahead, and whose expired ones are dropped whole', async () => {
      await addUser(auth);
      await logIn(auth, await addUser(auth));
      await auth.securityStore.place();
      const [first = ''] = await partitionsOf('security_events_lasting');
      await skip(60);
      const late = await addUser(auth);
      await auth.securityStore.place();
      // The partition of the reports is over, and empty.
      expect(await auth.securityStore.keepPartitions()).to.equal(1);
      expect(await auth.securityStore.keepPartitions()).to.equal(0);
      expect(await partitionsOf('security_events_lasting')).to.have.length.at.least(4);
      expect(await partitionsOf('security_events_routine')).to.have.length.at.least(4);
      expect(await partitionsOf('security_reports')).to.have.length.at.least(7);
      await expire(first, `subjects = (SELECT subjects FROM ${first} ORDER BY position DESC LIMIT 1)`);
      expect(await auth.securityStore.keepPartitions(), 'one event is still kept').to.equal(0);
      expect(await eventsOf({ types: ['account-created'] })).to.have.length(2);
      await expire(first);
      expect(await auth.securityStore.keepPartitions()).to.equal(1);
      expect(await partitionsOf('security_events_lasting')).to.not.include(first);
      const left = await eventsOf({ types: ['account-created'] });
      expect(left.map(({ subject }) => subject.userId)).to.deep.equal([late.userId]);
    });

    it('of which a missing one holds up no event, and is made when events are placed', async () => {
      await skip(4000);
      const user = await addUser(auth);
      expect(auth.events.counts().lost).to.equal(0);
      const [event] = await eventsOf({ subject: user.userId });
      expect(event?.type).to.equal('account-created');
      expect(await partitionsOf('security_events_lasting')).to.have.length(2);
    });

    it('of which only those of the time asked for are read', async () => {
      await addUser(auth);
      await auth.securityStore.place();
      const between = new Date();
      await skip(60);
      await addUser(auth);
      await auth.securityStore.place();
      await auth.database.query('UPDATE security_stream SET early_us = 0, late_us = 0');
      const read: string[] = [];
      const store = createSecurityStore(explaining(auth.database, read));
      const early = await store.list({ endTime: between }, { pageSize: 0, pageToken: '' });
      expect(early.events).to.have.length(1);
      expect(read.join('\n')).to.include((await partitionsOf('security_events_lasting'))[0]);
      expect(read.join('\n')).to.not.include((await partitionsOf('security_events_lasting')).at(-1));
    });

    it('and are found by their time even if they were placed long after it', async () => {
      await addUser(auth);
      const after = new Date(Date.now() + 60_000);
      await skip(60);
      await auth.securityStore.place();
      await skip(120);
      expect(await eventsOf({ endTime: after })).to.have.length(1);
      expect(await eventsOf({ beginTime: after })).to.be.empty;
    });

    it('and are recorded once when a process records them again', async () => {
      const event = {
        type: 'log-changed',
        subject: {},
        actor: 'a',
        reason: '',
        network: '',
        details: {},
        eventId: randomUUID(),
        time: new Date(),
      } as const;
      expect(await auth.securityStore.record([event])).to.deep.equal([true]);
      await auth.securityStore.place();
      expect(await auth.securityStore.record([event])).to.deep.equal([true]);
      expect(await eventsOf()).to.have.length(1);
    });
  });

  describe('are listed', () => {
    it('in pages, by type, by subject and by time, the newest first', async () => {
      const users = [await addUser(auth), await addUser(auth), await addUser(auth)];
      for (const user of users) await logIn(auth, user);
      const [all, logins] = [await eventsOf(), await eventsOf({ types: ['session-established'] })];
      expect(all).to.have.length(6);
      expect(logins.map(({ subject }) => subject.userId)).to.deep.equal(
        users.map(({ userId }) => userId).reverse(),
      );
      const paged: string[] = [];
      for (let pageToken = ''; ; ) {
        const page = await auth.events.list({}, { pageSize: 4, pageToken });
        paged.push(...page.events.map(({ eventId }) => eventId));
        pageToken = page.nextPageToken;
        if (pageToken === '') break;
      }
      expect(paged).to.deep.equal(all.map(({ eventId }) => eventId));
      const middle = all[2]?.time ?? new Date(0);
      const [later, earlier] = [await eventsOf({ beginTime: middle }), await eventsOf({ endTime: middle })];
      expect(later).to.have.length(3);
      expect(earlier).to.have.length(3);
      expect(await eventsOf({ subject: 'nobody' })).to.be.empty;
    });

    it('and reject a page token that no page returned', async () => {
      expect(await codeOf(auth.events.list({}, { pageSize: 0, pageToken: 'x' }))).to.equal('FIELD_INVALID');
      expect(await codeOf(auth.events.list({}, { pageSize: -1, pageToken: '' }))).to.equal('FIELD_INVALID');
    });
  });

  describe('are watched', () => {
    it('from now on, each once and in order, and from any replica with a resume token', async () => {
      const replica = await openAuth(auth.url, { openKeys: false });
      try {
        const before = await addUser(auth);
        const stop = new AbortController();
        const watch = auth.events.watch({ caller: 'olga', filter: {}, resumeToken: '' }, stop.signal);
        const first = watch.next();
        await sleep(50);
        const user = await addUser(auth);
        await auth.securityStore.place();
        const { value: notice } = await first;
        expect(notice?.event.subject.userId).to.equal(user.userId).and.to.not.equal(before.userId);
        await logIn(auth, user);
        await auth.securityStore.place();
        expect((await watch.next()).value?.event.type).to.equal('session-established');
        stop.abort();
        expect((await watch.next()).done).to.equal(true);
        const later = await addUser(auth);
        const again = replica.events.watch(
          { caller: 'olga', filter: { types: ['account-created'] }, resumeToken: notice?.resumeToken ?? '' },
          AbortSignal.timeout(5000),
        );
        expect((await again.next()).value?.event.subject.userId).to.equal(later.userId);
        await again.return();
      } finally {
        await replica.close();
      }
    });

    it('even if transactions end in another order than they began', async () => {
      const stop = new AbortController();
      const watch = auth.events.watch({ caller: 'olga', filter: {}, resumeToken: '' }, stop.signal);
      const first = watch.next();
      await sleep(50);
      const event = { subject: {}, actor: 'a', network: '', type: 'log-changed', details: {} } as const;
      let release = (): void => {};
      const held = new Promise<void>((resolve) => {
        release = resolve;
      });
      const slow = auth.store.transaction(async (tx) => {
        await tx.events.record({ ...event, reason: 'slow' });
        await held;
      });
      await auth.store.transaction((tx) => tx.events.record({ ...event, reason: 'fast' }));
      await auth.securityStore.place();
      expect((await first).value?.event.reason).to.equal('fast');
      release();
      await slow;
      await auth.securityStore.place();
      expect((await watch.next()).value?.event.reason).to.equal('slow');
      stop.abort();
    });

    it('and reject the token of another record', async () => {
      const signal = AbortSignal.timeout(5000);
      for (const position of ['999', 'x', '01']) {
        const resumeToken = Buffer.from(`event ${position}`).toString('base64url');
        expect(
          await codeOf(auth.events.watch({ caller: 'olga', filter: {}, resumeToken }, signal).next()),
        ).to.equal('FIELD_INVALID');
      }
    });
  });

  describe('that cannot be recorded', () => {
    it('block no login and no revocation, and their loss is counted and recorded', async () => {
      const user = await addUser(auth);
      await auth.database.query('ALTER TABLE security_events_unplaced RENAME TO away');
      const { session } = await logIn(auth, user);
      await auth.revocations.revoke({
        target: { kind: 'session', sessionId: session.sessionId },
        reason: '',
        actor: 'olga',
      });
      await codeOf(auth.sessions.login(attemptOf(user.username, 'wrong')));
      await until(() => auth.events.counts().lost >= 3);
      expect(auth.events.counts().lost).to.equal(3);
      await auth.database.query('ALTER TABLE away RENAME TO security_events_unplaced');
      const [recorded] = await written('events-lost');
      expect(recorded?.details).to.deep.equal({ events: 3 });
    });

    it('because the record is locked, delay a login only for a moment', async () => {
      const user = await addUser(auth);
      let release = (): void => {};
      const held = new Promise<void>((resolve) => {
        release = resolve;
      });
      const locking = auth.database.transaction(async (sql) => {
        await sql.query('LOCK TABLE security_events_unplaced IN ACCESS EXCLUSIVE MODE');
        await held;
      });
      await sleep(50);
      await logIn(auth, user);
      release();
      await locking;
      expect(auth.events.counts().lost).to.equal(1);
    });

    it('are kept within a bound while the database is unreachable, and counted beyond it', async () => {
      const event = {
        type: 'log-changed',
        subject: {},
        actor: 'a',
        reason: '',
        network: '',
        details: {},
      } as const;
      for (let count = 0; count < EVENTS_WAITING_MAX + 7; count += 1) auth.events.note(event);
      expect(auth.events.counts()).to.include({ lost: 7, waiting: EVENTS_WAITING_MAX });
      await written('log-changed', EVENTS_WAITING_MAX);
      expect((await written('events-lost'))[0]?.details).to.deep.equal({ events: 7 });
    });
  });
});
