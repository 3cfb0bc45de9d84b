/** Tests of the rows of sessions and refresh tokens, in PostgreSQL. */

import { randomBytes, randomUUID } from 'node:crypto';
import { expect } from 'chai';
import type { Session, SessionFilter, SessionRows } from '../../../../services/auth/records/sessions.js';
import { rejectionOf } from '../../../support/outcomes.js';
import { addUser, type FreshAuth, logIn, openFreshAuth } from '../instance.js';

const DAY_MS = 86_400_000;

describe('the rows of sessions', () => {
  let auth: FreshAuth;
  let userId: string;

  before(async () => {
    auth = await openFreshAuth();
  });
  after(() => auth.close());
  beforeEach(async () => {
    ({ userId } = await addUser(auth));
  });

  const rows = <T>(work: (sessions: SessionRows) => Promise<T>): Promise<T> =>
    auth.store.transaction((tx) => work(tx.sessions));
  const insert = async (over: Partial<Session> = {}): Promise<Session> => {
    const session: Session = {
      sessionId: randomUUID(),
      userId,
      clientId: 'direct',
      generation: 1n,
      clientGeneration: 2n,
      deviceName: 'laptop',
      audiences: ['inventory', 'auth'],
      scopes: ['inventory.read', 'auth.self'],
      amr: ['pwd'],
      certificateThumbprint: undefined,
      network: '192.0.2.7',
      createTime: new Date(Date.now() - 1000),
      lastUseTime: new Date(Date.now() - 500),
      expireTime: new Date(Date.now() + DAY_MS),
      open: true,
      ...over,
    };
    await rows((sessions) => sessions.insert(session));
    return session;
  };
  const find = (sessionId: string) => rows((sessions) => sessions.lockShared(sessionId));
  const openOf = async (...sessions: Session[]): Promise<boolean[]> => {
    const found = await Promise.all(sessions.map(({ sessionId }) => find(sessionId)));
    return found.map((session) => session?.open === true);
  };
  const endReasonOf = async (sessionId: string): Promise<unknown> => {
    const sql = 'SELECT end_reason FROM sessions WHERE session_id = $1';
    return (await auth.database.query<{ end_reason: string }>(sql, [sessionId])).rows[0]?.end_reason;
  };

  it('return what was inserted, under either lock', async () => {
    const plain = await insert();
    const bound = await insert({ certificateThumbprint: 'A'.repeat(43) });
    for (const session of [plain, bound]) {
      expect(await find(session.sessionId)).to.deep.equal(session);
      expect(await rows((sessions) => sessions.lock(session.sessionId))).to.deep.equal(session);
    }
    expect(await find(randomUUID())).to.equal(undefined);
  });

  it('are not open once they have ended or expired', async () => {
    const ended = await insert();
    const expired = await insert({ expireTime: new Date(Date.now() - 1) });
    expect(await openOf(ended, expired)).to.deep.equal([true, false]);
    expect(await rows((sessions) => sessions.end(ended.sessionId, 'LOGOUT'))).to.equal(true);
    expect(await openOf(ended)).to.deep.equal([false]);
    expect(await endReasonOf(ended.sessionId)).to.equal('LOGOUT');
    // The first reason stays.
    expect(await rows((sessions) => sessions.end(ended.sessionId, 'REVOKED'))).to.equal(false);
    expect(await endReasonOf(ended.sessionId)).to.equal('LOGOUT');
    expect(await rows((sessions) => sessions.end(randomUUID(), 'LOGOUT'))).to.equal(false);
  });

  it('are locked together in the order of their ids, with or without waiting, and end together', async () => {
    const locked = [await insert(), await insert(), await insert({ expireTime: new Date(Date.now() - 1) })];
    const [first, second, expired] = locked as [Session, Session, Session];
    await rows((sessions) => sessions.end(second.sessionId, 'LOGOUT'));
    const ids = [randomUUID(), ...locked.map(({ sessionId }) => sessionId)];
    const states = [
      { sessionId: first.sessionId, userId, open: true, ended: false },
      { sessionId: second.sessionId, userId, open: false, ended: true },
      { sessionId: expired.sessionId, userId, open: false, ended: false },
    ].toSorted((a, b) => (a.sessionId < b.sessionId ? -1 : 1));
    expect(await rows((sessions) => sessions.lockEach(ids, 'wait'))).to.deep.equal(states);
    let waiting: Promise<unknown> | undefined;
    await rows(async (sessions) => {
      await sessions.lockEach([first.sessionId], 'wait');
      const left = states.filter(({ sessionId }) => sessionId !== first.sessionId);
      expect(await rows((others) => others.lockEach(ids, 'skip'))).to.deep.equal(left);
      waiting = rows((others) => others.lockEach(ids, 'wait'));
    });
    expect(await waiting).to.deep.equal(states);
    expect((await rows((sessions) => sessions.existing(ids))).toSorted()).to.deep.equal(
      states.map(({ sessionId }) => sessionId),
    );
    await rows((sessions) =>
      sessions.endEach([
        { sessionId: first.sessionId, why: 'REVOKED' },
        { sessionId: second.sessionId, why: 'REVOKED' },
      ]),
    );
    const reasons = await Promise.all(locked.map(({ sessionId }) => endReasonOf(sessionId)));
    expect(reasons).to.deep.equal(['REVOKED', 'LOGOUT', null]);
  });

  it('keep the time of the last use', async () => {
    const [used, other] = [await insert(), await insert()];
    const time = new Date(Date.now() + 1234);
    await rows((sessions) => sessions.setLastUse(used.sessionId, time));
    expect((await find(used.sessionId))?.lastUseTime).to.deep.equal(time);
    expect((await find(other.sessionId))?.lastUseTime).to.deep.equal(other.lastUseTime);
  });

  it('end together, those of one user or of all', async () => {
    const own = [await insert(), await insert()];
    const stranger = await insert({ userId: (await addUser(auth)).userId });
    expect(await rows((sessions) => sessions.endAllOfUser(userId, 'REVOKED'))).to.equal(2);
    expect(await openOf(...own, stranger)).to.deep.equal([false, false, true]);
    expect(await endReasonOf(own[0]?.sessionId ?? '')).to.equal('REVOKED');
    expect(await rows((sessions) => sessions.endEvery('EPOCH_ENDED'))).to.be.at.least(1);
    expect(await endReasonOf(stranger.sessionId)).to.equal('EPOCH_ENDED');
    expect(await rows((sessions) => sessions.endEvery('EPOCH_ENDED'))).to.equal(0);
  });

  it('end but one, a bounded number at a time, and are named', async () => {
    const kept = await insert();
    const others = [await insert(), await insert(), await insert()];
    await insert({ expireTime: new Date(Date.now() - 1) });
    const endOthers = (limit: number) =>
      rows((sessions) => sessions.endOthersOfUser(userId, { than: kept.sessionId, why: 'REVOKED', limit }));
    const first = await endOthers(2);
    expect(first).to.have.length(2);
    const second = await endOthers(2);
    expect([...first, ...second].sort()).to.deep.equal(others.map(({ sessionId }) => sessionId).sort());
    expect(await openOf(kept, ...others)).to.deep.equal([true, false, false, false]);
    expect(await endReasonOf(first[0] ?? '')).to.equal('REVOKED');
  });

  it('get another generation with what is left of their rights, and end without any', async () => {
    const current = await insert({ audiences: ['payment', 'inventory', 'auth'] });
    const older = await insert({ generation: 0n });
    const stranded = await insert({ audiences: ['payment'] });
    const stranger = await insert({ userId: (await addUser(auth)).userId });
    const change = { from: 1n, to: 2n, scopes: ['auth.self', 'other'], audiences: ['auth', 'inventory'] };
    await rows((sessions) => sessions.restamp(userId, change));
    expect(await find(current.sessionId)).to.deep.equal({
      ...current,
      generation: 2n,
      scopes: ['auth.self'],
      audiences: ['inventory', 'auth'],
    });
    expect(await openOf(older, stranded)).to.deep.equal([false, false]);
    expect(await endReasonOf(older.sessionId)).to.equal('ROLES_CHANGED');
    expect(await find(stranger.sessionId)).to.deep.equal(stranger);
  });

  it('are listed page by page, the newest first, those of one moment by id', async () => {
    const createTime = new Date(Date.now() - 5000);
    const twins = [await insert({ createTime }), await insert({ createTime })];
    const oldest = await insert({ createTime: new Date(createTime.getTime() - 1) });
    const newest = await insert();
    await insert({ expireTime: new Date(Date.now() - 1) });
    const expected = [newest, ...twins.toSorted((a, b) => (a.sessionId < b.sessionId ? 1 : -1)), oldest];
    const page = (pageSize: number, pageToken: string) =>
      rows((sessions) => sessions.listOpen(userId, { pageSize, pageToken }));
    const first = await page(2, '');
    expect(first.sessions).to.deep.equal(expected.slice(0, 2));
    const second = await page(2, first.nextPageToken);
    expect(second).to.deep.equal({ sessions: expected.slice(2), nextPageToken: '' });
    expect(await page(4, '')).to.deep.equal({ sessions: expected, nextPageToken: '' });
    const three = await page(3, '');
    expect((await page(3, three.nextPageToken)).sessions).to.deep.equal(expected.slice(3));
  });

  it('are matched and counted by any part of a filter, page by page', async () => {
    const clientId = `client-${randomUUID()}`;
    await auth.database.query('INSERT INTO clients (client_id) VALUES ($1)', [clientId]);
    const user = await addUser(auth, ['security']);
    const peer = '198.51.100.61:1';
    const { session } = await logIn(auth, user, { peer });
    const old = await insert({ clientId, createTime: new Date(Date.now() - DAY_MS) });
    await insert({ clientId, expireTime: new Date(Date.now() - 1) });
    const any: SessionFilter = {
      ...{ role: undefined, clientId: undefined, loggedInBeforeTime: undefined },
      ...{ network: undefined, userId: undefined },
    };
    const idsOf = async (filter: SessionFilter) => {
      const found = await rows((sessions) => sessions.match(filter, { after: undefined, limit: 10 }));
      expect(found.next).to.equal(undefined);
      const count = found.sessions.length;
      expect(await rows((sessions) => sessions.countMatching(filter, undefined))).to.deep.equal({
        count,
        next: undefined,
      });
      return found.sessions.map(({ sessionId }) => sessionId);
    };
    for (const [filter, expected] of [
      [{ clientId }, [old.sessionId]],
      [{ userId: user.userId }, [session.sessionId]],
      [{ network: '198.51.100.61' }, [session.sessionId]],
      [{ clientId, role: 'customer' }, [old.sessionId]],
      [{ clientId, role: 'security' }, []],
      [{ clientId, loggedInBeforeTime: new Date(Date.now() - DAY_MS + 60_000) }, [old.sessionId]],
      [{ clientId, loggedInBeforeTime: new Date(Date.now() - DAY_MS - 60_000) }, []],
    ] as const) {
      expect(await idsOf({ ...any, ...filter }), JSON.stringify(filter)).to.deep.equal(expected);
    }
    const own = { ...any, userId: user.userId };
    const { sessionId: second } = await insert({ userId: user.userId });
    const all = [session.sessionId, second].toSorted();
    const start = await rows((sessions) => sessions.match(own, { after: undefined, limit: 1 }));
    const [first] = start.sessions;
    expect(start.next).to.equal(all[0]);
    expect(first).to.deep.include({ sessionId: all[0], userId: user.userId, username: user.username });
    expect(first?.createTime).to.be.instanceOf(Date);
    expect(first?.clientId).to.equal('direct');
    const rest = await rows((sessions) => sessions.match(own, { after: all[0], limit: 10 }));
    expect(rest.sessions.map(({ sessionId }) => sessionId)).to.deep.equal([all[1]]);
  });

  describe('of refresh tokens', () => {
    const insertToken = async (session: Session) => {
      const hash = randomBytes(32);
      const expireTime = new Date(Date.now() + 1000);
      const { sessionId } = session;
      await rows((sessions) => sessions.insertRefreshToken({ hash, sessionId, expireTime }));
      return { hash, expireTime };
    };
    const findToken = (hash: Buffer) => rows((sessions) => sessions.findRefreshToken(hash));

    it('return what was inserted, and how it was used', async () => {
      const session = await insert();
      const { hash, expireTime } = await insertToken(session);
      const unused = {
        sessionId: session.sessionId,
        userId,
        expireTime,
        useTime: undefined,
        requestId: undefined,
        successorHash: undefined,
      };
      expect(await findToken(hash)).to.deep.equal(unused);
      const successorHash = randomBytes(32);
      const time = new Date(Date.now() + 10);
      await rows((sessions) => sessions.markUsed({ hash, time, requestId: 'id', successorHash }));
      expect(await findToken(hash)).to.deep.equal({
        ...unused,
        useTime: time,
        requestId: 'id',
        successorHash,
      });
      expect(await findToken(randomBytes(32))).to.equal(undefined);
    });

    it('are used once, with a request id or without', async () => {
      const { hash } = await insertToken(await insert());
      const use = { hash, time: new Date(), requestId: undefined, successorHash: randomBytes(32) };
      await rows((sessions) => sessions.markUsed(use));
      expect((await findToken(hash))?.requestId).to.equal(undefined);
      const again = rows((sessions) => sessions.markUsed({ ...use, requestId: 'id' }));
      expect((await rejectionOf(again)).message).to.equal('a refresh token was used twice at once');
      expect((await findToken(hash))?.requestId).to.equal(undefined);
    });
  });

  it('are deleted thirty days after they have expired, a bounded number at a time', async () => {
    const daysAgo = (days: number) => insert({ expireTime: new Date(Date.now() - days * DAY_MS) });
    const old = [await daysAgo(33), await daysAgo(32), await daysAgo(31)];
    const recent = await daysAgo(29);
    expect(await rows((sessions) => sessions.deleteOld(2))).to.equal(2);
    const left = await Promise.all([...old, recent].map(({ sessionId }) => find(sessionId)));
    expect(left.map((session) => session !== undefined)).to.deep.equal([false, false, true, true]);
    expect(await rows((sessions) => sessions.deleteOld(2))).to.equal(1);
    expect(await rows((sessions) => sessions.deleteOld(2))).to.equal(0);
  });
});
