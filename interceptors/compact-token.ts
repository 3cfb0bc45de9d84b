/** The outside of a token: three canonical segments and a header with nothing in it but what it must have. */

import { parseJsonObject } from './strict-json.js';

/** The longest token looked at, in characters. */
export const TOKEN_LENGTH_MAX = 8192;

/** The longest `kid` looked at, in characters. */
export const KID_LENGTH_MAX = 64;

/** A compact JWS, taken apart; its signature has not been looked at. */
export interface CompactToken {
  /** The text, in its one spelling. */
  readonly text: string;
  readonly algorithm: string;
  readonly keyId: string;
  readonly payload: Uint8Array;
  /** What the signature is over: the text of header and payload (RFC 7515 §5.1). */
  readonly signed: Buffer;
  readonly signature: Buffer;
}

const SEGMENT = /^[A-Za-z0-9_-]+$/;

/**
 * Takes a compact JWS apart.
 *
 * The header must hold `alg`, `kid` and `typ` and nothing else: a token that brings its own key
 * (`jwk`, `jku`, `x5u`, `x5c`) or changes how it is read (`crit`, `b64`, `zip`, `cty`) is refused
 * before any key is looked up (RFC 8725 §3.1, §3.10, §3.11).
 *
 * @param type - the only `typ` accepted
 * @param lengthMax - the longest text looked at, in characters
 * @returns undefined when the text is anything else
 */
export function parseCompactToken(
  text: string,
  type: string,
  lengthMax: number = TOKEN_LENGTH_MAX,
): CompactToken | undefined {
  if (text.length > lengthMax) return undefined;
  const segments = text.split('.', 4);
  if (segments.length !== 3) return undefined;
  const [headerText = '', payloadText = '', signatureText = ''] = segments;
  const header = parseHeader(headerText);
  if (header === undefined || header['typ'] !== type) return undefined;
  const { alg, kid } = header as { alg?: unknown; kid?: unknown };
  if (typeof alg !== 'string' || typeof kid !== 'string') return undefined;
  if (kid.length === 0 || kid.length > KID_LENGTH_MAX) return undefined;
  const payload = decodeSegment(payloadText);
  const signature = decodeSegment(signatureText);
  if (payload === undefined || signature === undefined) return undefined;
  const signed = Buffer.from(text.slice(0, -signatureText.length - 1), 'latin1');
  return { text, algorithm: alg, keyId: kid, payload, signed, signature };
}

function parseHeader(segment: string): Record<string, unknown> | undefined {
  const bytes = decodeSegment(segment);
  const header = bytes && parseJsonObject(bytes);
  return header !== undefined && Object.keys(header).length === 3 ? { ...header } : undefined;
}

/**
 * Decodes base64url in its canonical spelling alone: no padding, no white space, no other alphabet,
 * no spare bits. Otherwise one signature would have many spellings, and a refused token would come
 * back under another one.
 */
function decodeSegment(segment: string): Buffer | undefined {
  if (!SEGMENT.test(segment)) return undefined;
  const bytes = Buffer.from(segment, 'base64url');
  return bytes.toString('base64url') === segment ? bytes : undefined;
}
