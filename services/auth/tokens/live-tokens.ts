/** Whether a verified token may still be used, by what the database says. */

import { CLOCK_SKEW_SECONDS } from '@portcullis/guard/limits';
import type { ClientLink } from '../records/tokens.js';
import type { AuthTransaction } from '../transaction.js';
import type { VerifiedToken } from './tokens.js';

/**
 * Checks expiry, user, session, every client of the chain, the signing key, and revocations of the token and its
 * ancestors. The rows that it reads stay share-locked until the transaction ends.
 *
 * @param options.toleranceSeconds - for how long after `exp` the token lives on; by default as long as instances admit it
 */
export async function isLive(
  tx: AuthTransaction,
  token: VerifiedToken,
  { toleranceSeconds = CLOCK_SKEW_SECONDS }: { readonly toleranceSeconds?: number } = {},
): Promise<boolean> {
  // Sent together and executed in this order, which is the lock order of all transactions.
  const [isSessionGood, areClientsGood, isKeyGood, isRevoked, isOriginRevoked, now] = await Promise.all([
    token.sessionId === undefined || isSessionLive(tx, token, token.sessionId),
    areClientsLive(tx, token.clients),
    tx.keys.lockLive(token.keyId),
    tx.tokens.anyRevoked([token.tokenId, ...token.ancestors]),
    token.origin !== undefined && tx.tokens.foreignRevoked(token.origin),
    tx.databaseTime(),
  ]);
  if (!isSessionGood || !areClientsGood || !isKeyGood || isRevoked || isOriginRevoked) return false;
  return !isExpired(token, now, toleranceSeconds);
}

async function isSessionLive(tx: AuthTransaction, token: VerifiedToken, sessionId: string): Promise<boolean> {
  const { subject, generation } = token;
  const [user, session] = await Promise.all([
    tx.users.lockShared(subject),
    tx.sessions.lockShared(sessionId),
  ]);
  if (user === undefined || user.disabled) return false;
  if (generation === undefined || generation < user.generation) return false;
  // Both ids come from one signed token, so the session is the subject's.
  return session?.open === true;
}

async function areClientsLive(tx: AuthTransaction, links: readonly ClientLink[]): Promise<boolean> {
  const sorted = [...links].sort(([a], [b]) => (a < b ? -1 : 1));
  const clients = await Promise.all(sorted.map(([clientId]) => tx.clients.lockShared(clientId)));
  return sorted.every(([, generation], index) => {
    const client = clients[index];
    return client !== undefined && !client.disabled && generation >= client.generation;
  });
}

/** Whether a token's time is over, as instances decide it if the tolerance is theirs ({@link CLOCK_SKEW_SECONDS}). */
export function isExpired(
  { expiresAtSeconds }: Pick<VerifiedToken, 'expiresAtSeconds'>,
  now: Date,
  toleranceSeconds: number,
): boolean {
  return (expiresAtSeconds + toleranceSeconds) * 1000 <= now.getTime();
}
