/** Which broadcasts an instance accepts, as rows with the numbers of docs/spec/revocation-v1.md. */

import { createPublicKey, type JsonWebKey, verify } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Broadcast } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { SPECIFICATION_FOLDER } from './vectors.js';

const TYPE = 'portcullis-revocations+jws';

/** A key that signs broadcasts, as a Sync response brings it. */
export interface KeyStep {
  readonly kid: string;
  readonly algorithm: string;
  readonly jwk: string;
}

/** A message of the broker, and whether an instance accepts it. */
export interface BroadcastVector {
  readonly name: string;
  /** Without this row the vector fails; missing when the message is accepted. */
  readonly row?: string;
  readonly message: string;
  readonly expect: boolean;
}

/** A message, taken apart as far as possible. */
interface Message {
  readonly segments: readonly string[];
  readonly header: Readonly<Record<string, unknown>>;
  readonly payload: Buffer;
  readonly signature: Buffer;
  readonly signed: Buffer;
  /** The key that `kid` names. */
  readonly named: KeyStep | undefined;
  /** That key, or any other. */
  readonly key: KeyStep;
}

/** The rows: a message is dropped when the condition of one holds. */
export const BROADCAST_MESSAGE_ROWS: readonly {
  readonly id: string;
  readonly when: (message: Message) => boolean;
}[] = [
  {
    id: 'W1',
    when: ({ segments }) =>
      segments.length !== 3 ||
      segments.some((text) => text === '' || Buffer.from(text, 'base64url').toString('base64url') !== text),
  },
  { id: 'W2', when: ({ header }) => Object.keys(header).sort().join(' ') !== 'alg kid typ' },
  { id: 'W3', when: ({ header }) => header['typ'] !== TYPE },
  { id: 'W4', when: ({ named }) => named === undefined },
  { id: 'W5', when: ({ header, key }) => header['alg'] !== key.algorithm },
  { id: 'W6', when: ({ signed, signature, key }) => !isSigned(signed, signature, key) },
  { id: 'W7', when: ({ payload }) => !isBroadcast(payload) },
];

/** Whether an instance with these keys accepts a message. @param without - a row that is left out */
export function acceptsMessage(text: string, keys: readonly KeyStep[], without?: string): boolean {
  const segments = text.split('.');
  const [header = '', payload = '', signature = ''] = segments;
  const parsed = JSON.parse(Buffer.from(header, 'base64url').toString()) as Record<string, unknown>;
  const named = keys.find(({ kid }) => kid === parsed['kid']);
  const [first] = keys;
  if (first === undefined) return false;
  const message: Message = {
    segments,
    header: parsed,
    payload: Buffer.from(payload, 'base64url'),
    signature: Buffer.from(signature, 'base64url'),
    signed: Buffer.from(`${header}.${payload}`),
    named,
    key: named ?? first,
  };
  return BROADCAST_MESSAGE_ROWS.every(({ id, when }) => id === without || !when(message));
}

/** The vectors of messages. @throws Error when the file is of another version */
export function readBroadcastVectors(): {
  readonly keys: readonly KeyStep[];
  readonly vectors: readonly BroadcastVector[];
} {
  const text = readFileSync(join(SPECIFICATION_FOLDER, 'vectors', 'broadcasts.json'), 'utf8');
  const { version, keys, vectors } = JSON.parse(text) as {
    version: number;
    keys: readonly KeyStep[];
    vectors: readonly BroadcastVector[];
  };
  if (version !== 1) throw new Error(`expected vectors of version 1, got ${version}`);
  return { keys, vectors };
}

/** All keys of the vectors are of Ed25519. */
function isSigned(signed: Buffer, signature: Buffer, { jwk }: KeyStep): boolean {
  const key = createPublicKey({ key: JSON.parse(jwk) as JsonWebKey, format: 'jwk' });
  return verify(null, signed, key, signature);
}

function isBroadcast(payload: Buffer): boolean {
  try {
    Broadcast.decode(payload);
    return true;
  } catch {
    return false;
  }
}
