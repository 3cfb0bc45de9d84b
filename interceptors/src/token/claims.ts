/** The claims of an access token (RFC 7519, RFC 9068): all present, of the right type, within their limits. */

import {
  ACCESS_TOKEN_LIFETIME_MAX_SECONDS,
  ACTOR_CHAIN_LENGTH_MAX,
  CLAIM_LIST_LENGTH_MAX,
  CLAIM_TEXT_LENGTH_MAX,
  CLOCK_SKEW_SECONDS,
  REVOCABLE_CLAIMS_MAX,
} from '../limits.js';
import type { Principal } from './principal.js';
import { isJsonObject, type JsonObject, type JsonValue } from './strict-json.js';

/** The claims of a valid token. Revocations are matched against them. */
export interface TokenClaims extends Principal {
  /** The user's generation when the session was created (`gen`); services have none. */
  readonly generation: bigint | undefined;
  /** Every client in the token's chain, with its generation (`clients`). */
  readonly clients: readonly (readonly [clientId: string, generation: bigint])[];
  /** The `jti` of every token that this one was derived from (`ancestors`). */
  readonly ancestors: readonly string[];
  /** The token of another issuer at the root of an exchange (`origin`); undefined when the root is of this issuer. */
  readonly origin: TokenOrigin | undefined;
  /** When the token was issued (`iat`), in seconds since the epoch. */
  readonly issuedAtSeconds: number;
  /** The key that signed the token: its `kid`, or for another issuer's token the key's thumbprint (RFC 7638). */
  readonly keyId: string;
  /**
   * The client certificate that the token is bound to (`cnf`, RFC 8705 §3.1), as the SHA-256 of its DER in base64url. The
   * token is accepted only on connections with that certificate. Undefined for a bearer token.
   */
  readonly certificateThumbprint: string | undefined;
  /** Issued by another issuer. Revocations of this issuer's clients, sessions, tokens and generations do not match it. */
  readonly isForeign: boolean;
  /** The values of another issuer's token by which it can be revoked; undefined for this issuer's tokens. */
  readonly revocable?: RevocableValues | undefined;
}

/**
 * The values of claims by which tokens of another issuer can be revoked, by the JSON Pointers of the claims. A claim without
 * a value in the token has an empty list. A claim that is missing here was not read: the token may have any value in it.
 */
export type RevocableValues = ReadonlyMap<string, readonly string[]>;

/** The token of another issuer that a token was derived from: the claims by which it can be revoked. */
export interface TokenOrigin {
  readonly issuer: string;
  readonly subject: string;
  readonly sessionId: string | undefined;
  readonly tokenId: string;
  readonly issuedAtSeconds: number;
  /** Undefined when an older version of the issuer derived the token. */
  readonly revocable?: RevocableValues | undefined;
}

/** What the claims of a token are checked against. */
export interface ClaimsExpected {
  readonly issuer: string;
  /** The audience that the token must have; any when undefined. */
  readonly audience: string | undefined;
  /** The current time, in seconds since the epoch. */
  readonly nowSeconds: number;
}

