/** Login: verifies a user's password and opens a session. */

import { randomUUID } from 'node:crypto';
import { invalidField, type ServiceError } from '@portcullis/guard/errors';
import { CLAIM_LIST_LENGTH_MAX } from '@portcullis/guard/limits';
import { networkOfPeer } from '@portcullis/guard/networks';
import { parseWords } from '../../common/validation/words.js';
import type { Passwords } from '../accounts/passwords.js';
import { audiencesOfScopes, requireUserRights, scopesOfRoles } from '../accounts/roles.js';
import { parseUsername } from '../accounts/usernames.js';
import { DIRECT_CLIENT } from '../clients/client-ids.js';
import { AuthError } from '../errors.js';
import type { Client } from '../records/clients.js';
import type { Policy } from '../records/policy.js';
import type { Session } from '../records/sessions.js';
import type { UserCredentials, UserState } from '../records/users.js';
import type { Attempt, Throttle } from '../security/throttle.js';
import type { Tokens } from '../tokens/tokens.js';
import type { AuthStore, AuthTransaction } from '../transaction.js';
import type { LoginFailures } from './login-failures.js';
import type { LoginTurns } from './login-turns.js';
import { formatRefreshToken, newRefreshSecret, storeRefreshToken } from './refresh-tokens.js';
import { mintSessionToken, type TokenPair } from './session-tokens.js';

/** Maximum lifetime of a session, however often it is refreshed, in seconds (30 days). */
export const SESSION_SECONDS_MAX = 30 * 24 * 3600;

/** Maximum length of a device's name, in characters. */
const DEVICE_NAME_CHARACTERS_MAX = 100;

/** Maximum length of the scopes of one token, and of its audiences, in characters: a token must stay below 8192. */
const GRANT_CHARACTERS_MAX = 2048;

/**
 * Whether a login binds its session to the client certificate of the connection: never, when there is a certificate,
 * or always, in which case a login without a certificate fails.
 */
export const LOGIN_BINDINGS = ['off', 'optional', 'required'] as const;

/** One of {@link LOGIN_BINDINGS}. */
export type LoginBinding = (typeof LOGIN_BINDINGS)[number];

/** A login as the caller requests it. */
export interface LoginRequest {
  readonly username: string;
  readonly password: string;
  readonly audiences: readonly string[];
  readonly scopes: readonly string[];
  readonly deviceName: string;
  /** The peer's address. */
  readonly peer: string;
  /** Aborted when the caller has left: it then gives up its place in the queue for password hashes. */
  readonly signal?: AbortSignal;
  /** The thumbprint of the peer's client certificate, if it has one. */
  readonly certificateThumbprint?: string | undefined;
}

/** An opened session and its first tokens. */
export interface LoginResult extends TokenPair {
  readonly session: Session;
}

export interface LoginDeps {
  readonly store: AuthStore;
  readonly passwords: Passwords;
  readonly throttle: Throttle;
  readonly tokens: Tokens;
  readonly loginBinding: LoginBinding;
  readonly failures: LoginFailures;
  readonly turns: LoginTurns;
}

/**
 * Opens a session.
 *
 * @throws ServiceError LOGIN_FAILED whatever is wrong with the credentials; CERTIFICATE_REQUIRED; RATE_LIMITED;
 *   FIELD_INVALID
 */
export async function login(deps: LoginDeps, request: LoginRequest): Promise<LoginResult> {
  const wanted = parseWanted(deps, request);
  const username = parseUsername(request.username);
  const network = networkOfPeer(request.peer);
  const isRemembered = username !== undefined && deps.throttle.remembers(username, request.peer);
  const nameKey = username === undefined ? undefined : deps.throttle.nameKeyOf(username);
  const turn = deps.turns.callerOf({ nameKey, isKnown: isRemembered }, network);
  // Whom the flood would displace anyway is refused before the database is asked anything.
  if (turn.importance === 'unknown') deps.passwords.requirePlace(turn);
  const failed = { what: 'login', name: request.username, peer: request.peer } as const;
  const attempt = await deps.throttle.attempt(username, request.peer).catch((error: unknown) => {
    deps.failures.limited(failed);
    throw error;
  });
  const importance = isRemembered ? 'known' : 'unknown';
  const counted = { request, username, wanted, attempt, network, importance } as const;
  const opened = await openSessionWith(deps, counted).catch(async (error: unknown) => {
    // The password was right or was not checked, so the attempt is no guess.
    await attempt.uncount();
    throw error;
  });
  if ('failedUserId' in opened) {
    deps.failures.failed({ ...failed, userId: opened.failedUserId });
    throw (await attempt.refusal()) ?? loginFailed();
  }
  deps.turns.succeeded(attempt);
  await attempt.uncount();
  return opened;
}

