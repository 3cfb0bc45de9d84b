/** The outside of a token: three canonical segments and a header with nothing in it but what it must have. */

import { TOKEN_LENGTH_MAX } from '../limits.js';
import { type JsonObject, parseJsonObject } from './strict-json.js';

/** The longest `kid` looked at, in characters. */
export const KID_LENGTH_MAX = 64;

/** The longest `kid` of another issuer looked at, in characters. */
export const FOREIGN_KID_LENGTH_MAX = 255;

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
  const parts = partsOf(text, lengthMax);
  if (parts === undefined || Object.keys(parts.header).length !== 3) return undefined;
  const { header, ...rest } = parts;
  const { alg, kid, typ } = header;
  if (typ !== type || typeof alg !== 'string' || typeof kid !== 'string') return undefined;
  if (kid.length === 0 || kid.length > KID_LENGTH_MAX) return undefined;
  return { text, algorithm: alg, keyId: kid, ...rest };
}

/** What other issuers put beside `alg`, `kid` and `typ` and what changes nothing: hints at which key it is. */
const HINTS: ReadonlySet<string> = new Set(['alg', 'kid', 'typ', 'x5t', 'x5t#S256']);

/**
 * Takes the token of another issuer apart. It is as strict as with ours, but for hints in the header that are left
 * alone, and for what that issuer calls its access tokens.
 *
 * @param expected.types - the accepted values of `typ`, in small letters; '' for none
 * @param expected.mayLackKeyId - a token without `kid` has the empty one
 * @returns undefined when the text is anything else
 */
export function parseForeignToken(
  text: string,
  expected: { readonly types: ReadonlySet<string>; readonly mayLackKeyId: boolean },
): CompactToken | undefined {
  const parts = partsOf(text, TOKEN_LENGTH_MAX);
  if (parts === undefined || !Object.keys(parts.header).every((name) => HINTS.has(name))) return undefined;
  const { header, ...rest } = parts;
  const { alg, kid, typ = '' } = header;
  const keyId = kid === undefined && expected.mayLackKeyId ? '' : kid;
  if (typeof alg !== 'string' || typeof keyId !== 'string' || typeof typ !== 'string') return undefined;
  if (!expected.types.has(typ.toLowerCase())) return undefined;
  if (keyId.length > FOREIGN_KID_LENGTH_MAX || (keyId === '' && !expected.mayLackKeyId)) return undefined;
  return { text, algorithm: alg, keyId, ...rest };
}

/** The payload of a compact JWS; undefined when the text is none. */
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

/** The last header that was one, and its text: nearly all tokens of an issuer begin with the same one. */
let lastHeader: { readonly text: string; readonly header: JsonObject } | undefined;

function headerIn(text: string): JsonObject | undefined {
  if (lastHeader?.text === text) return lastHeader.header;
  const bytes = decodeSegment(text);
  const header = bytes && parseJsonObject(bytes);
  if (header !== undefined) lastHeader = { text: Buffer.from(text).toString(), header };
  return header;
}

/**
 * Decodes base64url in its canonical spelling alone: no padding, no white space, no other alphabet,
 * no spare bits. Otherwise one signature would have many spellings, and a refused token would come
 * back under another one.
 */
function decodeSegment(segment: string): Buffer | undefined {
  if (segment === '') return undefined;
  // Whatever is not in the alphabet is passed over here, and then missing in what it is compared with.
  const bytes = Buffer.from(segment, 'base64url');
  return bytes.toString('base64url') === segment ? bytes : undefined;
}
