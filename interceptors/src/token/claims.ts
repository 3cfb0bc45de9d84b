/** The inside of an access token: every claim present, of its type, within its limits. */

import {
  ACCESS_TOKEN_LIFETIME_MAX_SECONDS,
  ACTOR_CHAIN_LENGTH_MAX,
  CLAIM_LIST_LENGTH_MAX,
  CLAIM_TEXT_LENGTH_MAX,
  CLOCK_SKEW_SECONDS,
} from '../limits.js';
import type { Principal } from './principal.js';
import type { JsonObject, JsonValue } from './strict-json.js';

/** What an access token says, and what revocations are matched against. */
export interface TokenClaims extends Principal {
  /** The user's generation under which the session was opened (`gen`); services have none. */
  readonly generation: bigint | undefined;
  /** Every client of the chain, with its generation (`clients`). */
  readonly clients: readonly (readonly [clientId: string, generation: bigint])[];
  /** The `jti` of every token this one was derived from (`ancestors`). */
  readonly ancestors: readonly string[];
  /** The token of another issuer at the root of an exchange (`origin`); undefined when it was ours. */
  readonly origin: TokenOrigin | undefined;
  /** When the token was issued (`iat`), in seconds since the epoch. */
  readonly issuedAtSeconds: number;
  /** The key that signed the token (`kid`). */
  readonly keyId: string;
  /**
   * The certificate that the token is bound to (`cnf`, RFC 8705 §3.1), by the SHA-256 of its DER in base64url: it may
   * be used on connections whose peer has shown that one. Undefined for a token that whoever holds it may use.
   */
  readonly certificateThumbprint: string | undefined;
  /** Another issuer's own token: what names clients, sessions, tokens and generations of ours does not concern it. */
  readonly isForeign: boolean;
}

/** The token of another issuer that a token was derived from, as far as it can be revoked. */
export interface TokenOrigin {
  readonly issuer: string;
  readonly subject: string;
  readonly sessionId: string | undefined;
  readonly tokenId: string;
  readonly issuedAtSeconds: number;
}

/** What a token must say to be taken here. */
export interface ClaimsExpected {
  readonly issuer: string;
  /** Who the token must be for; anyone when undefined. */
  readonly audience: string | undefined;
  /** The time, in seconds since the epoch. */
  readonly nowSeconds: number;
}

