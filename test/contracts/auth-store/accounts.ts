/** The rows of users and clients. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import type { NewClient, StoredCredential } from '../../../services/auth/records/clients.js';
import { generationOf, OBSERVED_MS, settled, type Under } from './store-under-test.js';

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

    it('are created once, and continue the generations of a deleted client of their id', async () => {
      const { store } = under();
      const client = newClient();
      const { clientId } = client;
      const insert = () => store.transaction((tx) => tx.clients.insertWhenAbsent(client));
      expect(await insert()).to.equal(true);
      expect(await insert()).to.equal(false);
      const first = await store.transaction((tx) => tx.clients.find(clientId));
      expect(first).to.deep.include({ ...client, disabled: false });
      const raised = await store.transaction((tx) => tx.clients.raiseGeneration(clientId));
      await store.transaction((tx) => tx.clients.delete(clientId));
      expect(await store.transaction((tx) => tx.clients.wasDeleted(clientId))).to.equal(true);
      expect(await insert()).to.equal(true);
      expect(await store.transaction((tx) => tx.clients.wasDeleted(clientId))).to.equal(false);
      const second = await store.transaction((tx) => tx.clients.find(clientId));
      expect(second).to.deep.include({ ...client, disabled: false, generation: raised });
    });

    it('are neither found nor changed after they were deleted', async () => {
      const { store, addClient } = under();
      const clientId = await addClient();
      expect(await store.transaction((tx) => tx.clients.wasDeleted(clientId))).to.equal(false);
      await store.transaction((tx) => tx.clients.delete(clientId));
      await store.transaction(async (tx) => {
        expect(await tx.clients.find(clientId)).to.equal(undefined);
        expect(await tx.clients.lockShared(clientId)).to.equal(undefined);
        expect(await tx.clients.lock(clientId)).to.equal(undefined);
        expect(await tx.clients.raiseGeneration(clientId)).to.equal(undefined);
        expect(await tx.clients.setDisabled(clientId, false)).to.equal(false);
      });
    });

    it('are disabled and enabled, and an unknown one is not', async () => {
      const { store, addClient } = under();
      const clientId = await addClient();
      for (const disabled of [true, false]) {
        expect(await store.transaction((tx) => tx.clients.setDisabled(clientId, disabled))).to.equal(true);
        expect((await store.transaction((tx) => tx.clients.find(clientId)))?.disabled).to.equal(disabled);
      }
      expect(await store.transaction((tx) => tx.clients.setDisabled('unknown', true))).to.equal(false);
    });

    it('get other rights and credentials, and keep the rest', async () => {
      const { store } = under();
      const client = newClient();
      const { clientId } = client;
      await store.transaction((tx) => tx.clients.insertWhenAbsent(client));
      const { audiences, scopes, exchangeAudiences, exchangeScopes, certificateBound } = newClient({
        scopes: ['auth.introspect'],
        exchangeScopes: ['inventory.read'],
        certificateBound: true,
      });
      const rights = { audiences, scopes, exchangeAudiences, exchangeScopes, certificateBound };
      await store.transaction((tx) => tx.clients.setRights(clientId, rights));
      const generation = await store.transaction((tx) => tx.clients.raiseGeneration(clientId));
      const credentials = [...client.credentials, credentialOf('secret')];
      await store.transaction((tx) => tx.clients.setCredentials(clientId, credentials));
      const changed = await store.transaction((tx) => tx.clients.find(clientId));
      expect(changed).to.deep.include({ clientId, generation, ...rights, credentials });
    });

    it('keep the minting of tokens waiting while one of them is locked for a change', async () => {
      const { store, addClient, sleep } = under();
      const [clientId, other] = [await addClient(), await addClient()];
      const minting = await store.transaction(async (tx) => {
        expect((await tx.clients.lock(clientId))?.clientId).to.equal(clientId);
        const waiting = settled(store.transaction((one) => one.clients.lockShared(other)));
        await sleep(OBSERVED_MS);
        expect(waiting.isSettled()).to.equal(false);
        return waiting;
      });
      expect((await minting.promise)?.clientId).to.equal(other);
    });
  });
}

function credentialOf(kind: StoredCredential['kind']): StoredCredential {
  const common = { credentialId: randomUUID(), createTime: new Date(1_700_000_000_000) };
  return kind === 'secret' ? { ...common, kind, hash: 'a hash' } : { ...common, kind, pem: 'a key' };
}

function newClient(over: Partial<NewClient> = {}): NewClient {
  return {
    clientId: `client-${randomUUID()}`,
    credentials: [credentialOf('public-key')],
    audiences: ['auth'],
    scopes: ['auth.sync'],
    exchangeAudiences: ['inventory'],
    exchangeScopes: undefined,
    certificateBound: false,
    ...over,
  };
}
