/** The credentials of a client as they are stored: several at a time, so that one can replace another. */

import { randomUUID } from 'node:crypto';
import type { Passwords } from '../accounts/passwords.js';
import { AuthError } from '../errors.js';
import type { Client, StoredCredential } from '../records/clients.js';
import { type ClientKey, type NewCredential, parseClientKey } from './credentials.js';

/** Maximum number of keys of one client. Each may have to verify an assertion. */
export const CLIENT_KEYS_MAX = 8;

/** Maximum number of secrets of one client: the former and the new one. Each costs a password hash. */
const CLIENT_SECRETS_MAX = 2;

/** A credential before the transaction that stores it, whose time it gets. */
type UndatedCredential = Undated<StoredCredential>;
type Undated<Each> = Each extends StoredCredential ? Omit<Each, 'createTime'> : never;

/** Makes what is stored of a credential. */
export async function storedCredential(
  passwords: Pick<Passwords, 'hash'>,
  credential: NewCredential,
): Promise<UndatedCredential> {
  const common = { credentialId: randomUUID() };
  return credential.kind === 'public-key'
    ? { ...common, kind: 'public-key', pem: credential.pem }
    : { ...common, kind: 'secret', hash: await passwords.hash(credential.secret) };
}

/**
 * The client's credentials with one more.
 *
 * @throws ServiceError ALREADY_EXISTS for a key that the client has, TOO_MANY_CREDENTIALS
 */
export async function withCredential(
  { credentials }: Client,
  added: StoredCredential,
): Promise<readonly StoredCredential[]> {
  const alike = credentials.filter(({ kind }) => kind === added.kind);
  const limit = added.kind === 'public-key' ? CLIENT_KEYS_MAX : CLIENT_SECRETS_MAX;
  if (alike.length >= limit) {
    throw new AuthError(
      'TOO_MANY_CREDENTIALS',
      `a client has at most ${CLIENT_KEYS_MAX} keys and ${CLIENT_SECRETS_MAX} secrets`,
    );
  }
  for (const credential of alike) {
    if (await isSameKey(credential, added)) throw new AuthError('ALREADY_EXISTS', 'the client has this key');
  }
  return [...credentials, added];
}

/** The client's keys that may verify a signature, the newest first. Keys stored before the check of keys may fail it. */
export async function* usableKeysOf({
  credentials,
}: Client): AsyncGenerator<{ readonly key: ClientKey; readonly credential: StoredCredential }> {
  for (const credential of credentials.toReversed()) {
    if (credential.kind !== 'public-key') continue;
    const key = await parseClientKey(credential.pem);
    if (!('fault' in key)) yield { key, credential };
  }
}

/** The client as responses contain it. They are stored with their requests, so no hash of a secret may be in them. */
export function withoutSecretHashes(client: Client): Client {
  const credentials = client.credentials.map((credential) =>
    credential.kind === 'secret' ? { ...credential, hash: '' } : credential,
  );
  return { ...client, credentials };
}

/** The same key may stand in two spellings of PEM. */
async function isSameKey(one: StoredCredential, other: StoredCredential): Promise<boolean> {
  if (one.kind !== 'public-key' || other.kind !== 'public-key') return false;
  const [first, second] = await Promise.all([parseClientKey(one.pem), parseClientKey(other.pem)]);
  return !('fault' in first) && !('fault' in second) && first.key.equals(second.key);
}
