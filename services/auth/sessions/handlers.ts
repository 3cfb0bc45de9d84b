/** The handlers of sessions: those of AuthService, and the list of any user's sessions of UserService. */

import type { ServerUnaryCall } from '@grpc/grpc-js';
import { certificateThumbprintOf, principalOf, type ServiceHandlers, signalOf } from '@portcullis/guard';
import type {
  AuthServiceService,
  Session as SessionMessage,
} from '../../../proto/gen/auth/v1/auth_service.js';
import type { UserServiceService } from '../../../proto/gen/auth/v1/user_service.js';
import type { Session } from '../records/sessions.js';
import type { SessionCaller } from './end-session.js';
import type { TokenPair } from './session-tokens.js';
import type { Sessions } from './sessions.js';

/** The methods of AuthService that concern sessions. */
export function createSessionHandlers({
  sessions,
}: {
  readonly sessions: Sessions;
}): Pick<
  ServiceHandlers<AuthServiceService>,
  'login' | 'refresh' | 'logout' | 'listSessions' | 'revokeSession' | 'revokeOtherSessions' | 'revokeToken'
> {
  return {
    login: async (request, call) => {
      const { session, ...pair } = await sessions.login({
        ...request,
        ...peerOf(call),
        signal: signalOf(call),
      });
      return { ...tokenFieldsOf(pair), session: sessionMessageOf(session, session.sessionId) };
    },
    refresh: async (request, call) => tokenFieldsOf(await sessions.refresh({ ...request, ...peerOf(call) })),
    logout: async (_request, call) => {
      await sessions.logout(callerOf(call));
      return {};
    },
    listSessions: async (request, call) => {
      const caller = callerOf(call);
      const { sessions: page, nextPageToken } = await sessions.list(caller, request);
      return { sessions: page.map((session) => sessionMessageOf(session, caller.sessionId)), nextPageToken };
    },
    revokeSession: (request, call) => sessions.revoke(callerOf(call), request.sessionId),
    revokeOtherSessions: async (_request, call) => {
      const { endedSessions, receipt } = await sessions.revokeOthers(callerOf(call));
      return { endedSessions, sequence: 0n, enforcedEverywhereBy: undefined, ...receipt };
    },
    revokeToken: async ({ token }, call) => {
      await sessions.revokeByRefreshToken({ token, peer: call.getPeer() });
      return {};
    },
  };
}

/** The method of UserService that concerns sessions. */
export function createUserSessionHandlers({
  sessions,
}: {
  readonly sessions: Pick<Sessions, 'listOf'>;
}): Pick<ServiceHandlers<UserServiceService>, 'listUserSessions'> {
  return {
    listUserSessions: async (request) => {
      const { sessions: page, nextPageToken } = await sessions.listOf(request.userId, request);
      return {
        sessions: page.map((session) => ({
          ...sessionMessageOf(session, undefined),
          network: session.network ?? '',
        })),
        nextPageToken,
      };
    },
  };
}

function callerOf<Request, Response>(call: ServerUnaryCall<Request, Response>): SessionCaller {
  const { subject, sessionId } = principalOf(call);
  return { userId: subject, sessionId };
}

function peerOf<Request, Response>(
  call: ServerUnaryCall<Request, Response>,
): { readonly peer: string; readonly certificateThumbprint: string | undefined } {
  return { peer: call.getPeer(), certificateThumbprint: certificateThumbprintOf(call) };
}

function tokenFieldsOf({ access, refreshToken, refreshTokenExpireTime }: TokenPair) {
  return {
    accessToken: access.token,
    accessTokenExpireTime: access.expireTime,
    refreshToken,
    refreshTokenExpireTime,
    scopes: [...access.scopes],
    audiences: [...access.audiences],
  };
}

function sessionMessageOf(session: Session, currentSessionId: string | undefined): SessionMessage {
  const { sessionId, clientId, deviceName, createTime, lastUseTime, expireTime } = session;
  const current = sessionId === currentSessionId;
  return { sessionId, clientId, deviceName, createTime, lastUseTime, expireTime, current, network: '' };
}
