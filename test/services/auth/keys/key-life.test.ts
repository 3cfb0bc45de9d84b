import { KEYS_MAX } from '@portcullis/guard/limits';
import { expect } from 'chai';
import { decodeProtectedHeader } from 'jose';
import {
  isDue,
  LIVE_KEYS_MAX,
  NEXT_PUBLISHED_SECONDS_MIN,
  untilKnownMs,
} from '../../../../services/auth/keys/key-life.js';
import type { RotationOutlook } from '../../../../services/auth/records/keys.js';
import { KEEP_SECONDS } from '../../../../services/auth/revocation/log.js';
import { codeOf } from '../../../support/outcomes.js';
import type { FreshDatabase } from '../../../support/postgres.js';
import { until } from '../../../support/waiting.js';
import { newRequestId } from '../cluster.js';
import { type AuthInstance, addClient, newKeyEncryptionKey, openAuth, serviceToken } from '../instance.js';
import { migratedDatabase } from '../migrated-database.js';

const DAY_MS = 86_400_000;

const kidOf = (token: string): string => String(decodeProtectedHeader(token).kid);

describe('the life of keys', () => {
  describe('in the database', () => {
    const keyEncryptionKey = newKeyEncryptionKey();
    let fresh: FreshDatabase;
    let replicas: readonly [AuthInstance, AuthInstance];

    beforeEach(async () => {
      fresh = await migratedDatabase();
      const open = () => openAuth(fresh.url, { keyEncryptionKey });
      replicas = [await open(), await open()];
    });
    afterEach(async () => {
      for (const replica of replicas) await replica.close();
      await fresh.drop();
    });

    interface StoredKey {
      readonly kid: string;
      readonly state: string;
      readonly algorithm: string;
      readonly sealed_private_key: Buffer | null;
      readonly stop_time: Date | null;
      readonly retire_time: Date | null;
    }
    const stored = async (purpose = 'token'): Promise<StoredKey[]> => {
      const { rows } = await replicas[0].database.query<StoredKey>(
        'SELECT * FROM signing_keys WHERE purpose = $1 ORDER BY create_time, state DESC',
        [purpose],
      );
      return rows;
    };
    const inState = async (state: string): Promise<StoredKey[]> =>
      (await stored()).filter((key) => key.state === state);
    /** Makes all keys older by `ms`. */
    const age = async (ms: number): Promise<void> => {
      await replicas[0].database.query(
        `UPDATE signing_keys SET create_time = create_time - $1 * interval '1 ms',
           publish_time = publish_time - $1 * interval '1 ms', sign_time = sign_time - $1 * interval '1 ms',
           stop_time = stop_time - $1 * interval '1 ms'`,
        [ms],
      );
    };
    const rotateNow = (emergency: boolean) =>
      replicas[0].keyLife.rotate({
        purpose: 'token',
        emergency,
        reason: '',
        actor: 'test',
        requestId: newRequestId(),
      });

    it('rotates by schedule in exactly one of the replicas that try at once, both purposes', async () => {
      const [first, second] = replicas;
      await Promise.all([first.keyLife.maintain(), second.keyLife.maintain()]);
      expect([...first.rotations, ...second.rotations]).to.deep.equal([]);
      for (let round = 1; round <= 3; round += 1) {
        await age(30 * DAY_MS);
        await Promise.all(replicas.flatMap(({ keyLife }) => [keyLife.maintain(), keyLife.maintain()]));
        const rotations = [...first.rotations, ...second.rotations];
        expect(rotations.map(({ signingKey }) => signingKey.purpose).sort()).to.deep.equal([
          ...Array<string>(round).fill('broadcast'),
          ...Array<string>(round).fill('token'),
        ]);
        for (const purpose of ['token', 'broadcast']) {
          const states = (await stored(purpose)).map(({ state }) => state);
          expect(states.filter((state) => state === 'signing')).to.have.length(1);
          expect(states.filter((state) => state === 'next')).to.have.length(1);
        }
      }
    });

    it('does not rotate by schedule while the next key is young', async () => {
      const [{ database, keyLife, rotations }] = replicas;
      await age(31 * DAY_MS);
      await database.query(
        `UPDATE signing_keys SET publish_time = clock_timestamp() - $1 * interval '1 s' WHERE state = 'next'`,
        [NEXT_PUBLISHED_SECONDS_MIN - 5],
      );
      await keyLife.maintain();
      expect(rotations).to.deep.equal([]);
      await database.query(
        `UPDATE signing_keys SET publish_time = publish_time - interval '6 s' WHERE state = 'next'`,
      );
      await keyLife.maintain();
      expect(rotations).to.have.length(2);
    });

    it('keeps a former key until its last token has expired, then erases its private half', async () => {
      const [first, second] = replicas;
      const client = await addClient(first, { scopes: ['echo.call'], audiences: ['echo'] });
      const token = await serviceToken(first, client);
      await age(DAY_MS);
      await rotateNow(false);
      await until(async () => (await inState('next')).length === 1);
      await second.keyLife.maintain();
      expect((await inState('verify-only')).map(({ kid }) => kid)).to.deep.equal([kidOf(token)]);
      const verify = () =>
        first.store.transaction(async (tx) => (await first.tokens.verifierIn(tx))(token, 'echo'));
      expect((await verify())?.keyId).to.equal(kidOf(token));
      const stopped = (seconds: number) =>
        first.database.query(
          `UPDATE signing_keys SET stop_time = clock_timestamp() - $1 * interval '1 s' WHERE kid = $2`,
          [seconds, kidOf(token)],
        );
      await stopped(KEEP_SECONDS - 5);
      await second.keyLife.maintain();
      expect(await inState('verify-only')).to.have.length(1);
      await stopped(KEEP_SECONDS + 1);
      await second.keyLife.maintain();
      const [retired] = await inState('retired');
      expect(retired?.kid).to.equal(kidOf(token));
      expect(retired?.sealed_private_key).to.equal(null);
      expect(retired?.retire_time).to.be.instanceOf(Date);
      expect(await verify()).to.equal(undefined);
    });

    it('erases the private half of a revoked key, and of all keys when an epoch is opened', async () => {
      const [{ epochs }] = replicas;
      const { formerKey } = await rotateNow(true);
      expect(formerKey.state).to.equal('retired');
      expect(formerKey.stopTime).to.be.instanceOf(Date);
      for (const key of await inState('retired')) expect(key.sealed_private_key).to.equal(null);
      await epochs.open({ reason: '', actor: 'test', requestId: newRequestId() });
      const retired = [...(await stored()), ...(await stored('broadcast'))].filter(
        ({ state }) => state === 'retired',
      );
      expect(retired.length).to.be.at.least(4);
      for (const key of retired) expect(key.sealed_private_key).to.equal(null);
    });

    it('allows no live key without its private half, and no private member in a published key', async () => {
      const [{ database }] = replicas;
      const violations = [
        "UPDATE signing_keys SET sealed_private_key = NULL WHERE state = 'next'",
        `UPDATE signing_keys SET public_jwk = (public_jwk::jsonb || '{"d": "AAAA"}')::text`,
      ];
      for (const sql of violations) {
        const outcome = await database.query(sql).then(
          () => 'done',
          (error: unknown) => String((error as { code?: string }).code),
        );
        expect(outcome).to.equal('23514');
      }
    });

    it('adopts another algorithm with the next rotation, and not before', async () => {
      const changed = await openAuth(fresh.url, { keyEncryptionKey, algorithm: 'ES256' });
      const outcome = async () =>
        (await stored()).map(({ state, algorithm }) => `${state} ${algorithm}`).sort();
      expect(await outcome()).to.deep.equal(['next ES256', 'retired EdDSA', 'signing EdDSA']);
      // A replica with the former setting does not change it.
      await replicas[0].keyLife.maintain();
      expect(await outcome()).to.deep.equal(['next ES256', 'retired EdDSA', 'signing EdDSA']);
      await age(31 * DAY_MS);
      await changed.keyLife.maintain();
      expect(await outcome()).to.deep.equal([
        'next ES256',
        'retired EdDSA',
        'signing ES256',
        'verify-only EdDSA',
      ]);
      expect((await stored('broadcast')).map(({ algorithm }) => algorithm)).to.deep.equal(
        Array(3).fill('EdDSA'),
      );
      await changed.close();
    });

    it('publishes no more keys than an instance accepts', async () => {
      const [{ database, keyLife, rotations }] = replicas;
      // A rotation adds a key to the published ones.
      expect(LIVE_KEYS_MAX + 1).to.be.at.most(KEYS_MAX);
      const more = LIVE_KEYS_MAX - (await stored()).length;
      await database.query(
        `INSERT INTO signing_keys (kid, purpose, algorithm, epoch, state, public_jwk, sealed_private_key, stop_time)
         SELECT 'former-' || n, purpose, algorithm, epoch, 'verify-only', public_jwk, sealed_private_key,
                clock_timestamp() + interval '40 days'
         FROM signing_keys, generate_series(1, $1) n WHERE purpose = 'token' AND state = 'signing'`,
        [more],
      );
      await age(31 * DAY_MS);
      expect(await codeOf(rotateNow(false))).to.equal('RATE_LIMITED');
      await keyLife.maintain();
      expect(rotations.map(({ signingKey }) => signingKey.purpose)).to.deep.equal(['broadcast']);
      // An emergency rotation adds none, and is never rate-limited.
      expect((await rotateNow(true)).signingKey.state).to.equal('signing');
    });
  });

  describe('by the rule', () => {
    const now = new Date('2030-06-01T00:00:00Z');
    const rotationOutlook = (over: Partial<RotationOutlook> = {}): RotationOutlook => ({
      now,
      signing: { kid: 'a', signTime: new Date(now.getTime() - 31 * DAY_MS) },
      next: { kid: 'b', publishTime: new Date(now.getTime() - DAY_MS) },
      live: 2,
      leaseMs: 5000,
      olderLeasesEndBy: new Date(0),
      ...over,
    });

    it('waits for leases of every length, from the moment at which the publication was known', () => {
      const publishTime = new Date(now.getTime() - 1000);
      expect(untilKnownMs(rotationOutlook())).to.equal(0);
      expect(untilKnownMs(rotationOutlook({ next: { kid: 'b', publishTime } }))).to.equal(4150);
      expect(untilKnownMs(rotationOutlook({ next: { kid: 'b', publishTime: undefined } }))).to.equal(5150);
      expect(untilKnownMs(rotationOutlook({ next: undefined }))).to.equal(5150);
      expect(untilKnownMs(rotationOutlook({ olderLeasesEndBy: new Date(now.getTime() + 700) }))).to.equal(
        700,
      );
    });

    it('is due when the signing key is old, the next one is known and few are published', () => {
      expect(isDue(rotationOutlook(), 30 * DAY_MS)).to.equal(true);
      expect(isDue(rotationOutlook(), 32 * DAY_MS)).to.equal(false);
      const notDue: Partial<RotationOutlook>[] = [
        { signing: undefined },
        { next: undefined },
        { next: { kid: 'b', publishTime: undefined } },
        { next: { kid: 'b', publishTime: new Date(now.getTime() - 1_799_000) } },
        { olderLeasesEndBy: new Date(now.getTime() + 1) },
        { live: LIVE_KEYS_MAX },
      ];
      for (const over of notDue)
        expect(isDue(rotationOutlook(over), 30 * DAY_MS), JSON.stringify(over)).to.equal(false);
    });
  });
});
