/** Decodes header blocks (RFC 7541 §3) with a dynamic table. */

import { COMPRESSION_ERROR, ConnectionFault } from './errors.js';
import { FIELD_OVERHEAD_BYTES, Field, isName, isValue } from './field.js';
import { decodedBytesMax, decodeHuffman } from './huffman.js';
import { STATIC_ENTRIES, STATIC_TABLE } from './static-table.js';

/** What one decoder accepts. */
export interface HpackLimits {
  /** Maximum size of the dynamic table, in bytes (SETTINGS_HEADER_TABLE_SIZE as the peer was told). */
  readonly tableBytesMax: number;
  /** Maximum size of a header list, in bytes (RFC 9113 §6.5.2). */
  readonly listBytesMax: number;
  /** Maximum number of fields of a header list. */
  readonly fieldsMax: number;
}

const staticFields: readonly Field[] = STATIC_TABLE.map(([name, value], position) => {
  const field = new Field(name, value, false, true);
  field.wire = Buffer.of(0x80 | (position + 1));
  return field;
});

/** Integers beyond this are no lengths and no indices. */
const INTEGER_MAX = 0xff_ffff;

/** Size updates at the start of one block: at most the smallest and the last (RFC 7541 §4.2). */
const SIZE_UPDATES_MAX = 2;

/** Long literals repeat from call to call, such as tokens, which most clients do not index. */
const REMEMBERED_BYTES_MIN = 32;
const REMEMBERED_BYTES_MAX = 4096;
const REMEMBERED_TEXTS = 4;

/** Where Huffman code is decoded to. One for all decoders, because decoding never waits. */
let scratch = Buffer.allocUnsafeSlow(4096);

const NOTHING = Buffer.alloc(0);

/** A text in the form in which it was received, and decoded. */
interface RememberedText {
  readonly raw: Buffer;
  readonly text: string;
  readonly isValue: boolean;
}

/** Decodes the header blocks of one direction of one connection, in their order. */
export class HpackDecoder {
  readonly #limits: HpackLimits;
  /** A ring: the newest entry is at `#newest`. */
  readonly #entries: (Field | undefined)[];
  #newest = 0;
  #count = 0;
  #tableBytes = 0;
  #tableBytesMax: number;
  #version = 0;
  readonly #remembered: (RememberedText | undefined)[] = [];
  /** Where decoding stands. */
  #source: Buffer = NOTHING;
  #at = 0;
  #end = 0;
  /** Whether the text that was read last is a value. */
  #isValue = true;

  constructor(limits: HpackLimits) {
    this.#limits = limits;
    this.#tableBytesMax = limits.tableBytesMax;
    this.#entries = new Array(Math.floor(limits.tableBytesMax / FIELD_OVERHEAD_BYTES)).fill(undefined);
  }

  /** Changes with the dynamic table: equal bytes mean equal fields only while this stays the same. */
  get version(): number {
    return this.#version;
  }

  /**
   * Decodes `source[start, end)`, a complete header block.
   *
   * @returns its fields, or undefined when it is larger than the limits (its changes of the table are made)
   * @throws ConnectionFault COMPRESSION_ERROR; the decoder must not be used any longer
   */
  decode(source: Buffer, start: number, end: number): Field[] | undefined {
    this.#source = source;
    this.#at = start;
    this.#end = end;
    this.#sizeUpdates();
    const fields: Field[] = [];
    let bytes = 0;
    let isTooLarge = false;
    while (this.#at < end) {
      const field = this.#field();
      bytes += field.size;
      isTooLarge ||= bytes > this.#limits.listBytesMax || fields.length >= this.#limits.fieldsMax;
      if (!isTooLarge) fields.push(field);
    }
    // Not kept: it is part of what a socket has read.
    this.#source = NOTHING;
    return isTooLarge ? undefined : fields;
  }

