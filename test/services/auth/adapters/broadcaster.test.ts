/** Broadcasts over a real nats-server, signed with the keys of a real database. */

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '@portcullis/guard';
import { BROADCAST_SUBJECT, BroadcastReader } from '@portcullis/guard/internal';
import { expect } from 'chai';
import { decodeProtectedHeader } from 'jose';
import type { NatsConnection } from 'nats';
import type { Broadcast } from '../../../../proto/gen/portcullis/revocation/v1/revocation.js';
import {
  BACKLOG_ENTRIES_MAX,
  BROADCAST_ENTRIES_MAX,
  type Broadcaster,
  createBroadcaster,
} from '../../../../services/auth/adapters/broadcaster.js';
import { entryMessageOf } from '../../../../services/auth/adapters/revocation-messages.js';
import { type BroadcastSigner, createKeys } from '../../../../services/auth/keys/keys.js';
import { readPublishedKeys } from '../../../../services/auth/keys/store.js';
import type { LogBatch } from '../../../../services/auth/records/revocations.js';
import { createFenceStore } from '../../../../services/auth/revocation/fence-store.js';
import { createFences } from '../../../../services/auth/revocation/fences.js';
import { createInstanceStore } from '../../../../services/auth/revocation/instance-store.js';
import { createInstances } from '../../../../services/auth/revocation/instances.js';
import { createId, tokenRevocation } from '../../../../services/auth/revocation/log.js';
import { createRevocations, type Revocations } from '../../../../services/auth/revocation/revocations.js';
import { createRevocationStore } from '../../../../services/auth/revocation/store.js';
import { createAuthStore } from '../../../../services/auth/store.js';
import type { AuthStore } from '../../../../services/auth/transaction.js';
import { type Database, openDatabase } from '../../../../services/common/database/database.js';
import { type PrivateNats, privateNats } from '../../../support/nats.js';
import { freshDatabase } from '../../../support/postgres.js';
import { until } from '../../../support/waiting.js';
import { MIGRATIONS, quietLog } from '../revocation/revocation-support.js';

/** Records every broadcast, unchanged. */
async function listen(nats: PrivateNats): Promise<{ connection: NatsConnection; received: Uint8Array[] }> {
  const connection = await nats.connect();
  const received: Uint8Array[] = [];
  connection.subscribe(BROADCAST_SUBJECT, { callback: (_, message) => received.push(message.data) });
  await connection.flush();
  return { connection, received };
}

function batch(count: number): LogBatch {
  const entries = Array.from({ length: count }, (_, index) => ({
    ...tokenRevocation(randomUUID()),
    entryId: createId(),
    sequence: BigInt(index + 1),
    keepUntil: new Date(1_000_000),
    cutOffTime: undefined,
    acknowledge: false,
  }));
  return { epoch: Buffer.alloc(16, 1), entries };
}

