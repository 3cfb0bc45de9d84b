/**
 * Races of everything that ends a session with everything that continues one, on two replicas. The guards of services
 * that follow them decide which tokens are valid. `RACE_ROUNDS` sets the number of rounds.
 */

import { randomInt, randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { ServiceError } from '@portcullis/guard';
import { expect } from 'chai';
import type { TokenPair } from '../../../../services/auth/sessions/session-tokens.js';
import { codeOf } from '../../../support/outcomes.js';
import { type FreshDatabase, freshDatabase } from '../../../support/postgres.js';
import { until } from '../../../support/waiting.js';
import { type Cluster, startCluster, verdictOf } from '../cluster.js';
import {
  type AuthInstance,
  addUser,
  claimsOf,
  entriesOf,
  entryKeyOf,
  logIn,
  newKeyEncryptionKey,
  openAuth,
  type TestUser,
} from '../instance.js';

const ROUNDS = Number(process.env['RACE_ROUNDS'] ?? 20);
const REFRESHES_AT_ONCE = 50;
const RESTARTS = 20;
const ATTEMPTS_MAX = 5;
const NEW_PASSWORD = 'another long password';
/** Rounds whose tokens are checked together: few enough that the first token has not expired by then. */
const ROUNDS_PER_VERDICT = 20;
/** Period in which a round's calls begin, in milliseconds: about the time that a login hashes. */
const START_WITHIN_MS = 60;

describe(`races of sessions, ${ROUNDS} rounds`, function () {
  this.timeout(60_000 + ROUNDS * 3000);
  let cluster: Cluster;
  let auth: AuthInstance;
  let replica: AuthInstance;

  before(async () => {
    cluster = await startCluster({ leaseMs: 1500 });
    [auth, replica] = cluster.replicas;
  });
  after(() => cluster.close());

  const either = (): AuthInstance => (randomInt(2) === 0 ? auth : replica);
  /** Number of calls for which the database was too slow, as on an overloaded machine. */
  let unavailable = 0;
  /** Retries a call whose outcome is unknown, as clients do. */
  const persistently = async <T>(call: () => Promise<T>): Promise<T> => {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await call();
      } catch (error) {
        const isAway = error instanceof ServiceError && error.code === 'DEPENDENCY_UNAVAILABLE';
        if (!isAway || attempt === ATTEMPTS_MAX) throw error;
        unavailable += 1;
      }
    }
  };
  const refresh = (at: AuthInstance, refreshToken: string, requestId: string = randomUUID()) =>
    persistently(() => at.sessions.refresh({ refreshToken, requestId }));
  const isOpen = async (sessionId: string): Promise<boolean> =>
    (await auth.store.transaction((tx) => tx.sessions.lockShared(sessionId)))?.open === true;

  /** Waits until every guard has all entries of the log. */
  const untilGuardsFollow = async (): Promise<void> => {
    const { rows } = await auth.database.query<{ seq: bigint }>('SELECT seq FROM log_state');
    const head = rows[0]?.seq ?? 0n;
    await until(() => cluster.guards().every((guard) => guard.state().applied >= head));
  };
  /** The decision of the guards of all services and replicas on a token; they must agree. */
  const decisionOn = async (token: string): Promise<string> => {
    const verdicts = await Promise.all(cluster.guards().map((guard) => verdictOf(guard, token)));
    expect(new Set(verdicts).size, verdicts.join()).to.equal(1);
    return verdicts[0] ?? '';
  };

  it('50 concurrent refreshes with one token succeed once, and the others end the session', async () => {
    const winners: TokenPair[] = [];
    for (let round = 0; round < ROUNDS; round += 1) {
      const { refreshToken, session, access } = await logIn(auth, await addUser(auth));
      const unavailableBefore = unavailable;
      const outcomes = await Promise.allSettled(
        Array.from({ length: REFRESHES_AT_ONCE }, (_, index) =>
          refresh(index % 2 === 0 ? auth : replica, refreshToken),
        ),
      );
      const won = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
      // A caller without a response may have won and can no longer learn it; no other caller has.
      expect(won.length, `round ${round}`).to.be.within(unavailable > unavailableBefore ? 0 : 1, 1);
      expect(new Set(outcomes.flatMap(reasonOf)), `round ${round}`).to.deep.equal(
        new Set(['REFRESH_INVALID']),
      );
      expect(await isOpen(session.sessionId)).to.equal(false);
      const entries = (await entriesOf(auth)).filter(({ key }) => key === entryKeyOf(session.sessionId));
      expect(entries).to.have.length(1);
      const [winner] = won;
      if (winner !== undefined) {
        expect(await codeOf(refresh(either(), winner.refreshToken))).to.equal('REFRESH_INVALID');
        winners.push(winner, { ...winner, access });
      }
      if ((round + 1) % ROUNDS_PER_VERDICT !== 0 && round + 1 < ROUNDS) continue;
      await untilGuardsFollow();
      for (const { access: minted } of winners.splice(0)) {
        expect(await decisionOn(minted.token)).to.equal('TOKEN_REVOKED');
      }
    }
  });

  it('50 concurrent copies of one request return one successor, and the session continues', async () => {
    for (let round = 0; round < ROUNDS; round += 1) {
      const { refreshToken, session } = await logIn(auth, await addUser(auth));
      const requestId = randomUUID();
      const pairs = await Promise.all(
        Array.from({ length: REFRESHES_AT_ONCE }, () => refresh(either(), refreshToken, requestId)),
      );
      expect(new Set(pairs.map((pair) => pair.refreshToken)).size, `round ${round}`).to.equal(1);
      expect(await isOpen(session.sessionId)).to.equal(true);
      await refresh(either(), pairs[0]?.refreshToken ?? '');
      expect(await codeOf(refresh(either(), refreshToken, requestId))).to.equal('REFRESH_INVALID');
      expect(await isOpen(session.sessionId)).to.equal(false);
    }
  });

  /** The calls that revoke tokens; each returns whether it did. */
  const endings: { [name: string]: (user: TestUser) => Promise<unknown> } = {
    'a revocation of the user': ({ userId }) =>
      either().revocations.revoke({ target: { kind: 'user', userId }, reason: '', actor: 'test' }),
    'a change of the password': ({ userId, password }) =>
      either().accountChanges.changePassword({
        userId,
        oldPassword: password,
        newPassword: NEW_PASSWORD,
        peer: '192.0.2.1:1',
      }),
    'a change of the roles': ({ userId }) =>
      either().accountChanges.setRoles({ userId, actor: 'test', requestId: '', roles: ['customer'] }),
    'disabling the user': ({ userId }) =>
      either().accountChanges.disable({ userId, actor: 'test', requestId: '' }),
  };

  /** Logins and refreshes, concurrent with the endings; returns the minted tokens with their origin. */
  const race = async (user: TestUser, calls: readonly ((user: TestUser) => Promise<unknown>)[]) => {
    const before = [await logIn(either(), user), await logIn(either(), user)];
    const late = async <T>(work: () => Promise<T>): Promise<T> => {
      await sleep(randomInt(START_WITHIN_MS));
      return await persistently(work);
    };
    const minting = [
      ...before.map((pair) => late(() => refresh(either(), pair.refreshToken))),
      late(() => logIn(either(), user)),
      late(() => logIn(either(), user)),
    ];
    const ending = calls.map((end) => late(() => end(user)));
    const [minted, ended] = await Promise.all([Promise.allSettled(minting), Promise.allSettled(ending)]);
    const allowed = ['REFRESH_INVALID', 'LOGIN_FAILED'];
    expect(allowed).to.include.members([...minted.flatMap(reasonOf), ...ended.flatMap(reasonOf)]);
    const during = minted.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
    return { before, during, ended: ended.map(({ status }) => status === 'fulfilled') };
  };

  const stateOf = async ({ userId }: TestUser) => {
    const { rows } = await auth.database.query<{ generation: bigint; disabled: boolean; roles: string[] }>(
      `SELECT generation, disable_time IS NOT NULL AS disabled,
         ARRAY(SELECT role FROM user_roles r WHERE r.user_id = u.user_id ORDER BY 1) AS roles
       FROM users u WHERE user_id = $1`,
      [userId],
    );
    const [row] = rows;
    if (row === undefined) throw new Error('the user is gone');
    return row;
  };

  /** Checks all tokens of a race: only those of the last generation are valid, and all guards agree. */
  const liveTokens = async (user: TestUser, pairs: readonly TokenPair[]): Promise<TokenPair[]> => {
    const { generation, disabled, roles } = await stateOf(user);
    const living: TokenPair[] = [];
    for (const pair of pairs) {
      const claims = claimsOf(pair.access.token);
      const isNew = BigInt(Number(claims['gen'])) === generation && !disabled;
      const verdict = await decisionOn(pair.access.token);
      expect(verdict).to.equal(isNew ? 'OK' : 'TOKEN_REVOKED');
      expect((await either().exchange.introspect(pair.access.token)) !== undefined).to.equal(isNew);
      if (!isNew) continue;
      expect(claims['roles']).to.deep.equal(roles);
      living.push(pair);
    }
    return living;
  };

  for (const [name, end] of Object.entries(endings)) {
    it(`no token minted before or during ${name} survives it`, async () => {
      const raced: { user: TestUser; pairs: TokenPair[] }[] = [];
      for (let round = 0; round < ROUNDS; round += 1) {
        const user = await addUser(auth, ['customer', 'operator']);
        const { before, during, ended } = await race(user, [end]);
        expect(ended).to.deep.equal([true]);
        raced.push({ user, pairs: [...before, ...during] });
        if ((round + 1) % ROUNDS_PER_VERDICT !== 0 && round + 1 < ROUNDS) continue;
        await untilGuardsFollow();
        for (const { user: each, pairs } of raced.splice(0)) {
          const living = await liveTokens(each, pairs);
          // No login used the new password, and a disabled user cannot log in.
          if (name === 'a change of the password' || name === 'disabling the user') {
            expect(living).to.be.empty;
          }
          for (const pair of pairs) {
            if (living.includes(pair) || name === 'a change of the roles') continue;
            expect(await codeOf(refresh(either(), pair.refreshToken))).to.equal('REFRESH_INVALID');
          }
        }
      }
    });
  }

  it('no token minted before or during all of them together survives the last', async () => {
    for (let round = 0; round < ROUNDS; round += 1) {
      const user = await addUser(auth, ['customer', 'operator']);
      const { before, during, ended } = await race(user, Object.values(endings));
      const [revoked, , restamped, disabled] = ended;
      expect([revoked, restamped, disabled]).to.deep.equal([true, true, true]);
      await untilGuardsFollow();
      const pairs = [...before, ...during];
      expect(await liveTokens(user, pairs)).to.be.empty;
      for (const { refreshToken } of pairs) {
        expect(await codeOf(refresh(either(), refreshToken))).to.equal('REFRESH_INVALID');
      }
    }
  });
});

