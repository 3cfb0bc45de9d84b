/** Refusals by the guard: the error and the status of each reason. */

import { GuardError, type GuardErrorCode, type ServiceError, shareError } from '../errors.js';
import type { DenialReason } from '../revocation/verified-tokens.js';
import { type CallStatus, statusOf } from '../wire/status.js';
import type { LimitName } from './guard-limits.js';

/** The message of each refusal. It does not say more than its reason, so that an attacker learns nothing from it. */
const MESSAGES = {
  TOKEN_MISSING: 'an access token is required',
  TOKEN_INVALID: 'the access token is not valid',
  TOKEN_EXPIRED: 'the access token has expired',
  TOKEN_REVOKED: 'the access token has been revoked',
  TLS_REQUIRED: 'access tokens are accepted over TLS only',
  REVOCATION_STATE_STALE: 'the revocation list is not current',
  DEPENDENCY_UNAVAILABLE: 'the access token cannot be verified at this moment',
} as const satisfies Partial<Record<GuardErrorCode, string>>;

/** A reason for which the guard refuses a call, whatever the method's rule. */
export type RefusalCode = keyof typeof MESSAGES;

/** RetryInfo delay of refusals that this server's own state causes, in milliseconds. */
const RETRY_AFTER_MS = 1000;

const RETRIABLE: ReadonlySet<RefusalCode> = new Set<RefusalCode>([
  'REVOCATION_STATE_STALE',
  'DEPENDENCY_UNAVAILABLE',
]);

/** Creates the error of a refusal, for throwing. */
export function refusal(code: RefusalCode): ServiceError<GuardErrorCode> {
  return new GuardError(code, MESSAGES[code], RETRIABLE.has(code) ? { retryAfterMs: RETRY_AFTER_MS } : {});
}

/** The message for each limit. The name of the limit follows, for operators. */
const LIMIT_MESSAGES: Readonly<Record<LimitName, string>> = {
  request_bytes: 'the request message is larger than this method accepts',
  request_seconds: 'the request did not arrive in time',
  public_idle_seconds: 'no request arrived on this stream for too long',
  response_seconds: 'the response was not read in time',
  bytes_in_flight: 'too many bytes of requests are in flight',
  public_calls: 'too many calls without a token are in progress',
  public_calls_per_address: 'too many calls from this address are in progress',
  calls_per_user: 'too many calls of this user are in progress',
  streams_per_user: 'too many streams of this user are open',
  calls_per_service: 'too many calls of this service are in progress',
  streams_per_service: 'too many streams of this service are open',
  connections: 'too many connections',
  connections_per_address: 'too many connections from this address',
  connection_setup_seconds: 'the connection was not set up in time',
  first_request_seconds: 'no request arrived on this connection in time',
  new_streams_per_address: 'too many open streams from this address',
  verifications: 'too many calls with new tokens at once',
};

const LIMIT_CODES: Partial<Record<LimitName, GuardErrorCode>> = {
  request_bytes: 'REQUEST_TOO_LARGE',
  request_seconds: 'REQUEST_TIMEOUT',
  public_idle_seconds: 'REQUEST_TIMEOUT',
};

function limitError(limit: LimitName): ServiceError<GuardErrorCode> {
  const code = LIMIT_CODES[limit] ?? 'RATE_LIMITED';
  const options = code === 'RATE_LIMITED' ? { retryAfterMs: RETRY_AFTER_MS } : {};
  return new GuardError(code, `${LIMIT_MESSAGES[limit]} (limit ${limit})`, options);
}

const REFUSALS = sharedErrors(MESSAGES, refusal);
const LIMIT_REFUSALS = sharedErrors(LIMIT_MESSAGES, limitError);

/**
 * The error of a refusal, the same object for all calls. In a flood of bad tokens, a new error with its stack for each
 * call would cost a good part of what verifying a signature does. It is returned, never thrown.
 */
export function sharedRefusal(code: RefusalCode): ServiceError<GuardErrorCode> {
  return REFUSALS[code];
}

/** The error of a limit, the same object for all calls. It is returned, never thrown. */
export function limitRefusal(limit: LimitName): ServiceError<GuardErrorCode> {
  return LIMIT_REFUSALS[limit];
}

/** One error for each name. */
function sharedErrors<Name extends string>(
  messages: Readonly<Record<Name, string>>,
  create: (name: Name) => ServiceError<GuardErrorCode>,
): Readonly<Record<Name, ServiceError<GuardErrorCode>>> {
  const names = Object.keys(messages) as Name[];
  const errors = names.map((name) => [name, shareError(create(name))] as const);
  return Object.fromEntries(errors) as Record<Name, ServiceError<GuardErrorCode>>;
}

/** The status that ends a call because of a limit. */
export function limitStatus(limit: LimitName): CallStatus {
  return statusOf(limitRefusal(limit));
}

/** The status that cuts a live call. Computed once: thousands of calls may be cut at a time. */
export const CUT_STATUSES: Readonly<Record<DenialReason, CallStatus>> = {
  TOKEN_EXPIRED: statusOf(sharedRefusal('TOKEN_EXPIRED')),
  TOKEN_REVOKED: statusOf(sharedRefusal('TOKEN_REVOKED')),
  REVOCATION_STATE_STALE: statusOf(sharedRefusal('REVOCATION_STATE_STALE')),
};
