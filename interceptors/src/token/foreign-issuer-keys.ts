/** The keys of another issuer: fetched in the background, with limits, and cached while the issuer is unreachable. */

import { readFile } from 'node:fs/promises';
import { compactVerify } from 'jose';
import type { PublicKey } from '../../gen/portcullis/token/v1/token.js';
import type { Clock, Timers } from '../clock.js';
import { KEYS_MAX, type SIGNATURE_ALGORITHMS } from '../limits.js';
import type { GuardLog } from '../log.js';
import type { CompactToken } from './compact.js';
import { KeyRing } from './key-ring.js';
import { type JsonObject, type JsonValue, parseJsonObject } from './strict-json.js';

/** Where an issuer publishes its keys, and the algorithms of its tokens. */
export interface PublishedIssuerKeys {
  /** The JWK Set (RFC 7517 §5): an `https:` URL (`http:` where plaintext is allowed), or a file. */
  readonly jwksUrl?: string | undefined;
  readonly jwksFile?: string | undefined;
  readonly algorithms: readonly (typeof SIGNATURE_ALGORITHMS)[number][];
}

/** The keys of one issuer. They verify tokens of no other one. */
export interface ForeignIssuerKeys {
  /** Whether the key is in the current key set. */
  has(keyId: string): boolean;
  /** Verifies a signature. Never rejects, and waits for keys at most {@link KEYS_WAIT_MS}. */
  verify(token: CompactToken): Promise<KeyVerdict>;
  close(): void;
}

/** The result of a verification. `UNKNOWN`: the keys are not available now. */
export type KeyVerdict = 'GOOD' | 'BAD' | 'UNKNOWN';

/** Interval between two successful fetches, in milliseconds. */
export const KEYS_REFRESH_MS = 5 * 60_000;

/** Minimum interval between two fetches, in milliseconds. Unknown kids cannot cause more of them. */
export const KEYS_PAUSE_MS = 10_000;

/** How long keys are used after their last successful fetch, in milliseconds. */
export const KEYS_KEPT_MS = 60 * 60_000;

/** Timeout of one fetch, in milliseconds. */
export const KEYS_FETCH_TIMEOUT_MS = 3000;

/** Maximum size of a key set, in bytes. */
export const KEYS_BYTES_MAX = 128 * 1024;

/** How long a call waits for a fetch that may return its key, in milliseconds. */
export const KEYS_WAIT_MS = 1000;

/** Maximum number of calls that wait for a fetch, for each issuer. */
export const KEYS_WAITERS_MAX = 64;

/** Minimum length of an RSA modulus, in characters of base64url (2048 bits). */
const RSA_MODULUS_CHARACTERS_MIN = 342;

export interface PublishedKeysOptions extends PublishedIssuerKeys {
  readonly issuer: string;
  readonly clock: Clock;
  readonly timers: Timers;
  readonly log: GuardLog;
  /** Called when the key set was replaced. */
  readonly onChange: () => void;
}

/** Creates the keys of an issuer that publishes them. The first fetch begins at once. */
export function createPublishedKeys(options: PublishedKeysOptions): ForeignIssuerKeys {
  return new FetchedKeys(options);
}

/**
 * Creates the keys of a legacy issuer, whose tokens are signed and verified with the same secret (HS256).
 *
 * @param secret - at least 32 bytes (RFC 7518 §3.2)
 */
export function createLegacyKeys(secret: Uint8Array): ForeignIssuerKeys {
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

class FetchedKeys implements ForeignIssuerKeys {
  readonly #options: PublishedKeysOptions;
  readonly #closing = new AbortController();
  #ring = KeyRing.EMPTY;
  /** When the fetch of the current ring, and when the last fetch began, in monotonic milliseconds. */
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
      const isUpToDate = await this.#waitForFetch();
      if (!this.#isFresh()) return 'UNKNOWN';
      if (!this.#ring.has(token.keyId)) return isUpToDate ? 'BAD' : 'UNKNOWN';
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

  /** Waits for a fetch, if one may run now. @returns whether the key set is recent enough to call a kid unknown */
  async #waitForFetch(): Promise<boolean> {
    const askedAtMs = this.#options.clock.monotonicMs();
    const isDue = askedAtMs - this.#beganAtMs >= KEYS_PAUSE_MS;
    const fetching = this.#fetching ?? (isDue ? this.#refresh() : undefined);
    if (fetching !== undefined) {
      // Few calls wait, and not for long: a slow issuer must not delay calls with tokens of others.
      if (this.#waiters >= KEYS_WAITERS_MAX) return false;
      this.#waiters += 1;
      let stop = (): void => undefined;
      const timeout = new Promise<void>((resolve) => {
        stop = this.#options.timers.after(KEYS_WAIT_MS, resolve);
      });
      await Promise.race([fetching, timeout]);
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
      log.warn(
        { event: 'issuer_keys_missing', issuer, reason },
        'the keys of another issuer cannot be fetched',
      );
      return false;
    }
  }
}

async function readBounded(file: string): Promise<Uint8Array> {
  const bytes = await readFile(file);
  if (bytes.byteLength > KEYS_BYTES_MAX)
    throw new Error(`expected a key set of at most ${KEYS_BYTES_MAX} bytes`);
  return bytes;
}

/** Fetches a URL, following no redirect, within the limits of time and size. */
async function fetchBounded(url: string, closing: AbortSignal): Promise<Uint8Array> {
  const signal = AbortSignal.any([closing, AbortSignal.timeout(KEYS_FETCH_TIMEOUT_MS)]);
  const response = await fetch(url, {
    signal,
    // A redirect would lead to an address that was not configured.
    redirect: 'error',
    credentials: 'omit',
    headers: { accept: 'application/jwk-set+json, application/json' },
  });
  if (response.status !== 200 || response.body === null) {
    await response.body?.cancel();
    throw new Error(`expected the key set with status 200, got ${response.status}`);
  }
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of response.body as AsyncIterable<Uint8Array>) {
    size += part.byteLength;
    // Leaving the loop cancels the response.
    if (size > KEYS_BYTES_MAX) throw new Error(`expected a key set of at most ${KEYS_BYTES_MAX} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts);
}

/**
 * Imports the usable keys of a JWK Set (RFC 7517 §5). Issuers may publish other keys as well, which are ignored.
 *
 * @throws Error when the bytes are no JWK Set, or no key is usable, or two usable keys have the same `kid`
 */
async function ringOf(bytes: Uint8Array, algorithms: PublishedIssuerKeys['algorithms']): Promise<KeyRing> {
  const keys = parseJsonObject(bytes)?.['keys'];
  if (!Array.isArray(keys)) throw new Error('expected a JWK Set');
  if (keys.length > KEYS_MAX)
    throw new Error(`expected at most ${KEYS_MAX} keys in the key set, got ${keys.length}`);
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
  if (usable.length === 0) throw new Error('the key set contains no usable key');
  return await KeyRing.import(usable);
}

/** A key with one `kid` and one algorithm. A key that fits several of the algorithms is not usable. */
function usableKey(jwk: JsonValue, algorithms: PublishedIssuerKeys['algorithms']): PublicKey | undefined {
  if (typeof jwk !== 'object' || jwk === null || Array.isArray(jwk)) return undefined;
  const { kid, kty, crv, alg, use, n, x, y, e, ...others } = jwk as JsonObject;
  if (typeof kid !== 'string' || kid === '' || (use !== undefined && use !== 'sig')) return undefined;
  // Published private or symmetric keys prove nothing.
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