describe(`${RESTARTS} restarts of auth`, function () {
  this.timeout(180_000);
  const keyEncryptionKey = newKeyEncryptionKey();
  let fresh: FreshDatabase;

  before(async () => {
    fresh = await freshDatabase();
  });
  after(() => fresh.drop());

  it('revive no rotated token, lose no current one, and return the same successor to a retry', async () => {
    const rotated: { refreshToken: string; sessionId: string }[] = [];
    const retries: { refreshToken: string; requestId: string; successor: string }[] = [];
    let user: TestUser | undefined;
    let current: string | undefined;
    for (let restart = 0; restart <= RESTARTS; restart += 1) {
      const auth = await openAuth(fresh.url, { keyEncryptionKey });
      user ??= await addUser(auth);
      current = (
        await auth.sessions.refresh({
          refreshToken: current ?? (await logIn(auth, user)).refreshToken,
          requestId: randomUUID(),
        })
      ).refreshToken;
      // Tokens that were rotated before this restart, within the same second as their login.
      for (const { refreshToken, sessionId } of rotated.splice(0)) {
        const request = { refreshToken, requestId: randomUUID() };
        expect(await codeOf(auth.sessions.refresh(request))).to.equal('REFRESH_INVALID');
        const session = await auth.store.transaction((tx) => tx.sessions.lockShared(sessionId));
        expect(session?.open).to.equal(false);
      }
      for (const { successor, ...request } of retries.splice(0)) {
        expect((await auth.sessions.refresh(request)).refreshToken).to.equal(successor);
      }
      const opened = await logIn(auth, user);
      await auth.sessions.refresh({ refreshToken: opened.refreshToken, requestId: '' });
      rotated.push({ refreshToken: opened.refreshToken, sessionId: opened.session.sessionId });
      const request = { refreshToken: (await logIn(auth, user)).refreshToken, requestId: randomUUID() };
      retries.push({ ...request, successor: (await auth.sessions.refresh(request)).refreshToken });
      await auth.close();
    }
  });
});

/** The error code of a rejection; fails when it has none. */
function reasonOf(outcome: PromiseSettledResult<unknown>): string[] {
  if (outcome.status === 'fulfilled') return [];
  if (outcome.reason instanceof ServiceError) return [outcome.reason.code];
  throw outcome.reason;
}
