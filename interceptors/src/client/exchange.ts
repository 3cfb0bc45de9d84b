/** Token exchange (RFC 8693): tokens with which a service acts for the subject of another token. */

import { systemClock } from '../clock.js';
import { authenticate } from './interceptor.js';
import { IssuerClient } from './issuer-client.js';
import { createIssuedTokenSource, createServiceTokenSource, type ServiceIdentity } from './service-tokens.js';
import type { TokenSource } from './token-source.js';

/** Maximum number of exchanged tokens that are cached. */
const EXCHANGED_TOKENS_MAX = 10_000;

/** The scope that a service's own token needs to exchange others. */
const EXCHANGE_SCOPE = 'auth.exchange';

/** The token to exchange (`subject_token`, RFC 8693 §2.1). */
interface SubjectToken {
  readonly token: string;
  /** When it expires, in seconds since the epoch. */
  readonly expiresAtSeconds: number;
}

/** What an exchanged token is for. Both must be within what the subject token and the client's configuration allow. */
export interface ExchangeTarget {
  readonly audience: string;
  readonly scopes: readonly string[];
}

/** Exchanges tokens at the issuer. */
export interface TokenExchange {
  /** Tokens to act for the subject. The source is shared by all calls with the same subject token and target. */
  sourceFor(subject: SubjectToken, target: ExchangeTarget): TokenSource;
  close(): void;
}

/**
 * Exchanges tokens as the client that `options` names.
 *
 * @throws Error when the client key cannot be used, TypeError when tokens would leave this machine in plaintext
 */
export function createTokenExchange(options: ServiceIdentity): TokenExchange {
  const clock = options.clock ?? systemClock;
  const client = new IssuerClient(options, clock);
  const own = createServiceTokenSource({ ...options, scopes: [EXCHANGE_SCOPE] });
  // In insertion order, so that the oldest is evicted first.
  const cache = new Map<string, { source: TokenSource; expiresAtMs: number }>();

  return {
    sourceFor: ({ token, expiresAtSeconds }, { audience, scopes }) => {
      // The key is the token's text: two issuers may use the same token identifier.
      const key = JSON.stringify([token, audience, scopes]);
      const cached = cache.get(key);
      if (cached !== undefined && clock.wallMs() < cached.expiresAtMs) return cached.source;
      const source = createIssuedTokenSource(
        client,
        () =>
          client.exchangeToken(
            { subjectToken: token, audience, scopes: [...scopes] },
            { interceptors: [authenticate(own)] },
          ),
        clock,
      );
      for (const oldest of cache.keys()) {
        if (cache.size < EXCHANGED_TOKENS_MAX) break;
        cache.delete(oldest);
      }
      cache.delete(key);
      cache.set(key, { source, expiresAtMs: expiresAtSeconds * 1000 });
      return source;
    },
    close: () => {
      client.close();
      own.close();
    },
  };
}
