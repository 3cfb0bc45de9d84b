/** The compact serialization of a token (RFC 7515 §7.1): three canonical segments, and a minimal header. */

import { TOKEN_LENGTH_MAX } from '../limits.js';
import { type JsonObject, parseJsonObject } from './strict-json.js';

/** Maximum length of a `kid`, in characters. */
export const KID_LENGTH_MAX = 64;

/** Maximum length of another issuer's `kid`, in characters. */
const FOREIGN_KID_LENGTH_MAX = 255;

/** A parsed compact JWS. Its signature has not been verified. */
export interface CompactToken {
  /** The compact serialization. */
  readonly text: string;
  readonly algorithm: string;
  readonly keyId: string;
  readonly payload: Uint8Array;
  /** The signing input: the encoded header and payload (RFC 7515 §5.1). */
  readonly signed: Buffer;
  readonly signature: Buffer;
}

/**
 * Parses a compact JWS.
 *
 * The header must contain `alg`, `kid` and `typ`, and nothing else. A token that brings its own key (`jwk`, `jku`, `x5u`,
 * `x5c`) or changes its interpretation (`crit`, `b64`, `zip`, `cty`) is rejected before any key lookup (RFC 8725 §3.1,
 * §3.10, §3.11).
 *
 * @param type - the accepted `typ`
 * @param lengthMax - the maximum length, in characters
 * @returns undefined when the text is not such a token
 */
export function parseCompactToken(
  text: string,
  type: string,
  lengthMax: number = TOKEN_LENGTH_MAX,
): CompactToken | undefined {
  const parts = partsOf(text, lengthMax);
  if (parts === undefined || Object.keys(parts.header).length !== 3) return undefined;
  const { header, ...rest } = parts;
  const { alg, kid, typ } = header;
  if (typ !== type || typeof alg !== 'string' || typeof kid !== 'string') return undefined;
  if (kid.length === 0 || kid.length > KID_LENGTH_MAX) return undefined;
  return { text, algorithm: alg, keyId: kid, ...rest };
}

/**
 * Header parameters that are refused from other issuers: they bring a key or lead to one (`jwk`, `jku`, `x5c`, `x5u`), change
 * how the token is read (`crit`, `b64`, `zip`), or say that it contains another one (`cty`).
 */
const REFUSED_PARAMETERS = ['jwk', 'jku', 'x5c', 'x5u', 'crit', 'b64', 'zip', 'cty'] as const;

/**
 * Parses a token of another issuer as strictly as {@link parseCompactToken}, except for its header: `typ` is configured,
 * `kid` may be missing, and unknown parameters are ignored (RFC 7515 §4).
 *
 * @param types - the accepted values of `typ`, from {@link mediaTypeOf}
 * @returns undefined when the text is not such a token. Without `kid`, its key id is ''.
 */
export function parseForeignToken(text: string, types: ReadonlySet<string>): CompactToken | undefined {
  const parts = partsOf(text, TOKEN_LENGTH_MAX);
  if (parts === undefined || REFUSED_PARAMETERS.some((name) => Object.hasOwn(parts.header, name))) {
    return undefined;
  }
  const { header, ...rest } = parts;
  const { alg, kid: keyId = '', typ = '' } = header;
  if (typeof alg !== 'string' || typeof keyId !== 'string' || typeof typ !== 'string') return undefined;
  if (!types.has(mediaTypeOf(typ)) || keyId.length > FOREIGN_KID_LENGTH_MAX) return undefined;
  // RFC 9864 gives the algorithm of Ed25519 a second name.
  return { text, algorithm: alg === 'Ed25519' ? 'EdDSA' : alg, keyId, ...rest };
}

/**
 * The media type that a `typ` stands for, in lower case: without a slash, `application/` belongs before it (RFC 7515
 * §4.1.9). The missing type stays ''.
 */
export function mediaTypeOf(typ: string): string {
  const lower = typ.toLowerCase();
  return lower === '' || lower.includes('/') ? lower : `application/${lower}`;
}

/** The payload of a compact JWS; undefined when the text is not one. */
export function payloadOf(text: string): Uint8Array | undefined {
  return partsOf(text, TOKEN_LENGTH_MAX)?.payload;
}

function partsOf(
  text: string,
  lengthMax: number,
): ({ readonly header: JsonObject } & Pick<CompactToken, 'payload' | 'signed' | 'signature'>) | undefined {
  if (text.length > lengthMax) return undefined;
  const segments = text.split('.', 4);
  if (segments.length !== 3) return undefined;
  const [headerText = '', payloadText = '', signatureText = ''] = segments;
  const header = headerIn(headerText);
  if (header === undefined) return undefined;
  const payload = decodeSegment(payloadText);
  const signature = decodeSegment(signatureText);
  if (payload === undefined || signature === undefined) return undefined;
  const signed = Buffer.from(text.slice(0, -signatureText.length - 1), 'latin1');
  return { header, payload, signed, signature };
}

/** The last parsed header, as a cache: nearly all tokens of an issuer have the same header. */
let lastHeader: { readonly text: string; readonly header: JsonObject } | undefined;

function headerIn(text: string): JsonObject | undefined {
  if (lastHeader?.text === text) return lastHeader.header;
  const bytes = decodeSegment(text);
  const header = bytes && parseJsonObject(bytes);
  if (header !== undefined) lastHeader = { text: Buffer.from(text).toString(), header };
  return header;
}

/**
 * Decodes canonical base64url only: no padding, no white space, no other alphabet, no spare bits. Otherwise one signature
 * would have several encodings, and a rejected token could return in another one.
 */
function decodeSegment(segment: string): Buffer | undefined {
  if (segment === '') return undefined;
  // Node skips characters outside the alphabet, so encoding the bytes again does not return the same text.
  const bytes = Buffer.from(segment, 'base64url');
  return bytes.toString('base64url') === segment ? bytes : undefined;
}
