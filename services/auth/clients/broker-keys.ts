/** The public nkeys with which services connect to the broker. */

import { invalidField } from '@portcullis/guard/errors';

/** A user's public nkey: base32 (RFC 4648 §6) of a prefix, 32 bytes of key, and a checksum. */
const USER_NKEY = /^U[A-Z2-7]{55}$/;
const BASE32 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
const BITS_PER_CHARACTER = 5n;

const KEY_BYTES = 33;
const CHECKSUM_BYTES = 2;

/** CRC-16/XMODEM, which nkeys use. */
const CRC_POLYNOMIAL = 0x1021;

/**
 * The public nkey of a request; undefined for an empty text. The checksum is verified, because a broker that is configured
 * with a mistyped key takes none of the others.
 *
 * @throws ServiceError FIELD_INVALID when it is no public nkey of a user
 */
export function parseBrokerKey(field: string, text: string | undefined): string | undefined {
  if (text === undefined || text === '') return undefined;
  if (USER_NKEY.test(text) && hasChecksum(text)) return text;
  throw invalidField(
    field,
    'must be the public nkey of a user, which begins with U; never its seed, which begins with SU',
  );
}

function hasChecksum(text: string): boolean {
  let bits = 0n;
  for (const character of text) bits = (bits << BITS_PER_CHARACTER) | BigInt(BASE32.indexOf(character));
  const bytes = Buffer.from(bits.toString(16).padStart(2 * (KEY_BYTES + CHECKSUM_BYTES), '0'), 'hex');
  return bytes.readUInt16LE(KEY_BYTES) === crcOf(bytes.subarray(0, KEY_BYTES));
}

function crcOf(bytes: Uint8Array): number {
  let crc = 0;
  for (const byte of bytes) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit += 1) {
      crc = (crc & 0x8000) === 0 ? crc << 1 : (crc << 1) ^ CRC_POLYNOMIAL;
      crc &= 0xffff;
    }
  }
  return crc;
}