interface CountedLogin {
  readonly request: LoginRequest;
  readonly username: string | undefined;
  readonly wanted: WantedSession;
  readonly attempt: Attempt;
  readonly network: string;
  /** The class of its reads. */
  readonly importance: 'known' | 'unknown';
}

/** Verifies the password and opens the session; names the user, if there is one, whose login failed. */
async function openSessionWith(
  deps: LoginDeps,
  { request, username, wanted, attempt, network, importance }: CountedLogin,
): Promise<LoginResult | { readonly failedUserId: string | undefined }> {
  const place = { importance, caller: `login ${network}` };
  if (wanted.scopes.length + wanted.audiences.length > 0) {
    requireUserRights(await deps.store.reads.policy.current(place), wanted);
  }
  const credentials =
    username === undefined ? undefined : await deps.store.reads.users.credentialsByName(username, place);
  const { networkKey } = attempt;
  const caller = deps.turns.callerOf(attempt, network);
  const matches = await deps.passwords.verify(
    credentials?.passwordHash,
    request.password,
    caller,
    request.signal,
  );
  const opened =
    matches && credentials !== undefined
      ? await openSessionFor(deps, { credentials, networkKey, network, wanted })
      : undefined;
  return opened ?? { failedUserId: credentials?.userId };
}

/** What the caller asks the session for, after validation. */
interface WantedSession {
  readonly audiences: readonly string[];
  readonly scopes: readonly string[];
  readonly deviceName: string;
  readonly certificateThumbprint: string | undefined;
}

function parseWanted({ loginBinding }: LoginDeps, request: LoginRequest): WantedSession {
  return {
    audiences: parseWords('audiences', request.audiences),
    scopes: parseWords('scopes', request.scopes),
    deviceName: parseDeviceName(request.deviceName),
    certificateThumbprint: bindingThumbprint(loginBinding, request.certificateThumbprint),
  };
}

function parseDeviceName(text: string): string {
  if ([...text].length > DEVICE_NAME_CHARACTERS_MAX || /\p{Cc}/u.test(text)) {
    throw invalidField(
      'device_name',
      `must have at most ${DEVICE_NAME_CHARACTERS_MAX} characters, and no control characters`,
    );
  }
  return text.toWellFormed();
}

/** Decided before the password is verified, so that CERTIFICATE_REQUIRED reveals nothing about the user. */
function bindingThumbprint(binding: LoginBinding, thumbprint: string | undefined): string | undefined {
  if (binding === 'required' && thumbprint === undefined) {
    throw new AuthError('CERTIFICATE_REQUIRED', 'logging in takes a certificate, and none was shown');
  }
  return binding === 'off' ? undefined : thumbprint;
}

interface VerifiedLogin {
  readonly credentials: UserCredentials;
  /** Key under which the user's network is remembered. */
  readonly networkKey: Buffer | undefined;
  readonly network: string;
  readonly wanted: WantedSession;
}

