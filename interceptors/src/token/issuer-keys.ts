/** The keys of another issuer: fetched in the background, within bounds, and kept for a while when it is away. */

import { readFile } from 'node:fs/promises';
import { compactVerify } from 'jose';
import type { PublicKey } from '../../gen/portcullis/token/v1/token.js';
import type { Clock, Timers } from '../clock.js';
import { KEYS_MAX, type SIGNATURE_ALGORITHMS } from '../limits.js';
import type { GuardLog } from '../log.js';
import type { CompactToken } from './compact.js';
import { KeyRing } from './key-ring.js';
import { type JsonObject, type JsonValue, parseJsonObject } from './strict-json.js';

/** How an issuer's key set may be had, and with which algorithms its keys are used. */
export interface PublishedIssuerKeys {
  /** Where it is published: an `https:` URL (plaintext on loopback alone, unless allowed), or a file. */
  readonly jwksUrl?: string | undefined;
  readonly jwksFile?: string | undefined;
  readonly algorithms: readonly (typeof SIGNATURE_ALGORITHMS)[number][];
}

/** What verifies the tokens of one issuer, and of no other one. */
export interface IssuerKeys {
  /** Whether the key may verify tokens now. */
  has(keyId: string): boolean;
  /** Judges a signature. Never rejects, and takes no longer than {@link KEYS_WAIT_MS} beyond the cryptography. */
  verify(token: CompactToken): Promise<KeyVerdict>;
  close(): void;
}

/** `UNKNOWN`: it cannot be told now, because the keys cannot be had. */
export type KeyVerdict = 'GOOD' | 'BAD' | 'UNKNOWN';

/** How often keys are fetched while all is well, in milliseconds. */
export const KEYS_REFRESH_MS = 5 * 60_000;

/** The pause between two fetches, whatever asks for them, in milliseconds: unknown kids must not drive us. */
export const KEYS_PAUSE_MS = 10_000;

/** For how long keys are used that could not be fetched anew, in milliseconds. */
export const KEYS_KEPT_MS = 60 * 60_000;

/** How long one fetch may take in all, in milliseconds. */
export const KEYS_FETCH_TIMEOUT_MS = 3000;

/** The largest key set that is read, in bytes. */
export const KEYS_BYTES_MAX = 128 * 1024;

/** How long a call waits for a fetch that may bring its key, in milliseconds. */
export const KEYS_WAIT_MS = 1000;

/** How many calls wait so at a time, for one issuer. */
export const KEYS_WAITERS_MAX = 64;

/** The shortest RSA modulus, in characters of base64url (2048 bits). */
const RSA_MODULUS_CHARACTERS_MIN = 342;

/** What {@link createPublishedKeys} needs. */
export interface PublishedKeysOptions extends PublishedIssuerKeys {
  readonly issuer: string;
  readonly clock: Clock;
  readonly timers: Timers;
  readonly log: GuardLog;
  /** Told whenever another key set is in place. */
  readonly onChange: () => void;
}

/** Keys that the issuer publishes. The first fetch begins at once. */
export function createPublishedKeys(options: PublishedKeysOptions): IssuerKeys {
  return new FetchedKeys(options);
}

/**
 * The one secret of a legacy issuer, with which its tokens are signed and verified alike (HS256).
 *
 * @param secret - at least 32 bytes (RFC 7518 §3.2)
 */
export function createLegacyKeys(secret: Uint8Array): IssuerKeys {
  return {
    has: () => true,
    verify: async ({ text, algorithm }) => {
      if (algorithm !== 'HS256') return 'BAD';
      return await compactVerify(text, secret, { algorithms: ['HS256'] }).then(
        () => 'GOOD',
        () => 'BAD',
      );
    },
    close: () => undefined,
  };
}

class FetchedKeys implements IssuerKeys {
  readonly #options: PublishedKeysOptions;
  readonly #closing = new AbortController();
  #ring = KeyRing.EMPTY;
  /** When the present ring was fetched, and when the last fetch began, on the monotonic clock. */
  #fetchedAtMs = Number.NEGATIVE_INFINITY;
  #beganAtMs = Number.NEGATIVE_INFINITY;
  #fetching: Promise<void> | undefined;
  #waiters = 0;
  #stopTimer: () => void = () => undefined;

  constructor(options: PublishedKeysOptions) {
    this.#options = options;
    void this.#refresh();
  }

  has(keyId: string): boolean {
    return this.#ring.has(keyId);
  }

  async verify(token: CompactToken): Promise<KeyVerdict> {
    if (!this.#ring.has(token.keyId) || !this.#isFresh()) {
      const isTold = await this.#waitForNews();
      if (!this.#isFresh()) return 'UNKNOWN';
      if (!this.#ring.has(token.keyId)) return isTold ? 'BAD' : 'UNKNOWN';
    }
    return (await this.#ring.verify(token)) ? 'GOOD' : 'BAD';
  }

  close(): void {
    this.#closing.abort();
    this.#stopTimer();
  }

  #isFresh(): boolean {
    return this.#options.clock.monotonicMs() - this.#fetchedAtMs < KEYS_KEPT_MS;
  }

  /** Whether the keys are as new as can be wanted: fetched after this was asked, or not long before. */
  async #waitForNews(): Promise<boolean> {
    const askedAtMs = this.#options.clock.monotonicMs();
    const isDue = askedAtMs - this.#beganAtMs >= KEYS_PAUSE_MS;
    const fetching = this.#fetching ?? (isDue ? this.#refresh() : undefined);
    if (fetching !== undefined) {
      // Callers are few and wait a little: an issuer that is slow must not hold up those of others.
      if (this.#waiters >= KEYS_WAITERS_MAX) return false;
      this.#waiters += 1;
      let stop = (): void => undefined;
      const patience = new Promise<void>((resolve) => {
        stop = this.#options.timers.after(KEYS_WAIT_MS, resolve);
      });
      await Promise.race([fetching, patience]);
      stop();
      this.#waiters -= 1;
    }
    return askedAtMs - this.#fetchedAtMs < KEYS_PAUSE_MS;
  }

  #refresh(): Promise<void> {
    this.#beganAtMs = this.#options.clock.monotonicMs();
    const fetching = this.#fetch().then((isDone) => {
      this.#fetching = undefined;
      if (this.#closing.signal.aborted) return;
      this.#stopTimer();
      this.#stopTimer = this.#options.timers.after(
        isDone ? KEYS_REFRESH_MS : KEYS_PAUSE_MS,
        () => void (this.#fetching ?? this.#refresh()),
      );
    });
    this.#fetching = fetching;
    return fetching;
  }

