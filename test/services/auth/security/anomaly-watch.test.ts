/** The rules on a real database: once for all replicas, across crashes, with revocations only where configured. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import type { AnomalyRule, SecurityEvent } from '../../../../services/auth/records/security-events.js';
import type { ServiceReport } from '../../../../services/auth/records/service-reports.js';
import { THRESHOLDS } from '../../../../services/auth/security/anomaly-rules.js';
import { type AnomalyWatch, createAnomalyWatch } from '../../../../services/auth/security/anomaly-watch.js';
import { codeOf } from '../../../support/outcomes.js';
import {
  type AuthInstance,
  addUser,
  entriesOf,
  type FreshAuth,
  logIn,
  openAuth,
  openFreshAuth,
} from '../instance.js';

describe('the watch for anomalies', () => {
  let auth: FreshAuth;
  let replica: AuthInstance;

  beforeEach(async () => {
    auth = await openFreshAuth();
    replica = await openAuth(auth.url, { openKeys: false });
  });

  afterEach(async () => {
    await replica.close();
    await auth.close();
  });

  const watchOf = (instance: AuthInstance, revoking: readonly AnomalyRule[] = []): AnomalyWatch =>
    createAnomalyWatch({ store: instance.store, events: instance.securityStore, revoking });
  const anomalies = async (): Promise<SecurityEvent<'anomaly-detected'>[]> => {
    const { events } = await auth.events.list(
      { types: ['anomaly-detected'] },
      { pageSize: 100, pageToken: '' },
    );
    return events.filter((event) => event.type === 'anomaly-detected');
  };
  /** A failed login, as a transaction of its own. */
  const fail = (userId: string): Promise<void> =>
    auth.store.transaction((tx) =>
      tx.events.record({
        ...{ type: 'login-failed', subject: { userId }, network: '198.51.100.1', actor: 'anybody' },
        ...{ reason: 'LOGIN_FAILED', details: { what: 'login' } },
      }),
    );
  const report = (sessionId: string, userId: string, networks: readonly string[]): ServiceReport => ({
    ...{ reportId: randomUUID(), source: 'inventory', service: 'inventory', instance: '1' },
    ...{ beginTime: new Date(), endTime: new Date(), refused: [], refusedLeftOut: 0 },
    admitted: [
      {
        caller: { issuer: '', subject: userId, clientId: 'direct', sessionId, delegated: false },
        calls: 9,
        networks,
      },
    ],
    ...{
      principalsLeftOut: 0,
      forgedBroadcasts: 0,
      lostReports: 0,
      plaintext: false,
      remotePlaintext: false,
    },
  });
  const { count: threshold } = THRESHOLDS['name-guessed'];

  it('records each finding once, whichever replicas process the events in whatever turns', async () => {
    const watches = [watchOf(auth), watchOf(replica)];
    for (let time = 0; time < 2 * threshold; time += 1) {
      await fail('alice');
      await Promise.all(watches.map((watch) => watch.process()));
      if (time % 3 === 0) await watches[time % 2]?.process();
    }
    const found = await anomalies();
    expect(found.map(({ reason, subject }) => [reason, subject])).to.deep.equal([
      ['name-guessed', { userId: 'alice' }],
    ]);
    expect(found[0]?.details).to.include({ count: threshold, threshold, action: 'none' });
    expect(found[0]?.actor).to.equal('anomaly-rules');
  });

  it('counts events from before a restart, and records none of their findings twice', async () => {
    for (let time = 0; time < threshold - 1; time += 1) await fail('alice');
    expect(await watchOf(auth).process()).to.equal(0);
    await fail('alice');
    expect(await watchOf(auth).process()).to.equal(1);
    await fail('alice');
    expect(await watchOf(replica).process()).to.equal(0);
    expect(await anomalies()).to.have.length(1);
  });

  it('processes events again whose findings could not be recorded', async () => {
    const watch = watchOf(auth);
    for (let time = 0; time < threshold; time += 1) await fail('alice');
    // The last statement of the transaction fails, after the rules have seen everything.
    await auth.database.query('ALTER TABLE security_stream ADD CONSTRAINT stuck CHECK (judged = 0)');
    expect(await watch.process().catch(String)).to.include('stuck');
    expect(await anomalies()).to.be.empty;
    await auth.database.query('ALTER TABLE security_stream DROP CONSTRAINT stuck');
    expect(await watch.process()).to.equal(1);
    expect(await watch.process()).to.equal(0);
    expect(await anomalies()).to.have.length(1);
  });

  it('does not wait for a transaction that locks the end of the order', async () => {
    await fail('alice');
    await auth.store.transaction(async (tx) => {
      await tx.eventStream.place(true);
      expect(await watchOf(replica).process()).to.equal(0);
    });
  });

  it('revokes the session that a finding names only for configured rules', async () => {
    const networks = ['198.51.100.1', '198.51.100.2', '198.51.100.3', '198.51.100.4'];
    for (const revoking of [[], ['session-in-many-networks'] as const]) {
      const user = await addUser(auth);
      const { session, refreshToken } = await logIn(auth, user);
      await auth.events.recordReport(report(session.sessionId, user.userId, networks));
      const before = (await entriesOf(auth)).length;
      expect(await watchOf(auth, revoking).process()).to.equal(1);
      const revoked = (await entriesOf(auth)).slice(before);
      const [finding] = await anomalies();
      expect(finding?.subject).to.deep.equal({ userId: user.userId, sessionId: session.sessionId });
      if (revoking.length === 0) {
        expect(revoked).to.be.empty;
        expect(finding?.details.action).to.equal('none');
        await auth.sessions.refresh({ refreshToken, requestId: '' });
      } else {
        expect(revoked.map(({ kind, actor }) => [kind, actor])).to.deep.equal([['SESSION', 'anomaly-rules']]);
        expect(finding?.details.action).to.equal('session revoked');
        expect(await codeOf(auth.sessions.refresh({ refreshToken, requestId: '' }))).to.equal(
          'REFRESH_INVALID',
        );
      }
    }
  });

  it('counts a repeated report once', async () => {
    const user = await addUser(auth);
    const refused = [{ reason: 'TOKEN_INVALID', network: '203.0.113.1', caller: undefined, calls: 30 }];
    const one = { ...report('', user.userId, []), admitted: [], refused };
    await Promise.all([
      auth.events.recordReport(one),
      replica.events.recordReport(one),
      auth.events.recordReport(one),
    ]);
    await replica.events.recordReport(one);
    expect(await watchOf(auth).process()).to.equal(0);
    const { events } = await auth.events.list({ types: ['calls-refused'] }, { pageSize: 10, pageToken: '' });
    expect(events.map(({ details }) => details)).to.deep.equal([{ calls: 30, networks: ['203.0.113.1'] }]);
  });
});