/** The name of the claim that is wrong; for the log, never for the caller. */
export interface ClaimFault {
  readonly fault: string;
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const NIL_UUID = '00000000-0000-0000-0000-000000000000';
const THUMBPRINT = /^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$/;
const UNPRINTABLE = /[\p{Cc}\uFFFD]/u;
const SCOPE = /^[\x21\x23-\x5b\x5d-\x7e]+$/;

/**
 * Reads the claims of an access token whose signature is valid. Whether it has expired is not checked here, because the
 * caller checks that on every call.
 *
 * @returns the claims, or the name of the claim that is wrong, for the log only
 */
export function readClaims(
  payload: JsonObject,
  keyId: string,
  expected: ClaimsExpected,
): TokenClaims | ClaimFault {
  const reader = new ClaimReader(payload);
  const claims = claimsIn(reader, keyId);
  const notBeforeSeconds = reader.has('nbf') ? reader.seconds('nbf') : claims.issuedAtSeconds;
  const fault =
    reader.fault ??
    expectationFault(claims, notBeforeSeconds, expected) ??
    originFault(claims) ??
    consistencyFault(claims);
  return fault === undefined ? claims : { fault };
}

function claimsIn(reader: ClaimReader, keyId: string): TokenClaims {
  const issuer = reader.text('iss');
  const audiences = reader.texts('aud');
  const subject = reader.text('sub');
  const clientId = reader.text('client_id');
  const issuedAtSeconds = reader.seconds('iat');
  const expiresAtSeconds = reader.seconds('exp');
  const tokenId = reader.uuid('jti');
  const scopes = reader.scopes('scope');
  const clients = reader.clients('clients');
  const roles = reader.has('roles') ? reader.texts('roles') : [];
  const sessionId = reader.has('sid') ? reader.uuid('sid') : undefined;
  const authTimeSeconds = reader.has('auth_time') ? reader.seconds('auth_time') : undefined;
  const generation = reader.has('gen') ? reader.count('gen') : undefined;
  const actors = reader.has('act') ? reader.actors('act') : [];
  const ancestors = reader.has('ancestors') ? reader.uuids('ancestors') : [];
  const origin = reader.has('origin') ? reader.origin('origin') : undefined;
  const certificateThumbprint = reader.has('cnf') ? reader.confirmation('cnf') : undefined;
  if (reader.has('amr')) reader.texts('amr');
  return {
    issuer,
    id: subject,
    subject,
    clientId,
    tokenId,
    sessionId,
    kind: origin === undefined && sessionId === undefined ? 'SERVICE' : 'USER',
    scopes: new Set(scopes),
    roles: new Set(roles),
    audiences,
    actors,
    authTimeSeconds,
    expiresAtSeconds,
    generation,
    clients,
    ancestors,
    origin,
    issuedAtSeconds,
    keyId,
    certificateThumbprint,
    isForeign: false,
  };
}

/** Checks issuer, audience and times. */
function expectationFault(
  { issuer, audiences, issuedAtSeconds, expiresAtSeconds }: TokenClaims,
  notBeforeSeconds: number,
  expected: ClaimsExpected,
): string | undefined {
  const latestSeconds = expected.nowSeconds + CLOCK_SKEW_SECONDS;
  if (issuer !== expected.issuer) return 'iss';
  if (expected.audience !== undefined && !audiences.includes(expected.audience)) return 'aud';
  if (issuedAtSeconds > latestSeconds) return 'iat';
  if (notBeforeSeconds > latestSeconds) return 'nbf';
  if (expiresAtSeconds <= issuedAtSeconds) return 'exp';
  // Revocations are kept for the maximum lifetime. A token that lived longer would become valid again.
  if (expiresAtSeconds - issuedAtSeconds > ACCESS_TOKEN_LIFETIME_MAX_SECONDS) return 'exp';
  return undefined;
}

/** Checks a token that was exchanged for one of another issuer. */
function originFault(claims: TokenClaims): string | undefined {
  const { origin, issuer, subject, actors, sessionId, generation, expiresAtSeconds } = claims;
  if (origin === undefined) return undefined;
  // Only an exchange creates an origin, from a token of another issuer.
  if (actors.length === 0 || origin.issuer === issuer) return 'origin';
  // Revocations of the origin are kept for its maximum lifetime, so derived tokens must not outlive it.
  if (expiresAtSeconds - origin.issuedAtSeconds > ACCESS_TOKEN_LIFETIME_MAX_SECONDS) return 'origin';
  // The subject belongs to the other issuer, and has no session or generation here.
  if (subject !== foreignPrincipalId(origin.issuer, origin.subject)) return 'origin';
  return sessionId === undefined && generation === undefined ? undefined : 'origin';
}

/** Checks that the claims fit together: a service's own token has no session, a user's has one and a generation. */
function consistencyFault(claims: TokenClaims): string | undefined {
  const { subject, clientId, clients, generation, authTimeSeconds, actors, ancestors, origin } = claims;
  const isService = claims.kind === 'SERVICE';
  const isUserLike = generation !== undefined || authTimeSeconds !== undefined || actors.length > 0;
  if (isService && (subject !== clientId || isUserLike)) return 'sid';
  if (origin === undefined && !isService && (generation === undefined || authTimeSeconds === undefined)) {
    return 'gen';
  }
  if (!isService && subject === clientId) return 'sub';
  if (!clients.some(([id]) => id === clientId)) return 'clients';
  return origin === undefined && actors.length > 0 && ancestors.length === 0 ? 'ancestors' : undefined;
}

/** Reads claims by type. The first wrong claim is kept as `fault`; its value is then neutral. */
class ClaimReader {
  fault: string | undefined;
  readonly #payload: JsonObject;

  constructor(payload: JsonObject) {
    this.#payload = payload;
  }