describe('a broadcast', () => {
  let nats: PrivateNats;
  let database: Database;
  let dropDatabase: () => Promise<void>;
  let broadcaster: Broadcaster;
  let store: AuthStore;
  let revocations: Revocations;
  let committed: LogBatch[];
  let received: Uint8Array[];
  let listener: NatsConnection;

  beforeEach(async () => {
    const [started, fresh] = await Promise.all([privateNats(), freshDatabase()]);
    nats = started;
    dropDatabase = () => fresh.drop();
    database = openDatabase({ url: fresh.url, migrations: MIGRATIONS, log: quietLog });
    await database.ready(AbortSignal.timeout(45_000));
    committed = [];
    store = createAuthStore({
      database,
      onRevoked: (revoked) => {
        committed.push(revoked);
        broadcaster.publish(revoked);
      },
    });
    const keys = createKeys({ store, keyEncryptionKey: Buffer.alloc(32, 3), algorithm: 'EdDSA' });
    await keys.open();
    broadcaster = createBroadcaster({ url: nats.url('auth'), signer: keys.broadcastSigner(), log: quietLog });
    revocations = createRevocations({
      store,
      log: createRevocationStore({ database, publishedKeys: readPublishedKeys }),
      identify: () => Promise.reject(new TypeError('no token expected')),
      sessionIdOf: () => Promise.resolve(undefined),
      clock: systemClock,
      issuer: 'https://auth.test',
      foreignIssuers: [],
      instances: createInstances({ store: createInstanceStore(database), clock: systemClock }),
      fences: createFences({ store: createFenceStore(database), clock: systemClock }),
      onKeyRevoked: () => undefined,
      onLogChanged: () => undefined,
    });
    ({ connection: listener, received } = await listen(nats));
    await until(() => broadcaster.state().connected);
  });
  afterEach(async () => {
    await broadcaster.close();
    await listener.close();
    await nats.stop();
    await database.close();
    await dropDatabase();
  });

  const revoke = () =>
    revocations.revoke({ target: { kind: 'token-id', tokenId: randomUUID() }, reason: '', actor: 'olga' });

  const verified = async (): Promise<Broadcast[]> => {
    const reader = new BroadcastReader();
    const { broadcastKeys } = await revocations.sync({
      service: 'inventory',
      instance: Buffer.alloc(16),
      epoch: Buffer.alloc(0),
      applied: 0n,
      entryIdAtApplied: Buffer.alloc(0),
      keySetVersion: Buffer.alloc(0),
      seen: [],
      fences: [],
      heldTo: 0n,
      heldDigest: Buffer.alloc(0),
    });
    reader.replaceKeys(await reader.importKeys([...broadcastKeys]));
    const read = await Promise.all(received.map((bytes) => reader.read(bytes)));
    return read.map((broadcast) => {
      if (broadcast === undefined) throw new Error('a broadcast that cannot be verified');
      return broadcast;
    });
  };

  it('carries exactly the entries that were committed, verifiable with the keys that a sync hands out', async () => {
    const rolledBack = store.transaction(async (tx) => {
      await tx.revocations.append([{ ...tokenRevocation(randomUUID()), reason: '', actor: 'test' }]);
      throw new Error('changed its mind');
    });
    await rolledBack.catch(() => undefined);
    await Promise.all(Array.from({ length: 20 }, () => revoke()));
    await until(() => broadcaster.state().sent > 0 && received.length === broadcaster.state().sent);
    await sleep(20);

    const broadcasts = await verified();
    const { rows } = await database.query<{ entry_id: Buffer; seq: bigint; epoch: Buffer }>(
      'SELECT entry_id, seq, epoch FROM revocation_entries ORDER BY seq',
    );
    expect(rows).to.have.length(20);
    const bySequence = broadcasts
      .flatMap(({ entries }) => entries)
      .sort((a, b) => Number(a.sequence - b.sequence));
    expect(bySequence.map(({ entryId, sequence }) => ({ entryId, sequence }))).to.deep.equal(
      rows.map(({ entry_id, seq }) => ({ entryId: entry_id, sequence: seq })),
    );
    for (const { epoch } of broadcasts) expect(epoch).to.deep.equal(rows[0]?.epoch);
    const written = committed
      .flatMap(({ entries }) => entries)
      .sort((a, b) => Number(a.sequence - b.sequence));
    expect(bySequence).to.deep.equal(written.map(entryMessageOf));
  });

  it('is a compact JWS with a header of three members', async () => {
    await revoke();
    await until(() => received.length === 1);
    const text = Buffer.from(received[0] ?? []).toString();
    const header = decodeProtectedHeader(text);
    expect(Object.keys(header).sort()).to.deep.equal(['alg', 'kid', 'typ']);
    expect(header).to.include({ alg: 'EdDSA', typ: 'portcullis-revocations+jws' });
    expect(text.split('.')).to.have.length(3);
  });

  it('fails no revocation while the broker is unreachable, and is sent again when it is back', async () => {
    nats.kill('SIGKILL');
    await until(() => !broadcaster.state().connected);
    const startedMs = performance.now();
    expect((await revoke()).sequence).to.equal(1n);
    expect(performance.now() - startedMs).to.be.below(1000);
    expect(broadcaster.state()).to.include({ sent: 0, dropped: 1 });

    await nats.restart();
    const after = await listen(nats);
    await until(() => broadcaster.state().connected);
    await revoke();
    await until(() => after.received.length === 1);
    await after.connection.close();
  });

  it('delays no revocation while the broker is frozen, and notices it', async () => {
    nats.kill('SIGSTOP');
    try {
      const startedMs = performance.now();
      for (let round = 0; round < 20; round++) await revoke();
      expect(performance.now() - startedMs).to.be.below(2000);
      await until(() => !broadcaster.state().connected);
      const closingMs = performance.now();
      await broadcaster.close();
      expect(performance.now() - closingMs).to.be.below(2500);
    } finally {
      nats.kill('SIGCONT');
    }
  });
});

