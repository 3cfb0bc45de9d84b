/** The HTTP endpoints by which other verifiers find this issuer's keys (RFC 7517, RFC 8414). */

import { createHash } from 'node:crypto';
import { jsonAnswer, type OpsAnswer, type OpsRoute } from '../../common/host/ops.js';
import { NEXT_PUBLISHED_SECONDS_MIN } from '../keys/key-life.js';
import type { PublicKeys } from '../keys/keys.js';
import type { PublishedKey } from '../records/keys.js';

/**
 * For how long others may keep the keys, in seconds: a small part of the time for which a key is published before it
 * signs by schedule, so that a copy has been renewed several times by then, failures of theirs included.
 */
export const KEYS_CACHE_SECONDS = NEXT_PUBLISHED_SECONDS_MIN / 6;

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
  return {
    [JWKS_PATH]: async () => {
      const { keySet } = await publicKeys.read();
      return cachedAnswer({ keys: keySet.keys.map(publishedJwk) });
    },
    // Tokens are issued over gRPC alone, so there is no endpoint to name but that of the keys.
    [METADATA_PATH]: () =>
      cachedAnswer({
        issuer,
        jwks_uri: issuer.replace(/\/$/, '') + JWKS_PATH,
        response_types_supported: [],
        grant_types_supported: [],
        token_endpoint_auth_methods_supported: ['private_key_jwt', 'client_secret_post'],
      }),
  };
}

/** Member by member, so that a private one could not slip through, whatever a row holds. */
function publishedJwk({ kid, algorithm, jwk }: PublishedKey): object {
  const { kty, crv, x, y, n, e } = JSON.parse(jwk) as Record<string, unknown>;
  return { kty, crv, x, y, n, e, kid, alg: algorithm, use: 'sig' };
}

function cachedAnswer(body: object): OpsAnswer {
  const answer = jsonAnswer(200, body);
  return {
    ...answer,
    headers: {
      'cache-control': `public, max-age=${KEYS_CACHE_SECONDS}`,
      etag: `"${createHash('sha256').update(answer.body).digest('base64url')}"`,
    },
  };
}
