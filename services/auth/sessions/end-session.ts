/** The end of a session: by logout, by its owner from another session, or because a refresh token was reused. */

import type { Clock } from '@portcullis/guard/clock';
import { invalidField } from '@portcullis/guard/errors';
import { parseUuid } from '../../common/validation/identifiers.js';
import { AuthError } from '../errors.js';
import type { Appended, Receipt } from '../records/revocations.js';
import type { Session } from '../records/sessions.js';
import { sessionRevocation } from '../revocation/log.js';
import { receiptOf } from '../revocation/revoking-change.js';
import type { AuthStore, AuthTransaction } from '../transaction.js';

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

/** Appends the end of a session to the revocation log, and records it as a security event. */
export async function appendSessionEnd(
  tx: AuthTransaction,
  { sessionId, userId }: Pick<Session, 'sessionId' | 'userId'>,
  { network = '', ...by }: { reason: string; actor: string; network?: string },
): Promise<Appended> {
  const initiator = by.actor === userId ? 'user' : 'system';
  const subject = { userId, sessionId };
  // The revocation log is locked last, so its statement comes last.
  const [, appended] = await Promise.all([
    tx.events.record({ ...by, type: 'session-revoked', subject, network, details: { initiator } }),
    tx.revocations.append([{ ...sessionRevocation(sessionId), ...by }]),
  ]);
  return appended;
}
