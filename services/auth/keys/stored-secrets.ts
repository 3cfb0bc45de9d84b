/** The secrets of auth: derived from the key-encryption key once, and stored, so that they outlive it. */

import { randomBytes } from 'node:crypto';
import type { KeyRow } from '../records/keys.js';
import type { AuthStore, AuthTransaction } from '../transaction.js';
import {
  DERIVED_SECRET_BYTES,
  deriveSecret,
  SECRET_PURPOSES,
  type SecretPurpose,
} from './derived-secrets.js';
import {
  associatedData,
  encrypt,
  type KeyEncryptionKeys,
  secretData,
  tryDecrypt,
  UnusableKeyError,
} from './sealed-keys.js';

/** The secrets of one process. */
export interface StoredSecrets {
  /**
   * The secret of a purpose. {@link StoredSecrets.open} writes the stored secret into the buffer; until then, it has what
   * the current key-encryption key would make, and no token may be signed.
   */
  of(purpose: SecretPurpose): Buffer;
  isOpen(): boolean;
  /**
   * Reads the secrets, and stores those that are missing: each as it was derived until now.
   *
   * @throws UnusableKeyError when a secret or the keys do not decrypt under the configured key-encryption keys
   */
  open(): Promise<void>;
  /** Replaces every secret by a random one, for when the key-encryption key was lost or has leaked. */
  replace(): Promise<void>;
}

/** Creates the secrets of this database. */
export function createStoredSecrets(deps: {
  readonly store: AuthStore;
  readonly keyEncryptionKeys: KeyEncryptionKeys;
}): StoredSecrets {
  const { store, keyEncryptionKeys } = deps;
  const buffers = new Map(
    SECRET_PURPOSES.map((purpose) => [purpose, deriveSecret(keyEncryptionKeys.current, purpose)]),
  );
  let isOpen = false;
  const of = (purpose: SecretPurpose): Buffer => {
    const buffer = buffers.get(purpose);
    if (buffer === undefined) throw new TypeError(`there is no secret for ${purpose}`);
    return buffer;
  };
  return {
    of,
    isOpen: () => isOpen,
    open: async () => {
      const stored = await store.transaction((tx) => readOrDerive(tx, keyEncryptionKeys));
      for (const purpose of SECRET_PURPOSES) openSecret(purpose, stored, keyEncryptionKeys).copy(of(purpose));
      isOpen = true;
    },
    replace: async () => {
      await store.transaction(async (tx) => {
        await tx.keys.lockCreation();
        for (const purpose of SECRET_PURPOSES) {
          const secret = randomBytes(DERIVED_SECRET_BYTES);
          await tx.keys.putSecret(purpose, encrypt(secretData(purpose), secret, keyEncryptionKeys.current));
        }
      });
    },
  };
}

async function readOrDerive(
  tx: AuthTransaction,
  keys: KeyEncryptionKeys,
): Promise<ReadonlyMap<string, Buffer>> {
  await tx.keys.lockCreation();
  const stored = await tx.keys.secrets();
  const missing = SECRET_PURPOSES.filter((purpose) => !stored.has(purpose));
  if (missing.length === 0) return stored;
  const root = rootOf(await tx.keys.live(), keys);
  for (const purpose of missing) {
    const secret = deriveSecret(root, purpose);
    await tx.keys.putSecret(purpose, encrypt(secretData(purpose), secret, keys.current));
  }
  return await tx.keys.secrets();
}

/** The key-encryption key from which secrets were derived until now: the one under which the keys are encrypted. */
function rootOf(live: readonly KeyRow[], keys: KeyEncryptionKeys): Buffer {
  const [first] = live;
  if (first === undefined) return keys.current;
  const opensAKey = (root: Buffer | undefined): root is Buffer =>
    live.some((row) => tryDecrypt(associatedData(row), row.sealedPrivateKey, root) !== undefined);
  const root = [keys.previous, keys.current, keys.next].find(opensAKey);
  if (root === undefined) throw new UnusableKeyError(first.kid, 'the key-encryption key is another one');
  return root;
}

function openSecret(
  purpose: SecretPurpose,
  stored: ReadonlyMap<string, Buffer>,
  { current, previous, next }: KeyEncryptionKeys,
): Buffer {
  const sealed = stored.get(purpose) ?? Buffer.alloc(0);
  for (const key of [current, previous, next]) {
    const secret = tryDecrypt(secretData(purpose), sealed, key);
    if (secret?.length === DERIVED_SECRET_BYTES) return secret;
  }
  const problem = 'the key-encryption key is another one, or the row was changed';
  throw new UnusableKeyError(purpose, problem, { what: 'the secret for' });
}
