/** Passwords and client secrets: argon2id, a bounded number at a time. */

import { hash as argon2Hash, verify as argon2Verify } from '@node-rs/argon2';
import { AuthError } from '../errors.js';

/** Hashing at a time: libuv has four threads, and verifying signatures needs some of them. */
export const HASHES_AT_ONCE_MAX = 2;

/** Callers that may wait for their turn; more are told to come back. */
export const HASHES_WAITING_MAX = 200;

/** When a caller who found the queue full may come back, in milliseconds. */
export const HASHES_RETRY_MS = 1000;

/** The longest password, in UTF-16 units. */
export const PASSWORD_LENGTH_MAX = 256;

/** The shortest password that a user may choose, in UTF-16 units. */
export const PASSWORD_LENGTH_MIN = 8;

// OWASP's figures for argon2id: 19 MiB, two passes, one lane. `algorithm` 2 is argon2id.
const ARGON2_OPTIONS = { algorithm: 2, memoryCost: 19 * 1024, timeCost: 2, parallelism: 1 } as const;

/** Hashes passwords and compares them. */
export interface Passwords {
  /** The hash to be stored. Throws RATE_LIMITED when too many wait. */
  hash(password: string): Promise<string>;
  /**
   * Whether the password is the one that was hashed. Without a hash (an unknown user) the same work
   * is done and the answer is no, so that nobody learns from the time which names exist.
   */
  verify(hash: string | undefined, password: string): Promise<boolean>;
}

/** Passwords of this process, which share one queue. */
export function createPasswords(): Passwords {
  const turn = createTurns();
  // Made now: made by the first unknown name, it would show itself by the time that takes.
  const decoy = argon2Hash('nobody has this password', ARGON2_OPTIONS);
  return {
    hash: (password) => turn(() => argon2Hash(prepare(password), ARGON2_OPTIONS)),
    verify: async (hash, password) => {
      const against = hash ?? (await decoy);
      // A megabyte of password is not hashed, but costs no less time than a wrong one.
      const candidate = password.length > PASSWORD_LENGTH_MAX ? '' : prepare(password);
      const equal = await turn(() => argon2Verify(against, candidate));
      return equal && hash !== undefined && candidate !== '';
    },
  };
}

/**
 * What is wrong with a password that somebody wants to use; undefined when nothing is. U+FFFD stands
 * for bytes that were not UTF-8: two different passwords could become one.
 */
export function passwordFault(password: string): string | undefined {
  if (password.length < PASSWORD_LENGTH_MIN || password.length > PASSWORD_LENGTH_MAX) {
    return `must have ${PASSWORD_LENGTH_MIN} to ${PASSWORD_LENGTH_MAX} characters`;
  }
  if (!password.isWellFormed() || password.includes('\uFFFD')) return 'must be valid UTF-8';
  return undefined;
}

/** One password has one form, whether the keyboard composes its accents or not (RFC 8265 §4.2). */
function prepare(password: string): string {
  return password.normalize('NFC');
}

function createTurns(): <T>(work: () => Promise<T>) => Promise<T> {
  const waiting: (() => void)[] = [];
  let running = 0;
  return async (work) => {
    if (running >= HASHES_AT_ONCE_MAX) {
      if (waiting.length >= HASHES_WAITING_MAX) {
        throw new AuthError('RATE_LIMITED', 'too many logins at once', { retryAfterMs: HASHES_RETRY_MS });
      }
      await new Promise<void>((resolve) => waiting.push(resolve));
    } else {
      running += 1;
    }
    try {
      return await work();
    } finally {
      // The place is handed to the next in line, so that nobody who comes later takes it.
      const next = waiting.shift();
      if (next) next();
      else running -= 1;
    }
  };
}
