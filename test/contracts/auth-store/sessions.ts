/** The rows of sessions and refresh tokens. */

import { randomBytes, randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { addSession, inDays, isOpen, outcomeOf, sessionOf, type Under } from './store-under-test.js';

export function describeSessions(under: Under): void {
  describe('the rows of sessions', () => {
    it('return a session as it was inserted, open', async () => {
      const { store, addUser } = under();
      const session = sessionOf((await addUser()).userId);
      await store.transaction((tx) => tx.sessions.insert(session));
      for (const lock of ['lockShared', 'lock'] as const) {
        const found = await store.transaction((tx) => tx.sessions[lock](session.sessionId));
        expect(found).to.deep.include({ ...session, open: true });
        expect(await store.transaction((tx) => tx.sessions[lock](randomUUID()))).to.equal(undefined);
      }
    });

    it('note the time of a refresh', async () => {
      const session = await addSession(under());
      const { store } = under();
      const time = new Date(session.createTime.getTime() + 5000);
      await store.transaction((tx) => tx.sessions.setLastUse(session.sessionId, time));
      const found = await store.transaction((tx) => tx.sessions.lock(session.sessionId));
      expect(found?.lastUseTime).to.deep.equal(time);
    });

    it('count a session as open until it expires', async () => {
      const { store } = under();
      const session = await addSession(under(), { expireTime: new Date(0) });
      const found = await store.transaction((tx) => tx.sessions.lockShared(session.sessionId));
      expect(found?.open).to.equal(false);
    });

    it('end a session once', async () => {
      const { store } = under();
      const { sessionId } = await addSession(under());
      expect(await store.transaction((tx) => tx.sessions.end(sessionId, 'LOGOUT'))).to.equal(true);
      expect(await store.transaction((tx) => tx.sessions.end(sessionId, 'REVOKED'))).to.equal(false);
      expect(await store.transaction((tx) => tx.sessions.end(randomUUID(), 'LOGOUT'))).to.equal(false);
      expect(await isOpen(under(), sessionId)).to.equal(false);
    });

    it('lock many sessions and say which are open; unknown ones are missing', async () => {
      const { store } = under();
      const [open, ended] = [await addSession(under()), await addSession(under())];
      const expired = await addSession(under(), { expireTime: new Date(0) });
      await store.transaction((tx) => tx.sessions.end(ended.sessionId, 'LOGOUT'));
      const ids = [open, ended, expired].map(({ sessionId }) => sessionId);
      for (const busy of ['wait', 'skip'] as const) {
        const locked = await store.transaction((tx) => tx.sessions.lockEach([...ids, randomUUID()], busy));
        expect(locked).to.have.deep.members([
          { sessionId: open.sessionId, userId: open.userId, open: true, ended: false },
          { sessionId: ended.sessionId, userId: ended.userId, open: false, ended: true },
          { sessionId: expired.sessionId, userId: expired.userId, open: false, ended: false },
        ]);
      }
      const existing = await store.transaction((tx) => tx.sessions.existing([...ids, randomUUID()]));
      expect(existing).to.have.members(ids);
    });

    it('skip sessions that another transaction has locked', async () => {
      const { store } = under();
      const [held, free] = [await addSession(under()), await addSession(under())];
      const ids = [held.sessionId, free.sessionId];
      const locked = await store.transaction(async (tx) => {
        await tx.sessions.lock(held.sessionId);
        return await store.transaction((other) => other.sessions.lockEach(ids, 'skip'));
      });
      expect(locked.map(({ sessionId }) => sessionId)).to.deep.equal([free.sessionId]);
    });

    it('end many sessions at once, each once', async () => {
      const { store } = under();
      const sessions = [await addSession(under()), await addSession(under())];
      const kept = await addSession(under());
      const endings = sessions.map(({ sessionId }) => ({ sessionId, why: 'LOGOUT' as const }));
      await store.transaction((tx) => tx.sessions.endEach(endings));
      for (const { sessionId } of sessions) {
        expect(await isOpen(under(), sessionId)).to.equal(false);
        expect(await store.transaction((tx) => tx.sessions.end(sessionId, 'REVOKED'))).to.equal(false);
      }
      expect(await isOpen(under(), kept.sessionId)).to.equal(true);
    });

    it('end all open sessions of one user, and return how many', async () => {
      const { store, addUser } = under();
      const [{ userId }, { userId: otherId }] = [await addUser(), await addUser()];
      const mine = [await addSession(under(), { userId }), await addSession(under(), { userId })];
      const ended = await addSession(under(), { userId });
      await store.transaction((tx) => tx.sessions.end(ended.sessionId, 'LOGOUT'));
      const other = await addSession(under(), { userId: otherId });
      expect(await store.transaction((tx) => tx.sessions.endAllOfUser(userId, 'USER_REVOKED'))).to.equal(2);
      for (const { sessionId } of mine) expect(await isOpen(under(), sessionId)).to.equal(false);
      expect(await isOpen(under(), other.sessionId)).to.equal(true);
      expect(await store.transaction((tx) => tx.sessions.endAllOfUser(userId, 'USER_REVOKED'))).to.equal(0);
    });

    it('end the open sessions of one user but one, at most so many at once, and name them', async () => {
      const { store, addUser } = under();
      const [{ userId }, { userId: otherId }] = [await addUser(), await addUser()];
      const kept = await addSession(under(), { userId });
      const mine = [1, 2, 3].map(() => addSession(under(), { userId }));
      const ids = (await Promise.all(mine)).map(({ sessionId }) => sessionId);
      await addSession(under(), { userId, expireTime: new Date(0) });
      const other = await addSession(under(), { userId: otherId });
      const endOthers = () =>
        store.transaction((tx) =>
          tx.sessions.endOthersOfUser(userId, { than: kept.sessionId, why: 'REVOKED', limit: 2 }),
        );
      const ended = [await endOthers(), await endOthers(), await endOthers()];
      expect(ended.map(({ length }) => length)).to.deep.equal([2, 1, 0]);
      expect(ended.flat()).to.have.members(ids);
      for (const sessionId of ids) expect(await isOpen(under(), sessionId)).to.equal(false);
      for (const { sessionId } of [kept, other]) expect(await isOpen(under(), sessionId)).to.equal(true);
    });

    it('end the open sessions of all users, and return how many', async () => {
      const { store } = under();
      await store.transaction((tx) => tx.sessions.endEvery('EPOCH_ENDED'));
      const sessions = [await addSession(under()), await addSession(under())];
      expect(await store.transaction((tx) => tx.sessions.endEvery('EPOCH_ENDED'))).to.equal(2);
      for (const { sessionId } of sessions) expect(await isOpen(under(), sessionId)).to.equal(false);
    });

    it('end with the user when a session was inserted before, and not when it is inserted after', async () => {
      const { store, addUser } = under();
      const { userId } = await addUser();
      const session = sessionOf(userId);
      await store.transaction(async (tx) => {
        await tx.sessions.insert(session);
        expect(await tx.sessions.endAllOfUser(userId, 'USER_REVOKED')).to.equal(1);
      });
      const later = await addSession(under(), { userId });
      expect(await isOpen(under(), session.sessionId)).to.equal(false);
      expect(await isOpen(under(), later.sessionId)).to.equal(true);
    });

    it('stamp the open sessions of a generation with the next one, and narrow them', async () => {
      const { store, addUser } = under();
      const { userId } = await addUser();
      const wide = { userId, scopes: ['b', 'a', 'c'], audiences: ['y', 'x'] };
      const kept = await addSession(under(), { ...wide, generation: 4n });
      const older = await addSession(under(), { ...wide, generation: 3n });
      const without = await addSession(under(), { ...wide, generation: 4n, audiences: ['z'] });
      const change = { from: 4n, to: 5n, scopes: ['a', 'b'], audiences: ['x', 'y'] };
      await store.transaction((tx) => tx.sessions.restamp(userId, change));
      const found = await store.transaction((tx) => tx.sessions.lockShared(kept.sessionId));
      expect(found).to.deep.include({
        open: true,
        generation: 5n,
        scopes: ['b', 'a'],
        audiences: ['y', 'x'],
      });
      expect(await isOpen(under(), older.sessionId)).to.equal(false);
      expect(await isOpen(under(), without.sessionId)).to.equal(false);
    });
  });
}

export function describeRefreshTokens(under: Under): void {
  describe('the rows of refresh tokens', () => {
    const addToken = async (sessionId: string) => {
      const token = { hash: randomBytes(32), sessionId, expireTime: inDays(7) };
      await under().store.transaction((tx) => tx.sessions.insertRefreshToken(token));
      return token;
    };

    it('return an unused token with its session and its user, and nothing under an unknown hash', async () => {
      const { store } = under();
      const { sessionId, userId } = await addSession(under());
      const { hash, expireTime } = await addToken(sessionId);
      const found = await store.transaction((tx) => tx.sessions.findRefreshToken(hash));
      const expected = { sessionId, userId, expireTime, useTime: undefined };
      expect(found).to.deep.equal({ ...expected, requestId: undefined, successorHash: undefined });
      expect(await store.transaction((tx) => tx.sessions.findRefreshToken(randomBytes(32)))).to.equal(
        undefined,
      );
    });

    it('keep who used a token and what succeeded it', async () => {
      const { store } = under();
      const { sessionId } = await addSession(under());
      const { hash } = await addToken(sessionId);
      const successorHash = randomBytes(32);
      const requestId = randomUUID();
      const useTime = new Date();
      await store.transaction((tx) =>
        tx.sessions.markUsed({ hash, time: useTime, requestId, successorHash }),
      );
      const found = await store.transaction((tx) => tx.sessions.findRefreshToken(hash));
      expect(found).to.deep.include({ useTime, requestId, successorHash });
    });

    it('fail when a token is used a second time', async () => {
      const { store } = under();
      const { sessionId } = await addSession(under());
      const { hash } = await addToken(sessionId);
      const use = () =>
        store.transaction((tx) =>
          tx.sessions.markUsed({
            hash,
            time: new Date(),
            requestId: undefined,
            successorHash: randomBytes(32),
          }),
        );
      await use();
      const before = await store.transaction((tx) => tx.sessions.findRefreshToken(hash));
      expect(await outcomeOf(use())).to.be.an('error');
      expect(await store.transaction((tx) => tx.sessions.findRefreshToken(hash))).to.deep.equal(before);
    });
  });
}
