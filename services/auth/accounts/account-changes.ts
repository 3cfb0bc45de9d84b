/** What takes effect on somebody who may be logged in: another password, other roles, being disabled. */

import type { Clock } from '@portcullis/guard/clock';
import { invalidField, type ServiceError } from '@portcullis/guard/errors';
import { parseUuid } from '../../common/validation/identifiers.js';
import { parseRequestId } from '../../common/validation/request-id.js';
import { AuthError } from '../errors.js';
import type { Receipt } from '../records/revocations.js';
import type { User } from '../records/users.js';
import { userRevocation } from '../revocation/log.js';
import { changeAndRevoke, receiptOf } from '../revocation/revoking-change.js';
import { networkOf, type Throttle } from '../security/throttle.js';
import type { LoginFailures } from '../sessions/login-failures.js';
import type { AuthStore, AuthTransaction } from '../transaction.js';
import { type Passwords, passwordFault } from './passwords.js';
import { audiencesOfScopes, scopesOfRoles } from './roles.js';
import { parseRoles } from './users.js';

/** An administrator's request about one user. */
export interface AccountRequest {
  readonly actor: string;
  readonly userId: string;
  /** With one, a request that comes again does nothing and gets the first answer. */
  readonly requestId: string;
}

/** A user that was changed, and when every instance has heard of it. */
export interface ChangedUser extends Receipt {
  readonly user: User;
}

/** Changes of accounts. Each raises the user's generation, and writes it to the log in the same transaction. */
export interface AccountChanges {
  /**
   * Changes a user's own password and ends every session. A wrong old password counts as a failed login.
   *
   * @throws ServiceError FIELD_INVALID; LOGIN_FAILED when the old password is wrong; RATE_LIMITED
   */
  changePassword(request: {
    userId: string;
    oldPassword: string;
    newPassword: string;
    /** The address the request came from. */
    peer: string;
  }): Promise<Receipt>;
  /**
   * Gives a user these roles and no others. Sessions go on, with no more scopes than they had.
   *
   * @throws ServiceError NOT_FOUND, FIELD_INVALID, REQUEST_ID_REUSED
   */
  setRoles(request: AccountRequest & { readonly roles: readonly string[] }): Promise<ChangedUser>;
  /**
   * Keeps a user from logging in and ends every session.
   *
   * @throws ServiceError NOT_FOUND, FIELD_INVALID, REQUEST_ID_REUSED
   */
  disable(request: AccountRequest): Promise<ChangedUser>;
  /**
   * Lets a user log in again. It revokes nothing, so the log has nothing of it.
   *
   * @throws ServiceError NOT_FOUND, FIELD_INVALID, REQUEST_ID_REUSED
   */
  enable(request: AccountRequest): Promise<User>;
}

/** What {@link createAccountChanges} needs. */
export interface AccountChangesDeps {
  readonly store: AuthStore;
  readonly passwords: Passwords;
  /** That of the logins: a stolen token must not give a thief guesses of its own. */
  readonly throttle: Throttle;
  readonly clock: Clock;
  readonly failures: LoginFailures;
}

/** The changes of accounts of this database. */
export function createAccountChanges(deps: AccountChangesDeps): AccountChanges {
  return {
    changePassword: (request) => changePassword(deps, request),
    setRoles: async (request) => {
      const roles = parseRoles(request.roles);
      return await change(deps, 'SetUserRoles', request, [roles], async (tx, userId, generation) => {
        const scopes = scopesOfRoles(roles);
        await tx.users.setRoles(userId, roles);
        const { actor } = request;
        const about = { subject: { userId }, actor, reason: 'roles changed', network: '' };
        await tx.events.record({ ...about, type: 'token-claims-change', details: { roles } });
        await tx.sessions.restamp(userId, {
          from: generation - 1n,
          to: generation,
          scopes,
          audiences: audiencesOfScopes(scopes),
        });
        return 'roles changed';
      });
    },
    disable: async (request) =>
      await change(deps, 'DisableUser', request, [], async (tx, userId) => {
        await tx.users.setDisabled(userId, true);
        await tx.sessions.endAllOf(userId, 'USER_DISABLED');
        const { actor } = request;
        const about = { subject: { userId }, actor, reason: 'user disabled', network: '' };
        await tx.events.record({ ...about, type: 'account-disabled', details: {} });
        return 'user disabled';
      }),
    enable: (request) => enable(deps, request),
  };
}

