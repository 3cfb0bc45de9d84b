/** Tokens for a service itself, and tokens with which it acts for its callers. */

import type { ChannelCredentials } from '@grpc/grpc-js';
import { type Clock, systemClock } from '../clock.js';
import { type AnyCall, bearerOf, principalOf } from '../token/principal.js';
import type { Plaintext } from '../wire/connection.js';
import { type ClientKey, createAssertionSigner } from './client-key.js';
import { authenticate } from './interceptor.js';
import { IssuerClient } from './issuer-client.js';
import { createTokenSource, type FetchedToken, type TokenSource } from './token-source.js';

/** How a service reaches its issuer, and which client it is there. */
export interface ServiceIdentity {
  /** Where the issuer listens, as a grpc-js target. */
  readonly address: string;
  /** TLS that knows the issuer; plaintext on loopback alone, unless `plaintext` allows it. */
  readonly credentials: ChannelCredentials;
  readonly plaintext?: Plaintext | undefined;
  readonly clientId: string;
  /** Private key of the client. */
  readonly clientKey: ClientKey;
  /** The issuer's name (`iss`). */
  readonly issuer: string;
  readonly clock?: Clock;
}

/** A source of tokens that holds a connection open. */
export interface ServiceTokenSource extends TokenSource {
  close(): void;
}

/**
 * Tokens for the service itself, by `private_key_jwt` (RFC 7523).
 *
 * @param options.audiences - the services the token is for; all that the client may reach when absent
 * @param options.scopes - the scopes wanted; all that the client may have when absent
 * @throws Error when the client key cannot be used, TypeError when tokens would leave this machine in plaintext
 */
export function createServiceTokenSource(
  options: ServiceIdentity & { readonly audiences?: readonly string[]; readonly scopes?: readonly string[] },
): ServiceTokenSource {
  const clock = options.clock ?? systemClock;
  const client = new IssuerClient(options, clock);
  const sign = createAssertionSigner({ ...options, clock });
  const source = createIssuedTokens(
    client,
    async () =>
      client.issueServiceToken({
        clientId: options.clientId,
        credential: { $case: 'clientAssertion', value: await sign() },
        audiences: [...(options.audiences ?? [])],
        scopes: [...(options.scopes ?? [])],
      }),
    clock,
  );
  return { get: source.get, reject: source.reject, close: () => client.close() };
}

/** Tokens from an issuer, which is asked over a new connection once its last token was refused somewhere. */
function createIssuedTokens(
  client: IssuerClient,
  fetch: () => Promise<FetchedToken>,
  clock: Clock,
): TokenSource {
  let last = '';
  const source = createTokenSource(async () => {
    const fetched = await fetch();
    last = fetched.token;
    return fetched;
  }, clock);
  return {
    get: source.get,
    reject: (token) => {
      if (token === last) {
        client.reconnect();
        last = '';
      }
      source.reject(token);
    },
  };
}

/** How many exchanged tokens are kept. */
export const EXCHANGED_TOKENS_MAX = 10_000;

/** Trades callers' tokens for tokens to act for them. */
export interface Exchange {
  /**
   * Tokens with which this service acts for the caller of `call`, narrower than the caller's own
   * (RFC 8693). One exchange serves all calls that come with the same token.
   */
  forCall(call: AnyCall, wanted: { audience: string; scopes: readonly string[] }): TokenSource;
  close(): void;
}

/**
 * Acts for callers, as the service that `options` names.
 *
 * @throws TypeError when tokens would leave this machine in plaintext
 */
export function createExchange(options: ServiceIdentity): Exchange {
  const clock = options.clock ?? systemClock;
  const client = new IssuerClient(options, clock);
  const own = createServiceTokenSource({ ...options, scopes: ['auth.exchange'] });
  // In order of insertion, so that the oldest goes first when there are too many.
  const kept = new Map<string, { source: TokenSource; expiresAtMs: number }>();

  return {
    forCall: (call, { audience, scopes }) => {
      const principal = principalOf(call);
      const subjectToken = bearerOf(call);
      // By the token itself: another issuer may give its token the identifier of somebody else's.
      const key = JSON.stringify([subjectToken, audience, scopes]);
      const found = kept.get(key);
      if (found !== undefined && clock.wallMs() < found.expiresAtMs) return found.source;
      const source = createIssuedTokens(
        client,
        () =>
          client.exchangeToken(
            { subjectToken, audience, scopes: [...scopes] },
            { interceptors: [authenticate(own)] },
          ),
        clock,
      );
      for (const oldest of kept.keys()) {
        if (kept.size < EXCHANGED_TOKENS_MAX) break;
        kept.delete(oldest);
      }
      kept.delete(key);
      kept.set(key, { source, expiresAtMs: principal.expiresAtSeconds * 1000 });
      return source;
    },
    close: () => {
      client.close();
      own.close();
    },
  };
}
