/** Refresh: rotates a session's refresh token and detects its reuse. */

import { networkOfPeer } from '@portcullis/guard/networks';
import { canonicalRequestId, parseSecretRequestId } from '../../common/validation/request-id.js';
import { AuthError } from '../errors.js';
import type { RefreshTokenRow, Session } from '../records/sessions.js';
import type { UserState } from '../records/users.js';
import type { Tokens } from '../tokens/tokens.js';
import type { AuthStore, AuthTransaction } from '../transaction.js';
import { appendSessionEnd } from './end-session.js';
import { type RefreshPlaces, TOO_MANY_REFRESHES } from './refresh-places.js';
import {
  deriveSuccessor,
  formatRefreshToken,
  hashRefreshToken,
  newRefreshSecret,
  parseRefreshToken,
  storeRefreshToken,
} from './refresh-tokens.js';
import { mintSessionToken, type TokenPair } from './session-tokens.js';

/** Actor of the revocations that auth itself decides. */
const OWN_ACTOR = 'auth';

/** A refresh as the caller requests it. */
export interface RefreshRequest {
  readonly refreshToken: string;
  readonly requestId: string;
  /** The peer's address, where it is known. */
  readonly peer?: string;
  /** The thumbprint of the peer's client certificate, if it has one. */
  readonly certificateThumbprint?: string | undefined;
}

/** The outcomes of a refresh. */
export const REFRESH_OUTCOMES = ['refreshed', 'reused', 'refused', 'limited'] as const;

/** One of {@link REFRESH_OUTCOMES}. */
export type RefreshOutcome = (typeof REFRESH_OUTCOMES)[number];

export interface RefreshDeps {
  readonly store: AuthStore;
  readonly tokens: Tokens;
  readonly places: RefreshPlaces;
  /** Called with the outcome of every refresh. */
  readonly onRefresh?: (outcome: RefreshOutcome) => void;
  /** Secret of this issuer from which the successors of refresh tokens are derived. */
  readonly refreshKey: Buffer;
  /** How long after its first use a refresh token may be retried, in seconds. */
  readonly refreshRetrySeconds: number;
}

/**
 * Uses up a refresh token and returns its successor. A retry with the same request id gets the same successor until that
 * is used, for `refreshRetrySeconds` at most; any other use of a used token ends the session.
 *
 * @throws ServiceError REFRESH_INVALID whatever is wrong with the token; FIELD_INVALID; RATE_LIMITED
 */
export async function refresh(deps: RefreshDeps, request: RefreshRequest): Promise<TokenPair> {
  parseSecretRequestId(request.requestId);
  const secret = parseRefreshToken(request.refreshToken);
  const result = secret && (await rotateInPlace(deps, request, secret));
  deps.onRefresh?.(outcomeOf(result));
  if (result === undefined || result === 'REUSED') {
    throw new AuthError('REFRESH_INVALID', 'the refresh token cannot be used');
  }
  return result;
}

/** Refuses the refresh before it costs anything, when too many with its token are in progress. */
async function rotateInPlace(
  deps: RefreshDeps,
  { refreshToken, requestId, certificateThumbprint, peer = '' }: RefreshRequest,
  secret: Buffer,
): Promise<TokenPair | 'REUSED' | undefined> {
  const leave = deps.places.enter(refreshToken);
  if (leave === undefined) {
    deps.onRefresh?.('limited');
    throw TOO_MANY_REFRESHES;
  }
  try {
    const network = networkOfPeer(peer);
    return await rotateSession(deps, { secret, requestId, network, certificateThumbprint });
  } finally {
    leave();
  }
}

function outcomeOf(result: TokenPair | 'REUSED' | undefined): RefreshOutcome {
  if (result === undefined) return 'refused';
  return result === 'REUSED' ? 'reused' : 'refreshed';
}

/** A refresh token in canonical form, as one request presents it. */
interface PresentedToken {
  readonly secret: Buffer;
  /**
   * As the caller sent it, and stored so: an instance of the version before November 2026 compares it letter by letter, and
   * would end the session of a retry. Empty when the caller sent none.
   */
  readonly requestId: string;
  readonly network: string;
  readonly certificateThumbprint: string | undefined;
}

/**
 * Finds the session of the token, and rotates it. Only few refreshes of one session, and of one user, hold a connection:
 * the others wait for the session's row anyway, and would keep all other callers from the database meanwhile.
 */
async function rotateSession(
  deps: RefreshDeps,
  presented: PresentedToken,
): Promise<TokenPair | 'REUSED' | undefined> {
  const { secret, network } = presented;
  const caller = `refresh ${network}`;
  const found = await deps.store.reads.sessions.findRefreshToken(hashOf(secret), caller);
  if (found === undefined) return undefined;
  return await deps.store.transaction((tx) => rotate(deps, tx, presented, found), {
    importance: 'unknown',
    caller,
    contends: [`session ${found.sessionId}`, `user ${found.userId}`],
  });
}

/** The hash under which a refresh token is stored. */
function hashOf(secret: Buffer): Buffer {
  return hashRefreshToken(formatRefreshToken(secret));
}

/**
 * One rotation. All refreshes of one session wait for the lock on its row, so exactly one of them uses up a token.
 *
 * @returns undefined when the token cannot be used, REUSED when the session was ended for it; both commit
 */
