/** The exchange of the kit's issuer (RFC 8693), for a service under test that acts for its callers. */

import { createTokenSource } from '../client/token-source.js';
import { ServiceError, type StatusName } from '../errors.js';
import { bearerOf, principalOf } from '../server/call-state.js';
import type { Exchange } from '../server/caller-exchange.js';
import { statusOf } from '../wire/status.js';
import type { Accounts } from './accounts.js';
import { signActing } from './personas.js';

/**
 * Exchanges tokens of callers without an issuer process, with the issuer's answers: SCOPE_MISSING for a scope that the
 * caller's token lacks, SUBJECT_TOKEN_INVALID for a service or a revoked token. It knows no rights of clients.
 *
 * @param clientId - the service that acts
 */
export function createKitExchange(accounts: Accounts, clientId: string): Exchange {
  return {
    forCall: (call, { audience, scopes }) => {
      principalOf(call);
      const bearer = bearerOf(call);
      const fetch = async (): Promise<{ token: string; expireTimeMs: number }> => {
        const { text, claims } = exchangeIn(accounts, bearer, { clientId, audience, scopes });
        return { token: text, expireTimeMs: claims.expiresAtSeconds * 1000 };
      };
      return createTokenSource(fetch, accounts.clock);
    },
    close: () => {},
  };
}

function exchangeIn(
  accounts: Accounts,
  bearer: string,
  target: { readonly clientId: string; readonly audience: string; readonly scopes: readonly string[] },
): ReturnType<typeof signActing> {
  const { clientId, audience, scopes } = target;
  const subject = accounts.read(bearer);
  if (subject.claims.kind !== 'USER') throw subjectTokenInvalid();
  const missing = scopes.find((scope) => !subject.claims.scopes.has(scope));
  if (missing !== undefined) {
    throw received('SCOPE_MISSING', 'PERMISSION_DENIED', `the subject token has no scope ${missing}`);
  }
  // The issuer would choose those of the audience; the kit has no policy that says which they are.
  if (scopes.length === 0) throw new TypeError('expected the scopes of the exchange, got none');
  try {
    const options = { audiences: [audience], scopes };
    return signActing(accounts, subject, {
      who: `user ${subject.claims.id} through ${clientId}`,
      clientId,
      options,
    });
  } catch (cause) {
    throw subjectTokenInvalid(cause);
  }
}

function subjectTokenInvalid(cause?: unknown): Error {
  const message = 'the subject token cannot be exchanged by this client';
  return received('SUBJECT_TOKEN_INVALID', 'INVALID_ARGUMENT', message, cause);
}

/** An error as a client receives it from the issuer. */
function received(reason: string, status: StatusName, message: string, cause?: unknown): Error {
  const error = new ServiceError(reason, status, message);
  return Object.assign(new Error(message, { cause }), statusOf(error));
}
