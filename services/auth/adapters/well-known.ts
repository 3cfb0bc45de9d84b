/** The HTTP endpoints by which other verifiers find this issuer's keys (RFC 7517, RFC 8414). */

import { jsonAnswer, type OpsRoute } from '../../common/ops.js';
import type { PublicKeys } from '../keys.js';

/** For how long others may keep the keys, in seconds; a key is published longer than that before it signs. */
export const KEYS_CACHE_SECONDS = 300;

/** Where the keys are. */
export const JWKS_PATH = '/.well-known/jwks.json';

/** Where this issuer describes itself. */
export const METADATA_PATH = '/.well-known/oauth-authorization-server';

/** The routes, for the port on which operators and proxies ask. */
export function createWellKnownRoutes(options: {
  readonly issuer: string;
  readonly publicKeys: PublicKeys;
}): Readonly<Record<string, OpsRoute>> {
  const { issuer, publicKeys } = options;
  const headers = { 'cache-control': `public, max-age=${KEYS_CACHE_SECONDS}` };
  return {
    [JWKS_PATH]: async () => {
      const { keySet } = await publicKeys.read();
      const keys = keySet.keys.map(({ kid, algorithm, jwk }) => ({
        ...(JSON.parse(jwk) as object),
        kid,
        alg: algorithm,
        use: 'sig',
      }));
      return jsonAnswer(200, { keys }, headers);
    },
    // Tokens are issued over gRPC alone, so there is no endpoint to name but that of the keys.
    [METADATA_PATH]: () =>
      jsonAnswer(
        200,
        {
          issuer,
          jwks_uri: issuer.replace(/\/$/, '') + JWKS_PATH,
          response_types_supported: [],
          grant_types_supported: [],
          token_endpoint_auth_methods_supported: ['private_key_jwt', 'client_secret_post'],
        },
        headers,
      ),
  };
}
