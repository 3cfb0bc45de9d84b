/** Sessions: one login of one user, and the chain of its refresh tokens. */

import { createHash, createHmac, randomBytes, randomUUID } from 'node:crypto';
import type { Clock } from '@portcullis/guard/clock';
import { invalidField, type ServiceError } from '@portcullis/guard/errors';
import { parseUuid } from '../../common/validation/identifiers.js';
import { canonicalRequestId, parseRequestId } from '../../common/validation/request-id.js';
import { parseWords } from '../../common/validation/words.js';
import type { Passwords } from '../accounts/passwords.js';
import { audiencesOfScopes, type Role, scopesOfRoles } from '../accounts/roles.js';
import { parseUsername } from '../accounts/usernames.js';
import type { PageRequest, UserState } from '../accounts/users.js';
import { type Client, DIRECT_CLIENT } from '../clients/clients.js';
import { AuthError } from '../errors.js';
import { sessionRevocation } from '../revocation/log.js';
import type { Receipt } from '../revocation/revocations.js';
import { receiptOf } from '../revocation/revoking-change.js';
import { networkOf, type Throttle } from '../security/throttle.js';
import type { MintedToken, Tokens } from '../tokens/tokens.js';
import type { AuthStore, AuthTransaction } from '../transaction.js';
import type { LoginFailures } from './login-failures.js';

/** How long a session lasts, however often it is refreshed, in seconds (30 days). */
export const SESSION_SECONDS_MAX = 30 * 24 * 3600;

/** How long a refresh token waits to be used, in seconds (7 days). */
export const REFRESH_IDLE_SECONDS_MAX = 7 * 24 * 3600;

/** How long a session that has ended stays in the database, in days. */
export const SESSION_KEPT_DAYS = 30;

/** Random bytes of a refresh token. */
export const REFRESH_TOKEN_BYTES = 32;

/** Longest name of a device, in characters. */
export const DEVICE_NAME_CHARACTERS_MAX = 100;

/** Who revokes when auth acts by itself. */
export const OWN_ACTOR = 'auth';

// Makes a leaked token recognisable to those who scan for secrets.
const REFRESH_TOKEN_PREFIX = 'pcr_';

/**
 * Whether sessions are bound to the certificate of the connection that the user logs in over: never, when there is one,
 * or always, so that nobody logs in without.
 */
export const LOGIN_BINDINGS = ['off', 'optional', 'required'] as const;

/** One of {@link LOGIN_BINDINGS}. */
export type LoginBinding = (typeof LOGIN_BINDINGS)[number];

/** Why a session ended. */
export type SessionEnd =
  | 'LOGOUT'
  | 'REVOKED'
  | 'REFRESH_REUSED'
  | 'USER_REVOKED'
  | 'EPOCH_ENDED'
  | 'PASSWORD_CHANGED'
  | 'USER_DISABLED'
  | 'ROLES_CHANGED';

/** A session as the database has it. */
export interface Session {
  readonly sessionId: string;
  readonly userId: string;
  readonly clientId: string;
  /** The user's generation at the login; at an older one the session gets no token any more. */
  readonly generation: bigint;
  /** The client's generation at the login. */
  readonly clientGeneration: bigint;
  readonly deviceName: string;
  readonly audiences: readonly string[];
  readonly scopes: readonly string[];
  readonly amr: readonly string[];
  /** The certificate that the session's tokens are bound to; undefined when they are not. */
  readonly certificateThumbprint: string | undefined;
  /** When the user logged in. */
  readonly createTime: Date;
  readonly lastUseTime: Date;
  readonly expireTime: Date;
  /** Neither ended nor expired, by database time. */
  readonly open: boolean;
}

/** A refresh token as the database has it: never the token itself. */
export interface RefreshTokenRow {
  readonly sessionId: string;
  readonly userId: string;
  readonly expireTime: Date;
  readonly used: boolean;
  /** Whose request used it; undefined when unused, or when the request had no id. */
  readonly requestId: string | undefined;
  readonly successorHash: Buffer | undefined;
}

