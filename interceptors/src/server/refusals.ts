/** Refusals by the guard: the error and the status of each reason. */

import { GuardError, type GuardErrorCode, type ServiceError } from '../errors.js';
import type { DenialReason } from '../revocation/verified-tokens.js';
import { type CallStatus, reusableStatus, statusOf } from '../wire/status.js';

/** The message of each refusal. It does not say more than its reason, so that an attacker learns nothing from it. */
const MESSAGES = {
  TOKEN_MISSING: 'an access token is required',
  TOKEN_INVALID: 'the access token is not valid',
  TOKEN_EXPIRED: 'the access token has expired',
  TOKEN_REVOKED: 'the access token has been revoked',
  TLS_REQUIRED: 'access tokens are accepted over TLS only',
  REVOCATION_STATE_STALE: 'the revocation list is not current',
  DEPENDENCY_UNAVAILABLE: 'the access token cannot be verified at this moment',
  RATE_LIMITED: 'too many new tokens at once',
} as const satisfies Partial<Record<GuardErrorCode, string>>;

/** A reason for which the guard refuses a call, whatever the method's rule. */
export type RefusalCode = keyof typeof MESSAGES;

/** RetryInfo delay of refusals that this server's own state causes, in milliseconds. */
const RETRY_AFTER_MS = 1000;

const RETRIABLE: ReadonlySet<RefusalCode> = new Set<RefusalCode>([
  'REVOCATION_STATE_STALE',
  'DEPENDENCY_UNAVAILABLE',
  'RATE_LIMITED',
]);

/** Creates the error of a refusal, for throwing. */
export function refusal(code: RefusalCode): ServiceError<GuardErrorCode> {
  return new GuardError(code, MESSAGES[code], RETRIABLE.has(code) ? { retryAfterMs: RETRY_AFTER_MS } : {});
}

interface SharedRefusal {
  readonly error: ServiceError<GuardErrorCode>;
  readonly status: CallStatus;
}

const shared = new Map<string, SharedRefusal>();

function sharedOf(code: RefusalCode): SharedRefusal {
  let found = shared.get(code);
  if (found === undefined) {
    const error = refusal(code);
    found = { error, status: reusableStatus(statusOf(error)) };
    shared.set(code, found);
  }
  return found;
}

/**
 * The error of a refusal, the same object for all calls. In a flood of bad tokens, a new error with its stack for each
 * call would cost a good part of what verifying a signature does. It is returned, never thrown.
 */
export function sharedRefusal(code: RefusalCode): ServiceError<GuardErrorCode> {
  return sharedOf(code).error;
}

/** The status that ends a refused call. */
export function refusalStatus(error: ServiceError): CallStatus {
  const found = shared.get(error.code);
  return found?.error === error ? found.status : statusOf(error);
}

/** The status that cuts a live call. Computed once: thousands of calls may be cut at a time. */
export const CUT_STATUSES: Readonly<Record<DenialReason, CallStatus>> = {
  TOKEN_EXPIRED: sharedOf('TOKEN_EXPIRED').status,
  TOKEN_REVOKED: sharedOf('TOKEN_REVOKED').status,
  REVOCATION_STATE_STALE: sharedOf('REVOCATION_STATE_STALE').status,
};
