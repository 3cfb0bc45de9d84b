/** The rows of users and clients. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { generationOf, type Under } from './store-under-test.js';

export function describeUsers(under: Under): void {
  describe('the rows of users', () => {
    it('find a user by name and by id, and nothing under an unknown one', async () => {
      const { store, addUser } = under();
      const { userId, username } = await addUser();
      const credentials = await store.transaction((tx) => tx.users.credentialsByName(username));
      const state = await store.transaction((tx) => tx.users.lockShared(userId));
      expect(credentials).to.deep.include({ userId, username, generation: state?.generation });
      expect(credentials?.passwordVersion).to.equal(state?.passwordVersion);
      expect(await store.reads.users.credentialsByName(username)).to.deep.equal(credentials);
      expect(await store.reads.users.credentialsByName(`${username}x`)).to.equal(undefined);
      await store.transaction(async (tx) => {
        expect(await tx.users.find(userId)).to.deep.include({ userId, username, disabled: false });
        expect(await tx.users.find(randomUUID())).to.equal(undefined);
        expect(await tx.users.lockShared(randomUUID())).to.equal(undefined);
        expect(await tx.users.credentialsByName(`${username}x`)).to.equal(undefined);
      });
    });

    it('keep the time at which a user was created', async () => {
      const { store, addUser, sleep } = under();
      const { userId } = await addUser();
      const first = await store.transaction((tx) => tx.users.find(userId));
      await sleep(20);
      const second = await store.transaction((tx) => tx.users.find(userId));
      expect(second?.createTime).to.deep.equal(first?.createTime);
    });

    it('raise the generation by one each time, and nothing for an unknown user', async () => {
      const { store, addUser } = under();
      const { userId } = await addUser();
      const before = await generationOf(under(), userId);
      const raised: (bigint | undefined)[] = [];
      for (let time = 0; time < 2; time += 1) {
        raised.push(await store.transaction((tx) => tx.users.raiseGeneration(userId)));
      }
      expect(raised).to.deep.equal([before + 1n, before + 2n]);
      expect(await store.transaction((tx) => tx.users.raiseGeneration(randomUUID()))).to.equal(undefined);
    });

    it('are locked by id, and an unknown one is not', async () => {
      const { store, addUser } = under();
      const { userId } = await addUser();
      expect(await store.transaction((tx) => tx.users.lock(userId))).to.equal(true);
      expect(await store.transaction((tx) => tx.users.lock(randomUUID()))).to.equal(false);
    });

    it('name the administrators: none, the only one, or two of them', async () => {
      const { store, addUser } = under();
      const admins = () => store.transaction((tx) => tx.users.lockAdmins());
      const setRoles = (userId: string, isAdmin: boolean) =>
        store.transaction((tx) => tx.users.setRoles(userId, isAdmin ? ['admin', 'customer'] : ['customer']));
      for (const userId of await admins()) await setRoles(userId, false);
      expect(await admins()).to.deep.equal([]);
      const ids = [(await addUser()).userId, (await addUser()).userId, (await addUser()).userId].sort();
      const [first = '', second = '', third = ''] = ids;
      await setRoles(second, true);
      expect(await admins()).to.deep.equal([second]);
      await setRoles(third, true);
      expect(await admins()).to.deep.equal([second, third]);
      await setRoles(first, true);
      expect(await admins()).to.deep.equal([first, second]);
      for (const userId of ids) await setRoles(userId, false);
    });

    it('replace all roles of a user, and return them in alphabetical order', async () => {
      const { store, addUser } = under();
      const { userId } = await addUser();
      await store.transaction((tx) => tx.users.setRoles(userId, ['security', 'admin']));
      await store.transaction(async (tx) => {
        expect((await tx.users.find(userId))?.roles).to.deep.equal(['admin', 'security']);
        expect((await tx.users.lockShared(userId))?.roles).to.deep.equal(['admin', 'security']);
      });
    });
  });
}

export function describeClients(under: Under): void {
  describe('the rows of clients', () => {
    it('find a client with a lock and without one, and nothing under an unknown name', async () => {
      const { store, addClient } = under();
      const clientId = await addClient();
      const [found, locked] = await store.transaction(
        async (tx) => [await tx.clients.find(clientId), await tx.clients.lockShared(clientId)] as const,
      );
      expect(found?.clientId).to.equal(clientId);
      expect(locked).to.deep.equal(found);
      expect(await store.transaction((tx) => tx.clients.find('unknown'))).to.equal(undefined);
      expect(await store.transaction((tx) => tx.clients.lockShared('unknown'))).to.equal(undefined);
    });

    it('raise the generation by one each time, and nothing for an unknown client', async () => {
      const { store, addClient } = under();
      const clientId = await addClient();
      const before = (await store.transaction((tx) => tx.clients.find(clientId)))?.generation ?? 0n;
      expect(await store.transaction((tx) => tx.clients.raiseGeneration(clientId))).to.equal(before + 1n);
      expect((await store.transaction((tx) => tx.clients.find(clientId)))?.generation).to.equal(before + 1n);
      expect(await store.transaction((tx) => tx.clients.raiseGeneration('unknown'))).to.equal(undefined);
    });
  });
}
