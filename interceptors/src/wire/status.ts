/** From an error to what goes over the wire: gRPC status, and google.rpc details beside it. */

import { type ServiceError as GrpcError, Metadata, type StatusObject, status } from '@grpc/grpc-js';
import { BadRequest, ErrorInfo, RetryInfo } from '../../gen/google/rpc/error_details.js';
import { Status } from '../../gen/google/rpc/status.js';
import { type FieldViolation, ServiceError } from '../errors.js';

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

/** A status that ends a call. */
export type CallStatus = Pick<StatusObject, 'code' | 'details' | 'metadata'>;

/**
 * The statuses of a downstream call that mean the same to this service's caller, each with the text that is sent. All
 * others are about the request or the credentials that this service sent: passed on, they would tell a caller to log in
 * again, or to change a request that it never made.
 */
const PASSED_ON: ReadonlyMap<status, string> = new Map([
  [status.CANCELLED, 'a call to another service was cancelled'],
  [status.DEADLINE_EXCEEDED, 'another service did not answer in time'],
  [status.RESOURCE_EXHAUSTED, 'another service has no capacity left'],
  [status.ABORTED, 'another service has aborted the operation'],
  [status.UNAVAILABLE, 'another service is unavailable'],
]);

/**
 * Turns anything thrown into a status. Total:
 * - a {@link ServiceError} becomes its status with `ErrorInfo`, and BadRequest or RetryInfo where they apply;
 * - an error that a grpc-js client received keeps its status when that means the same to this caller (CANCELLED,
 *   DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED, UNAVAILABLE), with a fixed text and its RetryInfo;
 * - everything else becomes INTERNAL with a fixed text, because an unknown message may hold a secret.
 */
export function statusOf(error: unknown): CallStatus {
  if (error instanceof ServiceError) return statusOfServiceError(error);
  const received = errorOf(error);
  const text = PASSED_ON.get(received.code);
  if (text === undefined) {
    return { code: status.INTERNAL, details: 'internal error', metadata: new Metadata() };
  }
  const details = retryInfo(received.retryAfterMs);
  return encoded(received.code, text, details);
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

/** A message of google.rpc.Status's details. */
interface Detail {
  readonly typeUrl: string;
  readonly value: Buffer;
}

/** RetryInfo, when there is a time to wait, in milliseconds. */
function retryInfo(retryAfterMs: number | undefined): Detail[] {
  if (retryAfterMs === undefined || Number.isNaN(retryAfterMs)) return [];
  // Within bounds, because a duration cannot hold every number: this function must not throw.
  const retryMs = Math.min(RETRY_AFTER_MAX_MS, Math.max(0, Math.ceil(retryAfterMs)));
  const retryDelay = { seconds: BigInt(Math.floor(retryMs / 1000)), nanos: (retryMs % 1000) * 1_000_000 };
  return [{ typeUrl: RETRY_INFO_TYPE, value: Buffer.from(RetryInfo.encode({ retryDelay }).finish()) }];
}

function encoded(code: status, message: string, details: Detail[]): CallStatus {
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
