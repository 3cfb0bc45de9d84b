/** The end of a session: by logout, by its owner from another session, or by a holder of its refresh token. */

import type { Clock } from '@portcullis/guard/clock';
import { invalidField, type ServiceError } from '@portcullis/guard/errors';
import { networkOfPeer } from '@portcullis/guard/networks';
import { parseUuid } from '../../common/validation/identifiers.js';
import { AuthError } from '../errors.js';
import type { Appended, Receipt } from '../records/revocations.js';
import type { LockedSession, RefreshTokenRow, Session, SessionEnd } from '../records/sessions.js';
import { sessionRevocation } from '../revocation/log.js';
import {
  createRevocationGroups,
  type GroupWrite,
  type RevocationGroups,
  type RevocationGroupsDeps,
  receiptOfWritten,
} from '../revocation/revocation-groups.js';
import { receiptOf } from '../revocation/revoking-change.js';
import { rollUp } from '../revocation/rolled-up-events.js';
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
  readonly groups: SessionGroups;
}

/** The groups in which sessions end, by the importance of who ends them: see {@link RevocationGroups}. */
export interface SessionGroups {
  /** Of users with an access token. */
  readonly known: RevocationGroups;
  /** Of holders of a refresh token. */
  readonly unknown: RevocationGroups;
}

export function createSessionGroups(
  deps: Pick<RevocationGroupsDeps, 'store' | 'clock' | 'onGroup' | 'onGroupRefused'>,
): SessionGroups {
  return {
    known: createRevocationGroups({ ...deps, importance: 'known' }),
    unknown: createRevocationGroups({ ...deps, importance: 'unknown' }),
  };
}

/** Ends the caller's session. Does nothing when it has already ended. */
export async function logout(
  { groups }: Pick<EndSessionDeps, 'groups'>,
  { userId, sessionId }: SessionCaller,
): Promise<void> {
  if (sessionId === undefined) return;
  await groups.known.write({
    caller: userId,
    sessionId,
    decide: (session) => endUnlessEnded(session, { reason: 'logout', actor: userId }),
  });
}

/**
 * Ends one of the caller's open sessions.
 *
 * @throws ServiceError NOT_FOUND when the caller has no such open session; FIELD_INVALID
 */
export async function revokeOwnSession(
  { groups }: Pick<EndSessionDeps, 'groups'>,
  { userId }: SessionCaller,
  text: string,
): Promise<Receipt> {
  const sessionId = parseUuid(text);
  if (sessionId === undefined) throw invalidField('session_id', 'must be a UUID');
  const written = await groups.known.write({
    caller: userId,
    sessionId,
    decide: (session) => {
      // Another user's session and an unknown one get the same answer, so that ids cannot be probed.
      if (!session?.open || session.userId !== userId) {
        throw new AuthError('NOT_FOUND', 'there is no such session');
      }
      return endOf(session, { why: 'REVOKED', reason: 'revoked by its owner', actor: userId });
    },
  });
  if (written === undefined) throw new TypeError('a revocation has written nothing');
  return receiptOfWritten(written);
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
  { store, clock }: Pick<EndSessionDeps, 'store' | 'clock'>,
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
  { store, groups }: Pick<EndSessionDeps, 'store' | 'groups'>,
  { token, peer }: { readonly token: string; readonly peer: string },
): Promise<void> {
  if (!isRefreshToken(token)) throw invalidField('token', 'must be a refresh token');
  const network = networkOfPeer(peer);
  const caller = `refresh ${network}`;
  const found = await findSessionOf(store, token, caller);
  if (found === undefined) return;
  const { sessionId, userId } = found;
  await groups.unknown.write({
    caller,
    sessionId,
    decide: (session) =>
      endUnlessEnded(session, { reason: 'logout with a refresh token', actor: userId, network }),
  });
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

/** Who ended a session, and why. */
interface EndedBy {
  readonly reason: string;
  readonly actor: string;
  readonly network?: string;
}

/** Appends the end of a session to the revocation log, and records it as a security event. */
export async function appendSessionEnd(
  tx: AuthTransaction,
  { sessionId, userId }: Pick<Session, 'sessionId' | 'userId'>,
  by: EndedBy,
): Promise<Appended> {
  return await appendSessionEnds(tx, userId, [sessionId], by);
}

async function appendSessionEnds(
  tx: AuthTransaction,
  userId: string,
  sessionIds: readonly string[],
  by: EndedBy,
): Promise<Appended> {
  const writes = sessionIds.map((sessionId) => writeOf({ userId, sessionId }, by));
  const { events, sharedIds } = rollUp(writes.map(({ event }) => event));
  // The revocation log is locked last, so its statement comes last.
  const [, appended] = await Promise.all([
    tx.events.recordAll(events),
    tx.revocations.append(writes.map(({ entry }, index) => ({ ...entry, eventId: sharedIds[index] }))),
  ]);
  return appended;
}

function endUnlessEnded(session: LockedSession | undefined, by: EndedBy): GroupWrite | undefined {
  return session === undefined || session.ended ? undefined : endOf(session, { why: 'LOGOUT', ...by });
}

function endOf(session: LockedSession, { why, ...by }: EndedBy & { readonly why: SessionEnd }): GroupWrite {
  return { ...writeOf(session, by), why };
}

function writeOf(
  { sessionId, userId }: Pick<Session, 'sessionId' | 'userId'>,
  { network = '', ...by }: EndedBy,
): GroupWrite {
  const details = { initiator: by.actor === userId ? 'user' : 'system' } as const;
  return {
    entry: { ...sessionRevocation(sessionId), ...by },
    event: { ...by, type: 'session-revoked', subject: { userId, sessionId }, network, details },
  };
}

function sessionOver(): ServiceError {
  return new AuthError('TOKEN_REVOKED', 'the session of the token has ended');
}
