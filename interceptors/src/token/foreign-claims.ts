/** The claims of another issuer's token, mapped to this library's claims. */

import { CLAIM_LIST_LENGTH_MAX, CLAIM_TEXT_LENGTH_MAX, CLOCK_SKEW_SECONDS } from '../limits.js';
import {
  type ClaimFault,
  foreignPrincipalId,
  isText,
  type RevocableValues,
  type TokenClaims,
  thumbprintIn,
} from './claims.js';
import { isJsonObject, type JsonObject, type JsonValue } from './strict-json.js';

/** A claim: its name, or the names that lead to it through objects, such as `['realm_access', 'roles']`. */
export type ClaimName = string | readonly string[];

/** The names of an issuer's claims. The default names are given for each. */
export interface ClaimNames {
  /** The subject. Default: `sub`. */
  readonly subject?: ClaimName | undefined;
  /** The token's identifier. Default: `jti`. */
  readonly tokenId?: ClaimName | undefined;
  /** The session. Default: `sid`. */
  readonly sessionId?: ClaimName | undefined;
  /** The client that the token was issued to. Default: `client_id`, else `azp`. */
  readonly clientId?: ClaimName | undefined;
  /** A space-separated text, or a list. Default: `scope`. */
  readonly scopes?: ClaimName | undefined;
  /** A list, or a space-separated text. Default: `roles`. */
  readonly roles?: ClaimName | undefined;
  /** When the subject last authenticated. Default: `auth_time`. */
  readonly authTime?: ClaimName | undefined;
}

/**
 * What distinguishes the tokens of services from those of users: a claim that has one of these values, or is a list with
 * one of them. The issuer must not let users choose the claim.
 */
export interface ServiceMark {
  readonly claim: ClaimName;
  readonly values: readonly string[];
}

/** How an issuer's claims are read. */
export interface ForeignRules {
  readonly issuer: string;
  readonly names: ClaimNames;
  /** This issuer's scopes, by the other issuer's name. */
  readonly scopes: ReadonlyMap<string, string>;
  readonly roles: ReadonlyMap<string, string>;
  /** The claims by which tokens can be revoked, by their JSON Pointers. */
  readonly revocable: ReadonlyMap<string, ClaimName>;
  /** Undefined: a token is a service's if its subject is its client and it has no session. */
  readonly services: ServiceMark | undefined;
  readonly lifetimeMaxSeconds: number;
}

/**
 * Reads the claims of a token whose signature is valid with the keys of that issuer.
 *
 * Only scopes and roles that the issuer is configured to grant are kept. Its claims never name clients, generations,
 * sessions or tokens of this service's own issuer.
 *
 * @returns the claims, or the name of the claim that is wrong, for the log only
 */
export function readForeignClaims(
  payload: JsonObject,
  keyId: string,
  rules: ForeignRules & { readonly audience: string | undefined; readonly nowSeconds: number },
): TokenClaims | ClaimFault {
  const { names, issuer, audience, nowSeconds } = rules;
  const subject = textAt(payload, names.subject ?? 'sub');
  const tokenId = textAt(payload, names.tokenId ?? 'jti');
  const session = at(payload, names.sessionId ?? 'sid');
  const client =
    at(payload, names.clientId ?? 'client_id') ?? (names.clientId ? undefined : at(payload, 'azp'));
  const scopes = granted(at(payload, names.scopes ?? 'scope'), rules.scopes);
  const roles = granted(at(payload, names.roles ?? 'roles'), rules.roles);
  const audiences = audiencesIn(at(payload, 'aud'));
  const authTime = at(payload, names.authTime ?? 'auth_time');
  const [issuedAt, expiresAt] = [secondsOf(at(payload, 'iat')), secondsOf(at(payload, 'exp'))];
  const notBefore = at(payload, 'nbf') === undefined ? issuedAt : secondsOf(at(payload, 'nbf'));
  const latestSeconds = nowSeconds + CLOCK_SKEW_SECONDS;

  if (at(payload, 'iss') !== issuer) return { fault: 'iss' };
  if (audiences === undefined) return { fault: 'aud' };
  if (audience !== undefined && !audiences.includes(audience)) return { fault: 'aud' };
  if (subject === undefined) return { fault: 'sub' };
  // It becomes the `sub` of exchanged tokens, and services store it.
  const id = foreignPrincipalId(issuer, subject);
  if (id.length > CLAIM_TEXT_LENGTH_MAX) return { fault: 'sub' };
  if (tokenId === undefined) return { fault: 'jti' };
  if (session !== undefined && !isText(session)) return { fault: 'sid' };
  if (client !== undefined && !isText(client)) return { fault: 'client_id' };
  if (scopes === undefined) return { fault: 'scope' };
  if (roles === undefined) return { fault: 'roles' };
  if (issuedAt === undefined || issuedAt > latestSeconds) return { fault: 'iat' };
  if (notBefore === undefined || notBefore > latestSeconds) return { fault: 'nbf' };
  if (expiresAt === undefined || expiresAt <= issuedAt) return { fault: 'exp' };
  // Its revocations are kept for the maximum lifetime.
  if (expiresAt - issuedAt > rules.lifetimeMaxSeconds) return { fault: 'exp' };
  if (authTime !== undefined && secondsOf(authTime) === undefined) return { fault: 'auth_time' };
  const revocable = revocableIn(payload, rules.revocable);
  if ('fault' in revocable) return revocable;
  const confirmation = at(payload, 'cnf');
  const certificateThumbprint = thumbprintIn(confirmation);
  if (confirmation !== undefined && certificateThumbprint === undefined) return { fault: 'cnf' };

  return {
    issuer,
    id,
    subject,
    clientId: client ?? '',
    tokenId,
    sessionId: session,
    kind: kindOf(payload, rules.services, client === subject && session === undefined),
    scopes,
    roles,
    audiences,
    actors: [],
    authTimeSeconds: secondsOf(authTime),
    expiresAtSeconds: expiresAt,
    generation: undefined,
    clients: [],
    ancestors: [],
    origin: undefined,
    issuedAtSeconds: issuedAt,
    keyId,
    isForeign: true,
    certificateThumbprint,
    revocable,
  };
}

