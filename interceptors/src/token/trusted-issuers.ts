/** Other issuers whose tokens are taken: each with its own keys, its own words and its own limits. */

import type { Clock, Timers } from '../clock.js';
import {
  ACCESS_TOKEN_LIFETIME_MAX_SECONDS,
  ACCESS_TOKEN_TYPE,
  LEGACY_SECRET_BYTES_MIN,
  SIGNATURE_ALGORITHMS,
} from '../limits.js';
import type { GuardLog } from '../log.js';
import { isPrivateUrl, type Plaintext } from '../wire/connection.js';
import type { ClaimFault, TokenClaims } from './claims.js';
import { type CompactToken, parseForeignToken, payloadOf } from './compact.js';
import { type ClaimNames, type ForeignRules, readForeignClaims } from './foreign-claims.js';
import {
  createLegacyKeys,
  createPublishedKeys,
  type IssuerKeys,
  type KeyVerdict,
  type PublishedIssuerKeys,
} from './issuer-keys.js';
import { parseJsonObject } from './strict-json.js';

/** How many other issuers one process may trust. */
export const TRUSTED_ISSUERS_MAX = 32;

/** Another issuer whose tokens are taken. */
export interface TrustedIssuer {
  /** Its name, exactly as its tokens write it (`iss`). */
  readonly issuer: string;
  /** What its tokens call this service (`aud`); the service's own audience when absent. */
  readonly audience?: string | undefined;
  /**
   * Its published keys; or the secret of a legacy issuer, at least {@link LEGACY_SECRET_BYTES_MIN} bytes, with which
   * HS256 is taken from it and nothing else.
   */
  readonly keys: PublishedIssuerKeys | { readonly legacySecret: Uint8Array };
  /** The `typ` of its access tokens; `at+jwt` (RFC 9068) when absent. An empty one stands for none at all. */
  readonly types?: readonly string[] | undefined;
  /** Where its tokens say what ours say; the usual places when absent. */
  readonly claims?: ClaimNames | undefined;
  /** The scopes that it may give, by what it calls them. Whatever else its tokens say is not heard. */
  readonly scopes?: Readonly<Record<string, string>> | undefined;
  /** The roles that it may give, by what it calls them. */
  readonly roles?: Readonly<Record<string, string>> | undefined;
  /** The longest lifetime of its tokens, in seconds; longer ones are refused. Never more than that of ours. */
  readonly lifetimeMaxSeconds?: number | undefined;
}

/** One of them, ready for use. */
export interface ForeignIssuer {
  readonly issuer: string;
  /** The outside of its token; undefined when it is not one. */
  parse(text: string): CompactToken | undefined;
  verify(token: CompactToken): Promise<KeyVerdict>;
  /** Whether the key may verify tokens now. */
  has(keyId: string): boolean;
  /** What a verified token says. @param audience - whether it must be for this service */
  read(token: CompactToken, nowSeconds: number, audience: 'OURS' | 'ANY'): TokenClaims | ClaimFault;
}

/** What {@link createTrustedIssuers} needs. */
export interface TrustedIssuersOptions {
  readonly issuers: readonly TrustedIssuer[];
  /** The issuer of our own tokens, which is nobody else's name. */
  readonly ownIssuer: string;
  readonly audience: string;
  readonly plaintext: Plaintext | undefined;
  readonly clock: Clock;
  readonly timers: Timers;
  readonly log: GuardLog;
  /** Told whenever the keys of an issuer have changed. */
  readonly onKeys: (issuer: ForeignIssuer) => void;
}

/** All of them, found by their names alone, before any key is looked at. */
export interface TrustedIssuers {
  readonly size: number;
  /** The issuer with exactly this name. */
  find(issuer: string): ForeignIssuer | undefined;
  close(): void;
}

/**
 * Begins to fetch their keys.
 *
 * @throws TypeError when one of them cannot be trusted as it is described
 */
export function createTrustedIssuers(options: TrustedIssuersOptions): TrustedIssuers {
  const faults = trustedIssuerFaults(options.issuers, options);
  if (faults.length > 0) throw new TypeError(faults.map(({ problem }) => problem).join('; '));
  const keys: IssuerKeys[] = [];
  const issuers = new Map<string, ForeignIssuer>();
  for (const described of options.issuers) {
    const own = keysOf(described, options, () => options.onKeys(foreign));
    const foreign = foreignIssuer(described, own, options.audience);
    keys.push(own);
    issuers.set(described.issuer, foreign);
  }
  return {
    size: issuers.size,
    find: (issuer) => issuers.get(issuer),
    close: () => {
      for (const one of keys) one.close();
    },
  };
}

