/** The end of a session: by logout, by its owner from another session, or by a holder of its refresh token. */

import type { Clock } from '@portcullis/guard/clock';
import { invalidField, type ServiceError } from '@portcullis/guard/errors';
import { networkOfPeer } from '@portcullis/guard/networks';
import { parseUuid } from '../../common/validation/identifiers.js';
import { AuthError } from '../errors.js';
import type { Appended, Receipt } from '../records/revocations.js';
import type { RefreshTokenRow, Session } from '../records/sessions.js';
import { sessionRevocation } from '../revocation/log.js';
import { receiptOf } from '../revocation/revoking-change.js';
import type { AuthStore, AuthTransaction } from '../transaction.js';
import { hashRefreshToken, isRefreshToken, parseRefreshToken } from './refresh-tokens.js';

/** The user who calls, and the session of the calling token. */
export interface SessionCaller {
  readonly userId: string;
  readonly sessionId: string | undefined;
}

export interface EndSessionDeps {
  readonly store: AuthStore;
  readonly clock: Clock;
}

/** Ends the caller's session. Does nothing when it has already ended. */
export async function logout({ store }: EndSessionDeps, { userId, sessionId }: SessionCaller): Promise<void> {
  if (sessionId === undefined) return;
  await store.transaction(
    async (tx) => {
      if (!(await tx.sessions.end(sessionId, 'LOGOUT'))) return;
      await appendSessionEnd(tx, { sessionId, userId }, { reason: 'logout', actor: userId });
    },
    { contends: [`session ${sessionId}`, `user ${userId}`], caller: userId },
  );
}

/**
 * Ends one of the caller's open sessions.
 *
 * @throws ServiceError NOT_FOUND when the caller has no such open session; FIELD_INVALID
 */
export async function revokeOwnSession(
  { store, clock }: EndSessionDeps,
  { userId }: SessionCaller,
  text: string,
): Promise<Receipt> {
  const sessionId = parseUuid(text);
  if (sessionId === undefined) throw invalidField('session_id', 'must be a UUID');
  let startedMs = 0;
  const appended = await store.transaction(
    async (tx) => {
      const session = await tx.sessions.lock(sessionId);
      // Another user's session and an unknown one get the same answer, so that ids cannot be probed.
      if (!session?.open || session.userId !== userId) {
        throw new AuthError('NOT_FOUND', 'there is no such session');
      }
      await tx.sessions.end(sessionId, 'REVOKED');
      startedMs = clock.monotonicMs();
      return await appendSessionEnd(tx, session, { reason: 'revoked by its owner', actor: userId });
    },
    { contends: [`session ${sessionId}`, `user ${userId}`], caller: userId },
  );
  return receiptOf(appended, clock.monotonicMs() - startedMs);
}

/** How many sessions one transaction ends, so that it locks the log only for a moment. */
const ENDED_AT_ONCE_MAX = 100;

/** The end of the caller's other sessions; without a receipt when there was none. */
export interface EndedSessions {
  readonly endedSessions: number;
  readonly receipt: Receipt | undefined;
}

/**
 * Ends all open sessions of the caller but the one that calls. Of two sessions that end each other at the same time, one
 * succeeds.
 *
 * @throws ServiceError TOKEN_REVOKED when the calling session has ended; sessions may have ended before
 */
