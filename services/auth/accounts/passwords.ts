/** Hashes of passwords and client secrets: argon2id, with a fair queue for the work. */

import { hash as argon2Hash, verify as argon2Verify } from '@node-rs/argon2';
import type { FairQueue, QueueCaller } from '../security/fair-queue.js';

/** Default number of concurrent hashes: libuv has four threads, and signature verification needs some of them. */
export const HASHES_AT_ONCE_DEFAULT = 2;

/** Default number of callers of one class that wait for a hash. */
export const HASHES_WAITING_DEFAULT = 200;

/** Maximum length of a password, in UTF-16 code units. */
export const PASSWORD_LENGTH_MAX = 256;

/** Minimum length of a password that a user may choose, in UTF-16 code units. */
const PASSWORD_LENGTH_MIN = 8;

// OWASP's figures for argon2id: 19 MiB, two passes, one lane. `algorithm` 2 is argon2id.
const ARGON2_OPTIONS = { algorithm: 2, memoryCost: 19 * 1024, timeCost: 2, parallelism: 1 } as const;

/** Work for a caller who has authenticated, or for auth itself. */
const OWN_WORK: QueueCaller = { importance: 'known', key: '' };

/** Hashes and verifies passwords. */
export interface Passwords {
  /** The hash to be stored. Throws RATE_LIMITED. */
  hash(password: string): Promise<string>;
  /**
   * Whether the password matches the hash. Without a hash (an unknown user) it does the same work and returns false, so
   * that the response time does not reveal which names exist. Throws RATE_LIMITED.
   *
   * @param caller - whose turn it is; auth itself when absent
   * @param signal - when it is aborted before its turn, the work is not done
   */
  verify(
    hash: string | undefined,
    password: string,
    caller?: QueueCaller,
    signal?: AbortSignal,
  ): Promise<boolean>;
  /** Throws RATE_LIMITED when {@link verify} would have no place for the caller. */
  requirePlace(caller: QueueCaller): void;
}

/** All hashing of the process shares one queue. */
export function createPasswords(queue: Pick<FairQueue, 'run' | 'requirePlace'>): Passwords {
  // Hashed at the start: otherwise the first unknown name would take longer than the others.
  const decoy = argon2Hash('nobody has this password', ARGON2_OPTIONS);
  return {
    hash: (password) => queue.run(OWN_WORK, () => argon2Hash(prepare(password), ARGON2_OPTIONS)),
    verify: async (hash, password, caller, signal) => {
      const against = hash ?? (await decoy);
      // A password that is too long is not hashed itself, but takes the same time as a wrong one.
      const candidate = password.length > PASSWORD_LENGTH_MAX ? '' : prepare(password);
      const equal = await queue.run(caller ?? OWN_WORK, () => argon2Verify(against, candidate), signal);
      return equal && hash !== undefined && candidate !== '';
    },
    requirePlace: (caller) => queue.requirePlace(caller),
  };
}

/**
 * What is wrong with a new password; undefined when it is valid. U+FFFD replaces bytes that were not UTF-8, so two
 * different passwords could become one.
 */
export function passwordFault(password: string): string | undefined {
  if (password.length < PASSWORD_LENGTH_MIN || password.length > PASSWORD_LENGTH_MAX) {
    return `must have ${PASSWORD_LENGTH_MIN} to ${PASSWORD_LENGTH_MAX} characters`;
  }
  if (!password.isWellFormed() || password.includes('\uFFFD')) return 'must be valid UTF-8';
  return undefined;
}

/** Normalizes composed and decomposed accents to one form (RFC 8265 §4.2). */
function prepare(password: string): string {
  return password.normalize('NFC');
}
