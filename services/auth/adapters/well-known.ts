/** The HTTP endpoints where other verifiers find this issuer's keys (RFC 7517, RFC 8414). */

import { createHash } from 'node:crypto';
import { type HttpAnswer, type HttpRoutes, jsonAnswer } from '../../common/host/http-port.js';
import { shareRendering } from '../../common/host/shared-rendering.js';
import { receiptJwks } from '../evidence/jwks.js';
import type { Receipts } from '../evidence/receipts.js';
import { NEXT_PUBLISHED_SECONDS_MIN } from '../keys/key-life.js';
import type { PublicKeys } from '../keys/published-keys.js';
import type { PublishedKey } from '../records/keys.js';

/**
 * How long caches may keep the key set, in seconds. It is a small fraction of the time that a key is published before it
 * signs, so that every cache has renewed its copy by then, even after failed attempts.
 */
export const KEYS_CACHE_SECONDS = NEXT_PUBLISHED_SECONDS_MIN / 6;

/** Path of the key set. */
export const JWKS_PATH = '/.well-known/jwks.json';

/** Path of the issuer's metadata. */
export const METADATA_PATH = '/.well-known/oauth-authorization-server';

/** Path of the keys that verify receipts of revocations. */
const RECEIPT_KEYS_PATH = '/.well-known/portcullis-receipt-keys.json';

/** The routes of auth. */
export function createWellKnownRoutes(options: {
  readonly issuer: string;
  readonly publicKeys: PublicKeys;
  readonly receiptKeys: Receipts['keys'];
}): HttpRoutes {
  const { issuer, publicKeys, receiptKeys } = options;
  // Tokens are issued over gRPC only, so the key set is the only endpoint to name.
  const metadata = cachedAnswer({
    issuer,
    jwks_uri: issuer.replace(/\/$/, '') + JWKS_PATH,
    response_types_supported: [],
    grant_types_supported: [],
    token_endpoint_auth_methods_supported: ['private_key_jwt', 'client_secret_post'],
  });
  return {
    [JWKS_PATH]: shareRendering(async () => {
      const { keySet } = await publicKeys.read();
      return cachedAnswer({ keys: keySet.keys.map(publishedJwk) });
    }),
    [RECEIPT_KEYS_PATH]: shareRendering(async () => cachedAnswer(receiptJwks(await receiptKeys()))),
    [METADATA_PATH]: () => metadata,
  };
}

/** Copies the public members by name, so that a private member of a stored key can never be published. */
function publishedJwk({ kid, algorithm, jwk }: PublishedKey): object {
  const { kty, crv, x, y, n, e } = JSON.parse(jwk) as Record<string, unknown>;
  return { kty, crv, x, y, n, e, kid, alg: algorithm, use: 'sig' };
}

function cachedAnswer(body: object): HttpAnswer {
  const answer = jsonAnswer(200, body);
  return {
    ...answer,
    headers: {
      'cache-control': `public, max-age=${KEYS_CACHE_SECONDS}`,
      etag: `"${createHash('sha256').update(answer.body).digest('base64url')}"`,
    },
  };
}