/** The sessions' rows, inside a transaction. */
export interface SessionRows {
  insert(session: Omit<Session, 'open'>): Promise<void>;
  /** The session; its row stays share-locked until the end of the transaction. */
  lockShared(sessionId: string): Promise<Session | undefined>;
  /** The session; nobody else may lock its row until the end of the transaction. */
  lock(sessionId: string): Promise<Session | undefined>;
  /** Notes a refresh. */
  touch(sessionId: string, time: Date): Promise<void>;
  /** Closes the session's row; false when there is no such session or it was closed before. */
  end(sessionId: string, why: SessionEnd): Promise<boolean>;
  /** Closes every open session of the user and answers how many. */
  endAllOf(userId: string, why: SessionEnd): Promise<number>;
  /**
   * Lifts the user's open sessions from one generation to the next, so that they get tokens again, and narrows what
   * they may ask for. Closes those that have nobody left to ask, and those of an older generation.
   */
  restamp(
    userId: string,
    change: { from: bigint; to: bigint; scopes: readonly string[]; audiences: readonly string[] },
  ): Promise<void>;
  /** Closes every open session of all users and answers how many. */
  endEvery(why: SessionEnd): Promise<number>;
  /** A page of the user's open sessions, newest first. */
  listOpen(userId: string, page: PageRequest): Promise<{ sessions: Session[]; nextPageToken: string }>;
  insertRefreshToken(token: { hash: Buffer; sessionId: string; expireTime: Date }): Promise<void>;
  /** What is known of a refresh token; takes no lock, so ask again under the session's. */
  findRefreshToken(hash: Buffer): Promise<RefreshTokenRow | undefined>;
  markUsed(token: {
    hash: Buffer;
    time: Date;
    requestId: string | undefined;
    successorHash: Buffer;
  }): Promise<void>;
  /** Drops sessions that ended long ago, at most so many; answers how many. */
  dropOld(limit: number): Promise<number>;
}

/** What a client needs to keep calling. */
export interface TokenPair {
  readonly access: MintedToken;
  readonly refreshToken: string;
  readonly refreshTokenExpireTime: Date;
}

/** Who asks about sessions: a user, with the session of the calling token. */
export interface SessionCaller {
  readonly userId: string;
  readonly sessionId: string | undefined;
}

/** What somebody sends to log in. */
export interface LoginAttempt {
  readonly username: string;
  readonly password: string;
  readonly audiences: readonly string[];
  readonly scopes: readonly string[];
  readonly deviceName: string;
  /** The address the attempt came from. */
  readonly peer: string;
  /** The certificate that the peer has shown, if any. */
  readonly certificateThumbprint?: string | undefined;
}

/** What somebody sends to stay logged in. */
export interface RefreshAttempt {
  readonly refreshToken: string;
  readonly requestId: string;
  /** The address the attempt came from, where it is known. */
  readonly peer?: string;
  /** The certificate that the peer has shown, if any. */
  readonly certificateThumbprint?: string | undefined;
}

/** What can come of a refresh. */
export const REFRESH_OUTCOMES = ['refreshed', 'reused', 'refused'] as const;

/** One of {@link REFRESH_OUTCOMES}. */
export type RefreshOutcome = (typeof REFRESH_OUTCOMES)[number];

/** Logging in, staying logged in, logging out. */
export interface Sessions {
  /**
   * Opens a session.
   *
   * @throws ServiceError LOGIN_FAILED whatever is wrong with the credentials; CERTIFICATE_REQUIRED; RATE_LIMITED;
   *   FIELD_INVALID
   */
  login(attempt: LoginAttempt): Promise<TokenPair & { readonly session: Session }>;
  /**
   * Uses up a refresh token. The same request gets the same successor again until that was used;
   * any other use of a used token ends the session.
   *
   * @throws ServiceError REFRESH_INVALID whatever is wrong; FIELD_INVALID
   */
  refresh(request: RefreshAttempt): Promise<TokenPair>;
  /** Ends the caller's session. Nothing happens when it has ended already. */
  logout(caller: SessionCaller): Promise<void>;
  /** The caller's open sessions, newest first. Throws FIELD_INVALID. */
  list(caller: SessionCaller, page: PageRequest): Promise<{ sessions: Session[]; nextPageToken: string }>;
  /** The open sessions of anybody, newest first. Throws NOT_FOUND, FIELD_INVALID. */
  listOf(userId: string, page: PageRequest): Promise<{ sessions: Session[]; nextPageToken: string }>;
  /** Ends one of the caller's sessions. Throws NOT_FOUND when the caller has no such open session. */
  revoke(caller: SessionCaller, sessionId: string): Promise<Receipt>;
}