  #sizeUpdates(): void {
    let updates = 0;
    while (this.#at < this.#end && ((this.#source[this.#at] ?? 0) & 0xe0) === 0x20) {
      updates += 1;
      const size = this.#integer(5);
      if (updates > SIZE_UPDATES_MAX || size > this.#limits.tableBytesMax) {
        throw fault('invalid size of the dynamic table');
      }
      this.#tableBytesMax = size;
      this.#version += 1;
      this.#evict(0);
    }
  }

  #field(): Field {
    const first = this.#source[this.#at] ?? 0;
    if (first >= 0x80) return this.#entry(this.#integer(7));
    if (first >= 0x40) {
      const field = this.#literal(this.#integer(6), false);
      this.#add(field);
      return field;
    }
    if (first >= 0x20) throw fault('size of the dynamic table changed within a block');
    return this.#literal(this.#integer(4), first >= 0x10);
  }

  #literal(index: number, isSensitive: boolean): Field {
    let name: string;
    let isNameValid = true;
    if (index === 0) {
      name = this.#name();
      isNameValid = this.#isValue;
    } else {
      const entry = this.#entry(index);
      name = entry.name;
      // A name that was invalid in the table stays so.
      isNameValid = index <= STATIC_ENTRIES || entry.isValid || isNameText(name);
    }
    const value = this.#value();
    return new Field(name, value, isSensitive, isNameValid && this.#isValue);
  }

  #entry(index: number): Field {
    if (index > 0 && index <= STATIC_ENTRIES) return staticFields[index - 1] as Field;
    const age = index - STATIC_ENTRIES - 1;
    if (age < 0 || age >= this.#count) throw fault('no such entry in the table');
    const slots = this.#entries.length;
    return this.#entries[(this.#newest - age + slots) % slots] as Field;
  }

  #add(field: Field): void {
    this.#version += 1;
    const { size } = field;
    this.#evict(size);
    if (size > this.#tableBytesMax) return;
    this.#newest = (this.#newest + 1) % this.#entries.length;
    this.#entries[this.#newest] = field;
    this.#count += 1;
    this.#tableBytes += size;
  }

  /** Drops the oldest entries until `needed` more bytes have room (RFC 7541 §4.3, §4.4). */
  #evict(needed: number): void {
    const slots = this.#entries.length;
    while (this.#count > 0 && this.#tableBytes + needed > this.#tableBytesMax) {
      const oldest = (this.#newest - this.#count + 1 + slots) % slots;
      this.#tableBytes -= (this.#entries[oldest] as Field).size;
      this.#entries[oldest] = undefined;
      this.#count -= 1;
    }
  }

  /** Reads an integer with a prefix (RFC 7541 §5.1). */
  #integer(prefixBits: number): number {
    const max = (1 << prefixBits) - 1;
    let value = (this.#source[this.#at] ?? 0) & max;
    this.#at += 1;
    if (value < max) return value;
    for (let shift = 0; shift <= 21; shift += 7) {
      if (this.#at >= this.#end) throw fault('header block ends within a field');
      const byte = this.#source[this.#at] ?? 0;
      this.#at += 1;
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) {
        if (value > INTEGER_MAX) break;
        return value;
      }
    }
    throw fault('integer too large');
  }

  /** Reads where a text stands: its first byte, and with `#textEnd` its end. */
  #textLength(): number {
    if (this.#at >= this.#end) throw fault('header block ends within a field');
    const length = this.#integer(7);
    if (length > this.#end - this.#at) throw fault('header block ends within a field');
    return length;
  }

  #name(): string {
    const isHuffman = ((this.#source[this.#at] ?? 0) & 0x80) !== 0;
    const length = this.#textLength();
    const start = this.#at;
    this.#at += length;
    const decoded = isHuffman ? this.#huffman(start, length) : -1;
    const bytes = isHuffman ? scratch : this.#source;
    const from = isHuffman ? 0 : start;
    const to = isHuffman ? decoded : start + length;
    this.#isValue = isName(bytes, from, to);
    return bytes.toString('latin1', from, to);
  }

  #value(): string {
    const isHuffman = ((this.#source[this.#at] ?? 0) & 0x80) !== 0;
    const length = this.#textLength();
    const start = this.#at;
    this.#at += length;
    const end = this.#at;
    if (!isHuffman) {
      this.#isValue = isValue(this.#source, start, end);
      return this.#source.toString('latin1', start, end);
    }
    if (length < REMEMBERED_BYTES_MIN || length > REMEMBERED_BYTES_MAX)
      return this.#huffmanValue(start, length);
    const slot = (length ^ (this.#source[end - 2] ?? 0) ^ (this.#source[end - 5] ?? 0)) % REMEMBERED_TEXTS;
    const known = this.#remembered[slot];
    if (known?.raw.length === length && this.#source.compare(known.raw, 0, length, start, end) === 0) {
      this.#isValue = known.isValue;
      return known.text;
    }
    const text = this.#huffmanValue(start, length);
    const raw = Buffer.from(this.#source.subarray(start, end));
    this.#remembered[slot] = { raw, text, isValue: this.#isValue };
    return text;
  }

  #huffmanValue(start: number, length: number): string {
    const decoded = this.#huffman(start, length);
    this.#isValue = isValue(scratch, 0, decoded);
    return scratch.toString('latin1', 0, decoded);
  }

  /** Decodes to the scratch buffer. @returns the number of bytes */
  #huffman(start: number, length: number): number {
    const needed = decodedBytesMax(length);
    if (needed > scratch.length) scratch = Buffer.allocUnsafeSlow(needed);
    return decodeHuffman(this.#source, start, start + length, scratch);
  }
}

function isNameText(name: string): boolean {
  const bytes = Buffer.from(name, 'latin1');
  return isName(bytes, 0, bytes.length);
}

function fault(message: string): ConnectionFault {
  return new ConnectionFault(COMPRESSION_ERROR, message);
}