/** Opens the session unless the user or the client may not log in (any more); undefined in that case. */
async function openSessionFor(
  deps: LoginDeps,
  { credentials, networkKey, network, wanted }: VerifiedLogin,
): Promise<LoginResult | undefined> {
  return await deps.store.transaction(
    async (tx) => {
      const user = await tx.users.lockShared(credentials.userId);
      // The password was verified before the lock, so a revocation or a password change since then counts.
      const changed =
        user?.generation !== credentials.generation || user.passwordVersion !== credentials.passwordVersion;
      if (changed || user.disabled) return undefined;
      const [client, policy, now] = await Promise.all([
        tx.clients.lockShared(DIRECT_CLIENT),
        tx.policy.current(),
        tx.databaseTime(),
        networkKey && tx.loginNetworks.remember({ key: networkKey, userId: user.userId }),
      ]);
      if (client === undefined || client.disabled) return undefined;
      return await openSession(deps, tx, { user, client, policy, now, network, wanted });
    },
    { caller: credentials.userId },
  );
}

async function openSession(
  deps: LoginDeps,
  tx: AuthTransaction,
  login: {
    user: UserState;
    client: Client;
    policy: Policy;
    now: Date;
    network: string;
    wanted: WantedSession;
  },
): Promise<LoginResult> {
  const { user, now, network } = login;
  const session = newSession(login);
  const refreshToken = formatRefreshToken(newRefreshSecret());
  const [, refreshTokenExpireTime, access] = await Promise.all([
    tx.sessions.insert(session),
    storeRefreshToken(tx, session, refreshToken, now),
    mintSessionToken(deps.tokens, tx, session, user),
    recordLogin(tx, session, network),
  ]);
  return { session, access, refreshToken, refreshTokenExpireTime };
}

function newSession({
  user,
  client,
  policy,
  now,
  network,
  wanted,
}: {
  user: UserState;
  client: Client;
  policy: Policy;
  now: Date;
  network: string;
  wanted: WantedSession;
}): Session {
  return {
    sessionId: randomUUID(),
    userId: user.userId,
    clientId: DIRECT_CLIENT,
    generation: user.generation,
    clientGeneration: client.generation,
    deviceName: wanted.deviceName,
    ...grantOf(policy, user.roles, wanted),
    amr: ['pwd'],
    certificateThumbprint: wanted.certificateThumbprint,
    network,
    createTime: now,
    lastUseTime: now,
    expireTime: new Date(now.getTime() + SESSION_SECONDS_MAX * 1000),
    open: true,
  };
}

/** The requested audiences and scopes that the roles grant; all that the roles grant when none are requested. */
function grantOf(
  policy: Policy,
  roles: readonly string[],
  wanted: { readonly audiences: readonly string[]; readonly scopes: readonly string[] },
): { audiences: readonly string[]; scopes: readonly string[] } {
  const granted = scopesOfRoles(policy, roles);
  const reachable = audiencesOfScopes(policy, granted);
  const scopes =
    wanted.scopes.length === 0 ? granted : granted.filter((scope) => wanted.scopes.includes(scope));
  const audiences =
    wanted.audiences.length === 0
      ? reachable
      : reachable.filter((audience) => wanted.audiences.includes(audience));
  // Every service would reject a token without an audience, and the caller could not see why.
  if (audiences.length === 0) throw invalidField('audiences', 'must name a service that the user may reach');
  if (scopes.length === 0) {
    throw invalidField('scopes', 'must name a scope that the roles of the user grant');
  }
  requireFitting('audiences', audiences);
  requireFitting('scopes', scopes);
  return { audiences, scopes };
}

/** Services reject tokens that are too long, so a user whose roles grant more has to choose. Throws FIELD_INVALID. */
function requireFitting(field: string, words: readonly string[]): void {
  if (words.length <= CLAIM_LIST_LENGTH_MAX && words.join(' ').length <= GRANT_CHARACTERS_MAX) return;
  throw invalidField(field, 'must name a part: the roles of the user grant more than fits into a token');
}

async function recordLogin(
  tx: AuthTransaction,
  { userId, sessionId, clientId }: Session,
  network: string,
): Promise<void> {
  await tx.events.record({
    type: 'session-established',
    subject: { userId, sessionId, clientId },
    actor: userId,
    reason: 'login',
    network,
    details: { clientId },
  });
}

function loginFailed(): ServiceError {
  return new AuthError('LOGIN_FAILED', 'username or password is wrong');
}