/** What {@link createSessions} needs. */
export interface SessionsDeps {
  readonly store: AuthStore;
  readonly passwords: Passwords;
  readonly throttle: Throttle;
  readonly tokens: Tokens;
  readonly clock: Clock;
  readonly loginBinding: LoginBinding;
  readonly failures: LoginFailures;
  /** Told what came of every refresh; nobody when absent. */
  readonly onRefresh?: (outcome: RefreshOutcome) => void;
  /** Secret of this issuer from which the successors of refresh tokens are derived. */
  readonly refreshKey: Buffer;
}

/** The sessions of this database. */
export function createSessions(deps: SessionsDeps): Sessions {
  return {
    login: (attempt) => login(deps, attempt),
    refresh: (request) => refresh(deps, request),
    logout: async ({ userId, sessionId }) => {
      if (sessionId === undefined) return;
      await deps.store.transaction(async (tx) => {
        if (!(await tx.sessions.end(sessionId, 'LOGOUT'))) return;
        await appendEnd(tx, { sessionId, userId }, { reason: 'logout', actor: userId });
      });
    },
    list: ({ userId }, page) => deps.store.transaction((tx) => tx.sessions.listOpen(userId, page)),
    listOf: (text, page) =>
      deps.store.transaction(async (tx) => {
        const userId = parseUuid(text);
        const user = userId === undefined ? undefined : await tx.users.find(userId);
        if (user === undefined) throw new AuthError('NOT_FOUND', 'there is no such user');
        return await tx.sessions.listOpen(user.userId, page);
      }),
    revoke: (caller, sessionId) => revokeOwn(deps, caller, sessionId),
  };
}

// --- Login

