/** The private key with which a client authenticates to the issuer (`private_key_jwt`, RFC 7523). */

import { createPrivateKey, KeyObject, randomUUID } from 'node:crypto';
import { SignJWT } from 'jose';
import type { Clock } from '../clock.js';

/** A private key: PKCS #8 PEM text, or a KeyObject. Ed25519, P-256 or RSA. */
export type ClientKey = string | KeyObject;

/** Lifetime of a client assertion, in seconds. */
const ASSERTION_LIFETIME_SECONDS = 60;

/** Creates client assertions (RFC 7523 §3). Each is used once. */
export type AssertionSigner = () => Promise<string>;

/**
 * @throws Error when the key cannot be read, or is neither Ed25519 nor P-256 nor RSA
 */
export function createAssertionSigner(options: {
  clientId: string;
  clientKey: ClientKey;
  issuer: string;
  clock: Clock;
}): AssertionSigner {
  const key =
    options.clientKey instanceof KeyObject ? options.clientKey : createPrivateKey(options.clientKey);
  const algorithm = algorithmOf(key);
  return () => {
    const issuedAt = Math.floor(options.clock.wallMs() / 1000);
    return new SignJWT({})
      .setProtectedHeader({ alg: algorithm, typ: 'JWT' })
      .setIssuer(options.clientId)
      .setSubject(options.clientId)
      .setAudience(options.issuer)
      .setIssuedAt(issuedAt)
      .setExpirationTime(issuedAt + ASSERTION_LIFETIME_SECONDS)
      .setJti(randomUUID())
      .sign(key);
  };
}

/**
 * The algorithm of a client's private key: EdDSA, ES256 or PS256.
 *
 * @throws Error when the key is neither Ed25519 nor P-256 nor RSA
 */
export function algorithmOf(key: KeyObject): string {
  if (key.type !== 'private') throw new Error('the client key is not a private key');
  switch (key.asymmetricKeyType) {
    case 'ed25519':
      return 'EdDSA';
    case 'rsa':
      return 'PS256';
    case 'ec':
      if (key.asymmetricKeyDetails?.namedCurve === 'prime256v1') return 'ES256';
      break;
    default:
  }
  throw new Error('the client key is neither Ed25519 nor P-256 nor RSA');
}
