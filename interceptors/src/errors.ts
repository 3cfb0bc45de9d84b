/** The error that a caller is meant to see, the reasons that the library gives itself, and how a service adds its own. */

/** The gRPC status that a reason is sent with, by its name. OK, UNKNOWN and INTERNAL carry no reason. */
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

/** Reasons, each with its status. */
export type Reasons = Readonly<Record<string, StatusName>>;

/** The reasons that the library gives itself. UNAUTHENTICATED: the caller is unknown; PERMISSION_DENIED: it is known, and may not. */
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
  FIELD_INVALID: 'INVALID_ARGUMENT',
  NOT_FOUND: 'NOT_FOUND',
} as const satisfies Reasons;

/** A reason that the library gives itself. It is stable: clients branch on it, never on a message. */
export type GuardErrorCode = keyof typeof GUARD_REASONS;

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

/**
 * An error that the caller is meant to see: its code is sent as `ErrorInfo.reason`, with its status and its message.
 * A service throws the class that {@link declareErrors} returns for its own reasons.
 */
export class ServiceError<Code extends string = string> extends Error {
  readonly code: Code;
  readonly status: StatusName;
  readonly violations: readonly FieldViolation[];
  readonly retryAfterMs: number | undefined;

  /**
   * @param code - what clients branch on
   * @param status - the gRPC status that it is sent with
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

/** Makes errors of a closed list of reasons; each reason knows its status. */
export type ErrorClass<Codes extends string> = new <Code extends Codes>(
  code: Code,
  message: string,
  options?: ServiceErrorOptions,
) => ServiceError<Code>;

/** The reasons of an {@link ErrorClass}. */
export type CodeOf<Class> = Class extends ErrorClass<infer Codes> ? Codes : never;

/**
 * Declares the reasons of one service, beside those of the library.
 *
 * @example
 * export const ShopError = declareErrors({ SOLD_OUT: 'FAILED_PRECONDITION' });
 * throw new ShopError('SOLD_OUT', 'the last one has just been sold');
 *
 * @throws TypeError when a reason of the library is given another status
 */
export function declareErrors<const Own extends Reasons>(
  own: Own,
): ErrorClass<GuardErrorCode | (keyof Own & string)> {
  type Codes = GuardErrorCode | (keyof Own & string);
  const statuses = new Map<string, StatusName>(Object.entries(GUARD_REASONS));
  for (const [code, status] of Object.entries(own)) {
    if ((statuses.get(code) ?? status) !== status) {
      throw new TypeError(`${code} is a reason of the library, with status ${statuses.get(code)}`);
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

/** The errors of the library. */
export const GuardError = declareErrors({});

/** FIELD_INVALID for one field. */
export function invalidField(field: string, description: string): ServiceError<'FIELD_INVALID'> {
  return new GuardError('FIELD_INVALID', `${field} ${description}`, {
    violations: [{ field, description }],
  });
}