/** The issuer that a token names; undefined when it is not a token. Nothing about it has been verified. */
export function issuerNamedIn(text: string): string | undefined {
  const bytes = payloadOf(text);
  const issuer = bytes && parseJsonObject(bytes)?.['iss'];
  return typeof issuer === 'string' ? issuer : undefined;
}

/** What is wrong with one of them, by its place in the list. */
export interface TrustedIssuerFault {
  readonly index: number;
  /** A sentence without a final period, and without a secret. */
  readonly problem: string;
}

/** Everything that keeps them from being trusted as they are described. */
export function trustedIssuerFaults(
  issuers: readonly TrustedIssuer[],
  {
    ownIssuer,
    plaintext,
  }: { readonly ownIssuer: string | undefined; readonly plaintext: Plaintext | undefined },
): readonly TrustedIssuerFault[] {
  const faults: TrustedIssuerFault[] = [];
  const names = new Set<string>();
  for (const [index, described] of issuers.entries()) {
    const { issuer, keys, lifetimeMaxSeconds = ACCESS_TOKEN_LIFETIME_MAX_SECONDS } = described;
    const blame = (problem: string): void =>
      void faults.push({ index, problem: `issuer ${issuer} ${problem}` });
    if (issuer === '' || issuer.length > 255 || issuer.includes('#'))
      blame('must have 1 to 255 characters and no #');
    if (issuer === ownIssuer) blame('is our own');
    if (names.has(issuer)) blame('is named twice');
    names.add(issuer);
    if (!(lifetimeMaxSeconds > 0 && lifetimeMaxSeconds <= ACCESS_TOKEN_LIFETIME_MAX_SECONDS)) {
      blame(`must limit lifetimes to at most ${ACCESS_TOKEN_LIFETIME_MAX_SECONDS} seconds`);
    }
    const problem = keysFault(keys, plaintext);
    if (problem !== undefined) blame(problem);
  }
  if (issuers.length > TRUSTED_ISSUERS_MAX) {
    faults.push({ index: 0, problem: `at most ${TRUSTED_ISSUERS_MAX} issuers can be trusted` });
  }
  return faults;
}

function keysFault(keys: TrustedIssuer['keys'], plaintext: Plaintext | undefined): string | undefined {
  if ('legacySecret' in keys) {
    return keys.legacySecret.byteLength < LEGACY_SECRET_BYTES_MIN
      ? `must have a secret of at least ${LEGACY_SECRET_BYTES_MIN} bytes`
      : undefined;
  }
  const { jwksUrl, jwksFile, algorithms } = keys;
  if ((jwksUrl === undefined) === (jwksFile === undefined)) return 'must have a jwksUrl or a jwksFile';
  if (algorithms.length === 0 || !algorithms.every((one) => SIGNATURE_ALGORITHMS.includes(one))) {
    return `must have algorithms among ${SIGNATURE_ALGORITHMS.join(', ')}`;
  }
  // Whoever could answer in its place could make tokens of its.
  return jwksUrl === undefined || isPrivateUrl(jwksUrl, plaintext)
    ? undefined
    : 'must publish its keys over https, or on this machine';
}

function keysOf(
  { issuer, keys }: TrustedIssuer,
  { clock, timers, log }: TrustedIssuersOptions,
  onChange: () => void,
): IssuerKeys {
  if ('legacySecret' in keys) return createLegacyKeys(keys.legacySecret);
  return createPublishedKeys({ ...keys, issuer, clock, timers, log, onChange });
}

function foreignIssuer(described: TrustedIssuer, keys: IssuerKeys, ownAudience: string): ForeignIssuer {
  const { issuer, audience = ownAudience, types = [ACCESS_TOKEN_TYPE] } = described;
  const isLegacy = 'legacySecret' in described.keys;
  const rules: ForeignRules = {
    issuer,
    names: described.claims ?? {},
    scopes: new Map(Object.entries(described.scopes ?? {})),
    roles: new Map(Object.entries(described.roles ?? {})),
    lifetimeMaxSeconds: described.lifetimeMaxSeconds ?? ACCESS_TOKEN_LIFETIME_MAX_SECONDS,
  };
  const wantedTypes = new Set(types.map((type) => type.toLowerCase()));
  return {
    issuer,
    parse: (text) => parseForeignToken(text, { types: wantedTypes, mayLackKeyId: isLegacy }),
    verify: (token) => keys.verify(token),
    has: (keyId) => keys.has(keyId),
    read: ({ payload, keyId }, nowSeconds, who) => {
      const json = parseJsonObject(payload);
      if (json === undefined) return { fault: 'payload' };
      return readForeignClaims(json, keyId, {
        ...rules,
        audience: who === 'OURS' ? audience : undefined,
        nowSeconds,
      });
    },
  };
}
