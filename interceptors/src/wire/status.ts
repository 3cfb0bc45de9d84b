/** From an error to what goes over the wire: gRPC status, and google.rpc details beside it. */

import { type ServiceError as GrpcError, Metadata, type StatusObject, status } from '@grpc/grpc-js';
import { BadRequest, ErrorInfo, RetryInfo } from '../../gen/google/rpc/error_details.js';
import { Status } from '../../gen/google/rpc/status.js';
import { type ErrorCode, type FieldViolation, ServiceError } from '../errors.js';

/** `ErrorInfo.domain` of every error of ours. */
export const ERROR_DOMAIN = 'portcullis';

/** The longest message that is sent, in UTF-16 units: trailers have a limit that peers set. */
export const ERROR_MESSAGE_LENGTH_MAX = 500;

/** The longest time that a caller is asked to wait, in milliseconds. */
export const RETRY_AFTER_MAX_MS = 24 * 60 * 60 * 1000;

/** Where google.rpc.Status travels (gRFC A-66 and the richer error model). */
const DETAILS_KEY = 'grpc-status-details-bin';

const ERROR_INFO_TYPE = 'type.googleapis.com/google.rpc.ErrorInfo';
const BAD_REQUEST_TYPE = 'type.googleapis.com/google.rpc.BadRequest';
const RETRY_INFO_TYPE = 'type.googleapis.com/google.rpc.RetryInfo';

/** The gRPC status of each code: UNAUTHENTICATED, we do not know who calls; PERMISSION_DENIED, we do, and no. */
const STATUS_OF_CODE = {
  TOKEN_MISSING: status.UNAUTHENTICATED,
  TOKEN_INVALID: status.UNAUTHENTICATED,
  TOKEN_EXPIRED: status.UNAUTHENTICATED,
  TOKEN_REVOKED: status.UNAUTHENTICATED,
  TLS_REQUIRED: status.UNAUTHENTICATED,
  LOGIN_FAILED: status.UNAUTHENTICATED,
  REFRESH_INVALID: status.UNAUTHENTICATED,
  CLIENT_AUTHENTICATION_FAILED: status.UNAUTHENTICATED,
  CERTIFICATE_REQUIRED: status.UNAUTHENTICATED,
  SCOPE_MISSING: status.PERMISSION_DENIED,
  ROLE_MISSING: status.PERMISSION_DENIED,
  CALLER_KIND: status.PERMISSION_DENIED,
  LOGIN_TOO_OLD: status.PERMISSION_DENIED,
  AUDIENCE_NOT_ALLOWED: status.PERMISSION_DENIED,
  REVOCATION_STATE_STALE: status.UNAVAILABLE,
  DEPENDENCY_UNAVAILABLE: status.UNAVAILABLE,
  RATE_LIMITED: status.RESOURCE_EXHAUSTED,
  LOG_CHANGED: status.FAILED_PRECONDITION,
  FIELD_INVALID: status.INVALID_ARGUMENT,
  SUBJECT_TOKEN_INVALID: status.INVALID_ARGUMENT,
  NOT_FOUND: status.NOT_FOUND,
  ALREADY_EXISTS: status.ALREADY_EXISTS,
  INSUFFICIENT_STOCK: status.FAILED_PRECONDITION,
  INSUFFICIENT_FUNDS: status.FAILED_PRECONDITION,
  RESERVATION_EXPIRED: status.FAILED_PRECONDITION,
  RESERVATION_NOT_ACTIVE: status.FAILED_PRECONDITION,
  PAYMENT_CANCELLED: status.FAILED_PRECONDITION,
  PAYMENT_NOT_CANCELLABLE: status.FAILED_PRECONDITION,
  PAYMENT_NOT_CAPTURED: status.FAILED_PRECONDITION,
  REFUND_EXCEEDS_PAYMENT: status.FAILED_PRECONDITION,
  REQUEST_ID_REUSED: status.FAILED_PRECONDITION,
  REQUEST_IN_PROGRESS: status.ABORTED,
} satisfies Record<ErrorCode, status>;

/** A status that ends a call. */
export type CallStatus = Pick<StatusObject, 'code' | 'details' | 'metadata'>;

/**
 * Turns anything thrown into a status. Total: a {@link ServiceError} becomes its status with
 * `ErrorInfo`, and BadRequest or RetryInfo where they apply; everything else becomes INTERNAL with
 * a fixed text, because an unknown message may hold a secret.
 */
