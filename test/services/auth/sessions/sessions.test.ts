/** Tests of listing and ending sessions, against PostgreSQL. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { codeOf, serviceErrorOf } from '../../../support/outcomes.js';
import { addUser, entriesOf, entryKeyOf, type FreshAuth, logIn, openFreshAuth } from '../instance.js';

describe('sessions', () => {
  let auth: FreshAuth;

  before(async () => {
    auth = await openFreshAuth();
  });
  after(() => auth.close());

  const isOpen = async (sessionId: string): Promise<boolean> =>
    (await auth.store.transaction((tx) => tx.sessions.lockShared(sessionId)))?.open === true;

  describe('ending', () => {
    it('ends the session and appends to the log in one transaction, and broadcasts the entry', async () => {
      const user = await addUser(auth);
      const { session } = await logIn(auth, user);
      auth.broadcast.length = 0;
      await auth.sessions.logout({ userId: user.userId, sessionId: session.sessionId });
      expect(await isOpen(session.sessionId)).to.equal(false);
      expect((await entriesOf(auth)).at(-1)).to.deep.equal({
        kind: 'SESSION',
        key: entryKeyOf(session.sessionId),
        reason: 'logout',
        actor: user.userId,
      });
      expect(auth.broadcast).to.have.length(1);
    });

    it('appends one entry for two logouts', async () => {
      const user = await addUser(auth);
      const { session } = await logIn(auth, user);
      const caller = { userId: user.userId, sessionId: session.sessionId };
      await auth.sessions.logout(caller);
      auth.broadcast.length = 0;
      await auth.sessions.logout(caller);
      expect(auth.broadcast).to.be.empty;
    });

    it('lets the owner end one session and keeps the others', async () => {
      const user = await addUser(auth);
      const first = await logIn(auth, user);
      const second = await logIn(auth, user);
      const caller = { userId: user.userId, sessionId: first.session.sessionId };
      const receipt = await auth.sessions.revoke(caller, second.session.sessionId);
      expect(receipt.sequence > 0n).to.equal(true);
      expect(receipt.enforcedEverywhereBy.getTime()).to.be.above(Date.now());
      expect(await isOpen(first.session.sessionId)).to.equal(true);
      const { refreshToken } = second;
      expect(await codeOf(auth.sessions.refresh({ refreshToken, requestId: randomUUID() }))).to.equal(
        'REFRESH_INVALID',
      );
      expect(await codeOf(auth.sessions.revoke(caller, second.session.sessionId))).to.equal('NOT_FOUND');
    });

    it("returns the same error for another user's session and for an unknown one", async () => {
      const [owner, other] = [await addUser(auth), await addUser(auth)];
      const { session } = await logIn(auth, owner);
      const caller = { userId: other.userId, sessionId: undefined };
      const errors = [
        await serviceErrorOf(auth.sessions.revoke(caller, session.sessionId)),
        await serviceErrorOf(auth.sessions.revoke(caller, randomUUID())),
      ];
      expect(errors.map(({ code, message }) => [code, message])).to.deep.equal([
        ['NOT_FOUND', 'there is no such session'],
        ['NOT_FOUND', 'there is no such session'],
      ]);
      expect(await isOpen(session.sessionId)).to.equal(true);
      expect(await codeOf(auth.sessions.revoke(caller, 'not a uuid'))).to.equal('FIELD_INVALID');
    });
  });

  describe('list', () => {
    it('returns only the open sessions of the caller, newest first, page by page', async () => {
      const user = await addUser(auth);
      const opened: string[] = [];
      for (let count = 0; count < 5; count += 1) opened.push((await logIn(auth, user)).session.sessionId);
      await logIn(auth, await addUser(auth));
      const caller = { userId: user.userId, sessionId: opened[0] };
      await auth.sessions.revoke(caller, opened[2] ?? '');
      const seen: string[] = [];
      let pageToken = '';
      do {
        const result = await auth.sessions.list(caller, page(2, pageToken));
        expect(result.sessions.length).to.be.at.most(2);
        seen.push(...result.sessions.map(({ sessionId }) => sessionId));
        pageToken = result.nextPageToken;
      } while (pageToken !== '');
      expect(seen).to.deep.equal([opened[4], opened[3], opened[1], opened[0]]);
    });

    it('rejects a page token that no response contained', async () => {
      const caller = { userId: randomUUID(), sessionId: undefined };
      expect(await codeOf(auth.sessions.list(caller, page(0, 'WyJ4Il0')))).to.equal('FIELD_INVALID');
      expect(await codeOf(auth.sessions.list(caller, page(-1)))).to.equal('FIELD_INVALID');
    });
  });
});

function page(pageSize = 0, pageToken = ''): { pageSize: number; pageToken: string } {
  return { pageSize, pageToken };
}
