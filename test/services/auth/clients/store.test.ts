/** Tests of the rows of clients and of their used assertions, in PostgreSQL. */

import { randomBytes, randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import {
  ASSERTIONS_PER_CLIENT_MAX,
  type ClientRights,
  type ClientRows,
  type NewClient,
  type StoredCredential,
} from '../../../../services/auth/records/clients.js';
import { type FreshAuth, openFreshAuth } from '../instance.js';

const createTime = new Date('2026-01-02T03:04:05.678Z');
const KEY: StoredCredential = { credentialId: 'key', createTime, kind: 'public-key', pem: 'the key' };
const SECRET: StoredCredential = { credentialId: 'secret', createTime, kind: 'secret', hash: 'the hash' };
const RIGHTS: ClientRights = {
  audiences: ['auth'],
  scopes: ['auth.sync'],
  exchangeAudiences: ['inventory'],
  exchangeScopes: ['inventory.read'],
  certificateBound: true,
};

/** A public nkey of a user. */
const BROKER_KEY = `U${'A'.repeat(55)}`;

describe('the rows of clients', () => {
  let auth: FreshAuth;

  before(async () => {
    auth = await openFreshAuth();
  });
  after(() => auth.close());

  const rows = <T>(work: (clients: ClientRows) => Promise<T>): Promise<T> =>
    auth.store.transaction((tx) => work(tx.clients));
  const find = (clientId: string) => rows((clients) => clients.find(clientId));
  const newClient = (over: Partial<NewClient> = {}): NewClient => ({
    clientId: `client-${randomUUID()}`,
    brokerKey: BROKER_KEY,
    credentials: [KEY, SECRET],
    ...RIGHTS,
    ...over,
  });
  const insert = async (over: Partial<NewClient> = {}): Promise<string> => {
    const client = newClient(over);
    expect(await rows((clients) => clients.insertWhenAbsent(client))).to.equal(true);
    return client.clientId;
  };

  it('return what was inserted, under any lock, and are inserted once', async () => {
    for (const over of [
      {},
      { credentials: [], exchangeScopes: undefined, certificateBound: false, brokerKey: undefined },
    ]) {
      const client = newClient(over);
      const { clientId } = client;
      await insert(client);
      const found = await find(clientId);
      expect(found?.createTime.getTime()).to.be.closeTo(Date.now(), 60_000);
      expect(found).to.deep.equal({
        ...client,
        generation: 1n,
        disabled: false,
        createTime: found?.createTime,
      });
      expect(await rows((clients) => clients.lockShared(clientId))).to.deep.equal(found);
      expect(await rows((clients) => clients.lock(clientId))).to.deep.equal(found);
      expect(await rows((clients) => clients.insertWhenAbsent({ ...client, audiences: ['other'] }))).to.equal(
        false,
      );
      expect(await find(clientId)).to.deep.equal(found);
    }
    expect(await find('nobody')).to.equal(undefined);
  });

  it('of an instance of the version before have one credential, the key rather than the secret', async () => {
    const clientId = await insert();
    const setRow = async (pem: string | null, hash: string | null) => {
      await auth.database.query(
        "UPDATE clients SET credentials = '[]', public_key_pem = $2, secret_hash = $3 WHERE client_id = $1",
        [clientId, pem, hash],
      );
      const client = await find(clientId);
      const dated = { credentialId: 'first', createTime: client?.createTime };
      return { credentials: client?.credentials, dated };
    };
    const byKey = await setRow('former key', null);
    expect(byKey.credentials).to.deep.equal([{ ...byKey.dated, kind: 'public-key', pem: 'former key' }]);
    const bySecret = await setRow(null, 'former hash');
    expect(bySecret.credentials).to.deep.equal([{ ...bySecret.dated, kind: 'secret', hash: 'former hash' }]);
    expect((await setRow(null, null)).credentials).to.deep.equal([]);
  });

  it('keep one credential where an instance of the version before finds it', async () => {
    const clientId = await insert();
    const former = async (credentials: readonly StoredCredential[]) => {
      await rows((clients) => clients.setCredentials(clientId, credentials));
      expect((await find(clientId))?.credentials).to.deep.equal(credentials);
      const sql = 'SELECT public_key_pem, secret_hash FROM clients WHERE client_id = $1';
      return (await auth.database.query<object>(sql, [clientId])).rows[0];
    };
    expect(await former([SECRET, KEY])).to.deep.equal({ public_key_pem: 'the key', secret_hash: null });
    expect(await former([SECRET])).to.deep.equal({ public_key_pem: null, secret_hash: 'the hash' });
    expect(await former([])).to.deep.equal({ public_key_pem: null, secret_hash: null });
  });

  it('get other rights, another generation and another state, and no client of another id does', async () => {
    const [clientId, other] = [await insert(), await insert()];
    const before = await find(other);
    const rights = {
      audiences: [],
      scopes: ['auth.introspect'],
      exchangeAudiences: ['payment'],
      exchangeScopes: undefined,
      certificateBound: false,
    };
    await rows((clients) => clients.setRights(clientId, rights));
    expect(await rows((clients) => clients.raiseGeneration(clientId))).to.equal(2n);
    expect(await rows((clients) => clients.setDisabled(clientId, true))).to.equal(true);
    expect(await find(clientId)).to.deep.include({ ...rights, generation: 2n, disabled: true });
    expect(await rows((clients) => clients.setDisabled(clientId, false))).to.equal(true);
    expect(await find(clientId)).to.include({ disabled: false });
    expect(await find(other)).to.deep.equal(before);
    expect(await rows((clients) => clients.raiseGeneration('nobody'))).to.equal(undefined);
    expect(await rows((clients) => clients.setDisabled('nobody', true))).to.equal(false);
  });

  it('get another generation only after the transactions that use the client have ended', async () => {
    const [clientId, other] = [await insert(), await insert()];
    const order: string[] = [];
    let raised: Promise<unknown> = Promise.resolve();
    await auth.store.transaction(async (tx) => {
      // The row of another client: the lock is one on the table.
      await tx.clients.lockShared(other);
      raised = rows((clients) => clients.raiseGeneration(clientId)).then(() => order.push('raised'));
      await sleep(200);
      order.push('ended');
    });
    await raised;
    expect(order).to.deep.equal(['ended', 'raised']);
  });

  it('are found no more once deleted, and continue their generations when they are created again', async () => {
    const clientId = await insert();
    await rows((clients) => clients.raiseGeneration(clientId));
    expect(await rows((clients) => clients.wasDeleted(clientId))).to.equal(false);
    await rows((clients) => clients.delete(clientId));
    expect(await rows((clients) => clients.wasDeleted(clientId))).to.equal(true);
    expect(await find(clientId)).to.equal(undefined);
    expect(await rows((clients) => clients.raiseGeneration(clientId))).to.equal(undefined);
    expect(await rows((clients) => clients.setDisabled(clientId, true))).to.equal(false);
    const sql = 'SELECT credentials, public_key_pem, secret_hash FROM clients WHERE client_id = $1';
    expect((await auth.database.query<object>(sql, [clientId])).rows).to.deep.equal([
      { credentials: [], public_key_pem: null, secret_hash: null },
    ]);
    await insert({ clientId });
    expect(await find(clientId)).to.deep.include({ generation: 2n, disabled: false });
    expect(await rows((clients) => clients.wasDeleted(clientId))).to.equal(false);
  });

  it('are listed by id, page by page', async () => {
    for (const clientId of ['zz-3', 'zz-1', 'zz-2', 'zz-4']) await insert({ clientId });
    await rows((clients) => clients.delete('zz-2'));
    const seen: string[] = [];
    const sizes: number[] = [];
    let pageToken = '';
    do {
      const page = await rows((clients) => clients.list({ pageSize: 3, pageToken }));
      seen.push(...page.clients.map(({ clientId }) => clientId));
      sizes.push(page.clients.length);
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
    expect(seen).to.deep.equal([...new Set(seen)].toSorted());
    expect(seen.filter((clientId) => clientId.startsWith('zz-'))).to.deep.equal(['zz-1', 'zz-3', 'zz-4']);
    expect(sizes.slice(0, -1).every((size) => size === 3)).to.equal(true);
    const whole = await rows((clients) => clients.list({ pageSize: seen.length, pageToken: '' }));
    expect(whole.clients.map(({ clientId }) => clientId)).to.deep.equal(seen);
    expect(whole.nextPageToken).to.equal('');
  });

  it('name the scopes and audiences that exist', async () => {
    const word = `w${randomUUID()}`;
    const clientId = await insert({
      scopes: [`${word}.a`],
      exchangeScopes: [`${word}.b`],
      audiences: [`${word}-a`],
      exchangeAudiences: [`${word}-b`],
    });
    const known = await rows((clients) =>
      clients.knownWords({
        scopes: [`${word}.a`, `${word}.b`, `${word}.c`],
        audiences: [`${word}-a`, `${word}-b`, `${word}-c`, clientId],
      }),
    );
    expect(known).to.deep.equal({
      scopes: [`${word}.a`, `${word}.b`],
      audiences: [`${word}-a`, `${word}-b`, clientId],
    });
    const none = await rows((clients) => clients.knownWords({ scopes: [], audiences: [] }));
    expect(none).to.deep.equal({ scopes: [], audiences: [] });
  });

  describe('of used assertions', () => {
    const use = (clientId: string, jtiHash: Buffer, expireTime = new Date(Date.now() + 60_000)) =>
      rows((clients) => clients.useAssertion({ clientId, jtiHash, expireTime }));

    it('take each assertion of a client once', async () => {
      const [clientId, other] = [await insert(), await insert()];
      const jtiHash = randomBytes(32);
      expect(await use(clientId, jtiHash)).to.equal('USED');
      expect(await use(clientId, jtiHash)).to.equal('REUSED');
      expect(await use(other, jtiHash)).to.equal('USED');
      expect(await use(clientId, randomBytes(32))).to.equal('USED');
    });

    it('take no more than the maximum of one client', async () => {
      const [clientId, other] = [await insert(), await insert()];
      await auth.database.query(
        `INSERT INTO client_assertions (client_id, jti_hash, expire_time)
         SELECT $1, sha256(n::text::bytea), clock_timestamp() + interval '1 minute' FROM generate_series(1, $2) n`,
        [clientId, ASSERTIONS_PER_CLIENT_MAX - 1],
      );
      expect(await use(clientId, randomBytes(32))).to.equal('USED');
      expect(await use(clientId, randomBytes(32))).to.equal('FULL');
      expect(await use(other, randomBytes(32))).to.equal('USED');
    });

    it('are deleted a minute after they have expired, a bounded number at a time', async () => {
      const clientId = await insert();
      const hashes = Array.from({ length: 4 }, () => randomBytes(32));
      for (const [index, jtiHash] of hashes.entries()) {
        const secondsAgo = [90, 80, 70, 50][index] ?? 0;
        await use(clientId, jtiHash, new Date(Date.now() - secondsAgo * 1000));
      }
      const deleteSome = () => rows((clients) => clients.deleteExpiredAssertions(2));
      expect([await deleteSome(), await deleteSome(), await deleteSome()]).to.deep.equal([2, 1, 0]);
      expect(await use(clientId, hashes[2] ?? Buffer.alloc(0))).to.equal('USED');
      expect(await use(clientId, hashes[3] ?? Buffer.alloc(0))).to.equal('REUSED');
    });
  });

  it('can be locked against minting, all at once, until the transaction ends', async () => {
    const clientId = await insert();
    const order: string[] = [];
    let minting: Promise<unknown> = Promise.resolve();
    await rows(async (clients) => {
      await clients.lockAll();
      minting = rows((others) => others.lockShared(clientId)).then(() => order.push('minted'));
      await sleep(200);
      order.push('ends');
    });
    await minting;
    expect(order).to.deep.equal(['ends', 'minted']);
  });
});