export async function revokeOtherSessions(
  { store, clock }: EndSessionDeps,
  { userId, sessionId }: SessionCaller,
): Promise<EndedSessions> {
  // Only access tokens without a session reach this: they belong to no user of this issuer.
  if (sessionId === undefined) throw sessionOver();
  let endedSessions = 0;
  let receipt: Receipt | undefined;
  for (;;) {
    let startedMs = 0;
    const batch = await store.transaction(
      async (tx) => {
        // The user's row serializes the calls from two sessions, which would otherwise wait for each other's session.
        const exists = await tx.users.lock(userId);
        const session = exists ? await tx.sessions.lock(sessionId) : undefined;
        if (!session?.open) throw sessionOver();
        const others = { than: sessionId, why: 'REVOKED', limit: ENDED_AT_ONCE_MAX } as const;
        const ended = await tx.sessions.endOthersOfUser(userId, others);
        if (ended.length === 0) return undefined;
        startedMs = clock.monotonicMs();
        const by = { reason: 'revoked by its owner', actor: userId };
        return { ended, appended: await appendSessionEnds(tx, userId, ended, by) };
      },
      { contends: [`session ${sessionId}`, `user ${userId}`], caller: userId },
    );
    if (batch === undefined) return { endedSessions, receipt };
    endedSessions += batch.ended.length;
    receipt = receiptOf(batch.appended, clock.monotonicMs() - startedMs);
    if (batch.ended.length < ENDED_AT_ONCE_MAX) return { endedSessions, receipt };
  }
}

/**
 * Ends the session of a refresh token (RFC 7009). The token is the only proof: a used one, an expired one, or one of a
 * session that is bound to another certificate will do, because a token that leaked must end its session. Does nothing
 * when the token is unknown or its session has ended.
 *
 * @throws ServiceError FIELD_INVALID for another kind of token (RFC 7009 §2.2.1)
 */
export async function revokeRefreshToken(
  { store }: EndSessionDeps,
  { token, peer }: { readonly token: string; readonly peer: string },
): Promise<void> {
  if (!isRefreshToken(token)) throw invalidField('token', 'must be a refresh token');
  const network = networkOfPeer(peer);
  const caller = `refresh ${network}`;
  const found = await findSessionOf(store, token, caller);
  if (found === undefined) return;
  const { sessionId, userId } = found;
  await store.transaction(
    async (tx) => {
      if (!(await tx.sessions.end(sessionId, 'LOGOUT'))) return;
      const by = { reason: 'logout with a refresh token', actor: userId, network };
      await appendSessionEnd(tx, { sessionId, userId }, by);
    },
    { importance: 'unknown', contends: [`session ${sessionId}`, `user ${userId}`], caller },
  );
}

/** The session of a refresh token, used or not; undefined when the token is unknown. */
export async function findSessionOf(
  { reads }: Pick<AuthStore, 'reads'>,
  refreshToken: string,
  caller?: string,
): Promise<Pick<RefreshTokenRow, 'sessionId' | 'userId'> | undefined> {
  if (parseRefreshToken(refreshToken) === undefined) return undefined;
  return await reads.sessions.findRefreshToken(hashRefreshToken(refreshToken), caller);
}

/** Appends the end of a session to the revocation log, and records it as a security event. */
export async function appendSessionEnd(
  tx: AuthTransaction,
  { sessionId, userId }: Pick<Session, 'sessionId' | 'userId'>,
  { network = '', ...by }: { reason: string; actor: string; network?: string },
): Promise<Appended> {
  return await appendSessionEnds(tx, userId, [sessionId], { network, ...by });
}

async function appendSessionEnds(
  tx: AuthTransaction,
  userId: string,
  sessionIds: readonly string[],
  { network = '', ...by }: { reason: string; actor: string; network?: string },
): Promise<Appended> {
  const initiator = by.actor === userId ? 'user' : 'system';
  const events = sessionIds.map((sessionId) =>
    tx.events.record({
      ...by,
      type: 'session-revoked',
      subject: { userId, sessionId },
      network,
      details: { initiator },
    }),
  );
  // The revocation log is locked last, so its statement comes last.
  const entries = sessionIds.map((sessionId) => ({ ...sessionRevocation(sessionId), ...by }));
  const appended = tx.revocations.append(entries);
  await Promise.all([...events, appended]);
  return await appended;
}

function sessionOver(): ServiceError {
  return new AuthError('TOKEN_REVOKED', 'the session of the token has ended');
}
