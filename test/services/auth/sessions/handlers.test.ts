/** Tests of the handlers of sessions, on stand-ins for the commands. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import type { Session } from '../../../../services/auth/records/sessions.js';
import {
  createSessionHandlers,
  createUserSessionHandlers,
} from '../../../../services/auth/sessions/handlers.js';
import type { Sessions } from '../../../../services/auth/sessions/sessions.js';
import { CALL_PEER, CALLER, callHandler } from '../handler-call.js';

const THUMBPRINT = 'A'.repeat(43);

const session = (sessionId: string = randomUUID()): Session => ({
  sessionId,
  userId: CALLER.subject,
  clientId: 'direct',
  generation: 3n,
  clientGeneration: 4n,
  deviceName: 'laptop',
  audiences: ['inventory'],
  scopes: ['inventory.read'],
  amr: ['pwd'],
  certificateThumbprint: THUMBPRINT,
  createTime: new Date(1000),
  lastUseTime: new Date(2000),
  expireTime: new Date(3000),
  open: true,
});
/** What a response says of the session: nothing of its generations, its rights and its certificate. */
const messageOf = ({ sessionId }: Session, current: boolean) => ({
  sessionId,
  clientId: 'direct',
  deviceName: 'laptop',
  createTime: new Date(1000),
  lastUseTime: new Date(2000),
  expireTime: new Date(3000),
  current,
  network: '',
});

const pair = {
  access: {
    token: 'access',
    expireTime: new Date(4000),
    scopes: ['inventory.read'],
    audiences: ['inventory'],
  },
  refreshToken: 'refresh',
  refreshTokenExpireTime: new Date(5000),
};
const pairMessage = {
  accessToken: 'access',
  accessTokenExpireTime: new Date(4000),
  refreshToken: 'refresh',
  refreshTokenExpireTime: new Date(5000),
  scopes: ['inventory.read'],
  audiences: ['inventory'],
};

const unexpected = () => Promise.reject(new TypeError('not the expected command'));
const noSessions: Sessions = {
  login: unexpected,
  refresh: unexpected,
  logout: unexpected,
  list: unexpected,
  listOf: unexpected,
  revoke: unexpected,
  revokeOthers: unexpected,
  revokeByRefreshToken: unexpected,
};

describe('the handlers of sessions', () => {
  const caller = { userId: CALLER.subject, sessionId: CALLER.sessionId };
  let received: unknown[] = [];
  beforeEach(() => {
    received = [];
  });
  /** Handlers on a command that notes its arguments. */
  const handlersWith = <Name extends keyof Sessions>(
    name: Name,
    result: Awaited<ReturnType<Sessions[Name]>>,
  ) => {
    const command = async (...args: unknown[]) => {
      received = args;
      return result;
    };
    const sessions: Sessions = { ...noSessions, [name]: command };
    return { ...createSessionHandlers({ sessions }), ...createUserSessionHandlers({ sessions }) };
  };

  it('pass the peer, its certificate and the end of the call to a login', async () => {
    const opened = session();
    const { login } = handlersWith('login', { ...pair, session: opened });
    const { signal } = new AbortController();
    const request = {
      username: 'alice',
      password: 'secret',
      audiences: [],
      scopes: [],
      deviceName: 'laptop',
    };
    const response = await callHandler(login, request, { signal, certificateThumbprint: THUMBPRINT });
    expect(received).to.deep.equal([
      { ...request, peer: CALL_PEER, certificateThumbprint: THUMBPRINT, signal },
    ]);
    expect(response).to.deep.equal({ ...pairMessage, session: messageOf(opened, true) });
  });

  it('pass the peer and its certificate to a refresh', async () => {
    const { refresh } = handlersWith('refresh', pair);
    const request = { refreshToken: 'former', requestId: 'id' };
    const response = await callHandler(refresh, request, { certificateThumbprint: THUMBPRINT });
    expect(received).to.deep.equal([{ ...request, peer: CALL_PEER, certificateThumbprint: THUMBPRINT }]);
    expect(response).to.deep.equal(pairMessage);
  });

  it('end the session of the calling token, of its user, or of a refresh token', async () => {
    expect(await callHandler(handlersWith('logout', undefined).logout, {})).to.deep.equal({});
    expect(received).to.deep.equal([caller]);

    const receipt = { sequence: 7n, enforcedEverywhereBy: new Date(6000) };
    const { revokeSession } = handlersWith('revoke', receipt);
    expect(await callHandler(revokeSession, { sessionId: 'other' })).to.deep.equal(receipt);
    expect(received).to.deep.equal([caller, 'other']);

    const { revokeToken } = handlersWith('revokeByRefreshToken', undefined);
    expect(await callHandler(revokeToken, { token: 'pcr_' })).to.deep.equal({});
    expect(received).to.deep.equal([{ token: 'pcr_', peer: CALL_PEER }]);
  });

  it('return the receipt of the end of other sessions, or none when there were none', async () => {
    const receipt = { sequence: 7n, enforcedEverywhereBy: new Date(6000) };
    const some = handlersWith('revokeOthers', { endedSessions: 2, receipt });
    expect(await callHandler(some.revokeOtherSessions, {})).to.deep.equal({ endedSessions: 2, ...receipt });
    expect(received).to.deep.equal([caller]);
    const none = handlersWith('revokeOthers', { endedSessions: 0, receipt: undefined });
    expect(await callHandler(none.revokeOtherSessions, {})).to.deep.equal({
      endedSessions: 0,
      sequence: 0n,
      enforcedEverywhereBy: undefined,
    });
  });

  it('mark the calling session in the list of the caller, and none in that of another user', async () => {
    const sessions = [session(), session(CALLER.sessionId)] as const;
    const page = { sessions, nextPageToken: 'more' };
    const request = { pageSize: 2, pageToken: 'first' };
    const own = await callHandler(handlersWith('list', page).listSessions, request);
    expect(received).to.deep.equal([caller, request]);
    expect(own).to.deep.equal({
      sessions: [messageOf(sessions[0], false), messageOf(sessions[1], true)],
      nextPageToken: 'more',
    });
    const ofUser = { ...request, userId: randomUUID() };
    const others = await callHandler(handlersWith('listOf', page).listUserSessions, ofUser);
    expect(received).to.deep.equal([ofUser.userId, ofUser]);
    expect(others).to.deep.equal({
      sessions: sessions.map((one) => messageOf(one, false)),
      nextPageToken: 'more',
    });
  });
});
