/** The rows of signing keys. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import type { KeyPurpose, KeyState } from '../../../services/auth/records/keys.js';
import { keyOf, OBSERVED_MS, settled, type Under } from './store-under-test.js';

export function describeKeys(under: Under): void {
  const states = async (): Promise<Record<string, KeyState>> => {
    const live = await under().store.transaction((tx) => tx.keys.live());
    return Object.fromEntries(live.map(({ kid, state }) => [kid, state]));
  };
  /** A signing key and a next key of one purpose, after all others were retired. */
  const addKeys = async (purpose: KeyPurpose = 'token') => {
    const [signing, next] = [keyOf(purpose, 'signing'), keyOf(purpose, 'next')];
    await under().store.transaction(async (tx) => {
      await tx.keys.retireAll();
      await tx.keys.insert(signing);
      await tx.keys.insert(next);
    });
    return { signing, next };
  };

  describe('the rows of keys', () => {
    it('return the keys that are not retired, by kid, as they were inserted', async () => {
      const { store } = under();
      const { signing, next } = await addKeys();
      const inserted = [signing, next].sort((one, other) => (one.kid < other.kid ? -1 : 1));
      const live = await store.transaction((tx) => tx.keys.live());
      expect(live.map(({ kid }) => kid)).to.deep.equal(inserted.map(({ kid }) => kid));
      for (const [index, key] of live.entries()) expect(key).to.deep.include(inserted[index]);
    });

    it('return the key that signs for each purpose', async () => {
      const { store } = under();
      const { signing } = await addKeys('token');
      const found = await store.transaction((tx) => tx.keys.lockSigning('token'));
      expect(found).to.deep.include(signing);
      expect(await store.transaction((tx) => tx.keys.lockSigning('broadcast'))).to.equal(undefined);
    });

    it('retire a key for good, and return what it was', async () => {
      const { store } = under();
      const { signing, next } = await addKeys();
      const retire = (kid: string) => store.transaction((tx) => tx.keys.retire(kid));
      expect(await retire(signing.kid)).to.deep.include({ purpose: 'token', state: 'signing' });
      expect(await states()).to.deep.equal({ [next.kid]: 'next' });
      expect(await store.transaction((tx) => tx.keys.lockLive(signing.kid))).to.equal(false);
      // An operator whose first answer was lost may revoke the key once more.
      expect(await retire(signing.kid)).to.deep.include({ purpose: 'token', state: 'retired' });
      expect(await retire('unknown')).to.equal(undefined);
    });

    it('let the next key of a purpose sign', async () => {
      const { store } = under();
      const { signing, next } = await addKeys();
      await store.transaction(async (tx) => {
        await tx.keys.retire(signing.kid);
        await tx.keys.promoteNext('broadcast');
        await tx.keys.promoteNext('token');
      });
      expect(await states()).to.deep.equal({ [next.kid]: 'signing' });
      expect((await store.transaction((tx) => tx.keys.lockSigning('token')))?.kid).to.equal(next.kid);
      expect(await store.transaction((tx) => tx.keys.lockLive(next.kid))).to.equal(true);
    });

    it('retire every key of the epoch', async () => {
      const { store } = under();
      await addKeys();
      await store.transaction((tx) => tx.keys.retireAll());
      expect(await states()).to.deep.equal({});
    });

    it('return what is encrypted, until a key is retired', async () => {
      const { store } = under();
      const { signing, next } = await addKeys();
      const sealed = () => store.transaction((tx) => tx.keys.sealed());
      expect((await sealed()).map(({ kid }) => kid)).to.deep.equal([signing.kid, next.kid].sort());
      await store.transaction((tx) => tx.keys.retire(signing.kid));
      expect(await sealed()).to.have.length(1);
      expect((await sealed())[0]).to.deep.include(next);
    });

    it('replace a ciphertext only if it is still the given one', async () => {
      const { store } = under();
      const { signing: key } = await addKeys();
      const reseal = (sealed: Buffer, to: string, kid = key.kid) =>
        store.transaction((tx) => tx.keys.reseal({ kid, sealed }, Buffer.from(to)));
      expect(await reseal(key.sealedPrivateKey, 'second')).to.equal(true);
      expect(await reseal(key.sealedPrivateKey, 'third')).to.equal(false);
      expect(await reseal(key.sealedPrivateKey, 'third', 'unknown')).to.equal(false);
      const found = await store.transaction((tx) => tx.keys.lockSigning('token'));
      expect(found).to.deep.include({ ...key, sealedPrivateKey: Buffer.from('second') });
    });

    it('store secrets by their purpose, and replace the ciphertext of one as of a key', async () => {
      const { store } = under();
      const [purpose, other] = [`one ${randomUUID()}`, `other ${randomUUID()}`];
      const secret = async (of: string) => (await store.transaction((tx) => tx.keys.secrets())).get(of);
      const put = (of: string, text: string) =>
        store.transaction((tx) => tx.keys.putSecret(of, Buffer.from(text)));
      const reseal = (from: string, to: string) =>
        store.transaction((tx) => tx.keys.reseal({ purpose, sealed: Buffer.from(from) }, Buffer.from(to)));
      expect(await secret(purpose)).to.equal(undefined);
      expect(await reseal('first', 'second')).to.equal(false);
      await put(purpose, 'former');
      await put(purpose, 'first');
      await put(other, 'first');
      expect(await reseal('former', 'third')).to.equal(false);
      expect(await reseal('first', 'second')).to.equal(true);
      expect(await secret(purpose)).to.deep.equal(Buffer.from('second'));
      expect(await secret(other)).to.deep.equal(Buffer.from('first'));
    });

    it('belong to the epoch of the log', async () => {
      const { store, log } = under();
      const epoch = await store.transaction((tx) => tx.keys.epoch());
      expect(epoch).to.deep.equal((await log.read(async ({ state }) => state)).epoch);
      expect(epoch).to.have.length(16);
    });

    it('return the promoted key to a caller that waited while the former one was retired', async () => {
      const { store } = under();
      const { signing, next } = await addKeys();
      const found = await store.transaction(async (tx) => {
        await tx.keys.retire(signing.kid);
        await tx.keys.promoteNext('token');
        const waiting = settled(store.transaction((other) => other.keys.lockSigning('token')));
        await under().sleep(OBSERVED_MS);
        expect(waiting.isSettled()).to.equal(false);
        return waiting;
      });
      expect((await found.promise)?.kid).to.equal(next.kid);
    });
  });
}
