/** Tests of the limits on guessing, against PostgreSQL, with two replicas. */

import { randomBytes, randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '@portcullis/guard/clock';
import { expect } from 'chai';
import { deriveSecret } from '../../../../services/auth/keys/derived-secrets.js';
import {
  type AttemptCounters,
  createThrottle,
  NETWORK_KEPT_DAYS,
  REFUSAL_REPEATED_MS,
  type Throttle,
  type ThrottleLimits,
} from '../../../../services/auth/security/throttle.js';
import { createAttemptCounters } from '../../../../services/auth/security/throttle-store.js';
import { deleteExpired } from '../../../../services/auth/store.js';
import { codeOf, serviceErrorOf } from '../../../support/outcomes.js';
import {
  type AuthInstance,
  addUser,
  attemptOf,
  type FreshAuth,
  logIn,
  newKeyEncryptionKey,
  openAuth,
  openFreshAuth,
} from '../instance.js';

const LIMITS = { failuresPerName: 4, failuresPerPeer: 12, windowSeconds: 300 };

describe('the throttle', () => {
  const keyEncryptionKey = newKeyEncryptionKey();
  const key = randomBytes(32);
  let auth: FreshAuth;
  let replica: AuthInstance;
  let clockMs = 0;
  const clock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + clockMs };

  before(async () => {
    auth = await openFreshAuth({ keyEncryptionKey, limits: LIMITS });
    replica = await openAuth(auth.url, { keyEncryptionKey, limits: LIMITS });
  });
  after(async () => {
    await replica.close();
    await auth.close();
  });

  let peers = 0;
  const newPeer = (): string => {
    peers += 1;
    return `10.0.${peers >> 8}.${peers & 255}:4000`;
  };
  const throttleOf = (
    instance: AuthInstance = auth,
    purpose: 'login' | 'client' = 'login',
    limits: ThrottleLimits = LIMITS,
  ): Throttle =>
    createThrottle({ counters: createAttemptCounters(() => instance.database), clock, limits, purpose, key });
  const endWindows = async (): Promise<void> => {
    await auth.database.query("UPDATE attempt_counters SET end_time = clock_timestamp() - interval '1 ms'");
    clockMs += REFUSAL_REPEATED_MS;
  };

  it('limits failures against one name, from whatever network, on all replicas together', async () => {
    const throttles = [throttleOf(), throttleOf(replica)];
    const name = randomUUID();
    const attempts = await Promise.allSettled(
      Array.from({ length: 20 }, (_, index) => throttles[index % 2]?.attempt(name, newPeer())),
    );
    expect(attempts.filter(({ status }) => status === 'fulfilled')).to.have.length(LIMITS.failuresPerName);
    const error = await serviceErrorOf(throttleOf().attempt(name, newPeer()));
    expect(error.code).to.equal('RATE_LIMITED');
    expect(error.retryAfterMs).to.be.within(1, LIMITS.windowSeconds * 1000);
    await throttleOf().attempt(randomUUID(), newPeer());
  });

  it('limits failures from one network, whatever the name and the port, on all replicas together', async () => {
    const throttles = [throttleOf(), throttleOf(replica)];
    for (let count = 0; count < LIMITS.failuresPerPeer; count += 1) {
      await throttles[count % 2]?.attempt(randomUUID(), `192.0.2.1:${count}`);
    }
    for (const throttle of throttles) {
      expect(await codeOf(throttle.attempt(randomUUID(), '192.0.2.1:9'))).to.equal('RATE_LIMITED');
      expect(await codeOf(throttle.attempt(undefined, '::ffff:192.0.2.1:9'))).to.equal('RATE_LIMITED');
      await throttle.attempt(randomUUID(), '192.0.2.2:9');
    }
  });

  it('counts a /64 of IPv6 as one network', async () => {
    const throttle = throttleOf();
    for (let count = 0; count < LIMITS.failuresPerPeer; count += 1) {
      await throttle.attempt(undefined, `2001:db8:1:2::${count.toString(16)}:4000`);
    }
    expect(await codeOf(throttle.attempt(undefined, '2001:db8:1:2:9:9:9:9:4000'))).to.equal('RATE_LIMITED');
    await throttle.attempt(undefined, '2001:db8:1:3::1:4000');
  });

  it('counts nothing against a name from a network that is over its own limit', async () => {
    const throttle = throttleOf();
    const [peer, name] = [newPeer(), randomUUID()];
    for (let count = 0; count < LIMITS.failuresPerPeer; count += 1) await throttle.attempt(undefined, peer);
    for (let count = 0; count < 20; count += 1) await codeOf(throttle.attempt(name, peer));
    await throttle.attempt(name, newPeer());
  });

  it('starts again when the window has ended, and does not extend it on further attempts', async () => {
    const throttle = throttleOf();
    const name = randomUUID();
    for (let count = 0; count < LIMITS.failuresPerName; count += 1) await throttle.attempt(name, newPeer());
    const first = await serviceErrorOf(throttle.attempt(name, newPeer()));
    clockMs += REFUSAL_REPEATED_MS;
    const second = await serviceErrorOf(throttle.attempt(name, newPeer()));
    expect(second.retryAfterMs).to.be.at.most(first.retryAfterMs ?? 0);
    await endWindows();
    for (let count = 0; count < LIMITS.failuresPerName; count += 1) await throttle.attempt(name, newPeer());
    expect(await codeOf(throttle.attempt(name, newPeer()))).to.equal('RATE_LIMITED');
  });

  it('ends a window where its first attempt put the end, however many follow', async () => {
    const counters = createAttemptCounters(() => auth.database);
    const counter = randomBytes(32);
    const endTimes: number[] = [];
    for (let count = 0; count < 3; count += 1) {
      const { peer } = await counters.count({ peer: { key: counter, limit: 3 } }, 300, 'unknown');
      if (peer !== undefined) endTimes.push(peer.endTime.getTime());
      await sleep(5);
    }
    expect(endTimes).to.have.length(3);
    expect(new Set(endTimes).size).to.equal(1);
    expect(await counters.count({ peer: { key: counter, limit: 3 } }, 300, 'unknown')).to.deep.equal({
      isKnown: false,
    });
  });

  it('repeats a rejection for a moment without a query', async () => {
    const counters = createAttemptCounters(() => auth.database);
    let asked = 0;
    const throttle = createThrottle({
      counters: {
        ...counters,
        count: (...args) => {
          asked += 1;
          return counters.count(...args);
        },
      },
      clock,
      limits: LIMITS,
      purpose: 'login',
      key,
    });
    const peer = newPeer();
    for (let count = 0; count < LIMITS.failuresPerPeer + 50; count += 1) {
      await throttle.attempt(undefined, peer).catch(() => undefined);
    }
    expect(asked).to.equal(LIMITS.failuresPerPeer + 1);
  });

  it('repeats the rejection of a name from its network without a query', async () => {
    const counters = createAttemptCounters(() => auth.database);
    let asked = 0;
    const count: typeof counters.count = (...args) => {
      asked += 1;
      return counters.count(...args);
    };
    const throttle = createThrottle({
      counters: { ...counters, count },
      clock,
      limits: LIMITS,
      purpose: 'login',
      key,
    });
    const [name, peer] = [randomUUID(), newPeer()];
    for (let attempt = 0; attempt < LIMITS.failuresPerName + 5; attempt += 1) {
      await throttle.attempt(name, peer).catch(() => undefined);
    }
    expect(asked).to.equal(LIMITS.failuresPerName + 1);
  });

  it('states the time of the window that is exhausted, be it that of the network or of the name', async () => {
    const left = new Map<string, number>();
    const asked: string[] = [];
    let taken: Awaited<ReturnType<AttemptCounters['count']>> = { isKnown: false };
    const counters: AttemptCounters = {
      count: (counted) => {
        left.set(counted.peer.key.toString('hex'), 1000);
        left.set(counted.name?.networkKey.toString('hex') ?? '', 2000);
        return Promise.resolve(taken);
      },
      windowLeftMs: (counter) => {
        asked.push(counter.toString('hex'));
        return Promise.resolve(left.get(counter.toString('hex')) ?? 3000);
      },
      subtract: () => Promise.resolve(),
    };
    const throttleWith = () => createThrottle({ counters, clock, limits: LIMITS, purpose: 'login', key });
    const waitOf = async () =>
      (await serviceErrorOf(throttleWith().attempt('alice', '192.0.2.1:1'))).retryAfterMs;
    expect(await waitOf()).to.equal(1000);
    const counted = { key: randomBytes(32), endTime: new Date() };
    taken = { isKnown: true, peer: counted };
    expect(await waitOf()).to.equal(2000);
    expect(new Set(asked).size).to.equal(2);
  });

  it('repeats a rejection for a second with the time that remains, and asks again then', async () => {
    let nowMs = 0;
    let asked = 0;
    const throttle = createThrottle({
      counters: {
        count: async () => ({ isKnown: false }),
        windowLeftMs: async () => {
          asked += 1;
          return 4000;
        },
        subtract: async () => {},
      },
      clock: { ...systemClock, monotonicMs: () => nowMs },
      limits: LIMITS,
      purpose: 'login',
      key,
    });
    for (const [ms, retryAfterMs, askedUntilThen] of [
      [10_000, 4000, 1],
      [10_999, 3001, 1],
      [11_000, 4000, 2],
    ] as const) {
      nowMs = ms;
      const error = await serviceErrorOf(throttle.attempt(undefined, '192.0.2.1:4000'));
      expect([error.code, error.retryAfterMs, asked]).to.deep.equal([
        'RATE_LIMITED',
        retryAfterMs,
        askedUntilThen,
      ]);
    }
  });

  it('subtracts attempts that succeeded, in the window in which they were counted', async () => {
    const throttle = throttleOf();
    const [peer, name] = [newPeer(), randomUUID()];
    for (let count = 0; count < LIMITS.failuresPerPeer + 1; count += 1) {
      await (await throttle.attempt(name, peer)).uncount();
    }
    const early = await throttle.attempt(name, newPeer());
    await endWindows();
    for (let count = 0; count < LIMITS.failuresPerName; count += 1) await throttle.attempt(name, newPeer());
    await early.uncount();
    expect(await codeOf(throttle.attempt(name, newPeer()))).to.equal('RATE_LIMITED');
  });

  it('divides the budget of a network by scope', async () => {
    const peer = newPeer();
    const throttle = throttleOf(auth, 'client');
    for (let count = 0; count < LIMITS.failuresPerPeer; count += 1) {
      await throttle.attempt(undefined, peer, 'shop');
    }
    expect(await codeOf(throttle.attempt(undefined, peer, 'shop'))).to.equal('RATE_LIMITED');
    await throttle.attempt(undefined, peer, 'warehouse');
    await throttle.attempt(undefined, peer);
  });

  it('counts clients separately from users', async () => {
    const peer = newPeer();
    for (let count = 0; count < LIMITS.failuresPerPeer; count += 1) {
      await throttleOf(auth, 'client').attempt(undefined, peer);
    }
    await throttleOf().attempt(undefined, peer);
  });

  describe('while a name is being guessed', () => {
    const guess = async (username: string, times = LIMITS.failuresPerName + 3): Promise<void> => {
      for (let count = 0; count < times; count += 1) {
        await codeOf(
          (count % 2 === 0 ? auth : replica).sessions.login({
            ...attemptOf(username, 'wrong password'),
            peer: newPeer(),
          }),
        );
      }
    };

    it('admits its user from known networks, on every replica', async function () {
      this.timeout(180_000);
      const user = await addUser(auth);
      const home = newPeer();
      await logIn(auth, user, { peer: home });
      for (let window = 0; window < 2; window += 1) {
        await guess(user.username);
        expect(await codeOf(logIn(auth, user, { peer: newPeer() }))).to.equal('RATE_LIMITED');
        await logIn(auth, user, { peer: home });
        await logIn(replica, user, { peer: home.replace(':4000', ':5000') });
        await endWindows();
      }
    });

    it('admits a new network as soon as the guessing is over', async () => {
      const user = await addUser(auth);
      await guess(user.username);
      expect(await codeOf(logIn(auth, user, { peer: newPeer() }))).to.equal('RATE_LIMITED');
      await endWindows();
      const later = await openAuth(auth.url, { keyEncryptionKey, limits: LIMITS });
      await logIn(later, user, { peer: newPeer() });
      await later.close();
    });

    it('gives a known network no more guesses than any other', async function () {
      this.timeout(180_000);
      const user = await addUser(auth);
      const home = newPeer();
      await logIn(auth, user, { peer: home });
      const codes: string[] = [];
      for (let count = 0; count < LIMITS.failuresPerName + 2; count += 1) {
        codes.push(
          await codeOf(auth.sessions.login({ ...attemptOf(user.username, 'wrong password'), peer: home })),
        );
      }
      expect(codes).to.deep.equal([
        ...Array<string>(LIMITS.failuresPerName).fill('LOGIN_FAILED'),
        'RATE_LIMITED',
        'RATE_LIMITED',
      ]);
      // They count against the name elsewhere, too, as those from an unknown network do.
      expect(await codeOf(logIn(auth, user, { peer: newPeer() }))).to.equal('RATE_LIMITED');
    });

    it('answers a wrong password the same whether or not the user logs in from there', async function () {
      this.timeout(180_000);
      const answersAt = async (isKnown: boolean): Promise<string[]> => {
        const user = await addUser(auth);
        const here = newPeer();
        if (isKnown) await logIn(auth, user, { peer: here });
        const answers: string[] = [];
        const tryAt = async (at: AuthInstance, peer: string): Promise<void> => {
          const error = await serviceErrorOf(
            at.sessions.login({ ...attemptOf(user.username, 'wrong password'), peer }),
          );
          const waits = (error.retryAfterMs ?? 0) > 100_000;
          answers.push(`${error.code} ${error.message} ${waits}`);
        };
        // Closed elsewhere, looked at here.
        await guess(user.username);
        for (let count = 0; count < LIMITS.failuresPerName + 2; count += 1) await tryAt(auth, here);
        await endWindows();
        // Closed here, looked at elsewhere; a new replica repeats no rejection from memory.
        const later = await openAuth(auth.url, { keyEncryptionKey, limits: LIMITS });
        for (let count = 0; count < LIMITS.failuresPerName + 2; count += 1) await tryAt(later, here);
        await tryAt(later, newPeer());
        await later.close();
        return answers;
      };
      const known = await answersAt(true);
      expect(known).to.deep.equal(await answersAt(false));
      expect(new Set(known).size).to.equal(2);
    });

    it('knows a network only after a successful login, and only for a bounded time', async () => {
      const user = await addUser(auth);
      const [home, thief] = [newPeer(), newPeer()];
      await logIn(auth, user, { peer: home });
      await codeOf(auth.sessions.login({ ...attemptOf(user.username, 'wrong'), peer: thief }));
      await guess(user.username);
      expect(await codeOf(logIn(auth, user, { peer: thief }))).to.equal('RATE_LIMITED');
      await auth.database.query(
        'UPDATE login_networks SET last_use_time = clock_timestamp() - make_interval(days => $1) WHERE user_id = $2',
        [NETWORK_KEPT_DAYS + 1, user.userId],
      );
      expect(await codeOf(logIn(auth, user, { peer: home }))).to.equal('RATE_LIMITED');
    });
  });

  it('asks on the connections for known callers once it has seen that the network is known', async () => {
    const user = await addUser(auth);
    const [home, abroad] = [newPeer(), newPeer()];
    await logIn(auth, user, { peer: home });
    const asked: string[] = [];
    const counters = createAttemptCounters((importance) => {
      asked.push(importance);
      return auth.database;
    });
    // The key of the instance, so that the network of the login above is found.
    const throttle = createThrottle({
      counters,
      clock,
      limits: LIMITS,
      purpose: 'login',
      key: deriveSecret(keyEncryptionKey, 'attempt-counters'),
    });
    expect(throttle.remembers(user.username, home)).to.equal(false);
    const first = await throttle.attempt(user.username, home);
    expect(asked.splice(0)).to.deep.equal(['unknown']);
    expect(first.isKnown && throttle.remembers(user.username, home)).to.equal(true);
    await (await throttle.attempt(user.username, home)).uncount();
    expect(new Set(asked.splice(0))).to.deep.equal(new Set(['known']));
    await throttle.attempt(user.username, abroad);
    await throttle.attempt(randomUUID(), home);
    await throttle.attempt(undefined, home);
    expect(asked).to.deep.equal(['unknown', 'unknown', 'unknown']);
    expect(throttle.remembers(user.username, abroad)).to.equal(false);
    clockMs += 3600 * 1000;
    expect(throttle.remembers(user.username, home)).to.equal(false);
  });

  it('stores no name and no address in the database, and drops expired rows', async () => {
    const user = await addUser(auth);
    await logIn(auth, user, { peer: '203.0.113.77:4000' });
    await codeOf(auth.sessions.login({ ...attemptOf(user.username, 'wrong'), peer: '203.0.113.77:4000' }));
    const { rows } = await auth.database.query<{ row: string }>(
      'SELECT t::text AS row FROM attempt_counters t UNION ALL SELECT t::text FROM login_networks t',
    );
    const text = rows.map(({ row }) => row).join('\n');
    const spellings = [user.username, '203.0.113.77'].flatMap((word) => [
      word,
      Buffer.from(word).toString('hex'),
    ]);
    for (const spelling of spellings) expect(text).to.not.contain(spelling);
    await endWindows();
    await deleteExpired(auth.database);
    const { rows: left } = await auth.database.query('SELECT FROM attempt_counters');
    expect(left).to.be.empty;
    const { rows: known } = await auth.database.query('SELECT FROM login_networks WHERE user_id = $1', [
      user.userId,
    ]);
    expect(known).to.have.length(1);
  });
});
