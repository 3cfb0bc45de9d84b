/** Tests of the life of keys: rotation by schedule and by hand, retirement, and the rules, against PostgreSQL. */

import { systemClock } from '@portcullis/guard/clock';
import { KEYS_MAX } from '@portcullis/guard/limits';
import { expect } from 'chai';
import { decodeProtectedHeader } from 'jose';
import {
  createKeyLife,
  isDue,
  type KeyLife,
  type KeyLifeDeps,
  LIVE_KEYS_MAX,
  NEXT_PUBLISHED_SECONDS_MIN,
  type Rotation,
  untilKnownMs,
} from '../../../../services/auth/keys/key-life.js';
import type { RotationOutlook } from '../../../../services/auth/records/keys.js';
import { KEEP_SECONDS_MAX } from '../../../../services/auth/revocation/log.js';
import type { AuthStore, AuthTransaction } from '../../../../services/auth/transaction.js';
import { codeOf, rejectionOf, serviceErrorOf } from '../../../support/outcomes.js';
import type { FreshDatabase } from '../../../support/postgres.js';
import { until } from '../../../support/waiting.js';
import { newRequestId } from '../cluster.js';
import {
  type AuthInstance,
  addClient,
  type FreshAuth,
  newKeyEncryptionKey,
  openAuth,
  openFreshAuth,
  serviceToken,
} from '../instance.js';
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

    it('rotates by schedule in exactly one of the replicas that try at once, for each purpose', async () => {
      const [first, second] = replicas;
      await Promise.all([first.keyLife.maintain(), second.keyLife.maintain()]);
      expect([...first.rotations, ...second.rotations]).to.deep.equal([]);
      for (let round = 1; round <= 3; round += 1) {
        await age(30 * DAY_MS);
        await Promise.all(replicas.flatMap(({ keyLife }) => [keyLife.maintain(), keyLife.maintain()]));
        const rotations = [...first.rotations, ...second.rotations];
        expect(rotations.map(({ signingKey }) => signingKey.purpose).sort()).to.deep.equal([
          ...Array<string>(round).fill('broadcast'),
          ...Array<string>(round).fill('receipt'),
          ...Array<string>(round).fill('token'),
        ]);
        for (const purpose of ['token', 'broadcast', 'receipt']) {
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
      expect(rotations).to.have.length(3);
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
      await stopped(KEEP_SECONDS_MAX - 5);
      await second.keyLife.maintain();
      expect(await inState('verify-only')).to.have.length(1);
      await stopped(KEEP_SECONDS_MAX + 1);
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
      expect(rotations.map(({ signingKey }) => signingKey.purpose)).to.deep.equal(['broadcast', 'receipt']);
      // An emergency rotation adds none, and is never rate-limited.
      expect((await rotateNow(true)).signingKey.state).to.equal('signing');
    });
  });

  describe('by hand', () => {
    const clock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + 1_000_000_000 };
    let auth: FreshAuth;
    let rotated: Rotation[];
    let asked: number;

    beforeEach(async () => {
      auth = await openFreshAuth();
      rotated = [];
      asked = 0;
      await auth.database.query(
        "UPDATE signing_keys SET publish_time = publish_time - interval '1 hour', create_time = create_time - interval '1 hour'",
      );
    });
    afterEach(() => auth.close());

    const keyLife = (over: Partial<KeyLifeDeps> = {}): KeyLife =>
      createKeyLife({
        store: auth.store,
        keys: auth.keys,
        rotationDays: 30,
        onRotated: (rotation) => rotated.push(rotation),
        onNextMissing: () => {
          asked += 1;
        },
        clock,
        ...over,
      });
    const request = (over: Partial<Parameters<KeyLife['rotate']>[0]> = {}) => ({
      purpose: 'token' as const,
      emergency: false,
      reason: 'a test',
      actor: 'admin',
      requestId: newRequestId(),
      ...over,
    });
    const eventsOf = async () => {
      const { rows } = await auth.database.query<object>(
        "SELECT type, actor, reason, subject, details - 'requestId' AS details FROM security_events ORDER BY event_time, type DESC",
      );
      return rows;
    };
    const setState = (from: string, to: string) =>
      auth.database.query("UPDATE signing_keys SET state = $2 WHERE state = $1 AND purpose = 'token'", [
        from,
        to,
      ]);

    it('records who rotated which key, and asks for another next one, once per request', async () => {
      const asking = request();
      const rotation = await keyLife().rotate(asking);
      const { signingKey, formerKey, revocation } = rotation;
      expect([signingKey.state, formerKey.state, revocation]).to.deep.equal([
        'signing',
        'verify-only',
        undefined,
      ]);
      expect(await keyLife().rotate(asking)).to.deep.equal(rotation);
      expect(await codeOf(keyLife().rotate({ ...asking, reason: 'other' }))).to.equal('REQUEST_ID_REUSED');
      expect([rotated, asked]).to.deep.equal([[rotation], 1]);
      expect(await eventsOf()).to.deep.equal([
        {
          type: 'key-rotated',
          ...{ actor: 'admin', reason: 'a test', subject: { keyId: signingKey.kid } },
          details: { purpose: 'token', formerKeyId: formerKey.kid, emergency: false },
        },
      ]);
    });

    it('in an emergency records the revocation, and states by when it is enforced', async () => {
      const startedMs = Date.now();
      const { signingKey, formerKey, revocation } = await keyLife().rotate(request({ emergency: true }));
      expect([signingKey.state, formerKey.state]).to.deep.equal(['signing', 'retired']);
      expect(revocation?.sequence).to.equal(1n);
      // The default lease, its tolerance, and the longest commit.
      expect(revocation?.enforcedEverywhereBy.getTime()).to.be.within(startedMs + 6000, Date.now() + 60_000);
      const common = { actor: 'admin', reason: 'a test' };
      expect(await eventsOf()).to.have.deep.members([
        {
          ...common,
          type: 'key-rotated',
          subject: { keyId: signingKey.kid },
          details: { purpose: 'token', formerKeyId: formerKey.kid, emergency: true },
        },
        { ...common, type: 'key-revoked', subject: { keyId: formerKey.kid }, details: {} },
      ]);
      const [batch] = auth.broadcast;
      expect(batch?.entries.map(({ kind, acknowledge }) => [kind, acknowledge])).to.deep.equal([
        ['KEY', true],
      ]);
      expect([rotated.length, asked]).to.deep.equal([1, 1]);
    });

    it('rejects a long reason and a long request id', async () => {
      for (const over of [{ reason: 'x'.repeat(201) }, { requestId: 'x'.repeat(256) }]) {
        expect(await codeOf(keyLife().rotate(request(over)))).to.equal('FIELD_INVALID');
      }
      expect([rotated, asked]).to.deep.equal([[], 0]);
    });

    it('fails for a while without a key that signs or a next one', async () => {
      const lacking = keyLife({ keys: { replenish: async () => {} } });
      const later = { code: 'DEPENDENCY_UNAVAILABLE', retryAfterMs: 500 };
      await setState('signing', 'retired');
      for (const emergency of [false, true]) {
        expect(await serviceErrorOf(lacking.rotate(request({ emergency })))).to.include(later);
      }
      await setState('next', 'signing');
      expect(await serviceErrorOf(lacking.rotate(request({ emergency: true })))).to.include(later);
      // Until a key that would be published now is known everywhere: the default lease, and its tolerance.
      expect(await serviceErrorOf(lacking.rotate(request()))).to.include({
        code: 'RATE_LIMITED',
        message: 'not every instance can know the next key yet',
        retryAfterMs: 5150,
      });
    });

    it('says when to retry after too many rotations', async () => {
      await auth.database.query(
        `INSERT INTO signing_keys (kid, purpose, algorithm, epoch, state, public_jwk, sealed_private_key, stop_time)
         SELECT 'former-' || n, purpose, algorithm, epoch, 'verify-only', public_jwk, sealed_private_key,
                clock_timestamp()
         FROM signing_keys, generate_series(1, $1) n WHERE purpose = 'token' AND state = 'signing'`,
        [LIVE_KEYS_MAX - 2],
      );
      expect(await serviceErrorOf(keyLife().rotate(request()))).to.include({
        code: 'RATE_LIMITED',
        message: 'too many former keys are still published',
        retryAfterMs: 60_000,
      });
    });

    it('fails when its key or its entry is not written', async () => {
      const without = (change: (tx: AuthTransaction) => AuthTransaction): AuthStore => ({
        ...auth.store,
        transaction: (work, place) => auth.store.transaction((tx) => work(change(tx)), place),
      });
      const noRecord = without((tx) => ({ ...tx, keys: { ...tx.keys, record: async () => undefined } }));
      const [next] = (await auth.store.transaction((tx) => tx.keys.live())).filter(
        ({ purpose, state }) => `${purpose} ${state}` === 'token next',
      );
      expect((await rejectionOf(keyLife({ store: noRecord }).rotate(request()))).message).to.equal(
        `key ${next?.kid} is gone`,
      );
      const noEntry = without((tx) => ({
        ...tx,
        revocations: {
          ...tx.revocations,
          append: async (entries) => ({ ...(await tx.revocations.append(entries)), entries: [] }),
        },
      }));
      const emergency = request({ emergency: true });
      expect((await rejectionOf(keyLife({ store: noEntry }).rotate(emergency))).message).to.equal(
        'the log has written no entry',
      );
      expect(rotated).to.deep.equal([]);
    });

    it('knows since when the present keys sign, and lists all keys', async () => {
      const { keys } = await keyLife().list({ pageSize: 10, pageToken: '' });
      const timeOf = (wanted: string) =>
        keys.find(({ purpose, state }) => `${purpose} ${state}` === `${wanted} signing`)?.signTime;
      expect(keys).to.have.length(6);
      expect(await keyLife().signingSince()).to.deep.equal(
        new Map([
          ['token', timeOf('token')],
          ['broadcast', timeOf('broadcast')],
          ['receipt', timeOf('receipt')],
        ]),
      );
      await setState('signing', 'retired');
      expect([...(await keyLife().signingSince()).keys()]).to.deep.equal(['broadcast', 'receipt']);
    });

    it('by schedule is recorded as the work of auth', async () => {
      await auth.database.query(
        "UPDATE signing_keys SET sign_time = sign_time - interval '31 days' WHERE purpose = 'token'",
      );
      await keyLife().maintain();
      expect(rotated).to.have.length(1);
      expect(await eventsOf()).to.deep.equal([
        {
          type: 'key-rotated',
          ...{ actor: 'auth', reason: 'by schedule', subject: { keyId: rotated[0]?.signingKey.kid } },
          details: { purpose: 'token', formerKeyId: rotated[0]?.formerKey.kid, emergency: false },
        },
      ]);
      // The next one is made at once.
      expect((await keyLife().list({ pageSize: 10, pageToken: '' })).keys).to.have.length(7);
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
      expect(isDue(rotationOutlook(), 31 * DAY_MS)).to.equal(true);
      expect(isDue(rotationOutlook(), 31 * DAY_MS + 1)).to.equal(false);
      const known = { kid: 'b', publishTime: new Date(now.getTime() - 1_800_000) };
      expect(isDue(rotationOutlook({ next: known, live: LIVE_KEYS_MAX - 1 }), 30 * DAY_MS)).to.equal(true);
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
