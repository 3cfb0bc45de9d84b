/** AuthService and UserService: messages turned into calls of the domain, and back. */

import type { ServerUnaryCall } from '@grpc/grpc-js';
import { bearerOf, certificateThumbprintOf, invalidField, principalOf, unary } from '@portcullis/guard';
import type {
  AuthServiceServer,
  IntrospectResponse,
  Session as SessionMessage,
} from '../../../proto/gen/auth/v1/auth_service.js';
import {
  type User as UserMessage,
  type UserServiceServer,
  UserState,
} from '../../../proto/gen/auth/v1/user_service.js';
import type { IssueServiceTokenRequest } from '../../../proto/gen/portcullis/token/v1/token.js';
import type { AccountChanges } from '../accounts/account-changes.js';
import type { Users } from '../accounts/users.js';
import type { PublicKeys } from '../keys/keys.js';
import type { Session } from '../records/sessions.js';
import type { User } from '../records/users.js';
import type { Exchange } from '../tokens/exchange.js';
import type { ClientCredential, ServiceTokens } from '../tokens/service-tokens.js';
import type { VerifiedToken } from '../tokens/tokens.js';
import type { SessionCaller } from './end-session.js';
import type { TokenPair } from './session-tokens.js';
import type { Sessions } from './sessions.js';

/** What the handlers of AuthService use. */
export interface AuthHandlersDeps {
  readonly sessions: Sessions;
  readonly accountChanges: AccountChanges;
  readonly serviceTokens: ServiceTokens;
  readonly exchange: Exchange;
  readonly publicKeys: PublicKeys;
}

/** Makes the handlers of AuthService. */
export function createAuthHandlers(deps: AuthHandlersDeps): AuthServiceServer {
  const { sessions, accountChanges, serviceTokens, exchange, publicKeys } = deps;
  return {
    login: unary(async (request, call) => {
      const { session, ...pair } = await sessions.login({
        ...request,
        peer: call.getPeer(),
        certificateThumbprint: certificateThumbprintOf(call),
      });
      return { ...tokensOf(pair), session: sessionMessageOf(session, session.sessionId) };
    }),
    refresh: unary(async (request, call) =>
      tokensOf(
        await sessions.refresh({
          ...request,
          peer: call.getPeer(),
          certificateThumbprint: certificateThumbprintOf(call),
        }),
      ),
    ),
    logout: unary(async (_request, call) => {
      await sessions.logout(callerOf(call));
      return {};
    }),
    changePassword: unary((request, call) =>
      accountChanges.changePassword({
        ...request,
        userId: principalOf(call).subject,
        peer: call.getPeer(),
      }),
    ),
    listSessions: unary(async (request, call) => {
      const caller = callerOf(call);
      const { sessions: page, nextPageToken } = await sessions.list(caller, request);
      return { sessions: page.map((session) => sessionMessageOf(session, caller.sessionId)), nextPageToken };
    }),
    revokeSession: unary((request, call) => sessions.revoke(callerOf(call), request.sessionId)),
    getKeys: unary(async () => {
      const { epoch, keySet } = await publicKeys.read();
      return { epoch, keySet: { version: keySet.version, keys: [...keySet.keys] } };
    }),
    issueServiceToken: unary(async (request, call) => {
      const { clientId, audiences, scopes } = request;
      const credential = credentialOf(request);
      const { token, expireTime } = await serviceTokens.issue({
        clientId,
        credential,
        audiences,
        scopes,
        peer: call.getPeer(),
        certificateThumbprint: certificateThumbprintOf(call),
      });
      return { accessToken: token, expireTime };
    }),
    exchangeToken: unary(async (request, call) => {
      if (request.subjectToken === '') throw invalidField('subject_token', 'must be set');
      const { token, expireTime } = await exchange.exchange({
        ...request,
        callerToken: bearerOf(call),
        certificateThumbprint: certificateThumbprintOf(call),
      });
      return { accessToken: token, expireTime };
    }),
    introspect: unary(async ({ token }) => introspectionOf(await exchange.introspect(token))),
  };
}

/** What the handlers of UserService use. */
export interface UserHandlersDeps {
  readonly users: Users;
  readonly accountChanges: AccountChanges;
  readonly sessions: Sessions;
}

/** Makes the handlers of UserService. */
export function createUserHandlers({ users, accountChanges, sessions }: UserHandlersDeps): UserServiceServer {
  return {
    createUser: unary(async (request, call) => {
      const user = await users.create({ ...request, actor: principalOf(call).subject });
      return { user: userMessageOf(user) };
    }),
    getUser: unary(async ({ userId }) => ({ user: userMessageOf(await users.get(userId)) })),
    listUsers: unary(async (request) => {
      const { users: page, nextPageToken } = await users.list(request);
      return { users: page.map(userMessageOf), nextPageToken };
    }),
    setUserRoles: unary(async (request, call) => {
      const changed = await accountChanges.setRoles({ ...request, actor: principalOf(call).subject });
      return { ...changed, user: userMessageOf(changed.user) };
    }),
    disableUser: unary(async (request, call) => {
      const changed = await accountChanges.disable({ ...request, actor: principalOf(call).subject });
      return { ...changed, user: userMessageOf(changed.user) };
    }),
    enableUser: unary(async (request, call) => {
      const user = await accountChanges.enable({ ...request, actor: principalOf(call).subject });
      return { user: userMessageOf(user) };
    }),
    listUserSessions: unary(async (request) => {
      const { sessions: page, nextPageToken } = await sessions.listOf(request.userId, request);
      return { sessions: page.map((session) => sessionMessageOf(session, undefined)), nextPageToken };
    }),
  };
}

function callerOf<Request, Response>(call: ServerUnaryCall<Request, Response>): SessionCaller {
  const { subject, sessionId } = principalOf(call);
  return { userId: subject, sessionId };
}

function credentialOf({ credential }: IssueServiceTokenRequest): ClientCredential | undefined {
  switch (credential?.$case) {
    case 'clientAssertion':
      return { kind: 'assertion', assertion: credential.value };
    case 'clientSecret':
      return { kind: 'secret', secret: credential.value };
    case undefined:
      return undefined;
  }
}

function tokensOf({ access, refreshToken, refreshTokenExpireTime }: TokenPair) {
  return {
    accessToken: access.token,
    accessTokenExpireTime: access.expireTime,
    refreshToken,
    refreshTokenExpireTime,
  };
}

function sessionMessageOf(session: Session, currentSessionId: string | undefined): SessionMessage {
  const { sessionId, clientId, deviceName, createTime, lastUseTime, expireTime } = session;
  const current = sessionId === currentSessionId;
  return { sessionId, clientId, deviceName, createTime, lastUseTime, expireTime, current };
}

function userMessageOf({ userId, username, roles, createTime, disabled }: User): UserMessage {
  const state = disabled ? UserState.USER_STATE_DISABLED : UserState.USER_STATE_ACTIVE;
  return { userId, username, roles: [...roles], createTime, state };
}

function introspectionOf(token: VerifiedToken | undefined): IntrospectResponse {
  return {
    active: token !== undefined,
    subject: token?.subject ?? '',
    clientId: token?.clientId ?? '',
    sessionId: token?.sessionId ?? '',
    scopes: [...(token?.scopes ?? [])],
    roles: [...(token?.roles ?? [])],
    audiences: [...(token?.audiences ?? [])],
    expireTime: token && new Date(token.expiresAtSeconds * 1000),
    tokenId: token?.tokenId ?? '',
    certificateThumbprint: token?.certificateThumbprint ?? '',
  };
}
