/** A certificate that nobody has signed, to find out whether a server asks who signed those of its callers. */

import { generateKeyPairSync, randomBytes, sign } from 'node:crypto';

const SEQUENCE = 0x30;
const SET = 0x31;
const INTEGER = 0x02;
const BIT_STRING = 0x03;
const UTF8_STRING = 0x0c;
const UTC_TIME = 0x17;
const GENERALIZED_TIME = 0x18;

/** Version 3 (RFC 5280 §4.1.2.1), encoded. */
const VERSION_3 = Buffer.from('a003020102', 'hex');

/** `ecdsa-with-SHA256` (RFC 5758 §3.2) and `commonName` (RFC 5280 appendix A.1), encoded. */
const ECDSA_WITH_SHA256 = Buffer.from('06082a8648ce3d040302', 'hex');
const COMMON_NAME = Buffer.from('0603550403', 'hex');

/** A certificate and its key, in PEM. */
interface Throwaway {
  readonly cert: string;
  readonly key: string;
}

/** A new self-signed certificate (RFC 5280 §4.1) of a new P-256 key. */
export function createThrowaway(): Throwaway {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const algorithm = der(SEQUENCE, ECDSA_WITH_SHA256);
  const name = der(
    SEQUENCE,
    der(SET, der(SEQUENCE, COMMON_NAME, der(UTF8_STRING, Buffer.from('portcullis gate probe')))),
  );
  const content = der(
    SEQUENCE,
    VERSION_3,
    // The first byte keeps the number positive and its encoding the shortest one.
    der(INTEGER, Buffer.of(1), randomBytes(15)),
    algorithm,
    name,
    // Without an end (RFC 5280 §4.1.2.5): nothing trusts it at any time.
    der(
      SEQUENCE,
      der(UTC_TIME, Buffer.from('000101000000Z')),
      der(GENERALIZED_TIME, Buffer.from('99991231235959Z')),
    ),
    name,
    publicKey.export({ type: 'spki', format: 'der' }),
  );
  const signature = sign('sha256', content, privateKey);
  const bytes = der(SEQUENCE, content, algorithm, der(BIT_STRING, Buffer.of(0), signature));
  return {
    cert: `-----BEGIN CERTIFICATE-----\n${bytes.toString('base64')}\n-----END CERTIFICATE-----\n`,
    key: String(privateKey.export({ type: 'pkcs8', format: 'pem' })),
  };
}

/** A value of DER (X.690 §8.1) with its tag and its length. */
function der(tag: number, ...parts: readonly Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  const { length } = content;
  const head =
    length < 0x80
      ? Buffer.of(tag, length)
      : length < 0x100
        ? Buffer.of(tag, 0x81, length)
        : Buffer.of(tag, 0x82, length >> 8, length & 0xff);
  return Buffer.concat([head, content]);
}
