/** Forged messages on the broker, and replayed ones. */

import {
  createDecipheriv,
  createPrivateKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
} from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { BROADCAST_SUBJECT, BROADCAST_TYPE, brokerConnection } from '@portcullis/guard/internal';
import { connect, type NatsConnection } from 'nats';
import pg from 'pg';
import { Broadcast, EntryKind } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import type { Random } from '../shared/random.js';
import type { Environment } from './environment.js';

const HEARD_MAX = 300;
const KEEP_FOR_MS = 3_600_000;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const ID_BYTES = 16;
const GARBAGE_BYTES = 100_000;
const REPETITIONS = 3;

/** The target of a forgery. */
export interface Target {
  readonly sessionId: string;
  readonly userId: string;
}

/** An attacker who may publish and receive everything on the broker. */
export interface Intruder {
  /** Publishes forged revocations of these targets. @returns how many */
  forge(targets: readonly Target[]): Promise<number>;
  /** Replays received messages, in another order and several times. @returns how many */
  replay(): Promise<number>;
  close(): Promise<void>;
}

/** Connects an attacker, who records messages from now on. */
export async function connectAttacker(environment: Environment, random: Random): Promise<Intruder> {
  const connection = await connect({
    ...brokerConnection(environment.nats.url('test'), 'drill intruder'),
    waitOnFirstConnect: true,
  });
  const heard: Buffer[] = [];
  connection.subscribe(BROADCAST_SUBJECT, {
    callback: (error, message) => {
      if (error !== null || ours.has(Buffer.from(message.data).toString('latin1'))) return;
      heard.push(Buffer.from(message.data));
      if (heard.length > HEARD_MAX) heard.shift();
    },
  });
  // The attacker's own messages are not recorded.
  const ours = new Set<string>();
  const publish = async (messages: readonly Buffer[]): Promise<number> => {
    for (const message of messages) {
      ours.add(message.toString('latin1'));
      connection.publish(BROADCAST_SUBJECT, message);
    }
    await flush(connection);
    ours.clear();
    return messages.length;
  };
  const stolen = await stealBroadcastKey(environment);
  return {
    forge: (targets) => publish(forgeriesOf(targets, heard.at(-1), stolen)),
    replay: () => publish(Array.from({ length: REPETITIONS }, () => random.shuffle(heard)).flat()),
    close: () => connection.close(),
  };
}

async function flush(connection: NatsConnection): Promise<void> {
  await connection.flush();
}

interface Signer {
  readonly kid: string;
  readonly key: KeyObject;
}

function forgeriesOf(targets: readonly Target[], heard: Buffer | undefined, stolen: Signer): Buffer[] {
  const stranger: Signer = { kid: randomBytes(ID_BYTES).toString('base64url'), key: newKey() };
  const impostor: Signer = { kid: stolen.kid, key: newKey() };
  const epoch = heard === undefined ? randomBytes(ID_BYTES) : epochOf(heard);
  const current = payloadOf(epoch, targets);
  const foreign = payloadOf(randomBytes(ID_BYTES), targets);
  const forgeries = [
    Buffer.alloc(0),
    Buffer.from('.'),
    randomBytes(GARBAGE_BYTES),
    current,
    jws(stranger, current),
    jws(impostor, current),
    jws(impostor, current, { alg: 'none' }),
    unsigned(stolen.kid, current),
    jws(stolen, current, { typ: 'at+jwt' }),
    jws(stolen, current, { typ: undefined }),
    jws(stolen, current, { jwk: impostor.key.export({ format: 'jwk' }) }),
    // Signed with the right key, for the log of another environment.
    jws(stolen, foreign),
    jws(stolen, Buffer.from('no protobuf')),
  ];
  if (heard === undefined) return forgeries;
  const [header = '', , signature = ''] = heard.toString('latin1').split('.');
  return [
    ...forgeries,
    heard.subarray(0, heard.byteLength - 1),
    heard.subarray(0, Math.floor(heard.byteLength / 2)),
    heard.subarray(1),
    Buffer.concat([heard, Buffer.from('A')]),
    Buffer.from([header, current.toString('base64url'), signature].join('.')),
  ];
}

function payloadOf(epoch: Buffer, targets: readonly Target[]): Buffer {
  const entry = {
    minGeneration: 1_000_000n,
    keepUntil: new Date(Date.now() + KEEP_FOR_MS),
    acknowledge: true,
    issuer: '',
    claim: '',
    cutOffTime: undefined,
  };
  const entries = targets.flatMap(({ sessionId, userId }, index) => [
    {
      ...entry,
      entryId: randomBytes(ID_BYTES),
      sequence: BigInt(10_000 + 2 * index),
      kind: EntryKind.ENTRY_KIND_SESSION,
      key: Buffer.from(sessionId.replaceAll('-', ''), 'hex'),
    },
    {
      ...entry,
      entryId: randomBytes(ID_BYTES),
      sequence: BigInt(10_001 + 2 * index),
      kind: EntryKind.ENTRY_KIND_USER,
      key: Buffer.from(userId),
    },
  ]);
  return Buffer.from(Broadcast.encode({ epoch, entries }).finish());
}

function epochOf(message: Buffer): Buffer {
  const payload = message.toString('latin1').split('.')[1] ?? '';
  return Buffer.from(Broadcast.decode(Buffer.from(payload, 'base64url')).epoch);
}

function jws({ kid, key }: Signer, payload: Buffer, header: Readonly<Record<string, unknown>> = {}): Buffer {
  const signed = `${encoded({ alg: 'EdDSA', kid, typ: BROADCAST_TYPE, ...header })}.${payload.toString('base64url')}`;
  return Buffer.from(`${signed}.${sign(null, Buffer.from(signed), key).toString('base64url')}`);
}

function unsigned(kid: string, payload: Buffer): Buffer {
  return Buffer.from(
    `${encoded({ alg: 'EdDSA', kid, typ: BROADCAST_TYPE })}.${payload.toString('base64url')}.`,
  );
}

function encoded(json: object): string {
  return Buffer.from(JSON.stringify(json)).toString('base64url');
}

function newKey(): KeyObject {
  return generateKeyPairSync('ed25519').privateKey;
}

/**
 * Reads the key that signs broadcasts from auth's database, like an attacker who has stolen the
 * database and the key-encryption key of another environment with the same keys.
 */
async function stealBroadcastKey({ postgres, system }: Environment): Promise<Signer> {
  const client = new pg.Client({ connectionString: postgres.url('portcullis_auth') });
  await client.connect();
  try {
    const { rows } = await client.query<{ kid: string; algorithm: string; sealed_private_key: Buffer }>(
      `SELECT kid, algorithm, sealed_private_key FROM signing_keys
        WHERE purpose = 'broadcast' AND state = 'signing'`,
    );
    const [row] = rows;
    if (row === undefined) throw new Error('auth has no key that signs broadcasts');
    const text = await readFile(system.secrets.keyEncryptionKeyFile, 'utf8');
    const sealed = row.sealed_private_key;
    const key = Buffer.from(text.trim(), 'base64url');
    const nonce = sealed.subarray(0, NONCE_BYTES);
    const opening = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES });
    opening.setAAD(Buffer.from(`${row.kid}\nbroadcast\n${row.algorithm}`));
    opening.setAuthTag(sealed.subarray(NONCE_BYTES, NONCE_BYTES + TAG_BYTES));
    const pem = Buffer.concat([opening.update(sealed.subarray(NONCE_BYTES + TAG_BYTES)), opening.final()]);
    return { kid: row.kid, key: createPrivateKey(pem) };
  } finally {
    await client.end();
  }
}
