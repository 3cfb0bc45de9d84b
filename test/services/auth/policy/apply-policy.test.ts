/** Tests of changes of the policy, and of what they take from live sessions, against PostgreSQL. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { ADMIN_SCOPES } from '../../../../services/auth/policy/document.js';
import { SEARCHED_MAX } from '../../../../services/auth/policy/narrowing-store.js';
import { BATCH_USERS_MAX } from '../../../../services/auth/policy/narrowings.js';
import type { ApplyPolicyRequest } from '../../../../services/auth/policy/policy-administration.js';
import type { PolicyDocument } from '../../../../services/auth/records/policy.js';
import { codeOf, serviceErrorOf, violatedFieldsOf } from '../../../support/outcomes.js';
import { DEMO_DOCUMENT } from '../demo-policy.js';
import {
  addClient,
  addUser,
  attemptOf,
  claimsOf,
  entriesOf,
  type FreshAuth,
  logIn,
  openAuth,
  openFreshAuth,
  serviceToken,
} from '../instance.js';

const GREETER = { audience: 'greeter', description: '', clientIds: [], scopes: ['greeter.hello'] };

/** The demo's policy with other scopes of one role. */
function withRole(role: string, change: (scopes: readonly string[]) => readonly string[]): PolicyDocument {
  const roles = DEMO_DOCUMENT.roles.map((one) =>
    one.role === role ? { ...one, scopes: change(one.scopes) } : one,
  );
  return { ...DEMO_DOCUMENT, roles };
}

const without = (role: string, lost: string) =>
  withRole(role, (scopes) => scopes.filter((scope) => scope !== lost));

