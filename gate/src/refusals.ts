/** Refusals for callers that do not speak gRPC: gRPC-Web, Connect, and plain HTTP with JSON. */

import { ErrorInfo, RetryInfo } from '@portcullis/guard/proto/google/rpc/error_details';
import { Status } from '@portcullis/guard/proto/google/rpc/status';

/** What of a request decides in which form its refusal is sent. */
export interface RequestForm {
  readonly method: string;
  /** Path and query. */
  readonly path: string;
  /** The value of a header, by its lower-case name. */
  header(name: string): string | undefined;
}

/** A response that is sent in place of the upstream's. */
export interface HttpRefusal {
  readonly status: number;
  /** The status to send where the body must be left out, because it says more than the status then. */
  readonly bareStatus?: number;
  /** With lower-case names; `content-type` and `content-length` included. */
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly body: Buffer;
}

/** A status with its headers: `grpc-status`, `grpc-message` and `grpc-status-details-bin`. */
export interface StatusHeaders {
  readonly headers: readonly (readonly [name: string, value: string])[];
}

/** A status that was read. */
interface ReadStatus extends StatusHeaders {
  readonly code: number;
  readonly message: string;
  readonly details: readonly { readonly type: string; readonly value: Buffer }[];
  readonly reason: string;
}

/** The protocol of a request. */
export type Protocol = 'grpc' | 'grpc-web' | 'connect-unary' | 'connect-stream' | 'http';

const DETAILS = 'grpc-status-details-bin';
const JSON_TYPE = 'application/json';
const TYPE_URL_PREFIX = 'type.googleapis.com/';
const ERROR_INFO = 'google.rpc.ErrorInfo';
const RETRY_INFO = 'google.rpc.RetryInfo';

/** The flag of the last message of a Connect stream, which has the error in JSON. */
const END_STREAM_FLAG = 0b10;
const ENVELOPE_BYTES = 5;

/** Status codes of gRPC: HTTP status as google.rpc.Code names it, and the name in Connect (its specification, "Error codes"). */
const CODES: ReadonlyMap<number, { readonly name: string; readonly http: number; readonly connect: string }> =
  new Map([
    [3, { name: 'INVALID_ARGUMENT', http: 400, connect: 'invalid_argument' }],
    [4, { name: 'DEADLINE_EXCEEDED', http: 504, connect: 'deadline_exceeded' }],
    [5, { name: 'NOT_FOUND', http: 404, connect: 'not_found' }],
    [7, { name: 'PERMISSION_DENIED', http: 403, connect: 'permission_denied' }],
    [8, { name: 'RESOURCE_EXHAUSTED', http: 429, connect: 'resource_exhausted' }],
    [12, { name: 'UNIMPLEMENTED', http: 501, connect: 'unimplemented' }],
    [14, { name: 'UNAVAILABLE', http: 503, connect: 'unavailable' }],
    [16, { name: 'UNAUTHENTICATED', http: 401, connect: 'unauthenticated' }],
  ]);
const OTHER_CODE = { name: 'UNKNOWN', http: 500, connect: 'unknown' };

/** The protocol that the request's headers name. */
export function protocolOf(request: RequestForm): Protocol {
  const type = (request.header('content-type') ?? '').toLowerCase();
  if (type.startsWith('application/grpc-web')) return 'grpc-web';
  if (type.startsWith('application/grpc')) return 'grpc';
  if (type.startsWith('application/connect+')) return 'connect-stream';
  const isConnect = request.header('connect-protocol-version') !== undefined;
  const isConnectGet = request.method === 'GET' && /[?&]connect=v1(?:&|$)/.test(request.path);
  return isConnect || isConnectGet ? 'connect-unary' : 'http';
}

/** The HTTP status that means the same as a status of gRPC. */
export function httpStatusOf(code: number): number {
  return (CODES.get(code) ?? OTHER_CODE).http;
}

/**
 * The refusal of a request in its own protocol.
 *
 * @returns undefined for gRPC, whose refusal is the status itself
 */
