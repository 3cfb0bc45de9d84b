/** The Huffman code of HPACK (RFC 7541 §5.2, Appendix B). */

import { COMPRESSION_ERROR, ConnectionFault } from './errors.js';

/**
 * The length in bits of the code of each symbol, 0 to 255 and the end of string, one character each in base 36. The code is
 * canonical: among codes of one length the values follow the symbols, so that the lengths say everything.
 */
const CODE_LENGTHS =
  'dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6cad67777777777777777777777878djde6' +
  'f56565666577666567655677777fbedskmkkmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmolmnnllmlnmnnkmmmnmmn' +
  'qqkjmnmpqqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqnqrqqrrrrrsrrrrrqu';

const END_OF_STRING = 256;
const LENGTH_MIN = 5;
const LENGTH_MAX = 30;

/** Codes of at most this many bits are found by one look into a table: all printable characters but a dozen. */
const FAST_BITS = 9;

/** For the next {@link FAST_BITS} bits: the symbol × 16 + the length of its code; 0 when the code is longer. */
const fast = new Uint16Array(1 << FAST_BITS);

/** For each length: the first code, the number of codes, and where their symbols begin in {@link bySize}. */
const firstCode = new Float64Array(LENGTH_MAX + 1);
const codesOfLength = new Uint16Array(LENGTH_MAX + 1);
const firstSymbol = new Uint16Array(LENGTH_MAX + 1);
const bySize = new Uint16Array(END_OF_STRING + 1);

fillTables();

function fillTables(): void {
  let code = 0;
  let position = 0;
  for (let length = LENGTH_MIN; length <= LENGTH_MAX; length++) {
    code *= 2;
    firstCode[length] = code;
    firstSymbol[length] = position;
    for (let symbol = 0; symbol <= END_OF_STRING; symbol++) {
      if (Number.parseInt(CODE_LENGTHS.charAt(symbol), 36) !== length) continue;
      bySize[position] = symbol;
      position += 1;
      if (length <= FAST_BITS) {
        const from = code << (FAST_BITS - length);
        fast.fill(symbol * 16 + length, from, from + (1 << (FAST_BITS - length)));
      }
      code += 1;
    }
    codesOfLength[length] = position - (firstSymbol[length] ?? 0);
  }
}

/** Maximum number of bytes that `length` bytes of Huffman code decode to. */
export function decodedBytesMax(length: number): number {
  return Math.floor((length * 8) / LENGTH_MIN);
}

/**
 * Decodes `source[start, end)` to `target`, which must have room for {@link decodedBytesMax}.
 *
 * @returns the number of bytes written
 * @throws ConnectionFault COMPRESSION_ERROR when the code holds the end of string, or is padded with more than 7 bits or
 *   with others than ones
 */
export function decodeHuffman(source: Uint8Array, start: number, end: number, target: Uint8Array): number {
  const bits = (end - start) * 8;
  let bit = 0;
  let written = 0;
  while (bit < bits) {
    const at = start + (bit >> 3);
    // Beyond the end come ones, as padding does.
    const window =
      ((source[at] ?? 0) << 16) |
      ((at + 1 < end ? (source[at + 1] ?? 0) : 0xff) << 8) |
      (at + 2 < end ? (source[at + 2] ?? 0) : 0xff);
    const entry = fast[(window >> (24 - FAST_BITS - (bit & 7))) & ((1 << FAST_BITS) - 1)] ?? 0;
    if (entry === 0) {
      const found = longCode(source, start, bit, bits);
      if (found === PADDING) return written;
      target[written] = found & 0xff;
      bit += found >> 8;
    } else {
      const next = bit + (entry & 15);
      if (next > bits) {
        checkPadding(source, start, bit, bits);
        return written;
      }
      target[written] = entry >> 4;
      bit = next;
    }
    written += 1;
  }
  return written;
}

const PADDING = -1;

/** Reads a code of more than {@link FAST_BITS} bits. @returns its length × 256 + its symbol, or {@link PADDING} */
function longCode(source: Uint8Array, start: number, from: number, bits: number): number {
  let code = 0;
  for (let length = 1; length <= LENGTH_MAX; length++) {
    const bit = from + length - 1;
    if (bit >= bits) {
      checkPadding(source, start, from, bits);
      return PADDING;
    }
    code = code * 2 + (((source[start + (bit >> 3)] ?? 0) >> (7 - (bit & 7))) & 1);
    const offset = code - (firstCode[length] ?? 0);
    if (length <= FAST_BITS || offset >= (codesOfLength[length] ?? 0)) continue;
    const symbol = bySize[(firstSymbol[length] ?? 0) + offset] ?? END_OF_STRING;
    if (symbol === END_OF_STRING) throw fault();
    return length * 256 + symbol;
  }
  throw fault();
}

function checkPadding(source: Uint8Array, start: number, from: number, bits: number): void {
  const length = bits - from;
  const ones = (1 << length) - 1;
  if (length > 7 || ((source[start + (bits >> 3) - 1] ?? 0) & ones) !== ones) throw fault();
}

function fault(): ConnectionFault {
  return new ConnectionFault(COMPRESSION_ERROR, 'invalid Huffman code');
}
