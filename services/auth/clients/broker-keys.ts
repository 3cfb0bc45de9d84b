/** The public nkeys with which services connect to the broker. */

import { invalidField } from '@portcullis/guard/errors';
import { nkeys } from 'nats';

/** Length of a public nkey of a user, in characters. */
const NKEY_LENGTH = 56;

/**
 * The public nkey of a request; undefined for an empty text.
 *
 * @throws ServiceError FIELD_INVALID when it is no public nkey of a user
 */
export function parseBrokerKey(field: string, text: string | undefined): string | undefined {
  if (text === undefined || text === '') return undefined;
  if (isUserKey(text)) return text;
  throw invalidField(
    field,
    'must be the public nkey of a user, which begins with U; never its seed, which begins with SU',
  );
}

function isUserKey(text: string): boolean {
  if (text.length !== NKEY_LENGTH || !text.startsWith('U')) return false;
  try {
    // Checks the checksum, too.
    nkeys.fromPublic(text);
    return true;
  } catch {
    return false;
  }
}