async function login(
  deps: SessionsDeps,
  attempt: LoginAttempt,
): Promise<TokenPair & { readonly session: Session }> {
  const wanted = {
    audiences: parseWords('audiences', attempt.audiences),
    scopes: parseWords('scopes', attempt.scopes),
    deviceName: parseDeviceName(attempt.deviceName),
    certificateThumbprint: loginBindingOf(deps.loginBinding, attempt.certificateThumbprint),
  };
  const username = parseUsername(attempt.username);
  const failed = { what: 'login', name: attempt.username, peer: attempt.peer } as const;
  const counted = await deps.throttle.attempt(username, attempt.peer).catch((error: unknown) => {
    deps.failures.limited(failed);
    throw error;
  });
  const credentials =
    username === undefined ? undefined : await deps.store.reads.users.credentialsOf(username);
  const good = await deps.passwords.verify(credentials?.passwordHash, attempt.password);
  const fail = (): ServiceError => {
    deps.failures.failed({ ...failed, userId: credentials?.userId });
    return loginFailed();
  };
  if (!good || credentials === undefined) throw fail();
  const opened = await deps.store.transaction(async (tx) => {
    const user = await tx.users.lockShared(credentials.userId);
    // The password was compared before the lock: what was revoked or changed since then counts.
    const changed =
      user?.generation !== credentials.generation || user.passwordVersion !== credentials.passwordVersion;
    if (changed || user.disabled) return undefined;
    const { networkKey } = counted;
    const [client, now] = await Promise.all([
      tx.clients.lockShared(DIRECT_CLIENT),
      tx.databaseTime(),
      networkKey && tx.loginNetworks.remember({ key: networkKey, userId: user.userId }),
    ]);
    if (client === undefined || client.disabled) return undefined;
    return await openSession(deps, tx, { user, client, now, network: networkOf(attempt.peer), wanted });
  });
  if (opened === undefined) throw fail();
  await counted.succeeded();
  return opened;
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

/** What somebody asks for who logs in. */
interface Wanted {
  readonly audiences: readonly string[];
  readonly scopes: readonly string[];
  readonly deviceName: string;
  readonly certificateThumbprint: string | undefined;
}

async function openSession(
  deps: SessionsDeps,
  tx: AuthTransaction,
  login: { user: UserState; client: Client; now: Date; network: string; wanted: Wanted },
): Promise<TokenPair & { readonly session: Session }> {
  const { user, client, now, network, wanted } = login;
  const session: Session = {
    sessionId: randomUUID(),
    userId: user.userId,
    clientId: DIRECT_CLIENT,
    generation: user.generation,
    clientGeneration: client.generation,
    deviceName: wanted.deviceName,
    ...grantOf(user.roles, wanted),
    amr: ['pwd'],
    certificateThumbprint: wanted.certificateThumbprint,
    createTime: now,
    lastUseTime: now,
    expireTime: secondsAfter(now, SESSION_SECONDS_MAX),
    open: true,
  };
  const refreshToken = refreshTokenOf(randomBytes(REFRESH_TOKEN_BYTES));
  const [, refreshTokenExpireTime, access] = await Promise.all([
    tx.sessions.insert(session),
    storeRefreshToken(tx, session, refreshToken, now),
    mintFor(deps, tx, session, user),
    recordLogin(tx, session, network),
  ]);
  return { session, access, refreshToken, refreshTokenExpireTime };
}

/** What is asked for, within what the roles give; everything when nothing is asked for. */
function grantOf(
  roles: readonly Role[],
  wanted: { audiences: readonly string[]; scopes: readonly string[] },
): { audiences: readonly string[]; scopes: readonly string[] } {
  const given = scopesOfRoles(roles);
  const reachable = audiencesOfScopes(given);
  const scopes = wanted.scopes.length === 0 ? given : given.filter((scope) => wanted.scopes.includes(scope));
  const audiences =
    wanted.audiences.length === 0
      ? reachable
      : reachable.filter((audience) => wanted.audiences.includes(audience));
  // A token for nobody would be refused everywhere, and nobody would know why.
  if (audiences.length === 0) throw invalidField('audiences', 'must name a service that the user may reach');
  return { audiences, scopes };
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

/** What a session is bound to. Told before the password is looked at, and whoever it is. */
function loginBindingOf(binding: LoginBinding, shown: string | undefined): string | undefined {
  if (binding === 'required' && shown === undefined) {
    throw new AuthError('CERTIFICATE_REQUIRED', 'logging in takes a certificate, and none was shown');
  }
  return binding === 'off' ? undefined : shown;
}

function loginFailed(): ServiceError {
  return new AuthError('LOGIN_FAILED', 'username or password is wrong');
}

// --- Refresh

async function refresh(deps: SessionsDeps, request: RefreshAttempt): Promise<TokenPair> {
  const requestId = parseRequestId(request.requestId);
  const network = networkOf(request.peer ?? '');
  const secret = secretOf(request.refreshToken);
  const { certificateThumbprint } = request;
  const given = secret && { secret, requestId, network, certificateThumbprint };
  const pair = given && (await deps.store.transaction((tx) => rotate(deps, tx, given)));
  deps.onRefresh?.(pair === undefined ? 'refused' : pair === 'REUSED' ? 'reused' : 'refreshed');
  if (pair === undefined || pair === 'REUSED')
    throw new AuthError('REFRESH_INVALID', 'the refresh token cannot be used');
  return pair;
}

/**
 * One rotation. All that refresh one session queue for the session's row, so a token has one winner.
 *
 * @returns undefined when the token cannot be used; what was done about it is to be committed
 */
async function rotate(
  deps: SessionsDeps,
  tx: AuthTransaction,
  {
    secret,
    requestId,
    network,
    certificateThumbprint,
  }: { secret: Buffer; requestId: string; network: string; certificateThumbprint: string | undefined },
): Promise<TokenPair | 'REUSED' | undefined> {
  const refreshToken = refreshTokenOf(secret);
  const hash = hashOf(refreshToken);
  const found = await tx.sessions.findRefreshToken(hash);
  if (found === undefined) return undefined;
  // Asked at once, and run in this order: what is known of the token is asked again under the session's lock.
  const [user, session, token] = await Promise.all([
    tx.users.lockShared(found.userId),
    tx.sessions.lock(found.sessionId),
    tx.sessions.findRefreshToken(hash),
  ]);
  if (user === undefined || user.disabled || !session?.open) return undefined;
  // Nor is a token used up by somebody who cannot use it: a thief could end the session that way.
  const bound = session.certificateThumbprint;
  if (bound !== undefined && bound !== certificateThumbprint) return undefined;
  const [client, now] = await Promise.all([tx.clients.lockShared(session.clientId), tx.databaseTime()]);
  // A session that began before its user or client was revoked gets no token of today's generation.
  if (session.generation !== user.generation || session.clientGeneration !== client?.generation) {
    return undefined;
  }
  if (token === undefined) return undefined;
  if (!token.used) {
    if (token.expireTime <= now) return undefined;
    const [successor, access] = await Promise.all([
      useUp(deps, tx, session, { secret, requestId, now }),
      mintFor(deps, tx, session, user),
      recordRefresh(tx, session, { type: 'token-refreshed', network }),
    ]);
    return { access, ...successor };
  }
  const successor = await successorAgain(deps, tx, token, { secret, requestId, now });
  if (successor === undefined) return undefined;
  if (successor === 'REUSED') {
    await tx.sessions.end(session.sessionId, 'REFRESH_REUSED');
    await recordRefresh(tx, session, { type: 'refresh-token-reused', network });
    await appendEnd(tx, session, { reason: 'refresh token reused', actor: OWN_ACTOR, network });
    return successor;
  }
  const [access] = await Promise.all([
    mintFor(deps, tx, session, user),
    recordRefresh(tx, session, { type: 'token-refreshed', network }),
  ]);
  return { access, ...successor };
}

async function recordRefresh(
  tx: AuthTransaction,
  { userId, sessionId, clientId }: Session,
  { type, network }: { type: 'token-refreshed' | 'refresh-token-reused'; network: string },
): Promise<void> {
  const subject = { userId, sessionId, clientId };
  await tx.events.record({ type, subject, actor: userId, reason: 'refresh', network, details: {} });
}

type Successor = Pick<TokenPair, 'refreshToken' | 'refreshTokenExpireTime'>;

async function useUp(
  deps: SessionsDeps,
  tx: AuthTransaction,
  session: Session,
  { secret, requestId, now }: { secret: Buffer; requestId: string; now: Date },
): Promise<Successor> {
  const next =
    requestId === '' ? randomBytes(REFRESH_TOKEN_BYTES) : successorOf(deps.refreshKey, secret, requestId);
  const refreshToken = refreshTokenOf(next);
  const [, , refreshTokenExpireTime] = await Promise.all([
    tx.sessions.markUsed({
      hash: hashOf(refreshTokenOf(secret)),
      time: now,
      requestId: requestId === '' ? undefined : requestId,
      successorHash: hashOf(refreshToken),
    }),
    tx.sessions.touch(session.sessionId, now),
    storeRefreshToken(tx, session, refreshToken, now),
  ]);
  return { refreshToken, refreshTokenExpireTime };
}

/** The successor once more, for a caller who did not get the first answer; else somebody else has the token. */
async function successorAgain(
  deps: SessionsDeps,
  tx: AuthTransaction,
  token: RefreshTokenRow,
  { secret, requestId, now }: { secret: Buffer; requestId: string; now: Date },
): Promise<Successor | 'REUSED' | undefined> {
  if (requestId === '' || token.requestId === undefined) return 'REUSED';
  if (canonicalRequestId(token.requestId) !== requestId) return 'REUSED';
  // As it was stored: before November 2026 that could be a UUID in upper case.
  const refreshToken = refreshTokenOf(successorOf(deps.refreshKey, secret, token.requestId));
  const hash = hashOf(refreshToken);
  // Another key-encryption key derives another successor, which was never given to anybody.
  if (!token.successorHash?.equals(hash)) return undefined;
  const successor = await tx.sessions.findRefreshToken(hash);
  if (successor === undefined || successor.used) return 'REUSED';
  if (successor.expireTime <= now) return undefined;
  return { refreshToken, refreshTokenExpireTime: successor.expireTime };
}

/**
 * The successor follows from the token, the request and a secret of ours, so that a retry gets it
 * again although only its hash is stored, and nobody who holds an old token can compute it.
 */
function successorOf(refreshKey: Buffer, secret: Buffer, requestId: string): Buffer {
  return createHmac('sha256', refreshKey).update(secret).update(requestId, 'utf8').digest();
}

async function storeRefreshToken(
  tx: AuthTransaction,
  session: Session,
  refreshToken: string,
  now: Date,
): Promise<Date> {
  const idleTime = secondsAfter(now, REFRESH_IDLE_SECONDS_MAX);
  const expireTime = new Date(Math.min(idleTime.getTime(), session.expireTime.getTime()));
  await tx.sessions.insertRefreshToken({
    hash: hashOf(refreshToken),
    sessionId: session.sessionId,
    expireTime,
  });
  return expireTime;
}

function refreshTokenOf(secret: Buffer): string {
  return REFRESH_TOKEN_PREFIX + secret.toString('base64url');
}

/** The random bytes of a refresh token in its one spelling. */
function secretOf(text: string): Buffer | undefined {
  if (text.length > 2 * REFRESH_TOKEN_BYTES || !text.startsWith(REFRESH_TOKEN_PREFIX)) return undefined;
  const secret = Buffer.from(text.slice(REFRESH_TOKEN_PREFIX.length), 'base64url');
  return secret.length === REFRESH_TOKEN_BYTES && refreshTokenOf(secret) === text ? secret : undefined;
}

function hashOf(refreshToken: string): Buffer {
  return createHash('sha256').update(refreshToken, 'utf8').digest();
}

// --- Both

/** Roles may have been taken since the login, never added: what the session may ask for only shrinks. */
function mintFor(
  deps: SessionsDeps,
  tx: AuthTransaction,
  session: Session,
  user: UserState,
): Promise<MintedToken> {
  const given = scopesOfRoles(user.roles);
  const reachable = audiencesOfScopes(given);
  return deps.tokens.mint(tx, {
    subject: user.userId,
    clientId: session.clientId,
    audiences: session.audiences.filter((audience) => reachable.includes(audience)),
    scopes: session.scopes.filter((scope) => given.includes(scope)),
    roles: user.roles,
    clients: [[session.clientId, session.clientGeneration]],
    session: { ...session, authTime: session.createTime },
    notAfter: session.expireTime,
    certificateThumbprint: session.certificateThumbprint,
  });
}

async function revokeOwn(deps: SessionsDeps, caller: SessionCaller, text: string): Promise<Receipt> {
  const sessionId = parseUuid(text);
  if (sessionId === undefined) throw invalidField('session_id', 'must be a UUID');
  let startedMs = 0;
  const appended = await deps.store.transaction(async (tx) => {
    const session = await tx.sessions.lock(sessionId);
    // Somebody else's session and none at all are the same answer, so that ids cannot be probed.
    if (!session?.open || session.userId !== caller.userId) {
      throw new AuthError('NOT_FOUND', 'there is no such session');
    }
    await tx.sessions.end(sessionId, 'REVOKED');
    startedMs = deps.clock.monotonicMs();
    return await appendEnd(tx, session, { reason: 'revoked by its owner', actor: caller.userId });
  });
  return receiptOf(appended, deps.clock.monotonicMs() - startedMs);
}

/** Writes the end of a session to the log and to the record. */
async function appendEnd(
  tx: AuthTransaction,
  { sessionId, userId }: Pick<Session, 'sessionId' | 'userId'>,
  { network = '', ...by }: { reason: string; actor: string; network?: string },
): ReturnType<AuthTransaction['revocations']['append']> {
  const initiator = by.actor === userId ? 'user' : 'system';
  const subject = { userId, sessionId };
  // The log comes after all else, because it is locked last.
  const [, appended] = await Promise.all([
    tx.events.record({ ...by, type: 'session-revoked', subject, network, details: { initiator } }),
    tx.revocations.append([{ ...sessionRevocation(sessionId), ...by }]),
  ]);
  return appended;
}

function secondsAfter(time: Date, seconds: number): Date {
  return new Date(time.getTime() + seconds * 1000);
}
