/** The catalogue of bad tokens: each differs in one thing from a token that is admitted. */

import { createHash, createHmac } from 'node:crypto';
import { ACCESS_TOKEN_LIFETIME_MAX_SECONDS, CLOCK_SKEW_SECONDS, TOKEN_LENGTH_MAX } from '../limits.js';
import type { Accounts, TokenPayload } from './accounts.js';
import { encodeSegment, type Json, type SigningKey, signCompact, signingKeys } from './signing.js';

/** A minute, in seconds: far more than the difference between clocks that a guard tolerates. */
const MINUTE = 12 * CLOCK_SKEW_SECONDS;

/** How a bad token is made of a good one. */
interface Recipe {
  readonly header: Readonly<Record<string, unknown>>;
  readonly payload: TokenPayload;
  readonly good: string;
  readonly nowSeconds: number;
  readonly key: SigningKey;
  /** Signs with the issuer's key. */
  readonly sign: (header: Json, payload: Json) => string;
}

/** A guard answers TOKEN_INVALID to all of them, and TOKEN_EXPIRED to `expired`. */
const RECIPES = {
  notAToken: () => 'not-a-token',
  /** The form of a refresh token, which only the issuer accepts. */
  opaque: ({ good }) => createHash('sha256').update(good).digest('base64url'),
  /** RFC 8725 §2.1: the header asks for no signature, and there is none. */
  algNone: ({ header, payload }) => `${encodeSegment({ ...header, alg: 'none' })}.${encodeSegment(payload)}.`,
  /** The header asks for no signature, and there is a good one. */
  algNoneSigned: ({ header, payload, sign }) => sign({ ...header, alg: 'none' }, payload),
  /** RFC 8725 §2.1: the public key, which everyone knows, as the secret of an HMAC. */
  hmacWithPublicKey: ({ header, payload, key }) => {
    const signed = `${encodeSegment({ ...header, alg: 'HS256' })}.${encodeSegment(payload)}`;
    const secret = key.publicKey.export({ type: 'spki', format: 'pem' });
    return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
  },
  wrongAlgorithm: ({ header, payload, sign }) => sign({ ...header, alg: 'ES256' }, payload),
  /** Signed by a key that the issuer does not have, under the name of one that it has. */
  wrongKey: ({ header, payload }) => signCompact(header, payload, signingKeys().stranger),
  unknownKey: ({ header, payload }) => {
    const { stranger } = signingKeys();
    return signCompact({ ...header, kid: stranger.published.kid }, payload, stranger);
  },
  noKeyId: ({ header: { alg, typ }, payload, sign }) => sign({ alg, typ }, payload),
  /** RFC 8725 §3.10: the token brings the key that verifies it. */
  embeddedKey: ({ header, payload }) => {
    const { stranger } = signingKeys();
    const jwk: unknown = JSON.parse(stranger.published.jwk);
    return signCompact({ ...header, kid: stranger.published.kid, jwk }, payload, stranger);
  },
  keyUrl: ({ header, payload, sign }) => sign({ ...header, jku: 'https://attacker.test/keys' }, payload),
  criticalHeader: ({ header, payload, sign }) => sign({ ...header, crit: ['b64'], b64: false }, payload),
  /** An ID token or another JWT of the same issuer (RFC 8725 §3.11). */
  wrongType: ({ header, payload, sign }) => sign({ ...header, typ: 'JWT' }, payload),
  noType: ({ header: { alg, kid }, payload, sign }) => sign({ alg, kid }, payload),
  wrongIssuer: ({ header, payload, sign }) => sign(header, { ...payload, iss: 'https://attacker.test' }),
  wrongAudience: ({ header, payload, sign }) => sign(header, { ...payload, aud: ['another-service'] }),
  expired: ({ header, payload, nowSeconds, sign }) =>
    sign(header, { ...payload, iat: nowSeconds - 2 * MINUTE, exp: nowSeconds - MINUTE }),
  notYetValid: ({ header, payload, nowSeconds, sign }) =>
    sign(header, { ...payload, nbf: nowSeconds + MINUTE }),
  issuedInTheFuture: ({ header, payload, nowSeconds, sign }) =>
    sign(header, { ...payload, iat: nowSeconds + MINUTE, exp: nowSeconds + 2 * MINUTE }),
  /** Valid for longer than revocations are kept. */
  livesTooLong: ({ header, payload, nowSeconds, sign }) =>
    sign(header, { ...payload, iat: nowSeconds, exp: nowSeconds + ACCESS_TOKEN_LIFETIME_MAX_SECONDS + 1 }),
  neverExpires: ({ header, payload: { exp: _exp, ...rest }, sign }) => sign(header, rest),
  noSubject: ({ header, payload: { sub: _sub, ...rest }, sign }) => sign(header, rest),
  /** A token that could not be revoked by itself. */
  noTokenId: ({ header, payload: { jti: _jti, ...rest }, sign }) => sign(header, rest),
  /** Bound to a client certificate that the caller does not have (RFC 8705). */
  stolenFromCertificate: ({ header, payload, sign }) =>
    sign(header, {
      ...payload,
      cnf: { 'x5t#S256': createHash('sha256').update('certificate').digest('base64url') },
    }),
  /** Two members of one name: readers disagree about which one counts. */
  duplicateClaim: ({ header, payload, sign }) =>
    sign(header, `{"scope":"everything",${JSON.stringify(payload).slice(1)}`),
  payloadNotJson: ({ header, sign }) => sign(header, 'not json'),
  /** The payload was changed after it was signed. */
  changedPayload: ({ good, payload }) => {
    const [header, , signature] = good.split('.');
    return `${header}.${encodeSegment({ ...payload, scope: 'everything' })}.${signature}`;
  },
  changedSignature: ({ good }) => {
    const at = good.lastIndexOf('.') + 1;
    return `${good.slice(0, at)}${good[at] === 'A' ? 'B' : 'A'}${good.slice(at + 1)}`;
  },
  noSignature: ({ good }) => good.slice(0, good.lastIndexOf('.') + 1),
  twoSegments: ({ good }) => good.slice(0, good.lastIndexOf('.')),
  /** A second signature after the first. */
  twoSignatures: ({ good }) => `${good}${good.slice(good.lastIndexOf('.'))}`,
  /** The JSON serialization with two signatures (RFC 7515 §7.2.1), both of them good. */
  jsonSerialization: ({ good }) => {
    const [header, payload, signature] = good.split('.');
    const signatures = [0, 1].map(() => ({ protected: header, signature }));
    return JSON.stringify({ payload, signatures });
  },
  /** A character outside the alphabet, which lenient decoders skip. */
  brokenBase64: ({ good }) => `${good}*`,
  paddedBase64: ({ good }) => `${good}==`,
  /** The same signature with spare bits: another spelling of a token that may have been revoked. */
  respeltSignature: ({ good }) => respelt(good),
  tooLong: ({ header, payload, sign }) => sign(header, { ...payload, padding: 'x'.repeat(TOKEN_LENGTH_MAX) }),
} as const satisfies Readonly<Record<string, (recipe: Recipe) => string>>;

/** The name of a bad token. */
export type BadTokenName = keyof typeof RECIPES;

/** Bad tokens by name. */
export type BadTokens = Readonly<Record<BadTokenName, string>>;

/** Makes the bad tokens out of a good one. */
export function createBadTokens(accounts: Accounts, good: string, payload: TokenPayload): BadTokens {
  const { header, key, nowSeconds } = accounts;
  const sign = (head: Json, body: Json): string => signCompact(head, body, key);
  const recipe: Recipe = { header, payload, good, nowSeconds, key, sign };
  const tokens = Object.entries(RECIPES).map(([name, make]) => [name, make(recipe)] as const);
  return Object.fromEntries(tokens) as Record<BadTokenName, string>;
}

/** An Ed25519 signature ends with a character of which four bits are spare; lenient decoders ignore them. */
function respelt(token: string): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  const last = alphabet.indexOf(token.slice(-1));
  return `${token.slice(0, -1)}${alphabet[last + 1]}`;
}
