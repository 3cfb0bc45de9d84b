/** Errors on the wire: a gRPC status with google.rpc details, encoded by the server and decoded by the client. */

import { type ServiceError as GrpcError, Metadata, type StatusObject, status } from '@grpc/grpc-js';
import { BadRequest, ErrorInfo, RetryInfo } from '../../gen/google/rpc/error_details.js';
import { Status } from '../../gen/google/rpc/status.js';
import { type FieldViolation, isShared, ServiceError } from '../errors.js';
import { withComputedHeaders } from './grpc-js-internals.js';

/** `ErrorInfo.domain` of every error that the library sends. */
export const ERROR_DOMAIN = 'portcullis';

/** Maximum length of a message, in UTF-16 code units. Longer ones are cut, because peers limit the size of trailers. */
export const ERROR_MESSAGE_LENGTH_MAX = 500;

/** Maximum RetryInfo delay, in milliseconds. */
export const RETRY_AFTER_MAX_MS = 24 * 60 * 60 * 1000;

/** The trailer that carries google.rpc.Status (the richer error model of gRPC). */
const DETAILS_KEY = 'grpc-status-details-bin';

const ERROR_INFO_TYPE = 'type.googleapis.com/google.rpc.ErrorInfo';
const BAD_REQUEST_TYPE = 'type.googleapis.com/google.rpc.BadRequest';
const RETRY_INFO_TYPE = 'type.googleapis.com/google.rpc.RetryInfo';

/** A status that ends a call. */
export type CallStatus = Pick<StatusObject, 'code' | 'details' | 'metadata'>;

/**
 * The statuses of a downstream call that mean the same to this service's caller, each with the message that is sent.
 * Every other status is about the request or the credentials that this service sent downstream. Passed on, it would tell
 * the caller to log in again, or to change a request that it never made. RESOURCE_EXHAUSTED can be a limit on this
 * service's own token, or a message that is too large; CANCELLED can be this handler's own doing.
 */
const PASSED_ON: ReadonlyMap<status, string> = new Map([
  [status.DEADLINE_EXCEEDED, 'another service did not answer in time'],
  [status.ABORTED, 'another service has aborted the operation'],
  [status.UNAVAILABLE, 'another service is unavailable'],
]);

/**
 * Converts anything thrown to a status. Never throws:
 * - a {@link ServiceError} becomes its status with `ErrorInfo`, and BadRequest or RetryInfo where they apply;
 * - an error that a grpc-js client received keeps its status when that means the same to this caller (DEADLINE_EXCEEDED,
 *   ABORTED, UNAVAILABLE), with a fixed text, and with its RetryInfo unless that would make clients repeat the call
 *   (UNAVAILABLE);
 * - everything else becomes INTERNAL with a fixed text, because an unknown message may contain a secret.
 */
export function statusOf(error: unknown): CallStatus {
  if (error instanceof ServiceError)
    return isShared(error) ? sharedStatusOf(error) : statusOfServiceError(error);
  const received = errorOf(error);
  const text = isStatus(error) ? PASSED_ON.get(received.code) : undefined;
  if (text === undefined) {
    return { code: status.INTERNAL, details: 'internal error', metadata: new Metadata() };
  }
  // Clients repeat a call that ends with UNAVAILABLE and RetryInfo. Whether this handler may run again, only its author
  // knows, who can throw a ServiceError with a delay.
  const details = received.code === status.UNAVAILABLE ? [] : retryInfo(received.retryAfterMs);
  return encoded(received.code, text, details);
}

/** Other errors have numbers as codes, too: the exit code of a process, a DOMException. */
function isStatus(error: unknown): boolean {
  const received = error as
    | { readonly details?: unknown; readonly metadata?: Partial<Metadata> }
    | null
    | undefined;
  return typeof received?.details === 'string' && typeof received.metadata?.get === 'function';
}

function statusOfServiceError(error: ServiceError): CallStatus {
  const code = status[error.status];
  // grpc-js passes the text to encodeURI, which throws on a lone surrogate.
  const message = error.message.slice(0, ERROR_MESSAGE_LENGTH_MAX).toWellFormed();
  const details: Detail[] = [
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
  details.push(...retryInfo(error.retryAfterMs));
  return encoded(code, message, details);
}

/** One message of `google.rpc.Status.details`. */
interface Detail {
  readonly typeUrl: string;
  readonly value: Buffer;
}

/** RetryInfo for a delay in milliseconds; empty without a delay. */
function retryInfo(retryAfterMs: number | undefined): Detail[] {
  if (retryAfterMs === undefined || Number.isNaN(retryAfterMs)) return [];
  // A Duration cannot hold every number, and this function must not throw.
  const retryMs = Math.min(RETRY_AFTER_MAX_MS, Math.max(0, Math.ceil(retryAfterMs)));
  const retryDelay = { seconds: BigInt(Math.floor(retryMs / 1000)), nanos: (retryMs % 1000) * 1_000_000 };
  return [{ typeUrl: RETRY_INFO_TYPE, value: Buffer.from(RetryInfo.encode({ retryDelay }).finish()) }];
}

function encoded(code: status, message: string, details: Detail[]): CallStatus {
  const metadata = new Metadata();
  metadata.set(DETAILS_KEY, Buffer.from(Status.encode({ code, message, details }).finish()));
  return { code, details: message, metadata };
}

/** The same status, cheaper to send: its headers are computed once. For a status that ends many calls. */
export function reusableStatus({ code, details, metadata }: CallStatus): CallStatus {
  return { code, details, metadata: withComputedHeaders(metadata) };
}

/** The statuses of shared errors. */
const sharedStatuses = new WeakMap<ServiceError, CallStatus>();

function sharedStatusOf(error: ServiceError): CallStatus {
  let status = sharedStatuses.get(error);
  if (status === undefined) {
    status = reusableStatus(statusOfServiceError(error));
    sharedStatuses.set(error, status);
  }
  return status;
}

/** The content of a received error. */
export interface ReceivedError {
  /** The gRPC status code; UNKNOWN when the error is not a gRPC error. */
  readonly code: status;
  /** `ErrorInfo.reason` of this library's domain; empty when the error carries none. */
  readonly reason: string;
  /** The message, for people. */
  readonly message: string;
  /** The fields at fault, with INVALID_ARGUMENT. */
  readonly violations: readonly FieldViolation[];
  /** The RetryInfo delay, in milliseconds; undefined when the server sent none. */
  readonly retryAfterMs: number | undefined;
}

/** Reads the status and details of an error that a grpc-js client received. Never throws. */
export function errorOf(error: unknown): ReceivedError {
  const received = error as Partial<GrpcError> | null | undefined;
  const code = typeof received?.code === 'number' ? received.code : status.UNKNOWN;
  const message = typeof received?.details === 'string' ? received.details : '';
  return { ...detailsOf(received?.metadata), code, message };
}

/** Reads the google.rpc details in trailers. Never throws. */
export function detailsOf(
  trailers: Metadata | undefined,
): Pick<ReceivedError, 'reason' | 'violations' | 'retryAfterMs'> {
  let reason = '';
  let violations: FieldViolation[] = [];
  let retryAfterMs: number | undefined;
  try {
    // Any thrown object may have a member named `metadata` that is no Metadata.
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
    // Details that do not decode are ignored; the status code remains.
  }
  return { reason, violations, retryAfterMs };
}