async function changePassword(
  { store, passwords, throttle, clock, failures }: AccountChangesDeps,
  request: { userId: string; oldPassword: string; newPassword: string; peer: string },
): Promise<Receipt> {
  const fault = passwordFault(request.newPassword);
  if (fault !== undefined) throw invalidField('new_password', fault);
  const userId = parseUuid(request.userId);
  if (userId === undefined) throw oldPasswordWrong();
  const credentials = await store.transaction((tx) => tx.users.credentialsOfId(userId));
  if (credentials === undefined) throw oldPasswordWrong();
  const what = 'change of password';
  const failed = { what, name: credentials.username, userId, peer: request.peer } as const;
  const counted = await throttle.attempt(credentials.username, request.peer).catch((error: unknown) => {
    failures.limited(failed);
    throw error;
  });
  if (!(await passwords.verify(credentials.passwordHash, request.oldPassword))) {
    failures.failed(failed);
    throw oldPasswordWrong();
  }
  await counted.succeeded();
  const passwordHash = await passwords.hash(request.newPassword);
  let startedMs = 0;
  const appended = await store.transaction(async (tx) => {
    // The password was compared without a lock: what was revoked or changed since then counts.
    const generation = await tx.users.changePassword(credentials, passwordHash);
    if (generation === undefined) return undefined;
    await tx.sessions.endAllOf(userId, 'PASSWORD_CHANGED');
    await tx.loginNetworks.forgetAllOf(userId);
    const { networkKey } = counted;
    if (networkKey) await tx.loginNetworks.remember({ key: networkKey, userId });
    await tx.events.record({
      type: 'credential-change',
      subject: { userId },
      actor: userId,
      reason: 'password changed',
      network: networkOf(request.peer),
      details: { credential: 'password', change: 'update' },
    });
    startedMs = clock.monotonicMs();
    const entry = { ...userRevocation(userId, generation), reason: 'password changed', actor: userId };
    return await tx.revocations.append([entry]);
  });
  if (appended === undefined) throw oldPasswordWrong();
  // Nothing is waited for between the commit and the answer: it revokes the token of this very call.
  return receiptOf(appended, clock.monotonicMs() - startedMs);
}

/** One administrator's change that kills every token of before. `work` answers the reason for the log. */
function change(
  deps: AccountChangesDeps,
  method: string,
  request: AccountRequest,
  rest: readonly unknown[],
  work: (tx: AuthTransaction, userId: string, generation: bigint) => Promise<string>,
): Promise<ChangedUser> {
  const { actor } = request;
  const requestId = parseRequestId(request.requestId);
  const userId = parseUserId(request.userId);
  const payload = JSON.stringify([userId, ...rest]);
  return changeAndRevoke(deps, { subject: actor, method, requestId, payload }, async (tx) => {
    // The user's row first, as everywhere; whoever mints for the user waits from here on, or is waited for.
    const generation = await tx.users.raiseGeneration(userId);
    if (generation === undefined) throw noSuchUser();
    const reason = await work(tx, userId, generation);
    const user = await tx.users.find(userId);
    if (user === undefined) throw noSuchUser();
    return { result: { user }, entry: { ...userRevocation(userId, generation), reason, actor } };
  });
}

async function enable({ store }: AccountChangesDeps, request: AccountRequest): Promise<User> {
  const { actor } = request;
  const requestId = parseRequestId(request.requestId);
  const userId = parseUserId(request.userId);
  return await store.transaction((tx) =>
    tx.once({ subject: actor, method: 'EnableUser', requestId, payload: userId }, async () => {
      await tx.users.setDisabled(userId, false);
      const about = { subject: { userId }, actor, reason: 'user enabled', network: '' };
      await tx.events.record({ ...about, type: 'account-enabled', details: {} });
      const user = await tx.users.find(userId);
      if (user === undefined) throw noSuchUser();
      return user;
    }),
  );
}

function parseUserId(text: string): string {
  const userId = parseUuid(text);
  if (userId === undefined) throw noSuchUser();
  return userId;
}

function noSuchUser(): ServiceError {
  return new AuthError('NOT_FOUND', 'there is no such user');
}

function oldPasswordWrong(): ServiceError {
  return new AuthError('LOGIN_FAILED', 'the old password is wrong');
}
