/** Who calls, for the upstream: plain headers, or a short-lived JWT that the gate signs. */

import { createHash, createPublicKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import type { Principal } from '@portcullis/guard';
import { type Clock, systemClock } from '@portcullis/guard/clock';

/** A header: its name in lower case, and its value. */
export type Header = readonly [name: string, value: string];

/** What the upstream learns about callers. */
export interface Identity {
  /** Whether the caller's token is left out of what the upstream receives. */
  readonly stripsToken: boolean;
  /** The headers of a caller; empty when the upstream learns nothing. */
  headersOf(principal: Principal | undefined): readonly Header[];
  /** The keys that verify signed identities (RFC 7517); undefined when none are signed. */
  readonly keys: { readonly keys: readonly object[] } | undefined;
}

/** Headers with this prefix are the gate's own: those of callers never reach the upstream. */
export const IDENTITY_PREFIX = 'x-portcullis-';

/**
 * Whether a header, by its lower-case name, is one of the gate's own. Servers of CGI and WSGI make the same variable of
 * underscores and dashes, so that both count.
 */
export function isIdentityName(name: string): boolean {
  return name.startsWith('x') && name.replaceAll('_', '-').startsWith(IDENTITY_PREFIX);
}

/** The header with a signed identity. */
export const SIGNED_HEADER = `${IDENTITY_PREFIX}identity`;

/** Lifetime of a signed identity, in seconds, at most: no longer than its token. */
const SIGNED_LIFETIME_SECONDS = 60;

/** A signed identity is used again until this time before it expires, in seconds. */
const SIGNED_REST_SECONDS = 30;

/** `typ` of a signed identity, so that no verifier of access tokens accepts one (RFC 8725 §3.11). */
const SIGNED_TYPE = 'portcullis-identity+jwt';

/** The names of all headers that {@link createIdentity} may set. */
export const IDENTITY_HEADERS: readonly string[] = [
  'subject',
  'issuer',
  'id',
  'kind',
  'client',
  'session',
  'token-id',
  'scopes',
  'roles',
  'actors',
  'expires',
  'identity',
].map((name) => `${IDENTITY_PREFIX}${name}`);

/** What {@link createIdentity} needs. */
export interface IdentityOptions {
  readonly mode: 'headers' | 'signed' | 'off';
  readonly token: 'strip' | 'forward';
  /** Ed25519; default: a new key. */
  readonly key?: KeyObject | undefined;
  /** `iss` of signed identities. */
  readonly issuer: string;
  /** `aud` of signed identities. */
  readonly audience: string;
  readonly clock?: Clock | undefined;
}

/** @throws TypeError when the key is not Ed25519 */
export function createIdentity(options: IdentityOptions): Identity {
  const stripsToken = options.token === 'strip';
  if (options.mode === 'off') return { stripsToken, headersOf: () => NONE, keys: undefined };
  if (options.mode === 'headers') {
    const cached = new WeakMap<Principal, readonly Header[]>();
    const headersOf = (principal: Principal | undefined): readonly Header[] => {
      if (principal === undefined) return NONE;
      let headers = cached.get(principal);
      if (headers === undefined) {
        headers = plainHeaders(principal);
        cached.set(principal, headers);
      }
      return headers;
    };
    return { stripsToken, headersOf, keys: undefined };
  }
  const signer = new IdentitySigner(options);
  return {
    stripsToken,
    headersOf: (principal) => (principal === undefined ? NONE : signer.headersOf(principal)),
    keys: { keys: [signer.publishedKey] },
  };
}

const NONE: readonly Header[] = [];

function plainHeaders(principal: Principal): Header[] {
  const values: Readonly<Record<string, string | undefined>> = {
    subject: principal.subject,
    issuer: principal.issuer,
    id: principal.id,
    kind: principal.kind,
    client: principal.clientId,
    session: principal.sessionId,
    'token-id': principal.tokenId,
    scopes: listOf(principal.scopes),
    roles: listOf(principal.roles),
    actors: listOf(principal.actors),
    expires: String(principal.expiresAtSeconds),
  };
  return Object.entries(values).flatMap(([name, value]): Header[] =>
    value === undefined ? [] : [[`${IDENTITY_PREFIX}${name}`, headerText(value)]],
  );
}

function listOf(words: Iterable<string>): string | undefined {
  const text = [...words].join(' ');
  return text === '' ? undefined : text;
}

/**
 * Percent-encodes what is not printable ASCII, and the percent sign, as gRPC does with messages; also spaces at either end,
 * which HTTP/2 forbids there (RFC 9113 §8.2.1) and HTTP/1.1 drops.
 */
function headerText(value: string): string {
  return value
    .toWellFormed()
    .replace(/[^\x20-\x7e]|%|^ +|(?<! ) +$/gu, (character) =>
      [...Buffer.from(character)]
        .map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`)
        .join(''),
    );
}

interface SignedIdentity {
  readonly headers: readonly Header[];
  readonly usedUntilSeconds: number;
}

/** Signs identities, once a while for each token. */
class IdentitySigner {
  readonly publishedKey: object;
  readonly #key: KeyObject;
  readonly #head: string;
  readonly #issuer: string;
  readonly #audience: string;
  readonly #clock: Clock;
  readonly #signed = new WeakMap<Principal, SignedIdentity>();

  constructor({ key, issuer, audience, clock = systemClock }: IdentityOptions) {
    this.#key = key ?? generateKeyPairSync('ed25519').privateKey;
    if (this.#key.asymmetricKeyType !== 'ed25519')
      throw new TypeError('expected an Ed25519 key for identities');
    const { x = '' } = createPublicKey(this.#key).export({ format: 'jwk' });
    // RFC 7638: the thumbprint is over these members, in this order.
    const thumbprint = createHash('sha256')
      .update(JSON.stringify({ crv: 'Ed25519', kty: 'OKP', x }))
      .digest('base64url');
    this.publishedKey = { kty: 'OKP', crv: 'Ed25519', x, kid: thumbprint, alg: 'EdDSA', use: 'sig' };
    this.#head = encoded({ alg: 'EdDSA', kid: thumbprint, typ: SIGNED_TYPE });
    this.#issuer = issuer;
    this.#audience = audience;
    this.#clock = clock;
  }

  headersOf(principal: Principal): readonly Header[] {
    const nowSeconds = Math.floor(this.#clock.wallMs() / 1000);
    const known = this.#signed.get(principal);
    if (known !== undefined && nowSeconds < known.usedUntilSeconds) return known.headers;
    const expiresAt = Math.min(nowSeconds + SIGNED_LIFETIME_SECONDS, principal.expiresAtSeconds);
    const signed = {
      headers: [[SIGNED_HEADER, this.#sign(principal, nowSeconds, expiresAt)]] satisfies Header[],
      usedUntilSeconds: expiresAt - SIGNED_REST_SECONDS,
    };
    this.#signed.set(principal, signed);
    return signed.headers;
  }

  #sign(principal: Principal, issuedAt: number, expiresAt: number): string {
    const text = `${this.#head}.${encoded({
      iss: this.#issuer,
      aud: this.#audience,
      iat: issuedAt,
      exp: expiresAt,
      sub: principal.subject,
      origin: principal.issuer,
      id: principal.id,
      kind: principal.kind,
      client_id: principal.clientId,
      ...(principal.sessionId !== undefined && { sid: principal.sessionId }),
      token_id: principal.tokenId,
      scope: [...principal.scopes].join(' '),
      roles: [...principal.roles],
      ...(principal.actors.length > 0 && { actors: principal.actors }),
    })}`;
    return `${text}.${sign(null, Buffer.from(text), this.#key).toString('base64url')}`;
  }
}

function encoded(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}