describe('the policy', () => {
  let auth: FreshAuth;

  beforeEach(async () => {
    auth = await openFreshAuth();
  });
  afterEach(() => auth.close());

  const apply = (document: PolicyDocument, over: Partial<ApplyPolicyRequest> = {}) =>
    auth.policy.apply({
      actor: 'olga',
      etag: '',
      dryRun: false,
      requestId: randomUUID(),
      reason: '',
      network: '192.0.2.7',
      document,
      ...over,
    });
  const scopesIn = (token: string) => String(claimsOf(token)['scope']).split(' ');
  const isActive = async (token: string) => (await auth.exchange.introspect(token)) !== undefined;

  it('gives a new service to users: a role grants its scope, and logins reach its audience', async () => {
    const user = await addUser(auth);
    const { changes, users, sequence } = await apply({
      services: [...DEMO_DOCUMENT.services, GREETER],
      roles: withRole('customer', (scopes) => [...scopes, 'greeter.hello']).roles,
    });
    expect(changes).to.have.length(3);
    expect([users, sequence]).to.deep.equal([0n, 0n]);
    const claims = claimsOf((await logIn(auth, user)).access.token);
    expect(claims.aud).to.include('greeter');
    expect(String(claims['scope'])).to.include('greeter.hello');
    const narrow = await logIn(auth, user, { audiences: ['greeter'], scopes: ['greeter.hello'] });
    expect(claimsOf(narrow.access.token).aud).to.deep.equal(['greeter']);
  });

  it('changes nothing when it is applied as it is, and keeps its etag', async () => {
    const before = await auth.policy.get();
    const { policy, changes } = await apply(before);
    expect(changes).to.deep.equal([]);
    expect(policy).to.deep.equal(before);
    const { events } = await auth.securityStore.list(
      { types: ['policy-changed'] },
      { pageSize: 10, pageToken: '' },
    );
    expect(events).to.deep.equal([]);
  });

  it('is not changed by a dry run, which returns what would change', async () => {
    const before = await auth.policy.get();
    const dry = await apply(without('customer', 'payment.pay'), { dryRun: true, requestId: '' });
    expect(dry.changes).to.deep.equal([{ kind: 'REMOVED', role: 'customer', scope: 'payment.pay' }]);
    expect(dry.policy.roles.find(({ role }) => role === 'customer')?.scopes).to.not.include('payment.pay');
    expect(await auth.policy.get()).to.deep.equal(before);
  });

  it('is not changed with the etag of a former policy', async () => {
    const { etag } = await auth.policy.get();
    const { policy } = await apply(without('customer', 'payment.pay'), { etag });
    expect(policy.etag).to.not.equal(etag);
    for (const dryRun of [true, false]) {
      expect(await codeOf(apply(DEMO_DOCUMENT, { etag, dryRun }))).to.equal('ETAG_MISMATCH');
    }
    await apply(DEMO_DOCUMENT, { etag: policy.etag });
  });

  it('is changed once by a repeated request, which returns the first answer', async () => {
    const requestId = randomUUID();
    const user = await addUser(auth);
    await logIn(auth, user);
    const document = without('customer', 'payment.pay');
    const first = await apply(document, { requestId });
    await apply(DEMO_DOCUMENT);
    expect(await apply(document, { requestId })).to.deep.equal(first);
    expect(await codeOf(apply(DEMO_DOCUMENT, { requestId }))).to.equal('REQUEST_ID_REUSED');
    expect(await violatedFieldsOf(apply(document, { requestId: '' }))).to.deep.equal(['request_id']);
  });

  it('reports all faults of a document together', async () => {
    const services = [...DEMO_DOCUMENT.services, { ...GREETER, scopes: ['auth.revoke', 'Bad'] }];
    const roles = [
      ...without('admin', 'auth.policy.write').roles,
      { role: 'guest', description: '', scopes: ['nothing.read'] },
    ];
    expect(await violatedFieldsOf(apply({ services, roles }))).to.deep.equal([
      'policy.roles[2].scopes',
      'policy.roles[4].scopes[0]',
      'policy.services[3].scopes[0]',
      'policy.services[3].scopes[1]',
    ]);
    const unchanged = await auth.policy.get();
    expect(unchanged.roles.find(({ role }) => role === 'admin')?.scopes).to.include.members(ADMIN_SCOPES);
  });

  it('keeps the roles that users have, and the scopes and services that clients have rights to', async () => {
    await addUser(auth, ['operator']);
    await addUser(auth, ['operator', 'security']);
    await addClient(auth, { clientId: 'shop', audiences: ['inventory'], scopes: ['inventory.settle'] });
    const services = DEMO_DOCUMENT.services.filter(({ audience }) => audience !== 'inventory');
    const roles = DEMO_DOCUMENT.roles
      .filter(({ role }) => role !== 'operator')
      .map((role) => ({ ...role, scopes: role.scopes.filter((scope) => !scope.startsWith('inventory.')) }));
    const { code, message } = await serviceErrorOf(apply({ services, roles }));
    expect(code).to.equal('POLICY_IN_USE');
    expect(message).to.contain('role operator has 2 users');
    expect(message).to.contain('inventory is a right of client shop');
    expect(message).to.contain('inventory.settle is a right of client shop');
    expect(message).to.not.contain('inventory.manage');
  });

  it('moves no scope from one service to another at once', async () => {
    const withServices = (ofGreeter: readonly string[], ofOther: readonly string[]): PolicyDocument => ({
      ...DEMO_DOCUMENT,
      services: [
        ...DEMO_DOCUMENT.services,
        { ...GREETER, scopes: ofGreeter },
        { ...GREETER, audience: 'other', scopes: ofOther },
      ],
    });
    await apply(withServices(['hello'], []));
    const { code, message } = await serviceErrorOf(apply(withServices([], ['hello'])));
    expect(code).to.equal('POLICY_IN_USE');
    expect(message).to.equal('scope hello belongs to greeter: remove it before it moves');
    await apply(withServices([], []));
    await apply(withServices([], ['hello']));
  });

  it('records each change with who, why, what and the network', async () => {
    await apply(without('customer', 'payment.pay'), { reason: 'no more purchases' });
    const { events } = await auth.securityStore.list(
      { types: ['policy-changed'] },
      { pageSize: 10, pageToken: '' },
    );
    expect(events).to.have.length(1);
    const [event] = events;
    expect(event).to.deep.include({ actor: 'olga', reason: 'no more purchases', network: '192.0.2.7' });
    expect(event?.details).to.deep.include({
      changes: ['role customer: scope payment.pay removed'],
      count: 1,
      first: 1,
    });
  });

  it('records every one of many changes, in events of 20 that say which they name', async () => {
    const scopes = Array.from({ length: 44 }, (_, at) => `greeter.s${String(at).padStart(2, '0')}`);
    const requestId = randomUUID();
    const document = { ...DEMO_DOCUMENT, services: [...DEMO_DOCUMENT.services, { ...GREETER, scopes }] };
    const { changes } = await apply(document, { requestId });
    expect(changes).to.have.length(45);
    const { events } = await auth.securityStore.list(
      { types: ['policy-changed'] },
      { pageSize: 10, pageToken: '' },
    );
    const details = events.flatMap((event) => (event.type === 'policy-changed' ? event.details : []));
    const ordered = details.toSorted((one, other) => (one.first ?? 0) - (other.first ?? 0));
    expect(ordered.map(({ first, count, changes: named }) => [first, count, named.length])).to.deep.equal([
      [1, 45, 20],
      [21, 45, 20],
      [41, 45, 5],
    ]);
    expect(ordered.flatMap((detail) => detail.changes)).to.deep.equal([
      'service greeter added',
      ...scopes.map((scope) => `service greeter: scope ${scope} added`),
    ]);
    for (const { actor, details: all } of events) {
      expect([actor, Reflect.get(all, 'requestId')]).to.deep.equal(['olga', requestId]);
    }
  });

  describe('that takes a scope from a role', () => {
    it('revokes the tokens of the users whose sessions lose it, and of no others', async () => {
      const [loser, keeper, unrelated, narrowed] = await Promise.all([
        addUser(auth, ['customer']),
        addUser(auth, ['customer', 'operator']),
        addUser(auth, ['security']),
        addUser(auth, ['customer']),
      ]);
      const tokens = {
        loser: await logIn(auth, loser),
        keeper: await logIn(auth, keeper),
        unrelated: await logIn(auth, unrelated),
        narrowed: await logIn(auth, narrowed, { audiences: ['auth'], scopes: ['auth.self'] }),
      };
      const { users, sequence, enforcedEverywhereBy } = await apply(without('customer', 'payment.pay'));
      expect([users, sequence]).to.deep.equal([1n, 1n]);
      expect(enforcedEverywhereBy?.getTime()).to.be.greaterThan(Date.now());
      const entries = await entriesOf(auth);
      expect(
        entries.map(({ kind, key, reason, actor }) => [
          kind,
          Buffer.from(key, 'hex').toString(),
          reason,
          actor,
        ]),
      ).to.deep.equal([['USER', loser.userId, 'policy changed', 'olga']]);
      expect(await isActive(tokens.loser.access.token)).to.equal(false);
      for (const name of ['keeper', 'unrelated', 'narrowed'] as const) {
        expect(await isActive(tokens[name].access.token), name).to.equal(true);
      }
    });

    it('lets the sessions continue without it', async () => {
      const user = await addUser(auth);
      const { refreshToken } = await logIn(auth, user);
      await apply(without('customer', 'payment.pay'));
      const refreshed = await auth.sessions.refresh({ refreshToken, requestId: randomUUID() });
      expect(scopesIn(refreshed.access.token)).to.deep.equal([
        'auth.self',
        'inventory.read',
        'inventory.reserve',
        'payment.read',
      ]);
      expect(claimsOf(refreshed.access.token)['roles']).to.deep.equal(['customer']);
      expect(await isActive(refreshed.access.token)).to.equal(true);
      // What comes back later does not come back to the session.
      await apply(DEMO_DOCUMENT);
      const { refreshToken: next } = refreshed;
      const later = await auth.sessions.refresh({ refreshToken: next, requestId: randomUUID() });
      expect(scopesIn(later.access.token)).to.not.include('payment.pay');
    });

    it('takes a service from sessions that have no scope of it left', async () => {
      const user = await addUser(auth);
      const onlySelf = await logIn(auth, user, { scopes: ['auth.self'] });
      expect(claimsOf(onlySelf.access.token).aud).to.deep.equal(['auth', 'inventory', 'payment']);
      const { users } = await apply(
        withRole('customer', (scopes) => scopes.filter((scope) => !scope.startsWith('payment.'))),
      );
      expect(users).to.equal(1n);
      expect(await isActive(onlySelf.access.token)).to.equal(false);
      const refreshed = await auth.sessions.refresh({
        refreshToken: onlySelf.refreshToken,
        requestId: randomUUID(),
      });
      expect(claimsOf(refreshed.access.token).aud).to.deep.equal(['auth', 'inventory']);
    });

    it('revokes tokens that services have exchanged', async () => {
      const client = await addClient(auth, { clientId: 'inventory', exchangeAudiences: ['payment'] });
      const user = await addUser(auth);
      const { access } = await logIn(auth, user);
      const exchanged = await auth.exchange.exchange({
        callerToken: await serviceToken(auth, client),
        subjectToken: access.token,
        audience: 'payment',
        scopes: ['payment.pay'],
      });
      expect(await isActive(exchanged.token)).to.equal(true);
      await apply(without('customer', 'payment.pay'));
      expect(await isActive(exchanged.token)).to.equal(false);
    });

    it('works in batches, and a process that stops in between is replaced by another one', async () => {
      const user = await addUser(auth);
      await logIn(auth, user);
      // Copies of the user and the session, because a thousand logins take long.
      await auth.database.query(
        `INSERT INTO users (user_id, username, name_skeleton, password_hash)
         SELECT gen_random_uuid(), 'copy-' || n, 'copy-' || n, '' FROM generate_series(1, 1100) AS n`,
      );
      await auth.database.query(
        "INSERT INTO user_roles SELECT user_id, 'customer' FROM users WHERE username LIKE 'copy-%'",
      );
      await auth.database.query(
        `INSERT INTO sessions (session_id, user_id, client_id, generation, client_generation, device_name, audiences,
           scopes, amr, create_time, last_use_time, expire_time)
         SELECT gen_random_uuid(), users.user_id, client_id, 1, 1, '', audiences, scopes, amr, s.create_time, s.last_use_time,
           s.expire_time
         FROM users, sessions AS s WHERE username LIKE 'copy-%'`,
      );
      let batches = 0;
      const failing = await openAuth(auth.url, {
        openKeys: false,
        onRevoked: () => {
          batches += 1;
          if (batches === 2) throw new Error('this process has stopped');
        },
      });
      const failure = await failing.policy
        .apply({
          actor: 'olga',
          etag: '',
          dryRun: false,
          requestId: randomUUID(),
          reason: '',
          network: '',
          document: without('customer', 'payment.pay'),
        })
        .catch((error: unknown) => error);
      await failing.close();
      expect(String(failure)).to.contain('this process has stopped');
      expect((await entriesOf(auth)).length).to.equal(2 * BATCH_USERS_MAX);
      expect(await auth.narrowings.resume()).to.equal(1);
      const entries = await entriesOf(auth);
      expect(entries.length).to.equal(1101);
      expect(new Set(entries.map(({ key }) => key)).size).to.equal(1101);
      expect(await auth.narrowings.resume()).to.equal(0);
      const { rows } = await auth.database.query<{ count: bigint }>(
        "SELECT count(*) FROM sessions WHERE 'payment.pay' = ANY(scopes) OR generation <> 2 OR end_time IS NOT NULL",
      );
      expect(rows[0]?.count).to.equal(0n);
    });
  });

  it('is finished before a request that changes nothing more returns', async () => {
    await logIn(auth, await addUser(auth));
    const document = without('customer', 'payment.pay');
    await apply(document);
    // As a process leaves it that stops after the change.
    await auth.store.transaction((tx) =>
      tx.narrowings.add({ scopes: ['payment.pay'], audiences: [], actor: 'olga', eventId: randomUUID() }),
    );
    expect((await apply(document)).changes).to.deep.equal([]);
    expect(await auth.narrowings.resume()).to.equal(0);
  });

  it('finds the users who lose a scope behind more sessions than one step looks at', async () => {
    const [first, second] = [await addUser(auth), await addUser(auth)].sort((a, b) =>
      a.userId < b.userId ? -1 : 1,
    );
    if (first === undefined || second === undefined) throw new Error('there are no users');
    await logIn(auth, first, { audiences: ['auth'], scopes: ['auth.self'] });
    await auth.database.query(
      `INSERT INTO sessions (session_id, user_id, client_id, generation, client_generation, device_name, audiences,
         scopes, amr, create_time, last_use_time, expire_time)
       SELECT gen_random_uuid(), user_id, client_id, 1, 1, '', audiences, scopes, amr, create_time, last_use_time, expire_time
       FROM sessions, generate_series(1, $1)`,
      [SEARCHED_MAX],
    );
    const { access } = await logIn(auth, second);
    expect((await apply(without('customer', 'payment.pay'))).users).to.equal(1n);
    expect(await isActive(access.token)).to.equal(false);
  });

  it('waits for transactions that use the former one, and lets none use it afterwards', async () => {
    const order: string[] = [];
    let release = (): void => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    let began = (): void => {};
    const isUsed = new Promise<void>((resolve) => {
      began = resolve;
    });
    const using = auth.store.transaction(async (tx) => {
      await tx.policy.current();
      began();
      await held;
      order.push('used');
    });
    await isUsed;
    const applied = apply(without('customer', 'payment.pay')).then(() => order.push('applied'));
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(order).to.deep.equal([]);
    // It queues behind the change, although it could share the lock with the transaction that holds it.
    const later = auth.store.transaction(async (tx) => {
      const { scopesOfRole } = await tx.policy.current();
      order.push(scopesOfRole.get('customer')?.includes('payment.pay') ? 'former' : 'new');
    });
    await new Promise((resolve) => setTimeout(resolve, 50));
    release();
    await Promise.all([using, applied, later]);
    expect(order[0]).to.equal('used');
    expect(order).to.include('new');
    expect(order).to.not.include('former');
  });

  it('is read again after a change by another replica', async () => {
    const replica = await openAuth(auth.url, { openKeys: false });
    await replica.policy.get();
    await apply(without('customer', 'payment.pay'));
    const { roles } = await replica.policy.get();
    expect(roles.find(({ role }) => role === 'customer')?.scopes).to.not.include('payment.pay');
    await replica.close();
  });

  it('rejects logins for a scope that no role grants any more', async () => {
    const user = await addUser(auth);
    const attempt = { ...attemptOf(user.username, user.password), scopes: ['payment.pay'] };
    await auth.sessions.login(attempt);
    await apply({
      ...DEMO_DOCUMENT,
      roles: DEMO_DOCUMENT.roles.map((role) => ({
        ...role,
        scopes: role.scopes.filter((scope) => scope !== 'payment.pay'),
      })),
    });
    expect(await violatedFieldsOf(auth.sessions.login(attempt))).to.deep.equal(['scopes']);
  });
});
