/** The signing keys of the kit: real keys, created once for each process. */

import { generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto';
import type { PublicKey } from '../../gen/portcullis/token/v1/token.js';

/** An Ed25519 key pair. */
export interface SigningKey {
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
  /** The public key as the issuer publishes it. */
  readonly published: PublicKey;
}

/** The keys of a process: the issuer's, and one that the issuer does not have. */
export interface SigningKeys {
  readonly issuer: SigningKey;
  readonly stranger: SigningKey;
}

const KID_BYTES = 16;

let created: SigningKeys | undefined;

/** The keys of this process. The first call creates them. */
export function signingKeys(): SigningKeys {
  created ??= { issuer: createSigningKey(), stranger: createSigningKey() };
  return created;
}

function createSigningKey(): SigningKey {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519');
  const kid = randomBytes(KID_BYTES).toString('base64url');
  const jwk = JSON.stringify(publicKey.export({ format: 'jwk' }));
  return { privateKey, publicKey, published: { kid, algorithm: 'EdDSA', jwk } };
}

/** A JSON object, or its text where the spelling matters. */
export type Json = Readonly<Record<string, unknown>> | string;

/** Encodes a segment of a compact JWS (RFC 7515 §3.1). */
export function encodeSegment(json: Json): string {
  return Buffer.from(typeof json === 'string' ? json : JSON.stringify(json)).toString('base64url');
}

/** Signs a compact JWS with Ed25519, whatever the header says. */
export function signCompact(header: Json, payload: Json, { privateKey }: SigningKey): string {
  const signed = `${encodeSegment(header)}.${encodeSegment(payload)}`;
  return `${signed}.${sign(null, Buffer.from(signed, 'latin1'), privateKey).toString('base64url')}`;
}
