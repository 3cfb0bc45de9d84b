/** Other issuers whose tokens are accepted, each with its own keys, claim names and limits. */

import type { Clock, Timers } from '../clock.js';
import {
  ACCESS_TOKEN_LIFETIME_MAX_SECONDS,
  ACCESS_TOKEN_TYPE,
  CLAIM_TEXT_LENGTH_MAX,
  LEGACY_SECRET_BYTES_MIN,
  REVOCABLE_CLAIMS_MAX,
  SIGNATURE_ALGORITHMS,
  TRUSTED_ISSUERS_MAX,
} from '../limits.js';
import type { GuardLog } from '../log.js';
import { isPrivateUrl, type Plaintext } from '../wire/connection.js';
import { type ClaimFault, isText, type TokenClaims } from './claims.js';
import { type CompactToken, mediaTypeOf, parseForeignToken, payloadOf } from './compact.js';
import {
  type ClaimName,
  type ClaimNames,
  type ForeignRules,
  readForeignClaims,
  type ServiceMark,
} from './foreign-claims.js';
import {
  createLegacyKeys,
  createPublishedKeys,
  type ForeignIssuerKeys,
  type KeyVerdict,
  type PublishedIssuerKeys,
} from './issuer-keys.js';
import { claimIdOf, pointerOf, TRUSTED } from './revocable-claims.js';
import { parseJsonObject } from './strict-json.js';
import { isPrintedSecret } from './weak-keys.js';

/** Another issuer whose tokens are accepted. */
export interface TrustedIssuer {
  /** Its name, exactly as in `iss`. */
  readonly issuer: string;
  /** The `aud` of its tokens for this service. Default: this service's audience. */
  readonly audience?: string | undefined;
  /**
   * Its published keys; or the secret of a legacy issuer, at least {@link LEGACY_SECRET_BYTES_MIN} bytes, whose tokens
   * then must use HS256.
   */
  readonly keys: PublishedIssuerKeys | { readonly legacySecret: Uint8Array };
  /**
   * The accepted `typ` of its access tokens, in any case, with or without `application/`; '' accepts tokens without `typ`.
   * Default: `at+jwt` (RFC 9068).
   */
  readonly types?: readonly string[] | undefined;
  /** The names of its claims, where they differ from the defaults. */
  readonly claims?: ClaimNames | undefined;
  /** The scopes that it may grant, by its names for them. Its other scopes are ignored. */
  readonly scopes?: Readonly<Record<string, string>> | undefined;
  /** The roles that it may grant, by its names for them. Its other roles are ignored. */
  readonly roles?: Readonly<Record<string, string>> | undefined;
  /**
   * The claims by which its tokens can be revoked, such as that of a tenant or of groups: at most
   * {@link REVOCABLE_CLAIMS_MAX}. Each is a text, a whole number, or a list of these; a token in which one is anything else is
   * rejected. All services and auth must name the same claims. Default: none.
   */
  readonly revocable?: readonly ClaimName[] | undefined;
  /** What marks the tokens of its services. Default: the subject is the client, and there is no session. */
  readonly services?: ServiceMark | undefined;
  /** Maximum lifetime of its tokens, in seconds. Default and upper limit: {@link ACCESS_TOKEN_LIFETIME_MAX_SECONDS}. */
  readonly lifetimeMaxSeconds?: number | undefined;
}

/** A trusted issuer, in use. */
export interface ForeignIssuer {
  readonly issuer: string;
  /** Parses one of its tokens; undefined when the text is not one. */
  parse(text: string): CompactToken | undefined;
  verify(token: CompactToken): Promise<KeyVerdict>;
  /** Whether the key that verified a token is in its current key set. */
  has(key: string): boolean;
  /**
   * Reads the claims of a verified token.
   *
   * @param verifiedBy - the key, from the verdict; it becomes the claims' `keyId`
   * @param audience - `OURS`: the token must be for this service
   */
  read(
    token: CompactToken,
    verifiedBy: string,
    expected: { readonly nowSeconds: number; readonly audience: 'OURS' | 'ANY' },
  ): TokenClaims | ClaimFault;
}

export interface TrustedIssuersOptions {
  readonly issuers: readonly TrustedIssuer[];
  /** This service's own issuer; no other may have its name. */
  readonly ownIssuer: string;
  readonly audience: string;
  readonly plaintext: Plaintext | undefined;
  readonly clock: Clock;
  readonly timers: Timers;
  readonly log: GuardLog;
  /** Called when the key set of an issuer was replaced. */
  readonly onKeys: (issuer: ForeignIssuer) => void;
}

/** The trusted issuers, found by their names. */
export interface TrustedIssuers {
  readonly size: number;
  /** What instances state about the claims that they read (`SyncRequest.claim_ids`). */
  readonly claimIds: readonly Uint8Array[];
  /** The issuer with exactly this name. */
  find(issuer: string): ForeignIssuer | undefined;
  close(): void;
}

/**
 * Creates the trusted issuers, and begins to fetch their keys.
 *
 * @throws TypeError listing all faults of their configuration
 */
export function createTrustedIssuers(options: TrustedIssuersOptions): TrustedIssuers {
  const faults = trustedIssuerFaults(options.issuers, options);
  if (faults.length > 0) throw new TypeError(faults.map(({ problem }) => problem).join('; '));
  const keys: ForeignIssuerKeys[] = [];
  const issuers = new Map<string, ForeignIssuer>();
  for (const described of options.issuers) {
    const own = keysOf(described, options, () => options.onKeys(foreign));
    const foreign = foreignIssuer(described, own, options.audience);
    keys.push(own);
    issuers.set(described.issuer, foreign);
  }
  return {
    size: issuers.size,
    claimIds: options.issuers.flatMap(({ issuer, revocable = [] }) =>
      [TRUSTED, ...revocable.map(pointerOf)].map((pointer) => claimIdOf(issuer, pointer)),
    ),
    find: (issuer) => issuers.get(issuer),
    close: () => {
      for (const one of keys) one.close();
    },
  };
}