  async #fetch(): Promise<boolean> {
    const { issuer, log, onChange, clock } = this.#options;
    const { jwksUrl, jwksFile = '', algorithms } = this.#options;
    const beganAtMs = clock.monotonicMs();
    try {
      const bytes =
        jwksUrl === undefined
          ? await readBounded(jwksFile)
          : await fetchBounded(jwksUrl, this.#closing.signal);
      this.#ring = await ringOf(bytes, algorithms);
      this.#fetchedAtMs = beganAtMs;
      onChange();
      return true;
    } catch (error) {
      if (this.#closing.signal.aborted) return false;
      const reason = error instanceof Error ? error.message : String(error);
      log.warn({ event: 'issuer_keys_missing', issuer, reason }, 'the keys of another issuer cannot be had');
      return false;
    }
  }
}

async function readBounded(file: string): Promise<Uint8Array> {
  const bytes = await readFile(file);
  if (bytes.byteLength > KEYS_BYTES_MAX) throw new Error(`the key set has more than ${KEYS_BYTES_MAX} bytes`);
  return bytes;
}

/** One answer of the very address that was configured, in time, and no larger than it may be. */
async function fetchBounded(url: string, closing: AbortSignal): Promise<Uint8Array> {
  const signal = AbortSignal.any([closing, AbortSignal.timeout(KEYS_FETCH_TIMEOUT_MS)]);
  const response = await fetch(url, {
    signal,
    // Where it leads to nobody has configured.
    redirect: 'error',
    credentials: 'omit',
    headers: { accept: 'application/jwk-set+json, application/json' },
  });
  if (response.status !== 200 || response.body === null) {
    await response.body?.cancel();
    throw new Error(`the key set was answered with status ${response.status}`);
  }
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of response.body as AsyncIterable<Uint8Array>) {
    size += part.byteLength;
    // Leaving the loop cancels the rest.
    if (size > KEYS_BYTES_MAX) throw new Error(`the key set has more than ${KEYS_BYTES_MAX} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts);
}

/**
 * The keys of a JWK Set (RFC 7517 §5) that can be used here; issuers publish others as well.
 *
 * @throws Error when it is no key set, when it names a kid twice, or when there is nothing to use in it
 */
async function ringOf(bytes: Uint8Array, algorithms: PublishedIssuerKeys['algorithms']): Promise<KeyRing> {
  const keys = parseJsonObject(bytes)?.['keys'];
  if (!Array.isArray(keys)) throw new Error('the key set is not a JWK Set');
  if (keys.length > KEYS_MAX) throw new Error(`the key set holds more than ${KEYS_MAX} keys`);
  const usable: PublicKey[] = [];
  for (const jwk of keys as readonly JsonValue[]) {
    const key = usableKey(jwk, algorithms);
    if (key === undefined) continue;
    const isGood = await KeyRing.import([key]).then(
      () => true,
      () => false,
    );
    if (isGood) usable.push(key);
  }
  if (usable.length === 0) throw new Error('the key set holds no key that can be used');
  return await KeyRing.import(usable);
}

/** One kid, one key, one algorithm: a key that could be used with several is used with none. */
function usableKey(jwk: JsonValue, algorithms: PublishedIssuerKeys['algorithms']): PublicKey | undefined {
  if (typeof jwk !== 'object' || jwk === null || Array.isArray(jwk)) return undefined;
  const { kid, kty, crv, alg, use, n, x, y, e, ...others } = jwk as JsonObject;
  if (typeof kid !== 'string' || kid === '' || (use !== undefined && use !== 'sig')) return undefined;
  // A private key that everybody can read proves nothing.
  if ('d' in others || 'k' in others) return undefined;
  if (kty === 'RSA' && (typeof n !== 'string' || n.length < RSA_MODULUS_CHARACTERS_MIN)) return undefined;
  const fitting = algorithms.filter(
    (algorithm) => fits(algorithm, kty, crv) && (alg === undefined || alg === algorithm),
  );
  const [algorithm, second] = fitting;
  if (algorithm === undefined || second !== undefined) return undefined;
  return { kid, algorithm, jwk: JSON.stringify({ kty, crv, n, x, y, e }) };
}

function fits(
  algorithm: (typeof SIGNATURE_ALGORITHMS)[number],
  kty: JsonValue | undefined,
  crv: JsonValue | undefined,
): boolean {
  switch (algorithm) {
    case 'EdDSA':
      return kty === 'OKP' && crv === 'Ed25519';
    case 'ES256':
      return kty === 'EC' && crv === 'P-256';
    case 'RS256':
    case 'PS256':
      return kty === 'RSA';
  }
}
