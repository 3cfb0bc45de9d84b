import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import fc from 'fast-check';
import { ConnectionFault } from '../../../gate/src/http2/errors.js';
import { HpackDecoder } from '../../../gate/src/http2/hpack-decoder.js';
import { encodeField } from '../../../gate/src/http2/hpack-encoder.js';
import { decodedBytesMax, decodeHuffman } from '../../../gate/src/http2/huffman.js';
import { indexed } from '../support/hpack-writer.js';

interface Vector {
  readonly section: string;
  readonly tableBytesMax: number;
  readonly blocks: readonly {
    readonly hex: string;
    readonly fields: readonly (readonly [string, string])[];
    readonly table: readonly (readonly [string, string])[];
  }[];
}

const vectors = JSON.parse(
  readFileSync(new URL('rfc7541-vectors.json', import.meta.url), 'utf8'),
) as readonly Vector[];

const LIMITS = { tableBytesMax: 4096, listBytesMax: 65_536, fieldsMax: 1000 };
const FIRST_DYNAMIC = 62;

function decode(decoder: HpackDecoder, hex: string): (readonly [string, string])[] | undefined {
  const bytes = Buffer.from(hex, 'hex');
  return decoder.decode(bytes, 0, bytes.length)?.map(({ name, value }) => [name, value] as const);
}

function faultOf(hex: string, limits = LIMITS): string {
  try {
    decode(new HpackDecoder(limits), hex);
  } catch (error) {
    expect(error).to.be.instanceOf(ConnectionFault);
    return (error as Error).message;
  }
  return 'none';
}

describe('gate: HPACK', () => {
  for (const { section, tableBytesMax, blocks } of vectors) {
    it(`decodes the examples of RFC 7541 ${section}, and keeps their dynamic table`, () => {
      const decoder = new HpackDecoder({ ...LIMITS, tableBytesMax });
      for (const { hex, fields, table } of blocks) {
        expect(decode(decoder, hex)).to.deep.equal(fields);
        const indices = table.map((_, index) => (0x80 | (FIRST_DYNAMIC + index)).toString(16)).join('');
        expect(decode(decoder, indices)).to.deep.equal(table);
      }
    });
  }

  it('rejects what refers beyond the tables, or ends within a field', () => {
    expect(faultOf('80')).to.equal('no such entry in the table');
    expect(faultOf('be')).to.equal('no such entry in the table');
    expect(faultOf('ff')).to.equal('header block ends within a field');
    expect(faultOf('ffffffffffff0f')).to.equal('integer too large');
    expect(faultOf('400a637573')).to.equal('header block ends within a field');
    expect(faultOf('40')).to.equal('header block ends within a field');
  });

  it('rejects size updates beyond the setting, within a block, and more than two', () => {
    expect(faultOf('3fe21f')).to.equal('invalid size of the dynamic table');
    expect(faultOf('8220')).to.equal('size of the dynamic table changed within a block');
    expect(faultOf('20202082')).to.equal('invalid size of the dynamic table');
    expect(faultOf('203fe11f82')).to.equal('none');
    expect(faultOf('2182', { ...LIMITS, tableBytesMax: 0 })).to.equal('invalid size of the dynamic table');
  });

  it('admits literals with indexing while the table is 0, and no reference to them', () => {
    const decoder = new HpackDecoder({ ...LIMITS, tableBytesMax: 0 });
    expect(decode(decoder, indexed('a', 'b').toString('hex'))).to.deep.equal([['a', 'b']]);
    expect(() => decode(decoder, 'be')).to.throw(ConnectionFault, 'no such entry');
  });

  it('rejects Huffman code with the end of string, or with wrong padding', () => {
    // A name of Huffman code: 'a' is 00011, then the padding.
    expect(faultOf('40811f0161')).to.equal('none');
    expect(faultOf('40811e0161')).to.equal('invalid Huffman code');
    expect(faultOf('40821fff0161')).to.equal('invalid Huffman code');
    expect(faultOf('4084ffffffff0161')).to.equal('invalid Huffman code');
    expect(faultOf('4084fffffffc0161')).to.equal('invalid Huffman code');
  });

  it('keeps the table when a list is too large, and returns nothing of it', () => {
    const decoder = new HpackDecoder({ ...LIMITS, listBytesMax: 100 });
    const entry = indexed('name', 'x'.repeat(100)).toString('hex');
    expect(decode(decoder, entry)).to.equal(undefined);
    const second = new HpackDecoder({ ...LIMITS, fieldsMax: 2 });
    expect(decode(second, '828684')).to.equal(undefined);
    expect(decode(second, '8286')).to.have.length(2);
  });

  it('marks names and values that HTTP/2 excludes', () => {
    const validity = (name: string, value: string): boolean | undefined => {
      const bytes = encodeField(name, value, false);
      return new HpackDecoder(LIMITS).decode(bytes, 0, bytes.length)?.[0]?.isValid;
    };
    expect(validity('x-a', 'b c\t\u00ff')).to.equal(true);
    for (const name of ['X-a', 'x a', 'x:a', '', ':', 'x\u0000', 'x\n', 'é'])
      expect(validity(name, 'v'), name).to.equal(false);
    for (const value of ['a\r', 'a\nb', 'a\u0000', '\u007f', '\u0001'])
      expect(validity('x', value)).to.equal(false);
  });

  it('returns what was encoded, for all fields', () => {
    const text = fc.string({
      unit: fc.integer({ min: 0, max: 255 }).map((code) => String.fromCharCode(code)),
      maxLength: 300,
    });
    fc.assert(
      fc.property(text, text, fc.boolean(), (name, value, isSensitive) => {
        const bytes = encodeField(name, value, isSensitive);
        const [field] = new HpackDecoder(LIMITS).decode(bytes, 0, bytes.length) ?? [];
        expect([field?.name, field?.value]).to.deep.equal([name, value]);
      }),
    );
  });

  it('decodes every byte of Huffman code as the table of RFC 7541 says', () => {
    // Known codes: the shortest, some of 8 bits and more, and the longest.
    const codes: readonly (readonly [code: number, bits: number, byte: number])[] = [
      [0x0, 5, 0x30],
      [0x3, 5, 0x61],
      [0x14, 6, 0x20],
      [0xf8, 8, 0x26],
      [0x3f8, 10, 0x21],
      [0x7fc, 11, 0x7c],
      [0x1ff8, 13, 0x00],
      [0x3ffffffc, 30, 0x0a],
      [0x3ffffee, 26, 0xff],
    ];
    for (const [value, bits, byte] of codes) {
      const code = value.toString(2).padStart(bits, '0');
      const padded = code.padEnd(Math.ceil(code.length / 8) * 8, '1');
      const source = Buffer.from((padded.match(/.{8}/g) ?? []).map((octet) => Number.parseInt(octet, 2)));
      const target = Buffer.alloc(decodedBytesMax(source.length) + 1);
      expect(decodeHuffman(source, 0, source.length, target), code).to.equal(1);
      expect(target[0], code).to.equal(byte);
    }
  });
});
