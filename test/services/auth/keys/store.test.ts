/** Tests of the rows of keys and secrets, in PostgreSQL. */

import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { publish } from '../../../../services/auth/keys/published-keys.js';
import { readPublishedKeys } from '../../../../services/auth/keys/store.js';
import type { KeyPurpose, KeyRow, KeyRows, KeyState } from '../../../../services/auth/records/keys.js';
import { rejectionOf } from '../../../support/outcomes.js';
import { type FreshAuth, openFreshAuth } from '../instance.js';

describe('the rows of keys', () => {
  let auth: FreshAuth;

  beforeEach(async () => {
    auth = await openFreshAuth({ openKeys: false });
  });
  afterEach(() => auth.close());

  const rows = <T>(work: (keys: KeyRows) => Promise<T>): Promise<T> =>
    auth.store.transaction((tx) => work(tx.keys));
  const insert = async (state: KeyState, purpose: KeyPurpose = 'token'): Promise<KeyRow> => {
    const kid = `${purpose}-${state}-${randomBytes(4).toString('hex')}`;
    const jwk = JSON.stringify({ kty: 'OKP', kid });
    const key = { kid, purpose, state, algorithm: 'EdDSA', jwk, sealedPrivateKey: randomBytes(40) };
    await rows((keys) => keys.insert(key));
    return key;
  };
  const live = async (): Promise<string[]> => (await rows((keys) => keys.live())).map(({ kid }) => kid);
  const recordOf = (kid: string) => rows((keys) => keys.record(kid));
  const stateOf = async ({ kid }: KeyRow): Promise<KeyState | undefined> => (await recordOf(kid))?.state;
  const kids = (...keys: KeyRow[]): string[] => keys.map(({ kid }) => kid).toSorted();
  const isNow = (time: Date | undefined): boolean => Math.abs((time?.getTime() ?? 0) - Date.now()) < 60_000;

  it('belong to the epoch of the log, and those of another are not there', async () => {
    const key = await insert('signing');
    const epoch = await rows((keys) => keys.epoch());
    expect(epoch).to.have.length(16);
    expect(await live()).to.deep.equal([key.kid]);
    await auth.database.query('UPDATE log_state SET epoch = $1', [Buffer.alloc(16, 1)]);
    expect(await rows((keys) => keys.epoch())).to.deep.equal(Buffer.alloc(16, 1));
    expect(await live()).to.deep.equal([]);
    expect(await rows((keys) => keys.lockSigning('token'))).to.equal(undefined);
    expect(await rows((keys) => keys.lockLive(key.kid))).to.equal(false);
    expect(await rows((keys) => keys.retire(key.kid))).to.equal(undefined);
    await auth.database.query('DELETE FROM log_state');
    expect((await rejectionOf(rows((keys) => keys.epoch()))).message).to.equal(
      'the revocation log has no state',
    );
    expect((await rejectionOf(rows((keys) => keys.rotationOutlook('token')))).message).to.equal(
      'the revocation log has no state',
    );
  });

  it('are returned as inserted, and only the signing one of its purpose signs', async () => {
    const [signing, next, broadcast] = [
      await insert('signing'),
      await insert('next'),
      await insert('signing', 'broadcast'),
    ];
    expect(await rows((keys) => keys.live())).to.have.deep.members([signing, next, broadcast]);
    expect(await rows((keys) => keys.lockSigning('token'))).to.deep.equal(signing);
    expect(await rows((keys) => keys.lockSigning('broadcast'))).to.deep.equal(broadcast);
    expect(await readPublishedKeys(auth.database)).to.deep.equal(publish([signing, next, broadcast]));
    expect(await recordOf('unknown')).to.equal(undefined);
    const record = await recordOf(signing.kid);
    expect(record).to.deep.include({
      kid: signing.kid,
      purpose: 'token',
      algorithm: 'EdDSA',
      state: 'signing',
    });
    expect([record?.createTime, record?.signTime].map(isNow)).to.deep.equal([true, true]);
    expect(record).to.include({ publishTime: undefined, stopTime: undefined, retireTime: undefined });
    expect((await recordOf(next.kid))?.signTime).to.equal(undefined);
  });

  it('are retired with the time, one or all, and lose their private half', async () => {
    const [signing, next, broadcast] = [
      await insert('signing'),
      await insert('next'),
      await insert('signing', 'broadcast'),
    ];
    expect(await rows((keys) => keys.lockLive(signing.kid))).to.equal(true);
    expect(await rows((keys) => keys.retire(signing.kid))).to.deep.equal({
      purpose: 'token',
      state: 'signing',
    });
    expect(await rows((keys) => keys.retire(next.kid))).to.deep.equal({ purpose: 'token', state: 'next' });
    expect(await rows((keys) => keys.retire('unknown'))).to.equal(undefined);
    expect(await rows((keys) => keys.lockLive(signing.kid))).to.equal(false);
    const record = await recordOf(signing.kid);
    expect([record?.stopTime, record?.retireTime].map(isNow)).to.deep.equal([true, true]);
    expect((await recordOf(next.kid))?.stopTime).to.equal(undefined);
    expect(await live()).to.deep.equal([broadcast.kid]);
    expect((await rows((keys) => keys.sealed())).map(({ kid }) => kid)).to.deep.equal([broadcast.kid]);
    await rows((keys) => keys.retireAll());
    expect(await live()).to.deep.equal([]);
    expect(await rows((keys) => keys.sealed())).to.deep.equal([]);
  });

  it('stop signing, and the next one signs, of one purpose', async () => {
    const [signing, next] = [await insert('signing'), await insert('next')];
    const others = [await insert('signing', 'broadcast'), await insert('next', 'broadcast')];
    await rows((keys) => keys.stopSigning('token'));
    expect(await stateOf(signing)).to.equal('verify-only');
    expect(isNow((await recordOf(signing.kid))?.stopTime)).to.equal(true);
    expect(await stateOf(next)).to.equal('next');
    await rows((keys) => keys.promoteNext('token'));
    expect(await stateOf(next)).to.equal('signing');
    expect(isNow((await recordOf(next.kid))?.signTime)).to.equal(true);
    expect(await Promise.all(others.map(stateOf))).to.deep.equal(['signing', 'next']);
  });

  it('are retired a given time after they have stopped', async () => {
    const [older, younger] = [await insert('verify-only'), await insert('verify-only')];
    const next = await insert('next');
    for (const [{ kid }, seconds] of [
      [older, 61],
      [younger, 30],
    ] as const) {
      await auth.database.query(
        'UPDATE signing_keys SET stop_time = clock_timestamp() - make_interval(secs => $2) WHERE kid = $1',
        [kid, seconds],
      );
    }
    expect(await rows((keys) => keys.retireStopped(60))).to.deep.equal([older.kid]);
    expect(await live()).to.have.members(kids(younger, next));
  });

  it('are marked as published once', async () => {
    const key = await insert('next');
    await rows((keys) => keys.markPublished());
    const first = (await recordOf(key.kid))?.publishTime;
    expect(isNow(first)).to.equal(true);
    await rows((keys) => keys.markPublished());
    expect((await recordOf(key.kid))?.publishTime).to.deep.equal(first);
  });

  it('say what decides about a rotation', async () => {
    const outlook = () => rows((keys) => keys.rotationOutlook('token'));
    const none = await outlook();
    expect(none).to.deep.include({ signing: undefined, next: undefined, live: 0, leaseMs: 5000 });
    expect([none.now, none.olderLeasesEndBy].every((time) => time instanceof Date)).to.equal(true);
    const [signing, next] = [await insert('signing'), await insert('next')];
    await insert('signing', 'broadcast');
    await insert('verify-only');
    const before = await outlook();
    expect(before.next).to.deep.equal({ kid: next.kid, publishTime: undefined });
    expect(before.signing?.kid).to.equal(signing.kid);
    expect(before.signing?.signTime).to.deep.equal((await recordOf(signing.kid))?.signTime);
    expect(before.live).to.equal(3);
    await rows((keys) => keys.markPublished());
    expect((await outlook()).next?.publishTime).to.deep.equal((await recordOf(next.kid))?.publishTime);
  });

  it('are listed page by page, the newest first', async () => {
    const inserted: KeyRow[] = [];
    for (const state of ['retired', 'verify-only', 'signing', 'next'] as const) {
      inserted.unshift(await insert(state === 'retired' ? 'verify-only' : state));
      if (state === 'retired') await rows((keys) => keys.retire(inserted[0]?.kid ?? ''));
    }
    const expected = inserted.map(({ kid }) => kid);
    const page = (pageSize: number, pageToken: string) => rows((keys) => keys.list({ pageSize, pageToken }));
    const first = await page(3, '');
    expect(first.keys.map(({ kid }) => kid)).to.deep.equal(expected.slice(0, 3));
    const second = await page(3, first.nextPageToken);
    expect([second.keys.map(({ kid }) => kid), second.nextPageToken]).to.deep.equal([expected.slice(3), '']);
    const whole = await page(4, '');
    expect([whole.keys.length, whole.nextPageToken]).to.deep.equal([4, '']);
    expect(whole.keys[3]).to.deep.equal(await recordOf(expected[3] ?? ''));
  });

  it('of one moment are each on one page', async () => {
    const inserted = [await insert('signing'), await insert('next')];
    await auth.database.query('UPDATE signing_keys SET create_time = $1', [new Date()]);
    const first = await rows((keys) => keys.list({ pageSize: 1, pageToken: '' }));
    const second = await rows((keys) => keys.list({ pageSize: 1, pageToken: first.nextPageToken }));
    expect(kids(...inserted)).to.deep.equal([...first.keys, ...second.keys].map(({ kid }) => kid).toSorted());
  });

  it('are not encrypted again before the transactions that sign with them have ended', async () => {
    const { kid, sealedPrivateKey: sealed } = await insert('signing');
    const order: string[] = [];
    let resealed: Promise<unknown> = Promise.resolve();
    await auth.store.transaction(async (tx) => {
      await tx.keys.lockSigning('token');
      // No row has this id: the lock is one on the table.
      resealed = rows((keys) => keys.reseal({ kid: `${kid}-other`, sealed }, randomBytes(40))).then(() =>
        order.push('resealed'),
      );
      await sleep(200);
      order.push('ended');
    });
    await resealed;
    expect(order).to.deep.equal(['ended', 'resealed']);
  });

  it('are encrypted again only where nothing has changed meanwhile, and so are secrets', async () => {
    const [{ kid, sealedPrivateKey: sealed }, other] = [await insert('signing'), await insert('next')];
    const to = randomBytes(40);
    expect(await rows((keys) => keys.reseal({ kid, sealed: other.sealedPrivateKey }, to))).to.equal(false);
    expect(await rows((keys) => keys.reseal({ kid, sealed }, to))).to.equal(true);
    expect(await rows((keys) => keys.reseal({ kid, sealed }, to))).to.equal(false);
    const found = await rows((keys) => keys.sealed());
    expect(found.map((key) => [key.kid, key.sealedPrivateKey])).to.have.deep.members([
      [kid, to],
      [other.kid, other.sealedPrivateKey],
    ]);

    await rows((keys) => keys.putSecret('one', sealed));
    await rows((keys) => keys.putSecret('two', sealed));
    expect(await rows((keys) => keys.reseal({ purpose: 'one', sealed: to }, to))).to.equal(false);
    expect(await rows((keys) => keys.reseal({ purpose: 'one', sealed }, to))).to.equal(true);
    expect(await rows((keys) => keys.secrets())).to.deep.equal(
      new Map([
        ['one', to],
        ['two', sealed],
      ]),
    );
    await rows((keys) => keys.putSecret('two', to));
    expect((await rows((keys) => keys.secrets())).get('two')).to.deep.equal(to);
  });
});
