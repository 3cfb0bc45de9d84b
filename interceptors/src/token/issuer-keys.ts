/** The keys of another issuer: fetched in the background, with limits, and cached while the issuer is unreachable. */

import { readFile } from 'node:fs/promises';
import { compactVerify } from 'jose';
import type { Clock, Timers } from '../clock.js';
import type { GuardLog } from '../log.js';
import type { CompactToken } from './compact.js';
import type { SignatureAlgorithm } from './key-checks.js';
import { verifySignature } from './key-ring.js';
import { KeySet } from './key-set.js';

/** Where an issuer publishes its keys, and the algorithms of its tokens. */
export interface PublishedIssuerKeys {
  /** The JWK Set (RFC 7517 §5): an `https:` URL (`http:` where plaintext is allowed), or a file. */
  readonly jwksUrl?: string | undefined;
  readonly jwksFile?: string | undefined;
  readonly algorithms: readonly SignatureAlgorithm[];
}

/** The keys of one issuer. They verify tokens of no other one. */
export interface ForeignIssuerKeys {
  /** Whether the key that verified a token is in the current key set. @param key - {@link KeyVerdict}'s `verifiedBy` */
  has(key: string): boolean;
  /** Verifies a signature. Never rejects, and waits for keys at most {@link KEYS_WAIT_MS}. */
  verify(token: CompactToken): Promise<KeyVerdict>;
  close(): void;
}

/**
 * The result of a verification: the key that made the signature, by its thumbprint (RFC 7638), because an issuer may give
 * another key the same `kid`. `UNKNOWN`: the keys are not available now.
 */
export type KeyVerdict = { readonly verifiedBy: string } | 'BAD' | 'UNKNOWN';

/** Interval between two successful fetches, in milliseconds. */
export const KEYS_REFRESH_MS = 5 * 60_000;

/** Minimum interval between two fetches, in milliseconds. Unknown kids cannot cause more of them. */
export const KEYS_PAUSE_MS = 10_000;

/** How long keys are used after their last successful fetch, in milliseconds. */
export const KEYS_KEPT_MS = 60 * 60_000;

/** Timeout of one fetch, in milliseconds. */
const KEYS_FETCH_TIMEOUT_MS = 3000;

/** Maximum size of a key set, in bytes. */
export const KEYS_BYTES_MAX = 128 * 1024;

/** How long a call waits for a fetch that may return its key, in milliseconds. */
export const KEYS_WAIT_MS = 1000;

/** Maximum number of calls that wait for a fetch, for each issuer. */
export const KEYS_WAITERS_MAX = 64;

/** Maximum number of refused keys that one log line names. */
const REFUSALS_LOGGED_MAX = 5;

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
    verify: async ({ text }) => {
      return await compactVerify(text, secret, { algorithms: ['HS256'] }).then(
        () => ({ verifiedBy: '' }),
        () => 'BAD' as const,
      );
    },
    close: () => undefined,
  };
}

class FetchedKeys implements ForeignIssuerKeys {
  readonly #options: PublishedKeysOptions;
  readonly #closing = new AbortController();
  #keySet = KeySet.EMPTY;
  /** The refused members that were logged last. */
  #loggedRefusals = '';
  /** When the fetch of the current set, and when the last fetch began, in monotonic milliseconds. */
  #fetchedAtMs = Number.NEGATIVE_INFINITY;
  #beganAtMs = Number.NEGATIVE_INFINITY;
  #fetching: Promise<void> | undefined;
  #waiters = 0;
  #stopTimer: () => void = () => undefined;

  constructor(options: PublishedKeysOptions) {
    this.#options = options;
    void this.#refresh();
  }

  has(key: string): boolean {
    return this.#keySet.has(key);
  }

  async verify(token: CompactToken): Promise<KeyVerdict> {
    if (!this.#options.algorithms.some((name) => name === token.algorithm)) return 'BAD';
    const isKnown = this.#isFresh() && this.#keySet.candidatesFor(token).length > 0;
    const verifiedBy = isKnown ? await this.#verifiedBy(token) : undefined;
    // Without `kid`, only the signature shows that the issuer has another key now.
    if (verifiedBy !== undefined || (isKnown && token.keyId !== '')) return verdictOf(verifiedBy);
    const isUpToDate = await this.#waitForFetch();
    if (!this.#isFresh()) return 'UNKNOWN';
    if (!isUpToDate && this.#keySet.candidatesFor(token).length === 0) return 'UNKNOWN';
    return verdictOf(await this.#verifiedBy(token));
  }

  close(): void {
    this.#closing.abort();
    this.#stopTimer();
  }

  /** The thumbprint of the key that made the signature; undefined when none of those that may have made it did. */
  async #verifiedBy(token: CompactToken): Promise<string | undefined> {
    for (const key of this.#keySet.candidatesFor(token)) {
      if (await verifySignature(key, token)) return key.thumbprint;
    }
    return undefined;
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
      this.#keySet = await KeySet.parse(bytes, algorithms);
      this.#fetchedAtMs = beganAtMs;
      this.#logRefusals();
      onChange();
      return true;
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      if (!this.#closing.signal.aborted) {
        log.warn(
          { event: 'issuer_keys_missing', issuer, reason },
          'the keys of another issuer cannot be fetched',
        );
      }
      return false;
    }
  }

  /** Logs the members that cannot be used, once for as long as they stay the same. */
  #logRefusals(): void {
    const { issuer, log } = this.#options;
    const { refused } = this.#keySet;
    const text = refused.slice(0, REFUSALS_LOGGED_MAX).join('; ');
    if (text !== '' && text !== this.#loggedRefusals) {
      log.warn(
        { event: 'issuer_keys_refused', issuer, refused: refused.length, reason: text },
        'some keys of another issuer are not used',
      );
    }
    this.#loggedRefusals = text;
  }
}

function verdictOf(verifiedBy: string | undefined): KeyVerdict {
  return verifiedBy === undefined ? 'BAD' : { verifiedBy };
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