const NO_VALUES: RevocableValues = new Map();

/**
 * The values by which the token can be revoked, at most {@link CLAIM_LIST_LENGTH_MAX} in all. A value that no entry could
 * name must not pass: the token would stay valid when its tenant is revoked.
 */
function revocableIn(
  payload: JsonObject,
  claims: ReadonlyMap<string, ClaimName>,
): RevocableValues | ClaimFault {
  if (claims.size === 0) return NO_VALUES;
  const values = new Map<string, readonly string[]>();
  let count = 0;
  for (const [pointer, name] of claims) {
    const texts = revocableAt(payload, typeof name === 'string' ? [name] : name);
    count += texts?.length ?? 0;
    if (texts === undefined || count > CLAIM_LIST_LENGTH_MAX) return { fault: pointer };
    values.set(pointer, texts);
  }
  return values;
}

/** The values of one claim, none when it is missing or null; undefined when it has another form than an entry can name. */
function revocableAt(payload: JsonObject, names: readonly string[]): readonly string[] | undefined {
  let value: JsonValue | undefined = payload;
  for (const member of names) {
    if (!isJsonObject(value)) return undefined;
    value = Object.hasOwn(value, member) ? value[member] : undefined;
    if (value === undefined || value === null) return [];
  }
  const list = Array.isArray(value) ? (value as readonly JsonValue[]) : [value];
  const texts = list.map((one) => (Number.isSafeInteger(one) ? String(one) : one));
  return texts.every(isText) ? texts : undefined;
}

function kindOf(
  payload: JsonObject,
  mark: ServiceMark | undefined,
  looksLikeService: boolean,
): TokenClaims['kind'] {
  if (mark === undefined) return looksLikeService ? 'SERVICE' : 'USER';
  const value = at(payload, mark.claim);
  const values = Array.isArray(value) ? (value as readonly JsonValue[]) : [value];
  return mark.values.some((wanted) => values.includes(wanted)) ? 'SERVICE' : 'USER';
}

/**
 * The names of ours that a list, or a space-separated text, may grant. Others are ignored, whatever they are: issuers put
 * all roles of a user into a token. Nothing is granted without the claim.
 *
 * @returns undefined when the claim is neither a list nor a text, or grants too much for one token
 */
function granted(
  value: JsonValue | undefined,
  allowed: ReadonlyMap<string, string>,
): ReadonlySet<string> | undefined {
  if (value === undefined) return new Set();
  const given = typeof value === 'string' ? value.split(' ') : value;
  if (!Array.isArray(given)) return undefined;
  const ours = new Set<string>();
  for (const word of given as readonly JsonValue[]) {
    const name = typeof word === 'string' ? allowed.get(word) : undefined;
    if (name !== undefined) ours.add(name);
  }
  return ours.size <= CLAIM_LIST_LENGTH_MAX ? ours : undefined;
}

function at(payload: JsonObject, name: ClaimName): JsonValue | undefined {
  let value: JsonValue | undefined = payload;
  for (const member of typeof name === 'string' ? [name] : name) {
    if (!isJsonObject(value) || !Object.hasOwn(value, member)) return undefined;
    value = value[member];
  }
  return value;
}

function textAt(payload: JsonObject, name: ClaimName): string | undefined {
  const value = at(payload, name);
  return isText(value) ? value : undefined;
}

/** The audience or audiences (RFC 7519 §4.1.3); undefined when the claim is anything else. */
function audiencesIn(value: JsonValue | undefined): readonly string[] | undefined {
  const list = Array.isArray(value) ? (value as readonly JsonValue[]) : [value];
  if (list.length === 0 || list.length > CLAIM_LIST_LENGTH_MAX || !list.every(isText)) return undefined;
  return list;
}

/** A NumericDate, rounded down: other issuers may write fractions. */
function secondsOf(value: JsonValue | undefined): number | undefined {
  if (typeof value !== 'number' || !(value > 0 && value <= Number.MAX_SAFE_INTEGER)) return undefined;
  return Math.floor(value);
}
