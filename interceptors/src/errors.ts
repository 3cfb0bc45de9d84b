/** Errors that are sent to the caller: the library's own reasons, and how a service declares more. */

/** The name of a gRPC status that can carry a reason; OK, UNKNOWN and INTERNAL cannot. */
export type StatusName =
  | 'CANCELLED'
  | 'INVALID_ARGUMENT'
  | 'DEADLINE_EXCEEDED'
  | 'NOT_FOUND'
  | 'ALREADY_EXISTS'
  | 'PERMISSION_DENIED'
  | 'RESOURCE_EXHAUSTED'
  | 'FAILED_PRECONDITION'
  | 'ABORTED'
  | 'OUT_OF_RANGE'
  | 'UNIMPLEMENTED'
  | 'UNAVAILABLE'
  | 'DATA_LOSS'
  | 'UNAUTHENTICATED';

/** Reasons and their statuses. */
export type Reasons = Readonly<Record<string, StatusName>>;

/** The library's own reasons. UNAUTHENTICATED: the caller is not known. PERMISSION_DENIED: it is known and not allowed. */
const GUARD_REASONS = {
  TOKEN_MISSING: 'UNAUTHENTICATED',
  TOKEN_INVALID: 'UNAUTHENTICATED',
  TOKEN_EXPIRED: 'UNAUTHENTICATED',
  TOKEN_REVOKED: 'UNAUTHENTICATED',
  TLS_REQUIRED: 'UNAUTHENTICATED',
  SCOPE_MISSING: 'PERMISSION_DENIED',
  ROLE_MISSING: 'PERMISSION_DENIED',
  CALLER_KIND: 'PERMISSION_DENIED',
  LOGIN_TOO_OLD: 'PERMISSION_DENIED',
  REVOCATION_STATE_STALE: 'UNAVAILABLE',
  DEPENDENCY_UNAVAILABLE: 'UNAVAILABLE',
  RATE_LIMITED: 'RESOURCE_EXHAUSTED',
  REQUEST_TOO_LARGE: 'RESOURCE_EXHAUSTED',
  REQUEST_TIMEOUT: 'DEADLINE_EXCEEDED',
  FIELD_INVALID: 'INVALID_ARGUMENT',
  NOT_FOUND: 'NOT_FOUND',
} as const satisfies Reasons;

/** One of the library's own reasons. Reasons are stable: clients branch on them, never on messages. */
export type GuardErrorCode = keyof typeof GUARD_REASONS;

/** What is wrong with one field of a request. */
export interface FieldViolation {
  /** Path of the field in the names of the `.proto`, such as `lines[2].quantity`. */
  readonly field: string;
  /** What the field must be: `must be positive`. No final period, no secret. */
  readonly description: string;
}

/** Optional parts of a {@link ServiceError}. */
export interface ServiceErrorOptions {
  /** The cause, for the log. It is never sent. */
  readonly cause?: unknown;
  /** The invalid fields, sent as BadRequest. */
  readonly violations?: readonly FieldViolation[];
  /** Delay after which the caller may retry, in milliseconds; sent as RetryInfo. */
  readonly retryAfterMs?: number;
}

/**
 * An error that is sent to the caller, with its status, its message, and its code as `ErrorInfo.reason`. A service throws
 * the class that {@link declareErrors} returns.
 */
export class ServiceError<Code extends string = string> extends Error {
  readonly code: Code;
  readonly status: StatusName;
  readonly violations: readonly FieldViolation[];
  readonly retryAfterMs: number | undefined;

  /**
   * @param code - the reason, for programs
   * @param status - the gRPC status
   * @param message - for people: lower case, no final period, no secret, no token
   */
  constructor(code: Code, status: StatusName, message: string, options: ServiceErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'ServiceError';
    this.code = code;
    this.status = status;
    this.violations = options.violations ?? [];
    this.retryAfterMs = options.retryAfterMs;
  }
}

/** An error class for a closed list of reasons, each with its status. */
export type ErrorClass<Codes extends string> = new <Code extends Codes>(
  code: Code,
  message: string,
  options?: ServiceErrorOptions,
) => ServiceError<Code>;

/** The reasons of an error class. */
export type CodeOf<Class> = Class extends ErrorClass<infer Codes> ? Codes : never;

/**
 * Creates the error class of one service: the library's reasons and its own.
 *
 * @example
 * export const ShopError = declareErrors({ SOLD_OUT: 'FAILED_PRECONDITION' });
 * throw new ShopError('SOLD_OUT', 'the last item has been sold');
 *
 * @throws TypeError when one of the library's reasons is declared with another status
 */
export function declareErrors<const Own extends Reasons>(
  own: Own,
): ErrorClass<GuardErrorCode | (keyof Own & string)> {
  type Codes = GuardErrorCode | (keyof Own & string);
  const statuses = new Map<string, StatusName>(Object.entries(GUARD_REASONS));
  for (const [code, status] of Object.entries(own)) {
    if ((statuses.get(code) ?? status) !== status) {
      throw new TypeError(
        `${code} is a reason of the library with status ${statuses.get(code)}, got ${status}`,
      );
    }
    statuses.set(code, status);
  }
  return class<Code extends Codes> extends ServiceError<Code> {
    constructor(code: Code, message: string, options?: ServiceErrorOptions) {
      const status = statuses.get(code);
      if (status === undefined) throw new TypeError(`${code} is not a declared reason`);
      super(code, status, message, options);
    }
  };
}

/** The error class with the library's own reasons only. */
export const GuardError = declareErrors({});

const shared = new WeakSet<ServiceError>();

/**
 * Marks an error as one that ends many calls: its status is encoded once. In a flood, a new error for each refused call,
 * with its stack and its details, would cost more than the rest of the refusal.
 */
export function shareError<E extends ServiceError>(error: E): E {
  shared.add(error);
  return error;
}

/** Whether the error was passed to {@link shareError}. */
export function isShared(error: ServiceError): boolean {
  return shared.has(error);
}

/** FIELD_INVALID for one field. */
export function invalidField(field: string, description: string): ServiceError<'FIELD_INVALID'> {
  return new GuardError('FIELD_INVALID', `${field} ${description}`, {
    violations: [{ field, description }],
  });
}
