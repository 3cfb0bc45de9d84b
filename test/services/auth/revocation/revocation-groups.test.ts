/** Group commit of revocations, against a real PostgreSQL. */

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '@portcullis/guard/clock';
import { expect } from 'chai';
import { AuthError } from '../../../../services/auth/errors.js';
import { sessionRevocation, tokenRevocation } from '../../../../services/auth/revocation/log.js';
import {
  createRevocationGroups,
  GROUP_MEMBERS_MAX,
  GROUP_WAITING_MAX,
  type GroupMember,
  LOCK_WAITS_MAX,
  LOCKED_MS_MAX,
  type RevocationGroups,
  type Written,
} from '../../../../services/auth/revocation/revocation-groups.js';
import { codeOf } from '../../../support/outcomes.js';
import { until } from '../../../support/waiting.js';
import { openTestLog, type TestLog } from './revocation-support.js';

const BY = { reason: 'a test', actor: 'olga' } as const;

/** Revokes a session, open or not. */
function sessionMember(sessionId: string, caller = 'olga'): GroupMember {
  return {
    caller,
    sessionId,
    decide: (session) => {
      if (session === undefined) throw new AuthError('NOT_FOUND', 'there is no such session');
      const { userId } = session;
      const subject = { userId, sessionId };
      const details = { initiator: 'admin' } as const;
      return {
        entry: { ...sessionRevocation(sessionId), ...BY },
        event: { ...BY, type: 'session-revoked', subject, network: '', details },
        why: 'REVOKED',
      };
    },
  };
}

function tokenMember(caller = 'olga', tokenId: string = randomUUID()): GroupMember {
  return {
    caller,
    decide: () => ({
      entry: { ...tokenRevocation(tokenId), ...BY },
      event: { ...BY, type: 'token-revoked', subject: { tokenId }, network: '', details: {} },
    }),
  };
}

