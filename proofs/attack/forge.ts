/** Tokens assembled piece by piece, so that each piece can be wrong on its own. */

import type { KeyObject } from 'node:crypto';
import { signatureOf } from './stolen-keys.js';

export type Claims = Readonly<Record<string, unknown>>;

interface Segments {
  readonly header: string;
  readonly payload: string;
  readonly signature: string;
}

/** Members whose value is JSON text that `JSON.stringify` never writes, such as `1e400`. */
type RawMembers = Readonly<Record<string, string>>;

/** Canonical base64url of a text or of bytes. */
export function encode(content: string | Uint8Array): string {
  const bytes = typeof content === 'string' ? Buffer.from(content, 'utf8') : Buffer.from(content);
  return bytes.toString('base64url');
}

export function segmentsOf(token: string): Segments {
  const [header = '', payload = '', signature = ''] = token.split('.');
  return { header, payload, signature };
}

/** The claims of a token, unverified. */
export function claimsIn(token: string): Claims {
  return JSON.parse(Buffer.from(segmentsOf(token).payload, 'base64url').toString('utf8')) as Claims;
}

/** JSON text of an object; raw members are inserted verbatim. */
export function jsonText(members: Claims, raw: RawMembers = {}): string {
  const kept = Object.entries(members)
    .filter(([name, value]) => value !== undefined && !Object.hasOwn(raw, name))
    .map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`);
  const others = Object.entries(raw).map(([name, text]) => `${JSON.stringify(name)}:${text}`);
  return `{${[...kept, ...others].join(',')}}`;
}

/** A token from two segments, canonical or not, with a valid signature. */
export function signedToken(headerSegment: string, payloadSegment: string, key: KeyObject): string {
  const signed = `${headerSegment}.${payloadSegment}`;
  return `${signed}.${signatureOf(signed, key).toString('base64url')}`;
}

/** Creates tokens with one key, starting from a header and claims that would be accepted. */
export interface Forge {
  readonly header: Claims;
  readonly claims: Claims;
  readonly key: KeyObject;
  /** With changed claims; `undefined` omits a claim. */
  withClaims(changes: Claims, raw?: RawMembers): string;
  /** With a changed header; `undefined` omits a member. */
  withHeader(changes: Claims, raw?: RawMembers): string;
  /** With this payload. */
  withPayload(content: string | Uint8Array): string;
  /** With this header. */
  withHeaderText(content: string | Uint8Array): string;
}

export function createForge(key: KeyObject, header: Claims, claims: Claims): Forge {
  const headerSegment = encode(jsonText(header));
  const payloadSegment = encode(jsonText(claims));
  return {
    key,
    header,
    claims,
    withClaims: (changes, raw) =>
      signedToken(headerSegment, encode(jsonText({ ...claims, ...changes }, raw)), key),
    withHeader: (changes, raw) =>
      signedToken(encode(jsonText({ ...header, ...changes }, raw)), payloadSegment, key),
    withPayload: (content) => signedToken(headerSegment, encode(content), key),
    withHeaderText: (content) => signedToken(encode(content), payloadSegment, key),
  };
}
