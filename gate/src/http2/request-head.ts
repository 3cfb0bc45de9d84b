/** The head of a request: checked (RFC 9113 §8.2, §8.3), and encoded again for the server. */

import { type Field, hasEdgeSpace } from './field.js';
import { wireOf } from './hpack-encoder.js';

/** What the pseudo-headers of a request say (RFC 9113 §8.3.1). */
interface Pseudo {
  readonly method: string;
  readonly path: string;
  readonly scheme: string;
  readonly authority: string;
}

/** A request as its header block says, before anything is known about its caller. */
export class RequestHead {
  readonly method: string;
  /** `:path`, as received. */
  readonly path: string;
  readonly scheme: string;
  /** `:authority`, or else `host`; empty when there is neither. */
  readonly authority: string;
  /** `content-type`; empty when there is none. */
  readonly contentType: string;
  /** Every value of `authorization`, as received. */
  readonly authorizations: readonly string[];
  /** All fields, as received. */
  readonly fields: readonly Field[];
  /** The header block for the server, without the fields that are not forwarded. */
  readonly block: Buffer;

  constructor(pseudo: Pseudo, authorizations: readonly string[], fields: readonly Field[], block: Buffer) {
    this.method = pseudo.method;
    this.path = pseudo.path;
    this.scheme = pseudo.scheme;
    this.authority = pseudo.authority;
    this.authorizations = authorizations;
    this.fields = fields;
    this.block = block;
    this.contentType = this.header('content-type') ?? '';
  }

  /** The first value of a header, by its lower-case name. */
  header(name: string): string | undefined {
    return this.fields.find((field) => field.name === name)?.value;
  }
}

/** Why a request is malformed: a fixed text that holds nothing of the request. */
type HeadFault =
  | 'invalid field'
  | 'misplaced pseudo-header'
  | 'repeated pseudo-header'
  | 'unknown pseudo-header'
  | 'missing pseudo-header'
  | 'connection-specific field'
  | 'repeated field'
  | 'unsupported method'
  | 'invalid path'
  | 'invalid scheme'
  | 'conflicting authorities';

/** Fields that HTTP/2 forbids (RFC 9113 §8.2.2). */
const CONNECTION_FIELDS: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
]);

/** Fields of which two would let the gate and the server read different requests. */
const SINGLE_FIELDS: ReadonlySet<string> = new Set(['content-length', 'content-type', 'host', 'te']);

/** The gate's own names: the server trusts them. With underscores as well, because CGI and WSGI make both the same name. */
const OWN_NAME = /^x[-_]portcullis[-_]/;

const PATH = /^\/[\x21-\x22\x24-\x7e]*$/;
const METHOD = /^[A-Z]{1,16}$/;

/** Reads the header block of a request. @param forwardsToken whether the server receives `authorization` */
export function readRequestHead(fields: readonly Field[], forwardsToken: boolean): RequestHead | HeadFault {
  let method: string | undefined;
  let path: string | undefined;
  let scheme: string | undefined;
  let authority: string | undefined;
  let isRegular = false;
  const seen = new Map<string, string>();
  const authorizations: string[] = [];
  const parts: Buffer[] = [];
  for (const field of fields) {
    const { name, value } = field;
    if (!field.isValid || hasEdgeSpace(value)) return 'invalid field';
    if (name.charCodeAt(0) === 0x3a) {
      if (isRegular) return 'misplaced pseudo-header';
      switch (name) {
        case ':method':
          if (method !== undefined) return 'repeated pseudo-header';
          method = value;
          break;
        case ':path':
          if (path !== undefined) return 'repeated pseudo-header';
          path = value;
          break;
        case ':scheme':
          if (scheme !== undefined) return 'repeated pseudo-header';
          scheme = value;
          break;
        case ':authority':
          if (authority !== undefined) return 'repeated pseudo-header';
          authority = value;
          break;
        default:
          // Among them `:protocol`, which would open a tunnel (RFC 8441).
          return 'unknown pseudo-header';
      }
      parts.push(wireOf(field));
      continue;
    }
    isRegular = true;
    if (name === 'authorization') {
      authorizations.push(value);
      if (!forwardsToken) continue;
    } else {
      if (CONNECTION_FIELDS.has(name) || (name === 'te' && value !== 'trailers'))
        return 'connection-specific field';
      if (SINGLE_FIELDS.has(name)) {
        if (seen.has(name)) return 'repeated field';
        seen.set(name, value);
      }
      if (OWN_NAME.test(name)) continue;
    }
    parts.push(wireOf(field));
  }
  if (method === 'CONNECT') return 'unsupported method';
  if (method === undefined || path === undefined || scheme === undefined) return 'missing pseudo-header';
  if (!METHOD.test(method)) return 'unsupported method';
  if (!PATH.test(path)) return 'invalid path';
  if (scheme !== 'http' && scheme !== 'https') return 'invalid scheme';
  const host = seen.get('host');
  if (authority !== undefined && host !== undefined && authority !== host) return 'conflicting authorities';
  const pseudo = { method, path, scheme, authority: authority ?? host ?? '' };
  return new RequestHead(pseudo, authorizations, fields, Buffer.concat(parts));
}

/**
 * Reads the trailers of a request.
 *
 * @returns their block for the server; undefined when they are malformed
 */
export function readRequestTrailers(fields: readonly Field[]): Buffer | undefined {
  const parts: Buffer[] = [];
  for (const field of fields) {
    const { name, value } = field;
    if (!field.isValid || hasEdgeSpace(value)) return undefined;
    if (name.charCodeAt(0) === 0x3a || CONNECTION_FIELDS.has(name)) return undefined;
    if (name !== 'authorization' && !OWN_NAME.test(name)) parts.push(wireOf(field));
  }
  return Buffer.concat(parts);
}
