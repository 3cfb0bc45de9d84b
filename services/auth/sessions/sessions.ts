/** Sessions: one login of one user, and the chain of its refresh tokens. */

import type { PageRequest } from '../records/page.js';
import type { Receipt } from '../records/revocations.js';
import type { RevocationGroupsDeps } from '../revocation/revocation-groups.js';
import {
  createSessionGroups,
  type EndedSessions,
  type EndSessionDeps,
  logout,
  revokeOtherSessions,
  revokeOwnSession,
  revokeRefreshToken,
  type SessionCaller,
} from './end-session.js';
import {
  type ListSessionsDeps,
  listOwnSessions,
  listUserSessions,
  type SessionPage,
} from './list-sessions.js';
import { type LoginDeps, type LoginRequest, type LoginResult, login } from './login.js';
import { type RefreshDeps, type RefreshRequest, refresh } from './refresh.js';
import type { TokenPair } from './session-tokens.js';

/** The commands on sessions; each is documented where it is defined. */
export interface Sessions {
  login(request: LoginRequest): Promise<LoginResult>;
  refresh(request: RefreshRequest): Promise<TokenPair>;
  logout(caller: SessionCaller): Promise<void>;
  list(caller: SessionCaller, page: PageRequest): Promise<SessionPage>;
  listOf(userId: string, page: PageRequest): Promise<SessionPage>;
  revoke(caller: SessionCaller, sessionId: string): Promise<Receipt>;
  revokeOthers(caller: SessionCaller): Promise<EndedSessions>;
  revokeByRefreshToken(request: { readonly token: string; readonly peer: string }): Promise<void>;
}

interface SessionsDeps extends LoginDeps, RefreshDeps, Omit<EndSessionDeps, 'groups'>, ListSessionsDeps {
  /** See {@link RevocationGroupsDeps.onGroup}. */
  readonly onGroup?: RevocationGroupsDeps['onGroup'];
  /** See {@link RevocationGroupsDeps.onGroupRefused}. */
  readonly onGroupRefused?: RevocationGroupsDeps['onGroupRefused'];
}

export function createSessions(deps: SessionsDeps): Sessions {
  const groups = createSessionGroups(deps);
  return {
    login: (request) => login(deps, request),
    refresh: (request) => refresh(deps, request),
    logout: (caller) => logout({ groups }, caller),
    list: (caller, page) => listOwnSessions(deps, caller, page),
    listOf: (userId, page) => listUserSessions(deps, userId, page),
    revoke: (caller, sessionId) => revokeOwnSession({ groups }, caller, sessionId),
    revokeOthers: (caller) => revokeOtherSessions(deps, caller),
    revokeByRefreshToken: (request) => revokeRefreshToken({ ...deps, groups }, request),
  };
}