  has(name: string): boolean {
    return Object.hasOwn(this.#payload, name);
  }

  text(name: string): string {
    const value = this.#value(name);
    return isText(value) ? value : this.#fail(name, '');
  }

  texts(name: string): readonly string[] {
    const value = this.#value(name);
    const isList = Array.isArray(value) && value.length <= CLAIM_LIST_LENGTH_MAX && value.every(isText);
    return isList ? (value as readonly string[]) : this.#fail(name, []);
  }

  scopes(name: string): readonly string[] {
    const value = this.#value(name);
    if (typeof value !== 'string') return this.#fail(name, []);
    if (value === '') return [];
    const scopes = value.split(' ', CLAIM_LIST_LENGTH_MAX + 1);
    return scopes.length <= CLAIM_LIST_LENGTH_MAX && scopes.every((scope) => SCOPE.test(scope))
      ? scopes
      : this.#fail(name, []);
  }

  /** A NumericDate (RFC 7519 §2) in whole seconds; rejects 1e400, 0, negative numbers and strings. */
  seconds(name: string): number {
    const value = this.#value(name);
    return Number.isSafeInteger(value) && (value as number) > 0 ? (value as number) : this.#fail(name, 0);
  }

  count(name: string): bigint {
    const value = this.#value(name);
    return isCount(value) ? BigInt(value) : this.#fail(name, 0n);
  }

  uuid(name: string): string {
    const value = this.#value(name);
    return isUuid(value) ? value : this.#fail(name, '');
  }

  uuids(name: string): readonly string[] {
    const value = this.#value(name);
    const isList = Array.isArray(value) && value.length <= ACTOR_CHAIN_LENGTH_MAX && value.every(isUuid);
    return isList ? (value as readonly string[]) : this.#fail(name, []);
  }

  clients(name: string): readonly (readonly [string, bigint])[] {
    const value = this.#value(name);
    if (!Array.isArray(value) || value.length > ACTOR_CHAIN_LENGTH_MAX + 1) return this.#fail(name, []);
    const clients: (readonly [string, bigint])[] = [];
    for (const pair of value as readonly JsonValue[]) {
      const [id, generation] = Array.isArray(pair) && pair.length === 2 ? (pair as JsonValue[]) : [];
      if (!isText(id) || !isCount(generation)) return this.#fail(name, []);
      clients.push([id, BigInt(generation)]);
    }
    return clients;
  }

  actors(name: string): readonly string[] {
    const actors: string[] = [];
    let actor = this.#value(name);
    while (actor !== undefined) {
      if (!isJsonObject(actor)) return this.#fail(name, []);
      const { sub, act }: JsonObject = actor;
      if (!isText(sub) || actors.length === ACTOR_CHAIN_LENGTH_MAX) return this.#fail(name, []);
      actors.push(sub);
      actor = act;
    }
    return actors;
  }

  /** A certificate thumbprint. A token that is bound in another way (RFC 7800, RFC 9449) must not pass as a bearer token. */
  confirmation(name: string): string {
    return thumbprintIn(this.#value(name)) ?? this.#fail(name, '');
  }

  origin(name: string): TokenOrigin | undefined {
    const value = this.#value(name);
    if (!isJsonObject(value)) return this.#fail(name, undefined);
    const reader = new ClaimReader(value);
    const origin = {
      issuer: reader.text('iss'),
      subject: reader.text('sub'),
      sessionId: reader.has('sid') ? reader.text('sid') : undefined,
      tokenId: reader.text('jti'),
      issuedAtSeconds: reader.seconds('iat'),
      revocable: reader.has('claims') ? reader.revocable('claims') : undefined,
    };
    return reader.fault === undefined ? origin : this.#fail(name, undefined);
  }

  /** Lists of values by the JSON Pointers of their claims. */
  revocable(name: string): RevocableValues {
    const value = this.#value(name);
    const values = new Map<string, readonly string[]>();
    if (!isJsonObject(value) || Object.keys(value).length > REVOCABLE_CLAIMS_MAX)
      return this.#fail(name, values);
    const reader = new ClaimReader(value);
    for (const pointer of Object.keys(value)) values.set(pointer, reader.texts(pointer));
    return reader.fault === undefined ? values : this.#fail(name, new Map());
  }

  #value(name: string): JsonValue | undefined {
    return this.has(name) ? this.#payload[name] : undefined;
  }

  #fail<T>(name: string, neutral: T): T {
    this.fault ??= name;
    return neutral;
  }
}

/** The thumbprint in a confirmation (`cnf`) that contains nothing else; undefined for every other confirmation. */
export function thumbprintIn(value: JsonValue | undefined): string | undefined {
  if (!isJsonObject(value)) return undefined;
  const { 'x5t#S256': thumbprint, ...others } = value;
  const isGood = typeof thumbprint === 'string' && THUMBPRINT.test(thumbprint);
  return isGood && Object.keys(others).length === 0 ? thumbprint : undefined;
}

/**
 * The identifier of another issuer's subject among all principals. Neither issuer names nor this issuer's subjects contain
 * a `#`, so it is unique.
 */
export function foreignPrincipalId(issuer: string, subject: string): string {
  return `${issuer}#${subject}`;
}

/**
 * Whether a claim is a text that services can store, pass on and print: not empty, at most {@link CLAIM_TEXT_LENGTH_MAX}
 * UTF-16 code units, without control characters and U+FFFD. A log entry names its subject in UTF-8, so a subject with a
 * lone surrogate could not be revoked.
 */
export function isText(value: JsonValue | undefined): value is string {
  if (typeof value !== 'string' || value.length === 0 || value.length > CLAIM_TEXT_LENGTH_MAX) return false;
  return value.isWellFormed() && !UNPRINTABLE.test(value);
}

function isCount(value: JsonValue | undefined): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isUuid(value: JsonValue | undefined): value is string {
  return typeof value === 'string' && UUID.test(value) && value !== NIL_UUID;
}
