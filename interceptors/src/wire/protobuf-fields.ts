/**
 * The wire format of Protocol Buffers, read field by field without a schema
 * (https://protobuf.dev/programming-guides/encoding/). The bytes may come from a caller: nothing recurses, and every read
 * is bounded by the bytes there are.
 */

/** The bytes are not what they should be. */
export class MalformedMessageError extends Error {
  constructor(problem = 'the bytes are no message', options?: ErrorOptions) {
    super(problem, options);
    this.name = 'MalformedMessageError';
  }
}

/** A field of a message. */
export interface Field {
  readonly number: number;
  /** A number, or the bytes of a text or message. */
  readonly value: bigint | Uint8Array;
}

/** The greatest number of a field. */
const FIELD_NUMBER_MAX = 2 ** 29 - 1;

/** Wire types. Groups are not read: they have been out of use since proto2. */
const VARINT = 0n;
const I64 = 1n;
const LENGTH_DELIMITED = 2n;
const I32 = 5n;

const VARINT_BITS_MAX = 70n;

/**
 * The fields of a message, in their order.
 *
 * @throws MalformedMessageError
 */
export function* fieldsIn(message: Uint8Array): Iterable<Field> {
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; shift < VARINT_BITS_MAX; shift += 7n) {
      const byte = message[at++];
      if (byte === undefined) throw new MalformedMessageError();
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asUintN(64, value);
    }
    throw new MalformedMessageError();
  };
  const bytes = (length: bigint): Uint8Array => {
    if (length > BigInt(message.length - at)) throw new MalformedMessageError();
    const from = at;
    at += Number(length);
    return message.subarray(from, at);
  };
  while (at < message.length) {
    const key = varint();
    const number = Number(key >> 3n);
    if (number < 1 || number > FIELD_NUMBER_MAX) throw new MalformedMessageError();
    switch (key & 7n) {
      case VARINT:
        yield { number, value: varint() };
        break;
      case I64:
        yield { number, value: bytes(8n) };
        break;
      case LENGTH_DELIMITED:
        yield { number, value: bytes(varint()) };
        break;
      case I32:
        yield { number, value: bytes(4n) };
        break;
      default:
        throw new MalformedMessageError();
    }
  }
}

/** The messages in a field that may be repeated. @throws MalformedMessageError */
export function messagesIn(message: Uint8Array, number: number): readonly Uint8Array[] {
  const found: Uint8Array[] = [];
  for (const field of fieldsIn(message)) {
    if (field.number !== number) continue;
    if (typeof field.value === 'bigint') throw new MalformedMessageError();
    found.push(field.value);
  }
  return found;
}

/** A text field; empty when it is not set. @throws MalformedMessageError */
export function textIn(message: Uint8Array, number: number): string {
  const last = messagesIn(message, number).at(-1);
  if (last === undefined) return '';
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(last);
  } catch (cause) {
    throw new MalformedMessageError('a text is not UTF-8', { cause });
  }
}

/** A truth value; false when it is not set. @throws MalformedMessageError */
export function booleanIn(message: Uint8Array, number: number): boolean {
  let value = 0n;
  for (const field of fieldsIn(message)) {
    if (field.number !== number) continue;
    if (typeof field.value !== 'bigint') throw new MalformedMessageError();
    value = field.value;
  }
  return value !== 0n;
}