export function statusOf(error: unknown): CallStatus {
  if (!(error instanceof ServiceError)) {
    return { code: status.INTERNAL, details: 'internal error', metadata: new Metadata() };
  }
  const code = STATUS_OF_CODE[error.code];
  // grpc-js passes the text to encodeURI, which throws on a lone surrogate.
  const message = error.message.slice(0, ERROR_MESSAGE_LENGTH_MAX).toWellFormed();
  const details = [
    {
      typeUrl: ERROR_INFO_TYPE,
      value: Buffer.from(
        ErrorInfo.encode({ reason: error.code, domain: ERROR_DOMAIN, metadata: {} }).finish(),
      ),
    },
  ];
  if (error.violations.length > 0) {
    const fieldViolations = error.violations.map((violation) => ({
      field: violation.field.toWellFormed(),
      description: violation.description.toWellFormed(),
      reason: '',
      localizedMessage: undefined,
    }));
    details.push({
      typeUrl: BAD_REQUEST_TYPE,
      value: Buffer.from(BadRequest.encode({ fieldViolations }).finish()),
    });
  }
  if (error.retryAfterMs !== undefined && !Number.isNaN(error.retryAfterMs)) {
    // Within bounds, because a duration cannot hold every number: this function must not throw.
    const retryMs = Math.min(RETRY_AFTER_MAX_MS, Math.max(0, Math.ceil(error.retryAfterMs)));
    const retryDelay = { seconds: BigInt(Math.floor(retryMs / 1000)), nanos: (retryMs % 1000) * 1_000_000 };
    details.push({ typeUrl: RETRY_INFO_TYPE, value: Buffer.from(RetryInfo.encode({ retryDelay }).finish()) });
  }
  const metadata = new Metadata();
  metadata.set(DETAILS_KEY, Buffer.from(Status.encode({ code, message, details }).finish()));
  return { code, details: message, metadata };
}

/** The same status, to be sent many times: its headers are made once, because thousands of calls may be ended at a time. */
export function sentOften({ code, details, metadata }: CallStatus): CallStatus {
  return { code, details, metadata: CodedMetadata.of(metadata) };
}

/** Metadata that knows what it looks like as headers. grpc-js sends a clone of what it is given. */
class CodedMetadata extends Metadata {
  #headers: ReturnType<Metadata['toHttp2Headers']> | undefined;

  static of(metadata: Metadata): CodedMetadata {
    const coded = new CodedMetadata();
    coded.merge(metadata);
    coded.#headers = metadata.toHttp2Headers();
    return coded;
  }

  override clone(): Metadata {
    const copy = new CodedMetadata();
    copy.merge(this);
    copy.#headers = this.#headers;
    return copy;
  }

  override toHttp2Headers(): ReturnType<Metadata['toHttp2Headers']> {
    return this.#headers ?? super.toHttp2Headers();
  }

  override set(...of: Parameters<Metadata['set']>): void {
    this.#headers = undefined;
    super.set(...of);
  }

  override add(...of: Parameters<Metadata['add']>): void {
    this.#headers = undefined;
    super.add(...of);
  }

  override remove(...of: Parameters<Metadata['remove']>): void {
    this.#headers = undefined;
    super.remove(...of);
  }

  override merge(...of: Parameters<Metadata['merge']>): void {
    this.#headers = undefined;
    super.merge(...of);
  }
}

/** What a received error says. */
export interface ReceivedError {
  /** The gRPC status code; UNKNOWN when the error is none of gRPC's. */
  readonly code: status;
  /** `ErrorInfo.reason` of our domain; empty when the error carries none. */
  readonly reason: string;
  /** The text for people. */
  readonly message: string;
  /** The fields at fault, with INVALID_ARGUMENT. */
  readonly violations: readonly FieldViolation[];
  /** When to try again, in milliseconds; undefined when the server did not say. */
  readonly retryAfterMs: number | undefined;
}

/** Reads what a server of ours said in an error that a grpc-js client received. Never throws. */
export function errorOf(error: unknown): ReceivedError {
  const received = error as Partial<GrpcError> | null | undefined;
  const code = typeof received?.code === 'number' ? received.code : status.UNKNOWN;
  const message = typeof received?.details === 'string' ? received.details : '';
  return { ...detailsOf(received?.metadata), code, message };
}

/** Reads the google.rpc details out of trailers. */
export function detailsOf(
  trailers: Metadata | undefined,
): Pick<ReceivedError, 'reason' | 'violations' | 'retryAfterMs'> {
  let reason = '';
  let violations: FieldViolation[] = [];
  let retryAfterMs: number | undefined;
  try {
    // Any thrown object may have a member of this name that is no Metadata.
    const encoded = trailers?.get(DETAILS_KEY)[0];
    for (const detail of encoded instanceof Buffer ? Status.decode(encoded).details : []) {
      if (detail.typeUrl === ERROR_INFO_TYPE) {
        const info = ErrorInfo.decode(detail.value);
        if (info.domain === ERROR_DOMAIN) reason = info.reason;
      } else if (detail.typeUrl === BAD_REQUEST_TYPE) {
        violations = BadRequest.decode(detail.value).fieldViolations;
      } else if (detail.typeUrl === RETRY_INFO_TYPE) {
        const delay = RetryInfo.decode(detail.value).retryDelay;
        if (delay) retryAfterMs = Number(delay.seconds) * 1000 + delay.nanos / 1_000_000;
      }
    }
  } catch {
    // Details that do not decode say nothing; the status code still does.
  }
  return { reason, violations, retryAfterMs };
}
