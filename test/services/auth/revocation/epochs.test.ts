/** Opening an epoch, with two replicas, a real broker and real guards; and after the database was restored. */

import { status } from '@grpc/grpc-js';
import { errorOf } from '@portcullis/guard/client';
import { expect } from 'chai';
import { EnforcementState, RevokeWait } from '../../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { ask } from '../../../../scripts/system/calls.js';
import { type PrivateNats, privateNats } from '../../../support/nats.js';
import { codeOf } from '../../../support/outcomes.js';
import { until } from '../../../support/waiting.js';
import { type Cluster, LONG_LEASE_MS, newRequestId, startCluster, verdictOf } from '../cluster.js';
import { addUser, logIn, type TestUser } from '../instance.js';

describe('an epoch', function () {
  this.timeout(180_000);
  let nats: PrivateNats;
  let cluster: Cluster;
  let alice: TestUser;

  before(async () => {
    nats = await privateNats();
  });
  after(() => nats.stop());
  beforeEach(async () => {
    cluster = await startCluster({ leaseMs: 1500, nats });
    alice = await addUser(cluster.replicas[0]);
  });
  afterEach(() => cluster.close());

  const open = async (requestId = newRequestId(), user = cluster.admin) => {
    const [{ revocationService }] = cluster.replicas;
    return await ask(
      revocationService.openEpoch.bind(revocationService),
      { reason: 'restored', requestId },
      { token: await cluster.token(user) },
    );
  };
  const allCurrent = () =>
    until(async () => {
      const { instances } = await cluster.replicas[0].instances.list({ pageSize: 0, pageToken: '' });
      const { epoch } = await cluster.replicas[0].publicKeys.read();
      const here = instances.filter(({ currentEpoch }) => currentEpoch).length === cluster.guards().length;
      return here && epoch.length === 16 && cluster.guards().every((guard) => guard.state().current);
    });

  it('ends every session and every token, and both replicas and all services continue with new keys', async () => {
    const [first, second] = cluster.replicas;
    const login = await logIn(first, alice);
    const before = await first.publicKeys.read();
    for (const guard of cluster.guards()) {
      expect(await verdictOf(guard, login.access.token)).to.equal('OK');
    }
    const { epoch, endedSessions, enforcedEverywhereBy } = await open();
    expect(epoch).to.not.deep.equal(before.epoch);
    expect(endedSessions).to.equal(2n);
    expect(enforcedEverywhereBy?.getTime()).to.be.within(Date.now() + 1000, Date.now() + 4000);
    await allCurrent();
    for (const guard of cluster.guards()) {
      expect(await verdictOf(guard, login.access.token)).to.be.oneOf(['TOKEN_INVALID', 'TOKEN_REVOKED']);
    }
    const refresh = { refreshToken: login.refreshToken, requestId: '' };
    expect(await codeOf(second.sessions.refresh(refresh))).to.equal('REFRESH_INVALID');
    const after = await first.publicKeys.read();
    expect(after.epoch).to.deep.equal(epoch);
    const kids = ({ keySet, broadcastKeys }: typeof after) =>
      [...keySet.keys, ...broadcastKeys].map(({ kid }) => kid);
    expect(kids(after)).to.have.length(4);
    expect(kids(after).filter((kid) => kids(before).includes(kid))).to.deep.equal([]);
    for (const replica of [first, second]) {
      const token = await cluster.token(alice, replica);
      for (const guard of cluster.guards()) expect(await verdictOf(guard, token)).to.equal('OK');
    }
  });

  it('is broadcast in by either replica: the log begins with 1, and all acknowledge at once', async () => {
    await open();
    await allCurrent();
    // So long that a regular sync does not come soon.
    await cluster.replicas[0].database.query('UPDATE log_state SET lease_ms = $1', [LONG_LEASE_MS]);
    for (const guard of cluster.guards()) guard.syncNow();
    await until(() => cluster.guards().every((guard) => guard.state().leaseMs > LONG_LEASE_MS / 2));
    for (const [index, replica] of cluster.replicas.entries()) {
      const startedMs = performance.now();
      const { sequence, instances } = await cluster.revoke(
        { $case: 'userId', value: alice.userId },
        RevokeWait.REVOKE_WAIT_KNOWN_INSTANCES,
        { replica },
      );
      expect(sequence).to.equal(BigInt(index + 1));
      const states = new Set(instances.map(({ state }) => state));
      expect(states).to.deep.equal(new Set([EnforcementState.ENFORCEMENT_STATE_ENFORCED]));
      expect(instances.length).to.be.at.least(4);
      expect(performance.now() - startedMs).to.be.below(LONG_LEASE_MS / 8);
    }
  });

  it('keeps the entries of other issuers, whose tokens do not end with our keys', async () => {
    const [first] = cluster.replicas;
    const issuer = 'https://other.example';
    const mallory = { issuer, what: { $case: 'subject', value: 'mallory' } } as const;
    const token = { issuer, what: { $case: 'tokenId', value: 'onrtac:1' } } as const;
    for (const value of [mallory, token]) await cluster.revoke({ $case: 'foreign', value });
    await cluster.revoke({ $case: 'userId', value: alice.userId });
    const liveOf = async () => {
      const { rows } = await first.database.query(
        `SELECT revocation_entries.seq, kind, issuer, convert_from(key, 'utf8') AS key, cut_off_time, keep_until
         FROM revocation_entries JOIN log_state USING (epoch) WHERE issuer <> '' ORDER BY revocation_entries.seq`,
      );
      return rows;
    };
    const before = await liveOf();
    expect(before).to.have.length(2);
    // A second epoch carries over the entries of the first, once.
    for (const round of [1, 2]) {
      await open();
      await allCurrent();
      expect(await liveOf(), `round ${round}`).to.deep.equal(before);
      for (const guard of cluster.guards()) expect(guard.state()).to.include({ entries: 2, applied: 2n });
    }
    const { sequence } = await cluster.revoke({ $case: 'userId', value: alice.userId });
    expect(sequence).to.equal(3n);
    await until(() => cluster.guards().every((guard) => guard.state().applied === 3n));
  });

  it('is opened once, however often the same request is sent', async () => {
    const requestId = newRequestId();
    const [first] = cluster.replicas;
    const request = { reason: 'restored', actor: cluster.admin.userId, requestId };
    // One of two concurrent requests may fail with REQUEST_IN_PROGRESS; a retry returns the first response.
    await Promise.allSettled([first.epochs.open(request), first.epochs.open(request)]);
    const opened = [await first.epochs.open(request), await first.epochs.open(request)];
    expect(opened[0]).to.deep.equal(opened[1]);
    expect((await first.publicKeys.read()).epoch).to.deep.equal(opened[0]?.epoch);
    const { rows } = await first.database.query<{ reason: string; actor: string }>(
      "SELECT reason, actor FROM epochs WHERE actor <> ''",
    );
    expect(rows).to.deep.equal([{ reason: 'restored', actor: cluster.admin.userId }]);
  });

  it('is opened only by an admin who sends a request id', async () => {
    const security = await addUser(cluster.replicas[0], ['security']);
    const refusal = await open(newRequestId(), security).catch((error: unknown) => errorOf(error));
    expect(refusal).to.include({ code: status.PERMISSION_DENIED, reason: 'ROLE_MISSING' });
    const nameless = await open('').catch((error: unknown) => errorOf(error));
    expect(nameless).to.include({ code: status.INVALID_ARGUMENT, reason: 'FIELD_INVALID' });
    const { rows } = await cluster.replicas[0].database.query("SELECT FROM epochs WHERE actor <> ''");
    expect(rows).to.have.length(0);
  });

  it('blocks logins meanwhile, and admits no token of a former key', async () => {
    const [first, second] = cluster.replicas;
    let logging = true;
    const tokens: string[] = [];
    const loops = [first, second].map(async (replica) => {
      while (logging) tokens.push(await cluster.token(alice, replica));
    });
    await open();
    logging = false;
    await Promise.all(loops);
    await allCurrent();
    const { keySet } = await first.publicKeys.read();
    const { rows } = await first.database.query<{ session_id: string }>(
      'SELECT session_id FROM sessions WHERE end_time IS NULL',
    );
    const open_ = new Set(rows.map(({ session_id }) => session_id));
    for (const token of tokens) {
      const [header = '', payload = ''] = token.split('.');
      const { kid } = JSON.parse(Buffer.from(header, 'base64url').toString()) as { kid: string };
      const { sid } = JSON.parse(Buffer.from(payload, 'base64url').toString()) as { sid: string };
      const isNew = keySet.keys.some((key) => key.kid === kid);
      // Exactly the sessions whose token a key of the new epoch signed continue.
      expect(open_.has(sid)).to.equal(isNew);
      expect(await verdictOf(cluster.followers.inventory, token)).to.be.oneOf(
        isNew ? ['OK'] : ['TOKEN_INVALID', 'TOKEN_REVOKED'],
      );
    }
  });

  it('restores service of every instance that is ahead of a restored database', async () => {
    const [first, second] = cluster.replicas;
    await cluster.revoke({ $case: 'userId', value: alice.userId }, RevokeWait.REVOKE_WAIT_KNOWN_INSTANCES);
    await until(() => cluster.guards().every((guard) => guard.state().applied === 1n));
    // The state of a database that was restored from a backup without the last entry.
    await first.database.transaction(async (sql) => {
      await sql.query('ALTER TABLE revocation_entries DISABLE TRIGGER revocation_entries_only_grow');
      await sql.query('DELETE FROM revocation_entries');
      await sql.query("UPDATE log_state SET seq = 0, entry_id = ''");
      await sql.query('ALTER TABLE revocation_entries ENABLE TRIGGER revocation_entries_only_grow');
    });
    await until(() => cluster.guards().every((guard) => !guard.state().current));
    // Auth's own guard, which syncs without gRPC, becomes stale as well.
    for (const guard of cluster.guards()) {
      expect(guard.state().staleReason).to.contain('an operator must open a new epoch');
    }
    expect(first.alarms() + second.alarms()).to.be.above(2);
    // No token is accepted any more, not even an operator's.
    const refusal = await open().catch((error: unknown) => errorOf(error));
    expect(refusal).to.include({ code: status.UNAVAILABLE, reason: 'REVOCATION_STATE_STALE' });

    await first.epochs.open({ reason: 'restored', actor: 'operator', requestId: newRequestId() });
    await allCurrent();
    const token = await cluster.token(alice);
    for (const guard of cluster.guards()) expect(await verdictOf(guard, token)).to.equal('OK');
  });

  it('ends the service of its instances when a restored database never had it, until the next one is opened', async () => {
    const [first] = cluster.replicas;
    const before = await first.publicKeys.read();
    const { epoch: lost } = await open();
    await allCurrent();
    // The state of a database that was restored from a backup from before the epoch was opened.
    await first.database.transaction(async (sql) => {
      await sql.query("UPDATE log_state SET epoch = $1, seq = 0, entry_id = ''", [before.epoch]);
      await sql.query('DELETE FROM epochs WHERE epoch = $1', [lost]);
      await sql.query('DELETE FROM signing_keys WHERE epoch = $1', [lost]);
    });
    await until(() => cluster.guards().every((guard) => !guard.state().current));
    for (const guard of cluster.guards()) {
      expect(guard.state().staleReason).to.contain('an operator must open a new epoch');
    }
    // They do not recover by themselves, however often they sync.
    for (let count = 0; count < 5; count += 1) {
      for (const guard of cluster.guards()) guard.syncNow();
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    expect(cluster.guards().filter((guard) => guard.state().current)).to.deep.equal([]);

    await first.epochs.open({ reason: 'restored', actor: 'operator', requestId: newRequestId() });
    await allCurrent();
    const token = await cluster.token(alice);
    for (const guard of cluster.guards()) expect(await verdictOf(guard, token)).to.equal('OK');
  });
});
