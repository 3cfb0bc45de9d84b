/** Header fields, and what their names and values may hold (RFC 9113 §8.2.1). */

/** What each entry of a header list counts beside its name and value, in bytes (RFC 7541 §4.1, RFC 9113 §6.5.2). */
export const FIELD_OVERHEAD_BYTES = 32;

/** One header field. Name and value hold one character for each byte (latin1). */
export class Field {
  readonly name: string;
  readonly value: string;
  /** A literal that must never be indexed by anyone (RFC 7541 §6.2.3). */
  readonly isSensitive: boolean;
  /** Whether name and value hold only what HTTP/2 admits. */
  readonly isValid: boolean;
  /** The field as it is sent without a dynamic table; encoded when first needed. */
  wire: Buffer | undefined = undefined;

  constructor(name: string, value: string, isSensitive: boolean, isValid: boolean) {
    this.name = name;
    this.value = value;
    this.isSensitive = isSensitive;
    this.isValid = isValid;
  }

  /** Size in a header list or in the dynamic table, in bytes. */
  get size(): number {
    return this.name.length + this.value.length + FIELD_OVERHEAD_BYTES;
  }
}

/** 1 for each byte that a name may hold: the token characters of RFC 9110 §5.6.2 without capitals. */
const nameBytes = new Uint8Array(256);
for (const character of "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz") {
  nameBytes[character.charCodeAt(0)] = 1;
}

const COLON = 0x3a;
const TAB = 0x09;
const SPACE = 0x20;
const DELETE = 0x7f;

/** Whether bytes are a name: not empty, a token in lower case, after a colon if it is a pseudo-header. */
export function isName(bytes: Uint8Array, start: number, end: number): boolean {
  const from = bytes[start] === COLON ? start + 1 : start;
  if (from >= end) return false;
  for (let index = from; index < end; index++) {
    if (nameBytes[bytes[index] ?? 0] !== 1) return false;
  }
  return true;
}

/**
 * Whether bytes are a value: no control character except the tab. RFC 9113 excludes only NUL, LF and CR; the others have
 * no use in a header, and programs disagree about them.
 */
export function isValue(bytes: Uint8Array, start: number, end: number): boolean {
  for (let index = start; index < end; index++) {
    const byte = bytes[index] ?? 0;
    if ((byte < SPACE && byte !== TAB) || byte === DELETE) return false;
  }
  return true;
}

/**
 * Whether a value begins or ends with a space or a tab, which makes a request malformed (RFC 9113 §8.2.1). Responses are
 * exempt: gRPC leaves the spaces of `grpc-message` as they are.
 */
export function hasEdgeSpace(value: string): boolean {
  const first = value.charCodeAt(0);
  const last = value.charCodeAt(value.length - 1);
  return first === SPACE || first === TAB || last === SPACE || last === TAB;
}