describe('the groups of revocations', () => {
  let log: TestLog;
  let sizes: number[];
  let groups: RevocationGroups;

  beforeEach(async () => {
    log = await openTestLog();
    sizes = [];
    groups = createRevocationGroups({
      store: { transaction: (work) => log.transaction((tx) => work(tx)) },
      clock: systemClock,
      onGroup: (members) => sizes.push(members),
    });
  });

  afterEach(async () => {
    await log.close();
  });

  const sequencesOf = (written: readonly (Written | undefined)[]): (bigint | undefined)[] =>
    written.map((one) => one?.entry.sequence);

  it('write the first at once, and what arrives meanwhile together', async () => {
    const userId = await log.addUser();
    const sessions = await Promise.all(Array.from({ length: 20 }, () => log.addSession(userId)));
    const written = await Promise.all(sessions.map((sessionId) => groups.write(sessionMember(sessionId))));
    expect(sizes).to.deep.equal([1, 19]);
    const sequences = sequencesOf(written);
    expect(sequences).to.deep.equal(sessions.map((_, index) => BigInt(index + 1)));
    expect(written.map((one) => one?.entry.key.toString('hex'))).to.deep.equal(
      sessions.map((sessionId) => sessionId.replaceAll('-', '')),
    );
    const { rows } = await log.database.query<{ reason: string | null }>(
      'SELECT end_reason AS reason FROM sessions WHERE session_id = ANY($1::uuid[])',
      [sessions],
    );
    expect(rows.map(({ reason }) => reason)).to.deep.equal(sessions.map(() => 'REVOKED'));
    expect(log.broadcast.map(({ entries }) => entries.length)).to.deep.equal([1, 19]);
  });

  it('fail an unknown session alone', async () => {
    const known = await log.addSession(await log.addUser());
    const first = groups.write(tokenMember());
    const outcomes = await Promise.allSettled([
      groups.write(sessionMember(randomUUID())),
      groups.write(sessionMember(known)),
      groups.write(tokenMember()),
    ]);
    await first;
    expect(sizes).to.deep.equal([1, 3]);
    expect(outcomes.map(({ status }) => status)).to.deep.equal(['rejected', 'fulfilled', 'fulfilled']);
    const [failed] = outcomes;
    expect(failed).to.have.nested.property('reason.code', 'NOT_FOUND');
  });

  it('write nothing for a member that has nothing to revoke', async () => {
    const nothing = groups.write({ caller: 'olga', decide: () => undefined });
    expect(await nothing).to.equal(undefined);
    expect(log.broadcast).to.deep.equal([]);
  });

  it('give two members about one session the state in which the first leaves it', async () => {
    const sessionId = await log.addSession(await log.addUser());
    const seen: (boolean | undefined)[] = [];
    const watching = (): GroupMember => {
      const member = sessionMember(sessionId);
      return {
        ...member,
        decide: (session) => {
          seen.push(session?.open);
          return session?.ended === true ? undefined : member.decide(session);
        },
      };
    };
    const first = groups.write(tokenMember());
    const [one, other] = await Promise.all([groups.write(watching()), groups.write(watching())]);
    await first;
    expect(sizes).to.deep.equal([1, 2]);
    expect(seen).to.deep.equal([true, false]);
    expect(one?.entry.sequence).to.equal(2n);
    expect(other).to.equal(undefined);
  });

  /** Locks sessions in a transaction of its own until the returned function is called. */
  async function lockSessions(sessionIds: readonly string[]): Promise<() => Promise<void>> {
    let release = (): void => {};
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    const holding = await new Promise<{ readonly done: Promise<void> }>((resolve) => {
      const done = log.transaction(async (_tx, sql) => {
        await sql.query('SELECT FROM sessions WHERE session_id = ANY($1::uuid[]) FOR UPDATE', [sessionIds]);
        resolve({ done });
        await released;
      });
    });
    return async () => {
      release();
      await holding.done;
    };
  }

  it('wait for the lock of one session without holding up the others', async () => {
    const [locked, free] = [
      await log.addSession(await log.addUser()),
      await log.addSession(await log.addUser()),
    ];
    const release = await lockSessions([locked]);
    const first = groups.write(tokenMember());
    const waiting = groups.write(sessionMember(locked));
    const written = await groups.write(sessionMember(free));
    await first;
    expect(written?.entry.sequence).to.equal(2n);
    await release();
    expect((await waiting)?.entry.sequence).to.equal(3n);
  });

  it('wait for many locked sessions on two connections, and write them together once they are free', async () => {
    const userId = await log.addUser();
    const locked = await Promise.all(Array.from({ length: 20 }, () => log.addSession(userId)));
    const release = await lockSessions(locked);
    const waiting = Promise.all(locked.map((sessionId) => groups.write(sessionMember(sessionId))));
    await until(() => sizes.length >= 2);
    await sleep(100);
    const { rows } = await log.database.query<{ count: bigint }>(
      "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
    );
    expect(Number(rows[0]?.count)).to.equal(LOCK_WAITS_MAX);
    await release();
    expect(new Set(sequencesOf(await waiting))).to.have.property('size', locked.length);
    // The first two waited for their locks; all others needed few further transactions.
    expect(log.broadcast.length).to.be.at.most(LOCK_WAITS_MAX + 3);
  });

  it('give members up whose sessions stay locked', async () => {
    let nowMs = 0;
    /** The transactions that wait for a lock. */
    const failWaits: ((error: Error) => void)[] = [];
    const sessions = {
      lockEach: () => Promise.resolve([]),
      existing: (ids: readonly string[]) => Promise.resolve(ids),
      endEach: () => Promise.reject(new TypeError('not expected')),
    };
    const impatient = createRevocationGroups({
      store: {
        transaction: (work, place) =>
          place?.contends === undefined
            ? log.transaction((tx) => work({ ...tx, sessions }))
            : new Promise((_, reject) => failWaits.push(reject)),
      },
      clock: { ...systemClock, monotonicMs: () => nowMs },
    });
    const codes = Array.from({ length: LOCK_WAITS_MAX + 2 }, () =>
      codeOf(impatient.write(sessionMember(randomUUID()))),
    );
    await until(() => failWaits.length === LOCK_WAITS_MAX);
    nowMs = LOCKED_MS_MAX + 1;
    failWaits[0]?.(new AuthError('NOT_FOUND', 'the end of the first wait'));
    // Those that have not waited for their lock yet are tried again, and then given up.
    expect(await Promise.all(codes.filter((_, index) => index !== 1))).to.deep.equal([
      'NOT_FOUND',
      'DEPENDENCY_UNAVAILABLE',
      'DEPENDENCY_UNAVAILABLE',
    ]);
    failWaits[1]?.(new AuthError('NOT_FOUND', 'the end of the second wait'));
    expect(await codes[1]).to.equal('NOT_FOUND');
  });

  it('fail a member that the database rejects alone, and write the others', async () => {
    const sessionId = await log.addSession(await log.addUser());
    const bad = sessionMember(sessionId);
    const rejected: GroupMember = {
      ...bad,
      decide: (session) => {
        const write = bad.decide(session);
        return write && { ...write, entry: { ...write.entry, kind: 'NO_SUCH_KIND' as 'TOKEN' } };
      },
    };
    const first = groups.write(tokenMember());
    const outcomes = await Promise.allSettled([
      groups.write(tokenMember()),
      groups.write(rejected),
      groups.write(tokenMember()),
    ]);
    await first;
    expect(outcomes.map(({ status }) => status)).to.deep.equal(['fulfilled', 'rejected', 'fulfilled']);
    const { rows } = await log.database.query<{ count: bigint }>('SELECT count(*) FROM revocation_entries');
    expect(rows[0]?.count).to.equal(3n);
  });

  it('fail all members of a group whose commit is in doubt, and write none of them again', async () => {
    let attempts = 0;
    const failing = createRevocationGroups({
      store: {
        transaction: () => {
          attempts += 1;
          return Promise.reject(new AuthError('DEPENDENCY_UNAVAILABLE', 'the commit was not confirmed'));
        },
      },
      clock: systemClock,
    });
    const codes = await Promise.all([1, 2, 3].map(() => codeOf(failing.write(tokenMember()))));
    expect(codes).to.deep.equal(Array(3).fill('DEPENDENCY_UNAVAILABLE'));
    expect(attempts).to.equal(2);
  });

  it('let callers take turns when more wait than fit into one group', async () => {
    const first = groups.write(tokenMember('first'));
    const order: string[] = [];
    const note = (caller: string) => groups.write(tokenMember(caller)).then(() => order.push(caller));
    const many = Array.from({ length: GROUP_MEMBERS_MAX + 50 }, () => note('many'));
    const few = [note('few'), note('few')];
    await Promise.all([first, ...many, ...few]);
    expect(sizes).to.deep.equal([1, GROUP_MEMBERS_MAX, 52]);
    // The two of the other caller were in the first full group.
    expect(order.lastIndexOf('few')).to.be.lessThan(GROUP_MEMBERS_MAX);
  });

  it('refuse the caller with most members when too many wait', async () => {
    let fail = (): void => {};
    const over = new Promise<never>((_, reject) => {
      fail = () => reject(new AuthError('DEPENDENCY_UNAVAILABLE', 'the test is over'));
    });
    let refused = 0;
    const blocked = createRevocationGroups({
      store: { transaction: () => over },
      clock: systemClock,
      onGroupRefused: () => {
        refused += 1;
      },
    });
    // The first is in its transaction, and does not wait.
    const waiting = Array.from({ length: GROUP_WAITING_MAX + 1 }, () => codeOf(blocked.write(tokenMember())));
    expect(await codeOf(blocked.write(tokenMember()))).to.equal('RATE_LIMITED');
    const others = [codeOf(blocked.write(tokenMember('eve'))), codeOf(blocked.write(tokenMember('bob')))];
    // The last members of the caller with most gave way.
    expect(await Promise.all(waiting.slice(-2))).to.deep.equal(['RATE_LIMITED', 'RATE_LIMITED']);
    expect(refused).to.equal(3);
    fail();
    const failed = new Set(['DEPENDENCY_UNAVAILABLE']);
    expect(new Set(await Promise.all([...waiting.slice(0, -2), ...others]))).to.deep.equal(failed);
  });
});
