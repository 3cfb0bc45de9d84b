/** Tests of the turns in which the commands on sessions wait for the database, against PostgreSQL. */

import { randomBytes, randomUUID } from 'node:crypto';
import { expect } from 'chai';
import type { RevocationGroups } from '../../../../services/auth/revocation/revocation-groups.js';
import {
  logout,
  revokeOwnSession,
  revokeRefreshToken,
  type SessionCaller,
  type SessionGroups,
} from '../../../../services/auth/sessions/end-session.js';
import type { TransactionPlace } from '../../../../services/auth/transaction.js';
import { codeOf, rejectionOf } from '../../../support/outcomes.js';
import { addUser, type FreshAuth, logIn, openFreshAuth, type TestUser } from '../instance.js';

const PEER = '198.51.100.7:4000';
const OF_NETWORK = 'refresh 198.51.100.7';

describe('a command on sessions', () => {
  let auth: FreshAuth;
  let user: TestUser;
  let places: (TransactionPlace | undefined)[] = [];
  let readers: (string | undefined)[] = [];

  before(async () => {
    auth = await openFreshAuth();
    user = await addUser(auth);
    const { transaction, reads } = auth.store;
    const { findRefreshToken } = reads.sessions;
    Object.assign(auth.store, {
      transaction: (...[work, place]: Parameters<typeof transaction>) => {
        places.push(place);
        return transaction(work, place);
      },
    });
    Object.assign(reads.sessions, {
      findRefreshToken: (...args: Parameters<typeof findRefreshToken>) => {
        readers.push(args[1]);
        return findRefreshToken(...args);
      },
    });
  });
  after(() => auth.close());

  const open = async () => {
    const { session, refreshToken } = await logIn(auth, user);
    places = [];
    readers = [];
    const caller: SessionCaller = { userId: user.userId, sessionId: session.sessionId };
    return { caller, sessionId: session.sessionId, refreshToken };
  };

  it('that opens one or lists them waits in the turn of its user', async () => {
    const { caller } = await open();
    await logIn(auth, user);
    await auth.sessions.list(caller, { pageSize: 0, pageToken: '' });
    expect(places).to.deep.equal([{ caller: user.userId }, { caller: user.userId }]);
  });

  it('that ends all others waits in the turn of its user, and contends for the session and the user', async () => {
    const { caller, sessionId } = await open();
    await logIn(auth, user);
    places = [];
    await auth.sessions.revokeOthers(caller);
    expect(places).to.deep.equal([
      { contends: [`session ${sessionId}`, `user ${user.userId}`], caller: user.userId },
    ]);
  });

  it('that ends one waits for its group in the turn of its user, or of the network of a refresh token', async () => {
    const { caller, sessionId, refreshToken } = await open();
    const members: string[] = [];
    const groupOf = (name: string): RevocationGroups => ({
      write: async (member) => {
        members.push(`${name} ${member.caller} ${member.sessionId}`);
        return undefined;
      },
    });
    const groups: SessionGroups = { known: groupOf('known'), unknown: groupOf('unknown') };
    await logout({ groups }, caller);
    const nothing = await rejectionOf(revokeOwnSession({ groups }, caller, sessionId));
    expect(nothing.message).to.equal('a revocation has written nothing');
    await revokeRefreshToken({ store: auth.store, groups }, { token: refreshToken, peer: PEER });
    expect(members).to.deep.equal([
      `known ${user.userId} ${sessionId}`,
      `known ${user.userId} ${sessionId}`,
      `unknown ${OF_NETWORK} ${sessionId}`,
    ]);
    expect(readers).to.deep.equal([OF_NETWORK]);
  });

  it('that refreshes waits with unknown callers in the turn of its network', async () => {
    const { sessionId, refreshToken } = await open();
    await auth.sessions.refresh({ refreshToken, requestId: randomUUID(), peer: PEER });
    expect(places).to.deep.equal([
      {
        importance: 'unknown',
        contends: [`session ${sessionId}`, `user ${user.userId}`],
        caller: OF_NETWORK,
      },
    ]);
    expect(readers).to.deep.equal([OF_NETWORK]);
  });

  it('with an unknown refresh token or none begins no transaction', async () => {
    const { caller } = await open();
    const unknown = `pcr_${randomBytes(32).toString('base64url')}`;
    expect(
      await codeOf(auth.sessions.refresh({ refreshToken: unknown, requestId: '', peer: PEER })),
    ).to.equal('REFRESH_INVALID');
    await auth.sessions.revokeByRefreshToken({ token: unknown, peer: PEER });
    expect(readers).to.deep.equal([OF_NETWORK, OF_NETWORK]);
    await auth.sessions.revokeByRefreshToken({ token: unknown.slice(0, -1), peer: PEER });
    expect(readers).to.have.length(2);
    const withoutSession = { ...caller, sessionId: undefined };
    await auth.sessions.logout(withoutSession);
    expect(await codeOf(auth.sessions.revokeOthers(withoutSession))).to.equal('TOKEN_REVOKED');
    expect(places).to.deep.equal([]);
  });
});