async function rotate(
  deps: RefreshDeps,
  tx: AuthTransaction,
  presented: PresentedToken,
  found: RefreshTokenRow,
): Promise<TokenPair | 'REUSED' | undefined> {
  const locked = await lockForRefresh(tx, presented, found);
  if (locked === undefined) return undefined;
  const { user, session, token, now } = locked;
  if (token.useTime === undefined) {
    if (token.expireTime <= now) return undefined;
    const [successor, access] = await Promise.all([
      replaceToken(deps, tx, session, { ...presented, now }),
      mintSessionToken(deps.tokens, tx, session, user),
      recordRefresh(tx, session, { type: 'token-refreshed', network: presented.network }),
    ]);
    return { access, ...successor };
  }
  const used = { ...token, useTime: token.useTime };
  const successor = await successorForRetry(deps, tx, used, { ...presented, now });
  if (successor === undefined) return undefined;
  if (successor === 'REUSED') {
    await endReusedSession(tx, session, presented.network);
    return successor;
  }
  const [access] = await Promise.all([
    mintSessionToken(deps.tokens, tx, session, user),
    recordRefresh(tx, session, { type: 'token-refreshed', network: presented.network }),
  ]);
  return { access, ...successor };
}

interface LockedForRefresh {
  readonly user: UserState;
  readonly session: Session;
  readonly token: RefreshTokenRow;
  readonly now: Date;
}

/** Locks user, session and client; undefined when one of them forbids the refresh or the token is gone. */
async function lockForRefresh(
  tx: AuthTransaction,
  { secret, certificateThumbprint }: PresentedToken,
  { userId, sessionId }: RefreshTokenRow,
): Promise<LockedForRefresh | undefined> {
  // Sent together and executed in this order, so the token is read again under the session's lock.
  const [user, session, token] = await Promise.all([
    tx.users.lockShared(userId),
    tx.sessions.lock(sessionId),
    tx.sessions.findRefreshToken(hashOf(secret)),
  ]);
  if (user === undefined || user.disabled || !session?.open) return undefined;
  // A peer without the session's certificate does not use up the token: otherwise a thief could end the session.
  const bound = session.certificateThumbprint;
  if (bound !== undefined && bound !== certificateThumbprint) return undefined;
  // The policy is only locked here, in its turn; minting reads it.
  const [client, , now] = await Promise.all([
    tx.clients.lockShared(session.clientId),
    tx.policy.current(),
    tx.databaseTime(),
  ]);
  // A session that began before its user or client was revoked gets no token of the present generation.
  if (session.generation !== user.generation || session.clientGeneration !== client?.generation) {
    return undefined;
  }
  return token && { user, session, token, now };
}

type Successor = Pick<TokenPair, 'refreshToken' | 'refreshTokenExpireTime'>;

/** What identifies one request for a successor. */
interface SuccessorRequest {
  readonly secret: Buffer;
  readonly requestId: string;
  readonly now: Date;
}

/** Marks the token as used and stores its successor. */
async function replaceToken(
  { refreshKey }: RefreshDeps,
  tx: AuthTransaction,
  session: Session,
  { secret, requestId, now }: SuccessorRequest,
): Promise<Successor> {
  const next = requestId === '' ? newRefreshSecret() : deriveSuccessor(refreshKey, secret, requestId);
  const refreshToken = formatRefreshToken(next);
  const [, , refreshTokenExpireTime] = await Promise.all([
    tx.sessions.markUsed({
      hash: hashOf(secret),
      time: now,
      requestId: requestId === '' ? undefined : requestId,
      successorHash: hashRefreshToken(refreshToken),
    }),
    tx.sessions.setLastUse(session.sessionId, now),
    storeRefreshToken(tx, session, refreshToken, now),
  ]);
  return { refreshToken, refreshTokenExpireTime };
}

/** The same successor again, for a caller that did not receive the first response; REUSED for any other request. */
async function successorForRetry(
  { refreshKey, refreshRetrySeconds }: RefreshDeps,
  tx: AuthTransaction,
  { requestId: storedId, useTime, successorHash }: RefreshTokenRow & { readonly useTime: Date },
  { secret, requestId, now }: SuccessorRequest,
): Promise<Successor | 'REUSED' | undefined> {
  // A thief may have seen the request id later, in a log, so it is worth something for a short time only.
  const retryEndMs = useTime.getTime() + refreshRetrySeconds * 1000;
  const isSame = storedId !== undefined && canonicalRequestId(storedId) === canonicalRequestId(requestId);
  if (requestId === '' || !isSame || now.getTime() > retryEndMs) return 'REUSED';
  // Derived from the stored form: a retry may send a UUID in the other case.
  const refreshToken = formatRefreshToken(deriveSuccessor(refreshKey, secret, storedId));
  const hash = hashRefreshToken(refreshToken);
  // Under another key-encryption key, a different successor is derived, which no client has ever received.
  if (!successorHash?.equals(hash)) return undefined;
  const successor = await tx.sessions.findRefreshToken(hash);
  if (successor === undefined || successor.useTime !== undefined) return 'REUSED';
  if (successor.expireTime <= now) return undefined;
  return { refreshToken, refreshTokenExpireTime: successor.expireTime };
}

async function endReusedSession(tx: AuthTransaction, session: Session, network: string): Promise<void> {
  await tx.sessions.end(session.sessionId, 'REFRESH_REUSED');
  await recordRefresh(tx, session, { type: 'refresh-token-reused', network });
  await appendSessionEnd(tx, session, { reason: 'refresh token reused', actor: OWN_ACTOR, network });
}

async function recordRefresh(
  tx: AuthTransaction,
  { userId, sessionId, clientId }: Session,
  { type, network }: { type: 'token-refreshed' | 'refresh-token-reused'; network: string },
): Promise<void> {
  const subject = { userId, sessionId, clientId };
  await tx.events.record({ type, subject, actor: userId, reason: 'refresh', network, details: {} });
}