/** The claim that is wrong; for the log, never for the caller. */
export interface ClaimFault {
  readonly fault: string;
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const NIL_UUID = '00000000-0000-0000-0000-000000000000';
const THUMBPRINT = /^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$/;
const SCOPE = /^[\x21\x23-\x5b\x5d-\x7e]+$/;

/**
 * Reads the claims of an access token whose signature was found good.
 *
 * Whether it has expired is left to the caller, who asks that on every call.
 *
 * @returns the claims, or the name of the claim that is wrong, for the log alone
 */
export function readClaims(
  payload: JsonObject,
  keyId: string,
  expected: ClaimsExpected,
): TokenClaims | ClaimFault {
  const reader = new ClaimReader(payload);
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
  const notBeforeSeconds = reader.has('nbf') ? reader.seconds('nbf') : issuedAtSeconds;

  if (reader.fault !== undefined) return { fault: reader.fault };
  if (issuer !== expected.issuer) return { fault: 'iss' };
  if (expected.audience !== undefined && !audiences.includes(expected.audience)) return { fault: 'aud' };
  if (issuedAtSeconds > expected.nowSeconds + CLOCK_SKEW_SECONDS) return { fault: 'iat' };
  if (notBeforeSeconds > expected.nowSeconds + CLOCK_SKEW_SECONDS) return { fault: 'nbf' };
  if (expiresAtSeconds <= issuedAtSeconds) return { fault: 'exp' };
  // The revocation log keeps its entries this long and no longer: a token that outlived them
  // would come back to life.
  if (expiresAtSeconds - issuedAtSeconds > ACCESS_TOKEN_LIFETIME_MAX_SECONDS) return { fault: 'exp' };

  if (origin !== undefined) {
    // Only an exchange makes one, out of a token of another issuer.
    if (actors.length === 0 || origin.issuer === issuer) return { fault: 'origin' };
    // Revocations of the origin are kept no longer than it could live: what was derived from it must not outlive it.
    const livesFor = expiresAtSeconds - origin.issuedAtSeconds;
    if (livesFor > ACCESS_TOKEN_LIFETIME_MAX_SECONDS) return { fault: 'origin' };
    // Its user is nobody of ours, and has no session and no generation here.
    if (subject !== foreignPrincipalId(origin.issuer, origin.subject)) return { fault: 'origin' };
    if (sessionId !== undefined || generation !== undefined) return { fault: 'origin' };
  }

  // A service's own token has no session; a user's always has one, with its generation.
  const isOurs = origin === undefined;
  const isService = isOurs && sessionId === undefined;
  const isUserLike = generation !== undefined || authTimeSeconds !== undefined || actors.length > 0;
  if (isService && (subject !== clientId || isUserLike)) return { fault: 'sid' };
  if (isOurs && !isService && (generation === undefined || authTimeSeconds === undefined)) {
    return { fault: 'gen' };
  }
  if (!isService && subject === clientId) return { fault: 'sub' };
  if (!clients.some(([id]) => id === clientId)) return { fault: 'clients' };
  if (isOurs && actors.length > 0 && ancestors.length === 0) return { fault: 'ancestors' };

  return {
    issuer,
    id: subject,
    subject,
    clientId,
    tokenId,
    sessionId,
    kind: isService ? 'SERVICE' : 'USER',
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

/** Reads claims by type; the first that is wrong is kept as `fault`, and a neutral value goes on. */
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

  /** A NumericDate of RFC 7519, whole seconds; 1e400, 0, negative ones and strings are none. */
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
    if (!Array.isArray(value) || value.length === 0 || value.length > ACTOR_CHAIN_LENGTH_MAX + 1) {
      return this.#fail(name, []);
    }
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
      if (typeof actor !== 'object' || actor === null || Array.isArray(actor)) return this.#fail(name, []);
      const { sub, act } = actor as JsonObject;
      if (!isText(sub) || actors.length === ACTOR_CHAIN_LENGTH_MAX) return this.#fail(name, []);
      actors.push(sub);
      actor = act;
    }
    return actors;
  }

  /**
   * The one way in which tokens are bound here. A token that is bound in another way (RFC 7800, RFC 9449) must not
   * pass for one that is not bound at all.
   */
  confirmation(name: string): string {
    return thumbprintIn(this.#value(name)) ?? this.#fail(name, '');
  }

  origin(name: string): TokenOrigin | undefined {
    const value = this.#value(name);
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      return this.#fail(name, undefined);
    }
    const reader = new ClaimReader(value as JsonObject);
    const origin = {
      issuer: reader.text('iss'),
      subject: reader.text('sub'),
      sessionId: reader.has('sid') ? reader.text('sid') : undefined,
      tokenId: reader.text('jti'),
      issuedAtSeconds: reader.seconds('iat'),
    };
    return reader.fault === undefined ? origin : this.#fail(name, undefined);
  }

  #value(name: string): JsonValue | undefined {
    return this.has(name) ? this.#payload[name] : undefined;
  }

  #fail<T>(name: string, neutral: T): T {
    this.fault ??= name;
    return neutral;
  }
}

/** The thumbprint in a confirmation (`cnf`) that holds it and nothing else; undefined in every other one. */
export function thumbprintIn(value: JsonValue | undefined): string | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  const { 'x5t#S256': thumbprint, ...others } = value as JsonObject;
  const isGood = typeof thumbprint === 'string' && THUMBPRINT.test(thumbprint);
  return isGood && Object.keys(others).length === 0 ? thumbprint : undefined;
}

/**
 * The name of another issuer's subject among all subjects. No issuer's name has a `#`, and nor has a subject of ours, so
 * no two pairs share one.
 */
export function foreignPrincipalId(issuer: string, subject: string): string {
  return `${issuer}#${subject}`;
}

function isText(value: JsonValue | undefined): value is string {
  if (typeof value !== 'string' || value.length === 0 || value.length > CLAIM_TEXT_LENGTH_MAX) return false;
  // An entry of the log names its subject in UTF-8, which has no lone surrogates: a subject with one
  // could not be revoked.
  return value.isWellFormed();
}

function isCount(value: JsonValue | undefined): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isUuid(value: JsonValue | undefined): value is string {
  return typeof value === 'string' && UUID.test(value) && value !== NIL_UUID;
}
