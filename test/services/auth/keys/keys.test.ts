/** Tests of the signing keys, against PostgreSQL. */

import { createHash } from 'node:crypto';
import { systemClock } from '@portcullis/guard/clock';
import { expect } from 'chai';
import { compactVerify, decodeProtectedHeader, importJWK, type JWK } from 'jose';
import { createKeys } from '../../../../services/auth/keys/keys.js';
import type { SigningAlgorithm } from '../../../../services/auth/keys/new-keys.js';
import { publish } from '../../../../services/auth/keys/published-keys.js';
import { UnusableKeyError } from '../../../../services/auth/keys/sealed-keys.js';
import type { PublishedKeys } from '../../../../services/auth/records/keys.js';
import { codeOf, rejectionOf, serviceErrorOf } from '../../../support/outcomes.js';
import { until } from '../../../support/waiting.js';
import { type FreshAuth, newKeyEncryptionKey, openAuth, openFreshAuth } from '../instance.js';

interface StoredKey {
  readonly kid: string;
  readonly purpose: string;
  readonly state: string;
  readonly algorithm: string;
  readonly public_jwk: string;
  readonly sealed_private_key: Buffer;
}

describe('signing keys', () => {
  const keyEncryptionKey = newKeyEncryptionKey();
  let auth: FreshAuth;

  beforeEach(async () => {
    auth = await openFreshAuth({ keyEncryptionKey, openKeys: false });
  });
  afterEach(() => auth.close());

  const stored = async (): Promise<StoredKey[]> =>
    (await auth.database.query<StoredKey>('SELECT * FROM signing_keys ORDER BY purpose, state, kid')).rows;
  const reopened = (kek = keyEncryptionKey, algorithm: SigningAlgorithm = 'EdDSA') =>
    createKeys({ store: auth.store, keyEncryptionKey: kek, algorithm });
  const published = (): Promise<PublishedKeys> => auth.store.transaction((tx) => auth.keys.published(tx));
  const sign = (keys = auth.keys, claims: object = { sub: 'somebody' }): Promise<string> =>
    auth.store.transaction(async (tx) => (await keys.lockTokenSigner(tx))(claims));

  it('are one signing and one next of each purpose, created once however many replicas start at once', async () => {
    const replicas = await Promise.all(
      [1, 2, 3].map(() => openAuth(auth.url, { keyEncryptionKey, openKeys: false })),
    );
    await Promise.all([auth, ...replicas].map((replica) => replica.keys.open()));
    expect((await stored()).map(({ purpose, state }) => `${purpose} ${state}`)).to.deep.equal([
      'broadcast next',
      'broadcast signing',
      'receipt next',
      'receipt signing',
      'token next',
      'token signing',
    ]);
    const tokens = await Promise.all(replicas.map((replica) => sign(replica.keys)));
    expect(new Set(tokens.map((token) => decodeProtectedHeader(token).kid)).size).to.equal(1);
    await Promise.all(replicas.map((replica) => replica.close()));
  });

  it('stay the same when auth starts again', async () => {
    await auth.keys.open();
    const before = await stored();
    await reopened().open();
    expect(await stored()).to.deep.equal(before);
  });

  it('make no replica wait for another at its start when all exist', async () => {
    await auth.keys.open();
    let locks = 0;
    let publications = 0;
    const keys = createKeys({
      keyEncryptionKey,
      algorithm: 'EdDSA',
      store: {
        ...auth.store,
        transaction: (work) =>
          auth.store.transaction((tx) => {
            const lockCreation = () => {
              locks += 1;
              return tx.keys.lockCreation();
            };
            const markPublished = () => {
              publications += 1;
              return tx.keys.markPublished();
            };
            return work({ ...tx, keys: { ...tx.keys, lockCreation, markPublished } });
          }),
      },
    });
    await keys.open();
    expect([locks, publications]).to.deep.equal([0, 1]);
  });

  it('sign tokens with a header of exactly alg, kid and typ, which the published key verifies', async () => {
    await auth.keys.open();
    const token = await sign();
    const header = decodeProtectedHeader(token);
    expect(Object.keys(header)).to.deep.equal(['alg', 'kid', 'typ']);
    expect(header).to.include({ alg: 'EdDSA', typ: 'at+jwt' });
    const key = (await published()).keySet.keys.find(({ kid }) => kid === header.kid);
    await compactVerify(token, await importJWK(JSON.parse(key?.jwk ?? '{}') as JWK, 'EdDSA'));
  });

  for (const algorithm of ['ES256', 'RS256', 'PS256'] as const) {
    it(`can be of ${algorithm}`, async function () {
      this.timeout(180_000);
      const keys = reopened(keyEncryptionKey, algorithm);
      await keys.open();
      const token = await sign(keys);
      const { alg, kid } = decodeProtectedHeader(token);
      expect(alg).to.equal(algorithm);
      const key = (await published()).keySet.keys.find((one) => one.kid === kid);
      await compactVerify(token, await importJWK(JSON.parse(key?.jwk ?? '{}') as JWK, algorithm));
      expect((await published()).broadcastKeys.map((one) => one.algorithm)).to.deep.equal(['EdDSA', 'EdDSA']);
    });
  }

  it('sign broadcasts with a key that is in no key set of tokens', async () => {
    await auth.keys.open();
    const message = await auth.keys.broadcastSigner().sign(Buffer.from('entries'));
    const header = decodeProtectedHeader(message);
    expect(Object.keys(header)).to.deep.equal(['alg', 'kid', 'typ']);
    expect(header).to.include({ alg: 'EdDSA', typ: 'portcullis-revocations+jws' });
    const { keySet, broadcastKeys } = await published();
    const key = broadcastKeys.find(({ kid }) => kid === header.kid);
    const verified = await compactVerify(
      message,
      await importJWK(JSON.parse(key?.jwk ?? '{}') as JWK, 'EdDSA'),
    );
    expect(Buffer.from(verified.payload).toString()).to.equal('entries');
    expect(keySet.keys.some(({ kid }) => kid === header.kid)).to.equal(false);
  });

  it('sign broadcasts with the signing key, however many others are published', async () => {
    await auth.keys.open();
    const signingKid = async () =>
      (await stored()).find(({ purpose, state }) => purpose === 'broadcast' && state === 'signing')?.kid;
    const signedBy = async () => {
      const keys = reopened();
      await keys.open();
      return decodeProtectedHeader(await keys.broadcastSigner().sign(Buffer.from('entries'))).kid;
    };
    expect(await signedBy()).to.equal(await signingKid());
    await auth.store.transaction(async ({ keys }) => {
      await keys.stopSigning('broadcast');
      await keys.promoteNext('broadcast');
    });
    expect(await signedBy()).to.equal(await signingKid());
  });

  it('cannot sign before they are opened', async () => {
    expect(await codeOf(sign())).to.equal('DEPENDENCY_UNAVAILABLE');
    expect((await rejectionOf(auth.keys.broadcastSigner().sign(Buffer.alloc(1)))).message).to.equal(
      'no key signs broadcasts',
    );
  });

  it('are stored encrypted: neither the private key nor its text is in the row', async () => {
    await auth.keys.open();
    for (const row of await stored()) {
      expect(Object.keys(JSON.parse(row.public_jwk) as object)).to.deep.equal(['kty', 'crv', 'x']);
      expect(row.sealed_private_key.toString('latin1')).to.not.contain('PRIVATE KEY');
    }
  });

  it('do not open with another key-encryption key, and none is added', async () => {
    await auth.keys.open();
    await auth.database.query("UPDATE signing_keys SET state = 'verify-only' WHERE state = 'next'");
    const before = await stored();
    const error = await rejectionOf(reopened(newKeyEncryptionKey()).open());
    expect(error).to.be.instanceOf(UnusableKeyError);
    expect(before.map(({ kid }) => kid)).to.include((error as UnusableKeyError).kid);
    expect(error.message).to.contain((error as UnusableKeyError).kid);
    expect(await stored()).to.deep.equal(before);
  });

  const tamperings: { readonly name: string; readonly sql: string }[] = [
    {
      name: 'a flipped bit',
      sql: 'sealed_private_key = set_bit(sealed_private_key, 300, 1 - get_bit(sealed_private_key, 300))',
    },
    {
      name: 'a flipped bit of the tag',
      sql: 'sealed_private_key = set_bit(sealed_private_key, 100, 1 - get_bit(sealed_private_key, 100))',
    },
    { name: 'nothing left', sql: "sealed_private_key = ''" },
    { name: 'another algorithm', sql: "algorithm = 'ES256'" },
    { name: 'another kid', sql: "kid = 'other'" },
    {
      name: "another key's private half",
      sql: 'sealed_private_key = (SELECT sealed_private_key FROM signing_keys o WHERE o.kid <> k.kid LIMIT 1)',
    },
    {
      name: "another key's public half",
      sql: 'public_jwk = (SELECT public_jwk FROM signing_keys o WHERE o.kid <> k.kid LIMIT 1)',
    },
    { name: 'a public half that is none', sql: "public_jwk = '{}'" },
  ];
  for (const { name, sql } of tamperings) {
    it(`do not open when their row was changed: ${name}`, async () => {
      await auth.keys.open();
      await auth.database.query(
        `UPDATE signing_keys k SET ${sql} WHERE purpose = 'token' AND state = 'signing'`,
      );
      const tampered = (await stored()).find(
        ({ purpose, state }) => purpose === 'token' && state === 'signing',
      );
      const error = await rejectionOf(reopened().open());
      expect(error).to.be.instanceOf(UnusableKeyError);
      expect((error as UnusableKeyError).kid).to.equal(tampered?.kid);
    });
  }

  it('do not open when a broadcast key is made a token key', async () => {
    await auth.keys.open();
    await auth.database.query("UPDATE signing_keys SET state = 'retired' WHERE purpose = 'token'");
    await auth.database.query("UPDATE signing_keys SET purpose = 'token' WHERE purpose = 'broadcast'");
    expect(await rejectionOf(reopened().open())).to.be.instanceOf(UnusableKeyError);
  });

  it('are published without the retired ones and those of another epoch', async () => {
    await auth.keys.open();
    const [first, second] = (await published()).keySet.keys;
    await auth.database.query("UPDATE signing_keys SET state = 'retired' WHERE kid = $1", [first?.kid]);
    expect((await published()).keySet.keys.map(({ kid }) => kid)).to.deep.equal([second?.kid]);
    await auth.database.query("UPDATE signing_keys SET epoch = decode(repeat('00', 16), 'hex')");
    const { keySet, broadcastKeys } = await published();
    expect([keySet.keys, broadcastKeys]).to.deep.equal([[], []]);
  });

  it('have a version that follows from their content, in any order', () => {
    const key = (kid: string) => ({
      kid,
      algorithm: 'EdDSA',
      jwk: `{"kid":"${kid}"}`,
      purpose: 'token' as const,
      state: 'signing' as const,
      sealedPrivateKey: Buffer.alloc(0),
    });
    const { keySet } = publish([key('b'), key('a')]);
    expect(keySet.keys.map(({ kid }) => kid)).to.deep.equal(['a', 'b']);
    expect(keySet.version).to.deep.equal(publish([key('a'), key('b')]).keySet.version);
    const content = 'a\nEdDSA\n{"kid":"a"}\nb\nEdDSA\n{"kid":"b"}\n';
    expect(keySet.version).to.deep.equal(createHash('sha256').update(content).digest());
    expect(keySet.version).to.not.deep.equal(publish([key('a')]).keySet.version);
  });

  it('name the epoch that they belong to', async () => {
    await auth.keys.open();
    const { epoch, keySet } = await auth.publicKeys.read();
    const { rows } = await auth.database.query<{ epoch: Buffer }>('SELECT epoch FROM log_state');
    expect(epoch).to.deep.equal(rows[0]?.epoch);
    expect(keySet.keys).to.have.length(2);
  });

  it('need a key-encryption key of 32 bytes', () => {
    for (const length of [0, 31, 33]) {
      expect(() => reopened(Buffer.alloc(length)), String(length)).to.throw(TypeError, '32 bytes');
    }
  });

  it('are forgotten by a process once they are no longer published, and stay in use until then', async () => {
    await auth.keys.open();
    await auth.database.query(
      'UPDATE signing_keys SET sealed_private_key = set_bit(sealed_private_key, 300, 1 - get_bit(sealed_private_key, 300))',
    );
    await auth.keys.open();
    const setState = (from: string, to: string) =>
      auth.database.query(
        "UPDATE signing_keys SET state = $2 WHERE state = $1 AND purpose = 'token' RETURNING kid",
        [from, to],
      );
    await setState('next', 'retired');
    await auth.keys.replenish();
    await auth.keys.open();
    await setState('retired', 'verify-only');
    expect(await rejectionOf(auth.keys.open())).to.be.instanceOf(UnusableKeyError);
  });

  it('that replace a next key of another algorithm are published', async () => {
    await auth.keys.open();
    await reopened(keyEncryptionKey, 'ES256').open();
    const { rows } = await auth.database.query<object>(
      "SELECT state, algorithm, publish_time IS NOT NULL AS published FROM signing_keys WHERE purpose = 'token' ORDER BY state",
    );
    expect(rows).to.deep.equal([
      { state: 'next', algorithm: 'ES256', published: true },
      { state: 'retired', algorithm: 'EdDSA', published: true },
      { state: 'signing', algorithm: 'EdDSA', published: true },
    ]);
  });

  it('that have begun to sign meanwhile are not replaced by those of another algorithm', async () => {
    await auth.keys.open();
    const before = await stored();
    let isPromoted = false;
    const keys = createKeys({
      keyEncryptionKey,
      algorithm: 'ES256',
      store: {
        ...auth.store,
        transaction: (work) =>
          auth.store.transaction((tx) =>
            work({
              ...tx,
              keys: {
                ...tx.keys,
                lockCreation: async () => {
                  await tx.keys.lockCreation();
                  if (isPromoted) return;
                  isPromoted = true;
                  await tx.keys.stopSigning('token');
                  await tx.keys.promoteNext('token');
                },
              },
            }),
          ),
      },
    });
    await keys.open();
    expect(isPromoted).to.equal(true);
    expect((await stored()).filter(({ state }) => state === 'retired')).to.deep.equal([]);
    const signing = (await stored()).find(({ purpose, state }) => `${purpose} ${state}` === 'token signing');
    expect(before.find(({ kid }) => kid === signing?.kid)?.state).to.equal('next');
  });

  describe('that sign broadcasts', () => {
    let nowMs = 0;
    let reads = 0;
    let failure: Error | undefined;
    const keysOf = () =>
      createKeys({
        keyEncryptionKey,
        algorithm: 'EdDSA',
        clock: { ...systemClock, monotonicMs: () => nowMs },
        store: {
          ...auth.store,
          transaction: (work) => {
            reads += 1;
            return failure === undefined ? auth.store.transaction(work) : Promise.reject(failure);
          },
        },
      });
    beforeEach(() => {
      nowMs = 5000;
      failure = undefined;
    });
    const opened = async () => {
      const keys = keysOf();
      await keys.open();
      reads = 0;
      return keys;
    };
    const payload = Buffer.from('entries');

    it('are read again after a second, and a failure of that is no failure of the broadcast', async () => {
      const signer = (await opened()).broadcastSigner();
      nowMs += 1000;
      await signer.sign(payload);
      expect(reads).to.equal(0);
      failure = new Error('the database is away');
      nowMs += 1;
      await signer.sign(payload);
      expect(reads).to.equal(1);
      failure = undefined;
      await signer.sign(payload);
      await until(async () => {
        const before = reads;
        await signer.sign(payload);
        return reads === before;
      });
    });

    it('are those of the epoch of the entries, which is read once however many broadcasts need it', async () => {
      const keys = await opened();
      const signer = keys.broadcastSigner();
      const { epoch } = await auth.publicKeys.read();
      const first = await signer.sign(payload, epoch);
      expect(reads).to.equal(0);
      const over = Buffer.alloc(16, 1);
      const errors = await Promise.all([1, 2, 3].map(() => rejectionOf(signer.sign(payload, over))));
      expect(errors.map(({ message }) => message)).to.deep.equal(
        Array(3).fill('the epoch of the entries is over'),
      );
      expect(reads).to.equal(1);
      await auth.database.query('UPDATE log_state SET epoch = $1', [over]);
      await auth.keys.open();
      const second = await signer.sign(payload, over);
      expect(reads).to.equal(2);
      expect(decodeProtectedHeader(second).kid).to.not.equal(decodeProtectedHeader(first).kid);
      expect((await rejectionOf(signer.sign(payload, epoch))).message).to.equal(
        'the epoch of the entries is over',
      );
    });
  });

  it('cannot sign for a time after which callers may try again', async () => {
    expect(await serviceErrorOf(sign())).to.include({ code: 'DEPENDENCY_UNAVAILABLE', retryAfterMs: 500 });
    const keys = createKeys({
      store: auth.store,
      keyEncryptionKey,
      algorithm: 'EdDSA',
      canSign: () => false,
    });
    await keys.open();
    expect(await serviceErrorOf(sign(keys))).to.include({
      code: 'DEPENDENCY_UNAVAILABLE',
      message: 'the secrets are not read yet',
      retryAfterMs: 500,
    });
  });
});
