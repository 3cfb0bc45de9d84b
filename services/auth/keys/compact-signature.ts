/** Compact JWS (RFC 7515 §7.1), signed with a private key of this issuer. */

import { KeyObject, type SignKeyObjectInput, sign } from 'node:crypto';
import { CompactSign, type CryptoKey } from 'jose';

/** Signs a payload under the given type (`typ`). */
export type Sign = (type: string, payload: Uint8Array) => string | Promise<string>;

/** OpenSSL's parameters of an algorithm (RFC 7518 §3.4, RFC 8037 §3.1). */
interface SignatureParameters {
  readonly digest: 'sha256' | null;
  readonly options: Omit<SignKeyObjectInput, 'key'>;
}

/**
 * Algorithms whose signature, about 30 µs, takes less time than a round trip to another thread. A broadcast signed with
 * them leaves in the turn of the event loop in which its commit is confirmed.
 */
const SIGNED_AT_ONCE: Readonly<Record<string, SignatureParameters>> = {
  EdDSA: { digest: null, options: {} },
  // Two numbers of fixed length, never DER.
  ES256: { digest: 'sha256', options: { dsaEncoding: 'ieee-p1363' } },
};

/** Creates the function that signs with a private key of this algorithm. */
export function createSign(
  { kid, algorithm }: { readonly kid: string; readonly algorithm: string },
  privateKey: CryptoKey,
): Sign {
  const headerOf = (type: string) => ({ alg: algorithm, kid, typ: type });
  const parameters = SIGNED_AT_ONCE[algorithm];
  // RSA takes a millisecond and more, so jose signs in other threads.
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
