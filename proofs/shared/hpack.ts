/** HPACK (RFC 7541) without a dynamic table: any byte can be sent, and each response can be decoded on its own. */

const LITERAL_NEVER_INDEXED = 0x10;
const STRING_PREFIX_BITS = 7;

/**
 * One header as a literal, neither indexed nor compressed, so that its bytes arrive unchanged: also NUL, line breaks
 * and Latin-1, which other HTTP/2 clients reject.
 */
export function encodeField(name: string, value: string): Buffer {
  return Buffer.concat([Buffer.from([LITERAL_NEVER_INDEXED]), encodeText(name), encodeText(value)]);
}

/** Several headers, in order. */
export function encodeFields(fields: readonly (readonly [name: string, value: string])[]): Buffer {
  return Buffer.concat(fields.map(([name, value]) => encodeField(name, value)));
}

/** One byte per character, up to U+00FF. */
function encodeText(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1');
  return Buffer.concat([encodeInteger(bytes.length), bytes]);
}

function encodeInteger(value: number): Buffer {
  const limit = (1 << STRING_PREFIX_BITS) - 1;
  if (value < limit) return Buffer.from([value]);
  const bytes = [limit];
  let rest = value - limit;
  for (; rest >= 0x80; rest >>= 7) bytes.push((rest & 0x7f) | 0x80);
  bytes.push(rest);
  return Buffer.from(bytes);
}

/**
 * Decodes a header block. The sender must know that there is no dynamic table.
 *
 * @throws RangeError when the block is malformed or refers to a dynamic table
 */
export function decodeFields(block: Buffer): (readonly [name: string, value: string])[] {
  const reader = new BlockReader(block);
  const fields: (readonly [string, string])[] = [];
  while (!reader.ended) {
    const first = reader.peek();
    if (first >= 0x80) {
      fields.push(staticField(reader.integer(7)));
    } else if (first >= 0x20 && first < 0x40) {
      reader.integer(5);
    } else {
      const index = reader.integer(first >= 0x40 ? 6 : 4);
      const name = index === 0 ? reader.text() : staticField(index)[0];
      fields.push([name, reader.text()]);
    }
  }
  return fields;
}

class BlockReader {
  readonly #block: Buffer;
  #offset = 0;

  constructor(block: Buffer) {
    this.#block = block;
  }

  get ended(): boolean {
    return this.#offset >= this.#block.length;
  }

  peek(): number {
    const byte = this.#block[this.#offset];
    if (byte === undefined) throw new RangeError('a header block ends too early');
    return byte;
  }

  integer(prefixBits: number): number {
    const limit = (1 << prefixBits) - 1;
    let value = this.#byte() & limit;
    if (value < limit) return value;
    for (let shift = 0; ; shift += 7) {
      const byte = this.#byte();
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
  }

  text(): string {
    const compressed = this.peek() >= 0x80;
    const length = this.integer(STRING_PREFIX_BITS);
    const bytes = this.#block.subarray(this.#offset, this.#offset + length);
    if (bytes.length < length) throw new RangeError('a header block ends too early');
    this.#offset += length;
    return compressed ? decodeHuffman(bytes) : bytes.toString('latin1');
  }

  #byte(): number {
    const byte = this.peek();
    this.#offset += 1;
    return byte;
  }
}

function staticField(index: number): readonly [string, string] {
  const field = STATIC_TABLE[index - 1];
  if (field === undefined)
    throw new RangeError(`a header block refers to entry ${index}, which is not in the static table`);
  return field;
}

// --- Huffman code (RFC 7541 appendix B)

/** The code is canonical: ordered by length, then by symbol. Few ASCII symbols need more than 15 bits. */
const SYMBOLS_BY_LENGTH: readonly (readonly [bits: number, symbols: string])[] = [
  [5, '012aceiost'],
  [6, ' %-./3456789=A_bdfghlmnpru'],
  [7, ':BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz'],
  [8, '&*,;XZ'],
  [10, '!"()?'],
  [11, "'+|"],
  [12, '#>'],
  [13, '\0$@[]~'],
  [14, '^}'],
  [15, '<`{'],
];

const SYMBOL_BITS_MAX = 15;

/** Symbols by length and code in one number, with a leading one bit. */
const SYMBOLS = symbolsByCode();

function symbolsByCode(): ReadonlyMap<number, string> {
  const symbols = new Map<number, string>();
  let code = 0;
  let length = 0;
  for (const [bits, group] of SYMBOLS_BY_LENGTH) {
    code <<= bits - length;
    length = bits;
    for (const symbol of group) {
      symbols.set((1 << bits) | code, symbol);
      code += 1;
    }
  }
  return symbols;
}

function decodeHuffman(bytes: Buffer): string {
  let text = '';
  let code = 1;
  let length = 0;
  for (const byte of bytes) {
    for (let bit = 7; bit >= 0; bit -= 1) {
      code = (code << 1) | ((byte >> bit) & 1);
      length += 1;
      const symbol = SYMBOLS.get(code);
      if (symbol === undefined) {
        // A server may echo request bytes in its response: a text with rarer symbols is compared undecoded.
        if (length > SYMBOL_BITS_MAX) return `compressed ${bytes.toString('hex')}`;
        continue;
      }
      text += symbol;
      code = 1;
      length = 0;
    }
  }
  return text;
}

// --- Static table (RFC 7541 appendix A)

const STATIC_TABLE: readonly (readonly [name: string, value: string])[] = [
  [':authority', ''],
  [':method', 'GET'],
  [':method', 'POST'],
  [':path', '/'],
  [':path', '/index.html'],
  [':scheme', 'http'],
  [':scheme', 'https'],
  [':status', '200'],
  [':status', '204'],
  [':status', '206'],
  [':status', '304'],
  [':status', '400'],
  [':status', '404'],
  [':status', '500'],
  ['accept-charset', ''],
  ['accept-encoding', 'gzip, deflate'],
  ...namesOnly(
    'accept-language accept-ranges accept access-control-allow-origin age allow authorization cache-control',
    'content-disposition content-encoding content-language content-length content-location content-range',
    'content-type cookie date etag expect expires from host if-match if-modified-since if-none-match if-range',
    'if-unmodified-since last-modified link location max-forwards proxy-authenticate proxy-authorization range',
    'referer refresh retry-after server set-cookie strict-transport-security transfer-encoding user-agent vary',
    'via www-authenticate',
  ),
];

function namesOnly(...lines: readonly string[]): (readonly [string, string])[] {
  return lines.flatMap((line) => line.split(' ')).map((name) => [name, ''] as const);
}
