/** Revoking clients, keys and tokens of other issuers, with real guards that follow two replicas. */

import { randomUUID } from 'node:crypto';
import { status } from '@grpc/grpc-js';
import { errorOf } from '@portcullis/guard/client';
import { claimIdOf } from '@portcullis/guard/internal';
import { expect } from 'chai';
import { decodeProtectedHeader } from 'jose';
import type {
  RevokeRequest,
  SyncRequest,
} from '../../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { EntryKind, RevokeWait } from '../../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { ask } from '../../../../scripts/system/calls.js';
import type { Target } from '../../../../services/auth/revocation/revoke-targets.js';
import { type PrivateNats, privateNats } from '../../../support/nats.js';
import { codeOf, refusalOf } from '../../../support/outcomes.js';
import { until } from '../../../support/waiting.js';
import { type Cluster, startCluster, verdictOf } from '../cluster.js';
import { addClient, addUser, entriesOf, ISSUER, logIn, OTHER_ISSUER, serviceToken } from '../instance.js';
import { following, question } from './revocation-support.js';

/** An instance that says nothing of itself. */
const UNNAMED = { description: undefined, leaving: false };

describe('revoking', function () {
  this.timeout(180_000);
  let nats: PrivateNats;
  let cluster: Cluster;

  before(async () => {
    nats = await privateNats();
  });
  after(() => nats.stop());
  beforeEach(async () => {
    cluster = await startCluster({ leaseMs: 1500, nats });
  });
  afterEach(() => cluster.close());

  const revoke = (target: RevokeRequest['target']) =>
    cluster.revoke(target, RevokeWait.REVOKE_WAIT_KNOWN_INSTANCES);
  /** Revokes without a call, because a call would be cut when its own token is revoked. */
  const revokeDirectly = (target: Target) =>
    cluster.replicas[0].revocations.revoke({
      target,
      reason: 'a test',
      actor: 'test',
      wait: 'KNOWN_INSTANCES',
    });
  const refusalOfTarget = async (target: RevokeRequest['target']) => {
    const { code, reason, violations } = await refusalOf(revoke(target));
    return [code, reason, ...violations.map(({ field }) => field)];
  };
  const kidOf = (token: string): string => String(decodeProtectedHeader(token).kid);
  const verdicts = (token: string) => Promise.all(cluster.guards().map((guard) => verdictOf(guard, token)));

  describe('a client', () => {
    it('revokes its tokens everywhere and no others, and the client can authenticate again', async () => {
      const [replica] = cluster.replicas;
      const [victim, bystander] = [await addClient(replica), await addClient(replica)];
      const [old, other] = [await serviceToken(replica, victim), await serviceToken(replica, bystander)];
      expect(await verdicts(old)).to.deep.equal(['OK', 'OK', 'OK', 'OK']);
      await revoke({ $case: 'clientId', value: victim.clientId });
      expect(new Set(await verdicts(old))).to.deep.equal(new Set(['TOKEN_REVOKED']));
      expect(new Set(await verdicts(other))).to.deep.equal(new Set(['OK']));
      expect(new Set(await verdicts(await serviceToken(replica, victim)))).to.deep.equal(new Set(['OK']));
    });

    it('ends the refresh of its sessions', async () => {
      const [replica] = cluster.replicas;
      const user = await addUser(replica);
      const login = await logIn(replica, user);
      await revokeDirectly({ kind: 'client', clientId: 'direct' });
      expect(new Set(await verdicts(login.access.token))).to.deep.equal(new Set(['TOKEN_REVOKED']));
      const request = { refreshToken: login.refreshToken, requestId: '' };
      expect(await codeOf(replica.sessions.refresh(request))).to.equal('REFRESH_INVALID');
      expect(new Set(await verdicts((await logIn(replica, user)).access.token))).to.deep.equal(
        new Set(['OK']),
      );
    });

    it('succeeds while tokens are issued to it all the time', async () => {
      const [replica] = cluster.replicas;
      const victim = await addClient(replica);
      let minting = true;
      const minters = Array.from({ length: 8 }, async () => {
        while (minting) await serviceToken(replica, victim);
      });
      // If the minters delayed one of these calls, it would fail with the statement timeout.
      for (let round = 0; round < 5; round += 1) await revoke({ $case: 'clientId', value: victim.clientId });
      minting = false;
      await Promise.all(minters);
    });

    it('fails with NOT_FOUND for an unknown client, and with FIELD_INVALID without a name', async () => {
      expect(await refusalOfTarget({ $case: 'clientId', value: 'nobody' })).to.deep.equal([
        status.NOT_FOUND,
        'NOT_FOUND',
      ]);
      expect(await refusalOfTarget({ $case: 'clientId', value: '' })).to.deep.equal([
        status.INVALID_ARGUMENT,
        'FIELD_INVALID',
        'client_id',
      ]);
      expect(await entriesOf(cluster.replicas[0])).to.deep.equal([]);
    });
  });

  it('cuts a caller that waits for the revocation of its own token', async () => {
    const token = await cluster.token(cluster.admin);
    const { userId } = cluster.admin;
    const options = { token };
    const target = { $case: 'userId', value: userId } as const;
    const outcome = await cluster
      .revoke(target, RevokeWait.REVOKE_WAIT_EVERYWHERE, options)
      .catch((error: unknown) => errorOf(error));
    expect(outcome).to.include({ code: status.UNAUTHENTICATED, reason: 'TOKEN_REVOKED' });
    expect(await entriesOf(cluster.replicas[0])).to.have.length(1);
  });

  it('returns a response to a caller that revokes its own token without waiting', async () => {
    for (let round = 0; round < 10; round += 1) {
      const token = await cluster.token(cluster.admin);
      const target = { $case: 'token', value: token } as const;
      await cluster.revoke(target, RevokeWait.REVOKE_WAIT_NONE, { token });
    }
  });

  describe('a key', () => {
    const publishedKids = async () =>
      (await cluster.replicas[0].publicKeys.read()).keySet.keys.map(({ kid }) => kid);

    it('retires it with the entry, lets the next one sign, and revokes all its tokens', async () => {
      const [first, second] = cluster.replicas;
      const user = await addUser(first);
      const old = await cluster.token(user);
      const kid = kidOf(old);
      const next = (await publishedKids()).find((other) => other !== kid);
      expect(await verdicts(old)).to.deep.equal(['OK', 'OK', 'OK', 'OK']);
      await revokeDirectly({ kind: 'key', keyId: kid });
      for (const verdict of await verdicts(old)) {
        expect(verdict).to.be.oneOf(['TOKEN_REVOKED', 'TOKEN_INVALID']);
      }
      expect(await publishedKids()).to.not.include(kid);
      expect(
        (await entriesOf(first)).map(({ kind, key }) => [kind, Buffer.from(key, 'hex').toString()]),
      ).to.deep.equal([['KEY', kid]]);
      for (const replica of [first, second]) {
        const token = await cluster.token(user, replica);
        expect(kidOf(token)).to.equal(next);
        // It was published before it signed, so every instance knows it already.
        expect(await verdicts(token)).to.deep.equal(['OK', 'OK', 'OK', 'OK']);
      }
      await until(async () => (await publishedKids()).length === 2);
    });

    it('retires it in the same transaction: no read returns both the entry and the key', async () => {
      const [first, second] = cluster.replicas;
      const kid = kidOf(await cluster.token(await addUser(first)));
      let watching = true;
      const torn: unknown[] = [];
      const watch = (async () => {
        while (watching) {
          const { rows } = await second.database.query<{ entries: bigint; published: bigint }>(
            `SELECT (SELECT count(*) FROM revocation_entries WHERE kind = 'KEY') AS entries,
                    (SELECT count(*) FROM signing_keys WHERE kid = $1 AND state <> 'retired') AS published`,
            [kid],
          );
          torn.push(...rows.filter(({ entries, published }) => entries + published !== 1n));
        }
      })();
      await revokeDirectly({ kind: 'key', keyId: kid });
      watching = false;
      await watch;
      expect(torn).to.deep.equal([]);
    });

    it('does not interrupt the issue of tokens under load, and later tokens are valid', async () => {
      const [first] = cluster.replicas;
      const user = await addUser(first);
      const client = await addClient(first);
      let minting = true;
      const minters = Array.from({ length: 16 }, async () => {
        while (minting) await serviceToken(first, client);
      });
      for (let round = 0; round < 5; round += 1) {
        await revokeDirectly({ kind: 'key', keyId: kidOf(await cluster.token(user)) });
        await until(async () => (await publishedKids()).length === 2);
      }
      minting = false;
      // No call failed for lack of a key.
      await Promise.all(minters);
      await until(async () => new Set(await verdicts(await cluster.token(user))).has('OK'));
    });

    it('succeeds twice, and for a next key that does not sign yet', async () => {
      const [first] = cluster.replicas;
      const user = await addUser(first);
      const signing = kidOf(await cluster.token(user));
      const next = (await publishedKids()).find((kid) => kid !== signing) ?? '';
      await revoke({ $case: 'keyId', value: next });
      await revoke({ $case: 'keyId', value: next });
      expect(await entriesOf(first)).to.have.length(2);
      expect(kidOf(await cluster.token(user))).to.equal(signing);
      await until(async () => (await publishedKids()).length === 2);
      expect(await publishedKids()).to.not.include(next);
    });

    it('that signs broadcasts lets the next one sign them', async () => {
      const [first, second] = cluster.replicas;
      const { rows } = await first.database.query<{ kid: string }>(
        "SELECT kid FROM signing_keys WHERE purpose = 'broadcast' AND state = 'signing'",
      );
      await revoke({ $case: 'keyId', value: rows[0]?.kid ?? '' });
      expect((await first.publicKeys.read()).broadcastKeys.map(({ kid }) => kid)).to.not.include(
        rows[0]?.kid,
      );
      const header = async (auth: typeof first) =>
        decodeProtectedHeader(await auth.keys.broadcastSigner().sign(Buffer.alloc(1))).kid;
      for (const replica of [first, second])
        await until(async () => (await header(replica)) !== rows[0]?.kid);
    });

    it('fails with NOT_FOUND for an unknown key', async () => {
      expect(await refusalOfTarget({ $case: 'keyId', value: randomUUID() })).to.deep.equal([
        status.NOT_FOUND,
        'NOT_FOUND',
      ]);
      expect(await publishedKids()).to.have.length(2);
    });
  });

  describe('tokens of another issuer', () => {
    const foreign = (
      what: NonNullable<Extract<RevokeRequest['target'], { $case: 'foreign' }>['value']['what']>,
      issuer = 'https://other.example',
    ): RevokeRequest['target'] => ({ $case: 'foreign', value: { issuer, what } });

    const claim = (name: string, value: string) =>
      ({ $case: 'claim', value: { claim: name, value } }) as const;

    it('by a claim writes the claim, its value and a cut-off, and records and lists them', async () => {
      const [first] = cluster.replicas;
      const { sequence, targetKnown } = await revoke(foreign(claim('/tenant', 'Åcme')));
      expect([sequence, targetKnown]).to.deep.equal([1n, false]);
      const { rows } = await first.database.query<{
        kind: string;
        claim: string;
        key: Buffer;
        ahead: number;
      }>(
        `SELECT kind, claim, key, extract(epoch FROM cut_off_time - clock_timestamp())::float8 AS ahead
         FROM revocation_entries`,
      );
      expect(rows.map(({ kind, claim: name, key }) => [kind, name, key.toString()])).to.deep.equal([
        ['CLAIM', '/tenant', 'Åcme'],
      ]);
      expect(rows[0]?.ahead).to.be.within(0, 6);
      for (const guard of cluster.guards()) expect(guard.state().entries).to.equal(1);
      const late = await cluster.follow('late', first);
      expect(late.state().entries).to.equal(1);
      const service = first.revocationService;
      const token = await cluster.token(cluster.admin);
      const wanted = { pageSize: 0, pageToken: '', target: 'Åcme', actor: '', eventId: '' };
      const { revocations } = await ask(service.listRevocations.bind(service), wanted, { token });
      const { revocation } = await ask(service.getRevocation.bind(service), { sequence: 1n }, { token });
      for (const listed of [...revocations, revocation]) {
        expect(listed).to.include({
          ...{ kind: EntryKind.ENTRY_KIND_CLAIM, claim: '/tenant', target: 'Åcme', issuer: OTHER_ISSUER },
        });
      }
      expect(revocations).to.have.length(1);
      const { rows: events } = await first.database.query<{ subject: object; details: object }>(
        "SELECT subject, details FROM security_events WHERE type = 'session-revoked'",
      );
      expect(events).to.deep.equal([
        {
          subject: { issuer: OTHER_ISSUER },
          details: { initiator: 'admin', claim: '/tenant', value: 'Åcme' },
        },
      ]);
    });

    it('by a claim is refused while an instance with a lease has an older version or does not read the claim', async () => {
      const [replica] = cluster.replicas;
      const service = replica.revocationService;
      const client = await addClient(replica, { clientId: 'mallory', scopes: ['auth.sync'] });
      const token = await serviceToken(replica, client);
      const answer = await replica.revocations.sync(question({ service: 'mallory' }));
      const sync = (statement: Pick<SyncRequest, 'kinds' | 'claimIds'>) =>
        ask(
          service.sync.bind(service),
          { ...following(answer), service: 'mallory', seen: [], fences: [], ...UNNAMED, ...statement },
          { token },
        );
      const kinds: EntryKind[] = [1, 2, 3, 4, 5, 6];
      const target = foreign(claim('/tenant', 'acme'));
      const refusal = async () => {
        const { code, reason, message } = await refusalOf(cluster.revoke(target));
        return [code, reason, message];
      };
      const named = `${question().instance.toString('hex')} of mallory`;
      const text = 'instances that may hold a lease cannot apply it';
      const refused = [status.FAILED_PRECONDITION, 'CLAIM_UNSUPPORTED'];
      await sync({ kinds: [], claimIds: [] });
      expect(await refusal()).to.deep.equal([...refused, `${text}: ${named} has an older version`]);
      await sync({ kinds: kinds.slice(0, 5), claimIds: [] });
      expect(await refusal()).to.deep.equal([...refused, `${text}: ${named} has an older version`]);
      await sync({ kinds, claimIds: [claimIdOf(OTHER_ISSUER, ''), claimIdOf(OTHER_ISSUER, '/groups')] });
      expect(await refusal()).to.deep.equal([...refused, `${text}: ${named} does not read the claim`]);
      await sync({ kinds, claimIds: [claimIdOf('https://third.example', '')] });
      expect((await cluster.revoke(target)).sequence).to.equal(1n);
      await sync({ kinds, claimIds: [claimIdOf(OTHER_ISSUER, ''), claimIdOf(OTHER_ISSUER, '/tenant')] });
      expect((await cluster.revoke(target)).sequence).to.equal(2n);
    });

    it('by a claim is only checked in a dry run, which other targets do not have', async () => {
      const dry = (target: RevokeRequest['target']) => cluster.revoke(target, undefined, { dryRun: true });
      const receipt = await dry(foreign(claim('/tenant', 'acme')));
      expect(receipt).to.deep.include({ sequence: 0n, enforcedEverywhereBy: undefined, targetKnown: false });
      const { violations } = await refusalOf(dry(foreign({ $case: 'subject', value: 'alice' })));
      expect(violations.map(({ field }) => field)).to.deep.equal(['dry_run']);
      expect(await entriesOf(cluster.replicas[0])).to.deep.equal([]);
    });

    it('writes the issuer, and for a user a cut-off after the skew', async () => {
      const [first] = cluster.replicas;
      const beforeMs = Date.now();
      await revoke(foreign({ $case: 'tokenId', value: 'jti' }));
      await revoke(foreign({ $case: 'sessionId', value: 'sid' }));
      await revoke(foreign({ $case: 'subject', value: 'ålice' }));
      const { rows } = await first.database.query<{
        kind: string;
        issuer: string;
        key: Buffer;
        cut_off_time: Date | null;
      }>('SELECT kind, issuer, key, cut_off_time FROM revocation_entries ORDER BY seq');
      expect(rows.map(({ kind, issuer, key }) => [kind, issuer, key.toString()])).to.deep.equal([
        ['TOKEN', 'https://other.example', 'jti'],
        ['SESSION', 'https://other.example', 'sid'],
        ['USER', 'https://other.example', 'ålice'],
      ]);
      expect(rows.map(({ cut_off_time }) => cut_off_time !== null)).to.deep.equal([false, false, true]);
      const cutOffMs = rows[2]?.cut_off_time?.getTime() ?? Number.NaN;
      expect(cutOffMs % 1000).to.equal(0);
      expect(cutOffMs).to.be.within(beforeMs + 5000, Date.now() + 6000);
      // The guards received them, by broadcast and by sync.
      for (const guard of cluster.guards()) expect(guard.state().entries).to.equal(3);
      // A new instance receives them with a pull.
      const late = await cluster.follow('late', first);
      expect(late.state().entries).to.equal(3);
    });

    it('rejects an issuer that auth does not trust, such as one with a slash too many, and lists those it does', async () => {
      const value = { $case: 'subject', value: 'alice' } as const;
      const { code, reason, violations } = await refusalOf(revoke(foreign(value, `${OTHER_ISSUER}/`)));
      expect([code, reason]).to.deep.equal([status.INVALID_ARGUMENT, 'FIELD_INVALID']);
      expect(violations).to.have.length(1);
      expect(violations[0]?.field).to.equal('foreign.issuer');
      expect(violations[0]?.description).to.contain(`one of ${OTHER_ISSUER}`);
      const { rows } = await cluster.replicas[0].database.query('SELECT FROM revocation_entries');
      expect(rows).to.have.length(0);
    });

    it('rejects this issuer and empty identifiers', async () => {
      const wrong: [RevokeRequest['target'], string][] = [
        [foreign({ $case: 'subject', value: 'alice' }, ISSUER), 'foreign.issuer'],
        [foreign({ $case: 'subject', value: 'alice' }, ''), 'foreign.issuer'],
        [foreign({ $case: 'subject', value: '' }), 'foreign.what'],
        [foreign({ $case: 'tokenId', value: 'x'.repeat(256) }), 'foreign.what'],
        [{ $case: 'foreign', value: { issuer: 'https://other.example', what: undefined } }, 'foreign.what'],
        [foreign(claim('/tenants', 'acme')), 'foreign.claim.claim'],
        [foreign(claim('tenant', 'acme')), 'foreign.claim.claim'],
        ...['', 'x'.repeat(256), 'a\0', 'a\n', '\ud800', '\ufffd'].map(
          (value): [RevokeRequest['target'], string] => [
            foreign(claim('/tenant', value)),
            'foreign.claim.value',
          ],
        ),
      ];
      for (const [target, field] of wrong) {
        expect(await refusalOfTarget(target)).to.deep.equal([
          status.INVALID_ARGUMENT,
          'FIELD_INVALID',
          field,
        ]);
      }
    });
  });

  it('states whether auth has found what the target names', async () => {
    const [replica] = cluster.replicas;
    const victim = await addClient(replica);
    const user = await addUser(replica);
    const { access, session } = await logIn(replica, user);
    const known: RevokeRequest['target'][] = [
      { $case: 'token', value: access.token },
      { $case: 'sessionId', value: session.sessionId },
      { $case: 'userId', value: user.userId },
      { $case: 'clientId', value: victim.clientId },
    ];
    for (const target of known) expect((await cluster.revoke(target)).targetKnown).to.equal(true);
    const what = { $case: 'tokenId', value: 'x' } as const;
    const unknown: RevokeRequest['target'][] = [
      { $case: 'tokenId', value: randomUUID() },
      { $case: 'foreign', value: { issuer: OTHER_ISSUER, what } },
    ];
    for (const target of unknown) {
      const { targetKnown, sequence } = await cluster.revoke(target);
      expect([targetKnown, sequence > 0n]).to.deep.equal([false, true]);
    }
  });

  it('lists an instance under the id of its client, whatever name it states', async () => {
    const [replica] = cluster.replicas;
    const mallory = await addClient(replica, { clientId: 'mallory', scopes: ['auth.sync'] });
    const token = await serviceToken(replica, mallory);
    const service = replica.revocationService;
    const sync = (name: string) =>
      ask(
        service.sync.bind(service),
        { ...question({ service: name }), seen: [], kinds: [], claimIds: [], fences: [], ...UNNAMED },
        { token },
      );
    await sync('inventory');
    const { instances } = await replica.instances.list({ pageSize: 0, pageToken: '' });
    const named = instances.filter(({ instance }) => instance.equals(question().instance));
    expect(named.map((each) => each.service)).to.deep.equal(['mallory']);
    for (const name of ['', 'a b', 'a\nb', 'x'.repeat(101), 'inventôry']) {
      const { reason, violations } = await refusalOf(sync(name));
      expect([reason, violations[0]?.field]).to.deep.equal(['FIELD_INVALID', 'service']);
    }
  });

  it('lists the instances page by page, with their lag', async () => {
    const [first, second] = cluster.replicas;
    const token = await cluster.token(cluster.admin);
    const list = async (replica: typeof first, pageToken = '') => {
      const service = replica.revocationService;
      return await ask(service.listInstances.bind(service), { pageSize: 3, pageToken }, { token });
    };
    await revoke({ $case: 'tokenId', value: randomUUID() });
    await until(() => cluster.guards().every((guard) => guard.state().applied === 1n));
    await until(async () => {
      const { instances } = await first.instances.list({ pageSize: 0, pageToken: '' });
      return instances.length === 4 && instances.every(({ lag }) => lag === 0n);
    });
    await cluster.followers.payment.close();
    await revoke({ $case: 'tokenId', value: randomUUID() });
    for (const replica of [first, second]) {
      const page = await list(replica);
      expect(page.instances.map(({ service }) => service)).to.deep.equal(['auth', 'auth', 'inventory']);
      const rest = await list(replica, page.nextPageToken);
      expect(rest.nextPageToken).to.equal('');
      expect(rest.instances).to.have.length(1);
      expect(rest.instances[0]).to.deep.include({
        service: 'payment',
        applied: 1n,
        lag: 1n,
        currentEpoch: true,
        leaseLeft: { seconds: 0n, nanos: 0 },
      });
      expect((rest.instances[0]?.lastSyncAge?.seconds ?? 0n) >= 1n).to.equal(true);
      for (const { currentEpoch, leaseLeft, instance } of page.instances) {
        expect(currentEpoch).to.equal(true);
        expect(leaseLeft?.seconds === 1n || (leaseLeft?.nanos ?? 0) > 0).to.equal(true);
        expect(instance).to.have.length(16);
      }
    }
  });
});
