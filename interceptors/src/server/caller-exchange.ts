/** Token exchange for the callers of a guarded server. */

import { createTokenExchange, type ExchangeTarget } from '../client/exchange.js';
import type { ServiceIdentity } from '../client/service-tokens.js';
import type { TokenSource } from '../client/token-source.js';
import { type AnyCall, bearerOf, principalOf } from './call-state.js';

/** Exchanges the tokens of callers for tokens to act for them. */
export interface Exchange {
  /**
   * Tokens with which this service acts for the caller of `call` (RFC 8693), narrower than the caller's own. The source
   * is shared by all calls with the same token and target.
   *
   * @throws TypeError on a public method, or where no guard is installed
   */
  forCall(call: AnyCall, target: ExchangeTarget): TokenSource;
  close(): void;
}

/**
 * Acts for callers, as the service that `options` names.
 *
 * @throws Error when the client key cannot be used, TypeError when tokens would leave this machine in plaintext
 */
export function createExchange(options: ServiceIdentity): Exchange {
  const exchange = createTokenExchange(options);
  return {
    forCall: (call, target) => {
      const { expiresAtSeconds } = principalOf(call);
      return exchange.sourceFor({ token: bearerOf(call), expiresAtSeconds }, target);
    },
    close: () => exchange.close(),
  };
}
