/** Statuses as the headers of an HTTP/2 response, byte for byte as grpc-js sends them. */

import { status as grpcStatus } from '@grpc/grpc-js';
import { isShared, type ServiceError } from '../errors.js';
import { type CallStatus, statusOf } from './status.js';

/** A header: its name in lower case, and its value. */
export type Header = readonly [name: string, value: string];

/** A status that ends a call, ready to be sent. */
export interface ReadyStatus {
  /** The gRPC status code. */
  readonly code: number;
  /** The reason, for programs: `ErrorInfo.reason`, where the status has details. */
  readonly reason: string;
  /** The message, for people. */
  readonly message: string;
  /**
   * The trailers after a response has begun: `grpc-status`, `grpc-message` (percent-encoded) and
   * `grpc-status-details-bin` (base64), in this order.
   */
  readonly headers: readonly Header[];
  /**
   * The headers of a response that has a status only (Trailers-Only of the gRPC protocol), with `:status` and
   * `content-type`. grpc-js sends a `date` after them.
   */
  readonly trailersOnly: readonly Header[];
}

const readyStatuses = new WeakMap<ServiceError, ReadyStatus>();

/** The status of an error, in the form of {@link ReadyStatus}. That of a shared error is computed once. */
export function readyStatusOf(error: ServiceError): ReadyStatus {
  const known = readyStatuses.get(error);
  if (known !== undefined) return known;
  const status = readyStatus(statusOf(error), error.code);
  if (isShared(error)) readyStatuses.set(error, status);
  return status;
}

/**
 * Maximum length of a path in a message, in UTF-16 code units. A caller can repeat a long path by a header of one byte
 * (HPACK), so that repeating all of it would multiply what the caller sends.
 */
const REPEATED_PATH_LENGTH_MAX = 256;

/**
 * The status of a method that the server does not have. grpc-js sends it before any interceptor runs: without details, and
 * without encoding the message, which is therefore encoded only where HTTP/2 or the gRPC protocol need it. Other than
 * there, a path of more than {@link REPEATED_PATH_LENGTH_MAX} is cut.
 */
export function unimplementedStatus(path: string): ReadyStatus {
  const repeated = path.slice(0, REPEATED_PATH_LENGTH_MAX).toWellFormed();
  const message = `The server does not implement the method ${repeated}`;
  const encoded = message.replace(/[^\x20-\x24\x26-\x7e]/gu, encodeURIComponent);
  return ready({ code: grpcStatus.UNIMPLEMENTED, reason: 'NOT_FOUND', message }, encoded, []);
}

function readyStatus({ code, details, metadata }: CallStatus, reason: string): ReadyStatus {
  const rest = Object.entries(metadata.toHttp2Headers()).flatMap(([name, values]) =>
    [values ?? []].flat().map((value): Header => [name, String(value)]),
  );
  // grpc-js encodes the message like this. statusOf makes it well-formed, so that this does not throw.
  return ready({ code, reason, message: details }, encodeURI(details), rest);
}

function ready(
  status: Pick<ReadyStatus, 'code' | 'reason' | 'message'>,
  message: string,
  rest: readonly Header[],
): ReadyStatus {
  const first: readonly Header[] = [
    ['grpc-status', String(status.code)],
    ['grpc-message', message],
  ];
  return {
    ...status,
    headers: [...first, ...rest],
    trailersOnly: [[':status', '200'], ...first, ['content-type', 'application/grpc+proto'], ...rest],
  };
}
