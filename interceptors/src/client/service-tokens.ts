/** Access tokens for a service itself. */

import type { ChannelCredentials, Interceptor } from '@grpc/grpc-js';
import { type Clock, systemClock } from '../clock.js';
import type { Plaintext } from '../wire/connection.js';
import { type ClientKey, createAssertionSigner } from './client-key.js';
import { IssuerClient } from './issuer-client.js';
import { createTokenSource, type FetchedToken, type TokenSource } from './token-source.js';

/** How a service reaches its issuer, and which client it is there. */
export interface ServiceIdentity {
  /** The issuer's address, as a grpc-js target. */
  readonly address: string;
  /** TLS credentials that verify the issuer. Plaintext is accepted where `plaintext` allows it. */
  readonly credentials: ChannelCredentials;
  /** Default: `loopback`. */
  readonly plaintext?: Plaintext | undefined;
  /** The client identifier of this service at the issuer. */
  readonly clientId: string;
  /** The private key of the client. */
  readonly clientKey: ClientKey;
  /** The issuer's name (`iss`). */
  readonly issuer: string;
  /** Interceptors of the calls to the issuer, such as that of a trace. Default: none. */
  readonly interceptors?: readonly Interceptor[] | undefined;
  readonly clock?: Clock;
}

/** A token source with a connection of its own. */
export interface ServiceTokenSource extends TokenSource {
  close(): void;
}

/**
 * Tokens for the service itself, by `private_key_jwt` (RFC 7523).
 *
 * @param options.audiences - the services that will accept the token; default: all that the client may call
 * @param options.scopes - the scopes to request; default: all that the client may have
 * @throws Error when the client key cannot be used, TypeError when tokens would leave this machine in plaintext
 */
export function createServiceTokenSource(
  options: ServiceIdentity & { readonly audiences?: readonly string[]; readonly scopes?: readonly string[] },
): ServiceTokenSource {
  const clock = options.clock ?? systemClock;
  const client = new IssuerClient(options, clock);
  const sign = createAssertionSigner({ ...options, clock });
  const source = createIssuedTokenSource(
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

/**
 * A token source that reconnects to the issuer when a server rejects the last token: the token may be bound to a client
 * certificate that was renewed since.
 */
export function createIssuedTokenSource(
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