/** The `iss` of an unverified token; undefined when the text is not a token. */
export function issuerNamedIn(text: string): string | undefined {
  const bytes = payloadOf(text);
  const issuer = bytes && parseJsonObject(bytes)?.['iss'];
  return typeof issuer === 'string' ? issuer : undefined;
}

/** A fault in the configuration of one issuer. */
export interface TrustedIssuerFault {
  readonly index: number;
  /** What is wrong; no final period, no secret. */
  readonly problem: string;
}

/** Checks the configuration of trusted issuers. */
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
    const {
      issuer,
      keys,
      lifetimeMaxSeconds = ACCESS_TOKEN_LIFETIME_MAX_SECONDS,
      revocable = [],
    } = described;
    const add = (problem: string): void =>
      void faults.push({ index, problem: `issuer ${issuer} ${problem}` });
    if (issuer === '' || issuer.length > 255 || issuer.includes('#'))
      add('must have 1 to 255 characters and no #');
    if (issuer === ownIssuer) add('is the own issuer of this service');
    if (names.has(issuer)) add('is configured twice');
    names.add(issuer);
    if (!(lifetimeMaxSeconds > 0 && lifetimeMaxSeconds <= ACCESS_TOKEN_LIFETIME_MAX_SECONDS)) {
      add(`must limit lifetimes to at most ${ACCESS_TOKEN_LIFETIME_MAX_SECONDS} seconds`);
    }
    for (const problem of [revocableFault(revocable), keysFault(keys, plaintext)]) {
      if (problem !== undefined) add(problem);
    }
  }
  if (issuers.length > TRUSTED_ISSUERS_MAX) {
    faults.push({
      index: 0,
      problem: `expected at most ${TRUSTED_ISSUERS_MAX} issuers, got ${issuers.length}`,
    });
  }
  return faults;
}

function revocableFault(names: readonly ClaimName[]): string | undefined {
  if (names.length > REVOCABLE_CLAIMS_MAX) {
    return `must have at most ${REVOCABLE_CLAIMS_MAX} revocable claims`;
  }
  const pointers = names.map(pointerOf);
  // Entries of the log and exchanged tokens contain them.
  if (!pointers.every(isText) || names.some((name) => name.length === 0)) {
    return `must have revocable claims whose JSON Pointers have at most ${CLAIM_TEXT_LENGTH_MAX} printable characters`;
  }
  return new Set(pointers).size === pointers.length ? undefined : 'must not have a revocable claim twice';
}

function keysFault(keys: TrustedIssuer['keys'], plaintext: Plaintext | undefined): string | undefined {
  if ('legacySecret' in keys) {
    if (keys.legacySecret.byteLength < LEGACY_SECRET_BYTES_MIN) {
      return `must have a secret of at least ${LEGACY_SECRET_BYTES_MIN} bytes`;
    }
    return isPrintedSecret(keys.legacySecret)
      ? 'must not have the secret that is printed on jwt.io'
      : undefined;
  }
  const { jwksUrl, jwksFile, algorithms } = keys;
  if ((jwksUrl === undefined) === (jwksFile === undefined)) return 'must have a jwksUrl or a jwksFile';
  if (algorithms.length === 0 || !algorithms.every((one) => SIGNATURE_ALGORITHMS.includes(one))) {
    return `must have algorithms among ${SIGNATURE_ALGORITHMS.join(', ')}`;
  }
  // An impostor that answers this request could then issue tokens.
  return jwksUrl === undefined || isPrivateUrl(jwksUrl, plaintext)
    ? undefined
    : 'must publish its keys over https, or on this machine';
}

function keysOf(
  { issuer, keys }: TrustedIssuer,
  { clock, timers, log }: TrustedIssuersOptions,
  onChange: () => void,
): ForeignIssuerKeys {
  if ('legacySecret' in keys) return createLegacyKeys(keys.legacySecret);
  return createPublishedKeys({ ...keys, issuer, clock, timers, log, onChange });
}

function foreignIssuer(
  described: TrustedIssuer,
  keys: ForeignIssuerKeys,
  ownAudience: string,
): ForeignIssuer {
  const { issuer, audience = ownAudience, types = [ACCESS_TOKEN_TYPE] } = described;
  const rules: ForeignRules = {
    issuer,
    names: described.claims ?? {},
    scopes: new Map(Object.entries(described.scopes ?? {})),
    roles: new Map(Object.entries(described.roles ?? {})),
    revocable: new Map((described.revocable ?? []).map((name) => [pointerOf(name), name])),
    services: described.services,
    lifetimeMaxSeconds: described.lifetimeMaxSeconds ?? ACCESS_TOKEN_LIFETIME_MAX_SECONDS,
  };
  const wantedTypes = new Set(types.map(mediaTypeOf));
  return {
    issuer,
    parse: (text) => parseForeignToken(text, wantedTypes),
    verify: (token) => keys.verify(token),
    has: (key) => keys.has(key),
    read: ({ payload }, verifiedBy, { nowSeconds, audience: who }) => {
      const json = parseJsonObject(payload);
      if (json === undefined) return { fault: 'payload' };
      return readForeignClaims(json, verifiedBy, {
        ...rules,
        audience: who === 'OURS' ? audience : undefined,
        nowSeconds,
      });
    },
  };
}