export function refusalOf(ended: StatusHeaders, request: RequestForm): HttpRefusal | undefined {
  const status = readStatus(ended);
  switch (protocolOf(request)) {
    case 'grpc':
      return undefined;
    case 'grpc-web':
      // Trailers-only: the status is in the headers, as gRPC's own.
      return withBody(
        200,
        [['content-type', request.header('content-type') ?? ''], ...status.headers],
        Buffer.alloc(0),
      );
    case 'connect-stream':
      return {
        ...withBody(
          200,
          [['content-type', request.header('content-type') ?? '']],
          enveloped({ error: connectError(status) }),
        ),
        // Clients of Connect derive a code from the HTTP status when it is not 200.
        bareStatus: httpStatusOf(status.code),
      };
    case 'connect-unary':
      return jsonRefusal(status, connectError(status));
    case 'http':
      return jsonRefusal(status, httpError(status));
  }
}

function jsonRefusal(status: ReadStatus, body: object): HttpRefusal {
  const headers: [string, string][] = [['content-type', JSON_TYPE], ...adviceOf(status)];
  return withBody(httpStatusOf(status.code), headers, Buffer.from(JSON.stringify(body)));
}

function withBody(
  status: number,
  headers: readonly (readonly [string, string])[],
  body: Buffer,
): HttpRefusal {
  return { status, headers: [...headers, ['content-length', String(body.length)]], body };
}

function enveloped(message: object): Buffer {
  const text = Buffer.from(JSON.stringify(message));
  const head = Buffer.alloc(ENVELOPE_BYTES);
  head.writeUInt8(END_STREAM_FLAG, 0);
  head.writeUInt32BE(text.length, 1);
  return Buffer.concat([head, text]);
}

/** An error of Connect; its details are base64 without padding. */
function connectError(status: ReadStatus): object {
  const details = status.details.map(({ type, value }) => ({
    type,
    value: value.toString('base64').replace(/=+$/, ''),
  }));
  return { code: (CODES.get(status.code) ?? OTHER_CODE).connect, message: status.message, details };
}

/** An error of Google's APIs over HTTP (AIP-193). */
function httpError(status: ReadStatus): object {
  const details = status.details.flatMap(({ type, value }) => {
    const read = describeDetail(type, value);
    return read === undefined ? [] : [{ '@type': `${TYPE_URL_PREFIX}${type}`, ...read }];
  });
  const { http, name } = CODES.get(status.code) ?? OTHER_CODE;
  return { error: { code: http, message: status.message, status: name, details } };
}

function describeDetail(type: string, value: Buffer): object | undefined {
  if (type === ERROR_INFO) {
    const { reason, domain } = ErrorInfo.decode(value);
    return { reason, domain };
  }
  if (type !== RETRY_INFO) return undefined;
  const seconds = retrySecondsIn(value);
  return seconds === undefined ? undefined : { retryDelay: `${seconds}s` };
}

/** How a program is to go on: another token (RFC 6750 §3), or another attempt later. */
function adviceOf(status: ReadStatus): [string, string][] {
  const headers: [string, string][] = [];
  if (status.code === 16) {
    const error = status.reason === 'TOKEN_MISSING' ? '' : ' error="invalid_token"';
    headers.push(['www-authenticate', `Bearer${error}`]);
  } else if (status.reason === 'SCOPE_MISSING') {
    headers.push(['www-authenticate', 'Bearer error="insufficient_scope"']);
  }
  const retry = status.details.find(({ type }) => type === RETRY_INFO);
  const seconds = retry && retrySecondsIn(retry.value);
  if (seconds !== undefined) headers.push(['retry-after', String(Math.ceil(seconds))]);
  return headers;
}

function retrySecondsIn(value: Buffer): number | undefined {
  const delay = RetryInfo.decode(value).retryDelay;
  return delay && Number(delay.seconds) + delay.nanos / 1e9;
}

function readStatus({ headers }: StatusHeaders): ReadStatus {
  const value = (wanted: string): string => headers.find(([name]) => name === wanted)?.[1] ?? '';
  const details = Status.decode(Buffer.from(value(DETAILS), 'base64')).details.map(
    ({ typeUrl, value: content }) => ({
      type: typeUrl.slice(typeUrl.lastIndexOf('/') + 1),
      value: Buffer.from(content),
    }),
  );
  const info = details.find(({ type }) => type === ERROR_INFO);
  return {
    headers,
    code: Number(value('grpc-status')),
    message: decodeURIComponent(value('grpc-message')),
    details,
    reason: info === undefined ? '' : ErrorInfo.decode(info.value).reason,
  };
}
