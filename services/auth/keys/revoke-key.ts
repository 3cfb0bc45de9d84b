/** Takes a signing key out of publication, and lets the next one sign in its place. */

import { AuthError } from '../errors.js';
import type { KeyRows } from '../records/keys.js';
import type { Revocation } from '../records/revocations.js';
import { keyRevocation } from '../revocation/log.js';

/**
 * Retires a key in this transaction, lets the next one sign, and returns the revocation that belongs in the log. The
 * key must be retired as well: an instance that no longer has the entry would trust a key that is still published.
 * {@link Keys.replenish} is due after the commit.
 *
 * @throws ServiceError NOT_FOUND
 */
export async function revokeKey(
  keys: Pick<KeyRows, 'lockCreation' | 'retire' | 'promoteNext'>,
  keyId: string,
): Promise<Revocation> {
  // No key may be inserted as signing meanwhile: it would collide with the one that is promoted.
  await keys.lockCreation();
  const retired = await keys.retire(keyId);
  if (retired === undefined) throw new AuthError('NOT_FOUND', 'there is no such key');
  if (retired.state === 'signing') await keys.promoteNext(retired.purpose);
  return keyRevocation(keyId);
}