describe('a broadcaster', () => {
  let nats: PrivateNats;
  let broadcaster: Broadcaster | undefined;
  beforeEach(async () => {
    nats = await privateNats();
  });
  afterEach(async () => {
    await broadcaster?.close();
    await nats.stop();
  });

  const open = (signer: BroadcastSigner, url = nats.url('auth')): Broadcaster => {
    broadcaster = createBroadcaster({ url, signer, log: quietLog });
    return broadcaster;
  };
  const plain: BroadcastSigner = { sign: async (payload) => Buffer.from(payload).toString('base64url') };

  it('splits batches that are too large for one message, and joins batches that wait', async () => {
    const { connection, received } = await listen(nats);
    const opened = open(plain);
    await until(() => opened.state().connected);
    opened.publish(batch(1));
    opened.publish(batch(BROADCAST_ENTRIES_MAX));
    opened.publish(batch(2));
    await until(() => opened.state().sent === 3);
    await connection.flush();
    await until(() => received.length === 3);
    await connection.close();
  });

  it('sends nothing for a batch without entries, and continues', async () => {
    const opened = open(plain);
    await until(() => opened.state().connected);
    opened.publish(batch(0));
    opened.publish(batch(1));
    await until(() => opened.state().sent === 1);
  });

  it('drops and counts batches from before it is connected', () => {
    const opened = open(plain, 'nats://127.0.0.1:1');
    opened.publish(batch(3));
    expect(opened.state()).to.deep.equal({ connected: false, sent: 0, dropped: 3 });
  });

  it('drops and counts batches that cannot be signed, and continues', async () => {
    let failing = true;
    const opened = open({
      sign: (payload) => (failing ? Promise.reject(new Error('no key')) : plain.sign(payload)),
    });
    await until(() => opened.state().connected);
    opened.publish(batch(2));
    await until(() => opened.state().dropped === 2);
    failing = false;
    opened.publish(batch(1));
    await until(() => opened.state().sent === 1);
  });

  it('bounds the batches that wait', async () => {
    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const opened = open({ sign: (payload) => held.then(() => plain.sign(payload)) });
    await until(() => opened.state().connected);
    opened.publish(batch(1));
    await sleep(1);
    opened.publish(batch(BACKLOG_ENTRIES_MAX));
    opened.publish(batch(1));
    expect(opened.state().dropped).to.equal(1);
    release();
    await until(() => opened.state().sent === 1 + BACKLOG_ENTRIES_MAX / BROADCAST_ENTRIES_MAX);
  });

  it('sends the batches that wait before it closes', async () => {
    const { connection, received } = await listen(nats);
    const opened = open({ sign: (payload) => sleep(50).then(() => plain.sign(payload)) });
    await until(() => opened.state().connected);
    opened.publish(batch(1));
    await opened.close();
    await until(() => received.length === 1);
    await connection.close();
  });

  it('states that the broker refuses its password', async () => {
    const url = new URL(nats.url('auth'));
    url.password = 'wrong';
    const opened = open(plain, url.href);
    await until(() => opened.brokerState() === 'refused');
    expect(opened.state().connected).to.equal(false);
  });

  it('reports when it is connected and when it is no longer', async () => {
    const opened = open(plain);
    const states: boolean[] = [];
    const stop = opened.onStateChange(() => states.push(opened.state().connected));
    await until(() => states.length === 1);
    nats.kill('SIGKILL');
    await until(() => states.length === 2);
    expect(states).to.deep.equal([true, false]);
    stop();
    await nats.restart();
    await until(() => opened.state().connected);
    expect(states).to.have.length(2);
  });
});
