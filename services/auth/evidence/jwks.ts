/** The public keys of receipts as a JWK set (RFC 7517). */

/** Copies the public members by name, so that a private member of a stored key can never be published. */
export function receiptJwks(
  keys: readonly { readonly kid: string; readonly algorithm: string; readonly jwk: string }[],
): object {
  return {
    keys: keys.map(({ kid, algorithm, jwk }) => {
      const { kty, crv, x } = JSON.parse(jwk) as Record<string, unknown>;
      return { kty, crv, x, kid, alg: algorithm, use: 'sig' };
    }),
  };
}
