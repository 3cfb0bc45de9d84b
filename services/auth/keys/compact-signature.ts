/** Compact JWS (RFC 7515 §7.1), signed with a private key of this issuer. */

import { KeyObject, type SignKeyObjectInput, sign } from 'node:crypto';
import { CompactSign, type CryptoKey } from 'jose';

/** Signs a payload as the type (`typ`) that is given. */
export type Sign = (type: string, payload: Uint8Array) => string | Promise<string>;

/** How OpenSSL is told of an algorithm (RFC 7518 §3.4, RFC 8037 §3.1). */
interface SignatureParameters {
  readonly digest: 'sha256' | null;
  readonly options: Omit<SignKeyObjectInput, 'key'>;
}

/**
 * Algorithms whose signature takes less time, some 30 µs, than handing it to another thread and hearing of it. What is
 * broadcast with them leaves in the very turn of the event loop in which its commit is known.
 */
const SIGNED_AT_ONCE: Readonly<Record<string, SignatureParameters>> = {
  EdDSA: { digest: null, options: {} },
  // Two numbers of fixed length, never DER.
  ES256: { digest: 'sha256', options: { dsaEncoding: 'ieee-p1363' } },
};

/** Makes the function that signs with a private key. Its algorithm is one with which the key was made. */
export function createSign(
  { kid, algorithm }: { readonly kid: string; readonly algorithm: string },
  privateKey: CryptoKey,
): Sign {
  const headerOf = (type: string) => ({ alg: algorithm, kid, typ: type });
  const parameters = SIGNED_AT_ONCE[algorithm];
  // RSA takes a millisecond and more: that is for jose, and for other threads.
  if (parameters === undefined) {
    return (type, payload) => new CompactSign(payload).setProtectedHeader(headerOf(type)).sign(privateKey);
  }
  const key = KeyObject.from(privateKey);
  const { digest, options } = parameters;
  return (type, payload) => {
    const signed = `${base64url(JSON.stringify(headerOf(type)))}.${base64url(payload)}`;
    const signature = sign(digest, Buffer.from(signed, 'latin1'), { ...options, key });
    return `${signed}.${signature.toString('base64url')}`;
  };
}

function base64url(content: string | Uint8Array): string {
  const bytes =
    typeof content === 'string'
      ? Buffer.from(content, 'utf8')
      : Buffer.from(content.buffer, content.byteOffset, content.byteLength);
  return bytes.toString('base64url');
}
