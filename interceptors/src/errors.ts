/** The one error that domain code throws, and the closed list of its codes. */

/**
 * Everything that can be wrong with a call, as clients see it. A code is stable: it is sent as
 * `ErrorInfo.reason`, and clients branch on it, never on a message.
 */
export type ErrorCode =
  // Who is calling
  | 'TOKEN_MISSING'
  | 'TOKEN_INVALID'
  | 'TOKEN_EXPIRED'
  | 'TOKEN_REVOKED'
  | 'TLS_REQUIRED'
  | 'LOGIN_FAILED'
  | 'REFRESH_INVALID'
  | 'CLIENT_AUTHENTICATION_FAILED'
  | 'CERTIFICATE_REQUIRED'
  // What the caller may do
  | 'SCOPE_MISSING'
  | 'ROLE_MISSING'
  | 'CALLER_KIND'
  | 'LOGIN_TOO_OLD'
  | 'AUDIENCE_NOT_ALLOWED'
  // What cannot be done now
  | 'REVOCATION_STATE_STALE'
  | 'DEPENDENCY_UNAVAILABLE'
  | 'RATE_LIMITED'
  | 'LOG_CHANGED'
  // What was asked for
  | 'FIELD_INVALID'
  | 'SUBJECT_TOKEN_INVALID'
  | 'NOT_FOUND'
  | 'ALREADY_EXISTS'
  | 'INSUFFICIENT_STOCK'
  | 'INSUFFICIENT_FUNDS'
  | 'RESERVATION_EXPIRED'
  | 'RESERVATION_NOT_ACTIVE'
  | 'PAYMENT_CANCELLED'
  | 'PAYMENT_NOT_CANCELLABLE'
  | 'PAYMENT_NOT_CAPTURED'
  | 'REFUND_EXCEEDS_PAYMENT'
  | 'REQUEST_ID_REUSED'
  | 'REQUEST_IN_PROGRESS';

/** One field of a request and what is wrong with it. */
export interface FieldViolation {
  /** Path of the field as the `.proto` names it, such as `lines[2].quantity`. */
  readonly field: string;
  /** What it must be; no final period, no secret. */
  readonly description: string;
}

/** What a {@link ServiceError} may carry beside its code and message. */
export interface ServiceErrorOptions {
  /** What caused it; for the log alone, never sent. */
  readonly cause?: unknown;
  /** The fields at fault, with FIELD_INVALID. */
  readonly violations?: readonly FieldViolation[];
  /** When the caller may try again, in milliseconds from now. */
  readonly retryAfterMs?: number;
}

/** An error that the caller is meant to see: its code and its message are sent. */
export class ServiceError extends Error {
  readonly code: ErrorCode;
  readonly violations: readonly FieldViolation[];
  readonly retryAfterMs: number | undefined;

  /**
   * @param code - what clients branch on
   * @param message - for people: lower case, no final period, no secret, no token
   */
  constructor(code: ErrorCode, message: string, options: ServiceErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'ServiceError';
    this.code = code;
    this.violations = options.violations ?? [];
    this.retryAfterMs = options.retryAfterMs;
  }
}

/** FIELD_INVALID for one field. */
export function invalidField(field: string, description: string): ServiceError {
  return new ServiceError('FIELD_INVALID', `${field} ${description}`, {
    violations: [{ field, description }],
  });
}
