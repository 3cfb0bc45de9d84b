/**
 * Races of a change that takes a scope from a role with everything that mints tokens, on two replicas. `RACE_ROUNDS` sets the
 * number of rounds.
 */

import { randomInt, randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { ServiceError } from '@portcullis/guard/errors';
import { expect } from 'chai';
import type { PolicyDocument } from '../../../../services/auth/records/policy.js';
import { codeOf, serviceErrorOf } from '../../../support/outcomes.js';
import { DEMO_DOCUMENT } from '../demo-policy.js';
import {
  type AuthInstance,
  addClient,
  addUser,
  claimsOf,
  type FreshAuth,
  logIn,
  newKeyEncryptionKey,
  openAuth,
  openFreshAuth,
  serviceToken,
  type TestUser,
} from '../instance.js';

const ROUNDS = Number(process.env['RACE_ROUNDS'] ?? 20);

/** Period in which a round's calls begin, in milliseconds: about the time that a login hashes. */
const START_WITHIN_MS = 60;

/** How long minting is delayed at most, in milliseconds. */
const MINT_MS_MAX = 40;

const LOST = 'payment.pay';

const WITHOUT: PolicyDocument = {
  ...DEMO_DOCUMENT,
  roles: DEMO_DOCUMENT.roles.map((role) => ({
    ...role,
    scopes: role.scopes.filter((scope) => scope !== LOST),
  })),
};

describe(`races of a narrowed role, ${ROUNDS} rounds`, function () {
  this.timeout(60_000 + ROUNDS * 3000);
  const keyEncryptionKey = newKeyEncryptionKey();
  let auth: FreshAuth;
  let replica: AuthInstance;
  let callerToken: string;
  let user: TestUser;
  /** Has no session before a round: a batch finds the user only by what the login has committed. */
  let newcomer: TestUser;

  before(async () => {
    auth = await openFreshAuth({ keyEncryptionKey, accessTokenSeconds: 3600 });
    replica = await openAuth(auth.url, { keyEncryptionKey, accessTokenSeconds: 3600 });
    const inventory = await addClient(auth, { clientId: 'inventory', exchangeAudiences: ['payment'] });
    callerToken = await serviceToken(auth, inventory);
    [user, newcomer] = [await addUser(auth), await addUser(auth)];
    // A login and a refresh read the policy before they write this row. Few rounds then find a missing lock.
    await auth.database.query(
      `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN PERFORM pg_sleep(random() * ${MINT_MS_MAX} / 1000); RETURN NEW; END $$`,
    );
    await auth.database.query(
      'CREATE TRIGGER slow BEFORE INSERT ON refresh_tokens FOR EACH ROW EXECUTE FUNCTION slow()',
    );
  });
  after(async () => {
    await replica.close();
    await auth.close();
  });

  const either = (): AuthInstance => (randomInt(2) === 0 ? auth : replica);
  const apply = (document: PolicyDocument) =>
    either().policy.apply({
      actor: 'olga',
      etag: '',
      dryRun: false,
      requestId: randomUUID(),
      reason: '',
      network: '',
      document,
    });
  /** What a racing call returns; a call that lost the race, or what it asked for, returns nothing. */
  const orNothing = async <T>(call: Promise<T>): Promise<T | undefined> => {
    try {
      return await call;
    } catch (error) {
      if (error instanceof ServiceError) return undefined;
      throw error;
    }
  };
  const soon = () => sleep(randomInt(START_WITHIN_MS));
  const exchange = async (subjectToken: string) =>
    await orNothing(
      either().exchange.exchange({ callerToken, subjectToken, audience: 'payment', scopes: [] }),
    );

  it('no token with the lost scope is valid after the change has returned', async () => {
    let raced = 0;
    for (let round = 0; round < ROUNDS; round += 1) {
      const opened = await Promise.all([logIn(auth, user), logIn(auth, user)]);
      const tokens = opened.map(({ access }) => access.token);
      const refreshes = opened.map(async ({ refreshToken }) => {
        await soon();
        const pair = await orNothing(either().sessions.refresh({ refreshToken, requestId: randomUUID() }));
        if (pair === undefined) return;
        tokens.push(pair.access.token);
        const exchanged = await exchange(pair.access.token);
        if (exchanged !== undefined) tokens.push(exchanged.token);
      });
      const logins = [0, 1].map(async () => {
        const pair = await orNothing(logIn(either(), newcomer));
        if (pair !== undefined) tokens.push(pair.access.token);
      });
      const exchanges = opened.map(async ({ access }) => {
        await soon();
        const exchanged = await exchange(access.token);
        if (exchanged !== undefined) tokens.push(exchanged.token);
      });
      const change = (async () => {
        await soon();
        return await apply(WITHOUT);
      })();
      await Promise.all([...refreshes, ...logins, ...exchanges, change]);
      const wide = tokens.filter((token) => String(claimsOf(token)['scope']).split(' ').includes(LOST));
      raced += wide.length;
      const active = await Promise.all(wide.map((token) => auth.exchange.introspect(token)));
      expect(active.filter((token) => token !== undefined)).to.deep.equal([]);
      const { rows } = await auth.database.query<{ count: bigint }>(
        'SELECT count(*) FROM sessions WHERE end_time IS NULL AND $1 = ANY(scopes)',
        [LOST],
      );
      expect(rows[0]?.count).to.equal(0n);
      await auth.database.query(
        "UPDATE sessions SET end_time = clock_timestamp(), end_reason = 'LOGOUT' WHERE user_id = $1 AND end_time IS NULL",
        [newcomer.userId],
      );
      await apply(DEMO_DOCUMENT);
    }
    // Otherwise the test shows nothing.
    expect(raced).to.be.greaterThan(2 * ROUNDS);
  });
});

describe('a change of the policy whose revocations have not begun', () => {
  let auth: FreshAuth;
  let callerToken: string;

  beforeEach(async () => {
    auth = await openFreshAuth();
    const inventory = await addClient(auth, { clientId: 'inventory', exchangeAudiences: ['payment'] });
    callerToken = await serviceToken(auth, inventory);
  });
  afterEach(() => auth.close());

  /** Commits the change alone, as a process does that stops right after it. */
  const change = (document: PolicyDocument) =>
    auth.store.transaction(async (tx) => {
      await tx.policy.lock();
      await tx.policy.replace(document);
    });
  const exchange = (subjectToken: string, scopes: readonly string[] = []) =>
    auth.exchange.exchange({ callerToken, subjectToken, audience: 'payment', scopes });

  it('lets no exchange pass on a scope that the roles no longer grant', async () => {
    const user = await addUser(auth);
    const { access } = await logIn(auth, user);
    const before = await exchange(access.token, [LOST]);
    expect(before.scopes).to.deep.equal([LOST]);
    await change(WITHOUT);
    // The earlier tokens have the scope until they are revoked.
    expect(await auth.exchange.introspect(access.token)).to.not.equal(undefined);
    const { token, scopes } = await exchange(access.token);
    expect(scopes).to.deep.equal(['payment.read']);
    expect(claimsOf(token)['roles']).to.deep.equal(['customer']);
    const refused = await serviceErrorOf(exchange(access.token, [LOST]));
    expect([refused.code, refused.message]).to.deep.equal([
      'SCOPE_MISSING',
      `the roles of the user no longer grant scope ${LOST}`,
    ]);
  });

  it('takes it from the next token of a chain, too', async () => {
    const payment = await addClient(auth, { clientId: 'payment', exchangeAudiences: ['inventory'] });
    const user = await addUser(auth);
    const { access } = await logIn(auth, user);
    const { token: subjectToken } = await exchange(access.token, [LOST, 'inventory.read']);
    await change(WITHOUT);
    const request = { callerToken: await serviceToken(auth, payment), subjectToken, audience: 'inventory' };
    expect((await auth.exchange.exchange({ ...request, scopes: [] })).scopes).to.deep.equal([
      'inventory.read',
    ]);
    const refused = auth.exchange.exchange({ ...request, scopes: [LOST, 'inventory.read'] });
    expect(await codeOf(refused)).to.equal('SCOPE_MISSING');
  });

  it('lets an exchange pass on what another role of the user still grants', async () => {
    const user = await addUser(auth, ['customer', 'operator']);
    const { access } = await logIn(auth, user);
    const onlyCustomer = {
      ...DEMO_DOCUMENT,
      roles: DEMO_DOCUMENT.roles.map((role) =>
        role.role === 'customer' ? { ...role, scopes: role.scopes.filter((scope) => scope !== LOST) } : role,
      ),
    };
    await change(onlyCustomer);
    expect((await exchange(access.token, [LOST])).scopes).to.deep.equal([LOST]);
  });
});

describe(`races of a policy that names a client with UpdateClient, ${ROUNDS} rounds`, function () {
  this.timeout(60_000 + ROUNDS * 3000);
  const keyEncryptionKey = newKeyEncryptionKey();
  let auth: FreshAuth;
  let replica: AuthInstance;

  before(async () => {
    auth = await openFreshAuth({ keyEncryptionKey });
    replica = await openAuth(auth.url, { keyEncryptionKey });
  });
  after(async () => {
    await replica.close();
    await auth.close();
  });

  const WIDE = {
    audiences: ['auth'],
    scopes: ['auth.exchange', 'auth.introspect', 'auth.sync'],
    exchangeAudiences: ['payment'],
  };

  it('ends with the rights of one order, and with no earlier token', async () => {
    const [updates, policies] = [[] as string[], [] as string[]];
    for (let round = 0; round < ROUNDS; round += 1) {
      const clientId = `racer-${round}`;
      const client = await addClient(auth, { clientId, ...WIDE });
      const token = await serviceToken(auth, client);
      const update = async () => {
        await sleep(randomInt(5));
        await replica.clients.update({
          actor: 'olga',
          clientId,
          requestId: randomUUID(),
          reason: '',
          etag: '',
          rights: {
            ...WIDE,
            exchangeScopes: [],
            scopes: ['auth.exchange', 'auth.sync'],
            certificateBound: false,
            brokerKey: undefined,
          },
          updateMask: ['scopes'],
        });
        updates.push(clientId);
      };
      const apply = async () => {
        await sleep(randomInt(5));
        await auth.policy.apply({
          actor: 'olga',
          etag: '',
          dryRun: false,
          requestId: randomUUID(),
          reason: '',
          network: '',
          document: DEMO_DOCUMENT,
          clients: [
            {
              clientId,
              ...WIDE,
              scopes: ['auth.introspect', 'auth.sync'],
              exchangeAudiences: [],
              exchangeScopes: [],
            },
          ],
          mayChangeClients: true,
        });
        policies.push(clientId);
      };
      await Promise.all([update(), apply()]);
      const { clients } = await auth.policy.get();
      const after = clients.find((one) => one.clientId === clientId);
      // The update names its scopes only, so what the policy says of the rest stands in either order.
      expect(after?.exchangeAudiences).to.deep.equal([]);
      expect([
        ['auth.exchange', 'auth.sync'],
        ['auth.introspect', 'auth.sync'],
      ]).to.deep.include(after?.scopes);
      expect(await auth.exchange.introspect(token)).to.equal(undefined);
    }
    expect([updates.length, policies.length]).to.deep.equal([ROUNDS, ROUNDS]);
  });
});
