/** Tests of what administrators change on clients: rights, keys and secrets, and their end. */

import { generateKeyPairSync, type KeyObject, randomUUID } from 'node:crypto';
import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { RegisteredClient } from '../../../../proto/gen/auth/v1/client_service.js';
import { ask } from '../../../../scripts/system/calls.js';
import { applyBootstrap } from '../../../../services/auth/accounts/bootstrap.js';
import type { AddedCredential } from '../../../../services/auth/clients/change-credentials.js';
import { CLIENT_KEYS_MAX } from '../../../../services/auth/clients/stored-credentials.js';
import { etagOf } from '../../../../services/auth/clients/update-client.js';
import type { Client } from '../../../../services/auth/records/clients.js';
import { codeOf, refusalOf, serviceErrorOf } from '../../../support/outcomes.js';
import { type Cluster, startCluster, verdictOf } from '../cluster.js';
import {
  type AuthInstance,
  addClient,
  addUser,
  claimsOf,
  entriesOf,
  issue,
  openFreshAuth,
  serviceToken,
  signAssertion,
  type TestClient,
} from '../instance.js';

const by = { actor: 'admin', reason: 'a test' };

function newKey(): { pem: string; privateKey: KeyObject } {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519');
  return { pem: publicKey.export({ type: 'spki', format: 'pem' }).toString(), privateKey };
}

describe('changes of a client', () => {
  let auth: AuthInstance;

  before(async () => {
    auth = await openFreshAuth();
  });
  after(() => auth.close());

  const find = async (clientId: string): Promise<Client> => await auth.clients.get(clientId);
  const isLive = async (token: string): Promise<boolean> =>
    (await auth.exchange.introspect(token)) !== undefined;
  const eventTypes = async (clientId: string) => {
    const { rows } = await auth.database.query<{ type: string; actor: string; details: object }>(
      `SELECT type, actor, details FROM security_events WHERE subject->>'clientId' = $1 ORDER BY event_time`,
      [clientId],
    );
    return rows;
  };

  describe('of its rights', () => {
    const rightsOf = ({ exchangeScopes = [], ...rights }: Client) => ({ ...rights, exchangeScopes });
    const update = async (clientId: string, change: object, over: object = {}) => {
      const updateMask = Object.keys(change).map((name) =>
        name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
      );
      const rights = { ...rightsOf(await find(clientId)), ...change };
      return await auth.clients.update({
        ...by,
        clientId,
        rights,
        updateMask,
        etag: '',
        requestId: '',
        ...over,
      });
    };

    it('revoke nothing when it gains a right, and its next token has it', async () => {
      const client = await addClient(auth, { scopes: ['auth.sync'], exchangeScopes: ['inventory.read'] });
      const token = await serviceToken(auth, client);
      const before = (await entriesOf(auth)).length;
      for (const change of [
        { scopes: ['auth.sync', 'auth.exchange'] },
        { audiences: ['auth', 'inventory'] },
        { exchangeAudiences: ['inventory', 'payment'] },
        { exchangeScopes: [] },
      ]) {
        expect((await update(client.clientId, change)).revocation).to.equal(undefined);
      }
      expect(await entriesOf(auth)).to.have.length(before);
      expect(await isLive(token)).to.equal(true);
      const { scope, aud } = claimsOf(await serviceToken(auth, client));
      expect([scope, aud]).to.deep.equal(['auth.sync auth.exchange', ['auth', 'inventory']]);
      expect((await find(client.clientId)).exchangeScopes).to.equal(undefined);
    });

    for (const [what, change] of Object.entries({
      'a scope': { scopes: ['auth.sync'] },
      'an audience': { audiences: [] },
      'an audience of exchanges': { exchangeAudiences: ['payment'] },
      'a scope of exchanges': { exchangeScopes: ['inventory.read'] },
      'use without a certificate': { certificateBound: true },
    })) {
      it(`revoke its tokens when it loses ${what}`, async () => {
        const client = await addClient(auth);
        const token = await serviceToken(auth, client);
        const { revocation } = await update(client.clientId, change);
        const entry = (await entriesOf(auth))[Number(revocation?.sequence) - 1];
        expect(entry).to.deep.include({ kind: 'CLIENT', key: Buffer.from(client.clientId).toString('hex') });
        expect(await isLive(token)).to.equal(false);
        const [event] = await eventTypes(client.clientId);
        expect(event).to.deep.include({ type: 'client-updated', actor: 'admin' });
        expect(event?.details).to.deep.include({ revoked: true });
      });
    }

    it('change only the fields of the mask', async () => {
      const { clientId } = await addClient(auth);
      const before = await find(clientId);
      const rights = { ...rightsOf(before), scopes: [], audiences: ['inventory', 'auth'] };
      await auth.clients.update({
        ...by,
        clientId,
        rights,
        updateMask: ['audiences'],
        etag: '',
        requestId: '',
      });
      expect(await find(clientId)).to.deep.equal({ ...before, audiences: ['inventory', 'auth'] });
    });

    it('are rejected when the client has changed since it was read, and carried out once per request id', async () => {
      const { clientId } = await addClient(auth);
      const etag = etagOf(await find(clientId));
      const requestId = randomUUID();
      const first = await update(clientId, { scopes: [] }, { etag, requestId });
      expect(await codeOf(update(clientId, { audiences: [] }, { etag }))).to.equal('ETAG_MISMATCH');
      await update(clientId, { scopes: ['auth.sync'] });
      const again = await update(clientId, { scopes: [] }, { etag, requestId });
      expect(again.revocation?.sequence).to.equal(first.revocation?.sequence);
      expect((await find(clientId)).scopes).to.deep.equal(['auth.sync']);
    });

    it('are rejected for an unknown client, that of the logins, and each invalid field', async () => {
      const { clientId } = await addClient(auth);
      const rights = rightsOf(await find(clientId));
      const request = { ...by, clientId, rights, updateMask: ['*'], etag: '', requestId: '' };
      for (const [over, field] of [
        [{ updateMask: [] }, 'update_mask'],
        [{ updateMask: ['client_id'] }, 'update_mask'],
        [{ clientId: 'direct' }, 'client_id'],
        [{ reason: 'x'.repeat(201) }, 'reason'],
        [{ rights: { ...rights, scopes: ['A'] } }, 'client.scopes[0]'],
      ] as const) {
        const { code, violations } = await serviceErrorOf(auth.clients.update({ ...request, ...over }));
        expect([code, violations[0]?.field]).to.deep.equal(['FIELD_INVALID', field]);
      }
      expect(await codeOf(auth.clients.update({ ...request, clientId: 'nobody' }))).to.equal('NOT_FOUND');
    });
  });

  describe('of its credentials', () => {
    const add = (
      clientId: string,
      credential: AddedCredential | undefined,
      requestId: string = randomUUID(),
    ) => auth.clients.addCredential({ actor: 'admin', clientId, credential, requestId });
    const remove = (clientId: string, credentialId: string, over: object = {}) =>
      auth.clients.removeCredential({
        ...by,
        clientId,
        credentialId,
        revokeTokens: false,
        requestId: '',
        ...over,
      });
    const tokenBySecret = (clientId: string, secret: string) =>
      auth.serviceTokens.issue({
        ...{
          clientId,
          credential: { kind: 'secret', secret },
          audiences: [],
          scopes: [],
          peer: '192.0.2.7:1',
        },
      });

    it('let it authenticate with the former and the new key, until the former is removed', async () => {
      const old = await addClient(auth);
      const { pem, privateKey } = newKey();
      const fresh: TestClient = { clientId: old.clientId, privateKey };
      await add(old.clientId, { kind: 'public-key', pem });
      const token = await serviceToken(auth, old);
      await serviceToken(auth, fresh);
      await remove(old.clientId, 'first');
      expect(await codeOf(serviceToken(auth, old))).to.equal('CLIENT_AUTHENTICATION_FAILED');
      await serviceToken(auth, fresh);
      // Documented: a routine removal leaves the tokens until they expire.
      expect(await isLive(token)).to.equal(true);
      expect((await eventTypes(old.clientId)).map(({ type }) => type)).to.deep.equal([
        'client-credential-added',
        'client-credential-removed',
      ]);
    });

    it('revoke the tokens when the removed key may have leaked', async () => {
      const client = await addClient(auth);
      const token = await serviceToken(auth, client);
      await add(client.clientId, { kind: 'public-key', pem: newKey().pem });
      const { revocation } = await remove(client.clientId, 'first', { revokeTokens: true });
      expect(revocation?.sequence).to.be.a('bigint');
      expect(await isLive(token)).to.equal(false);
    });

    it('return a generated secret once, and store neither it nor the answer with it', async () => {
      const { clientId } = await addClient(auth);
      const requestId = randomUUID();
      const { clientSecret, credentialId } = await add(clientId, { kind: 'generated-secret' }, requestId);
      expect(clientSecret).to.match(/^pcs_[\w-]{43}$/);
      await tokenBySecret(clientId, clientSecret);
      const again = await add(clientId, { kind: 'generated-secret' }, requestId);
      expect(again).to.deep.include({ clientSecret: '', credentialId });
      const { rows } = await auth.database.query<{ dump: string }>(
        `SELECT (SELECT string_agg(c::text, '') FROM clients c) || (SELECT string_agg(r::text, '') FROM requests r)
             || (SELECT string_agg(e::text, '') FROM security_events e) AS dump`,
      );
      expect(rows[0]?.dump).to.contain(credentialId);
      expect(rows[0]?.dump).to.not.contain(clientSecret);
      const { rows: answers } = await auth.database.query<{ answer: string }>(
        "SELECT string_agg(answer_json::text, '') AS answer FROM requests",
      );
      expect(answers[0]?.answer).to.not.contain('$argon2id$');
    });

    it('are made once per request id, which no other secret can use', async () => {
      const { clientId } = await addClient(auth);
      const requestId = randomUUID();
      const secret = { kind: 'secret', secret: 'a secret of the client that is long enough' } as const;
      const { credentialId } = await add(clientId, secret, requestId);
      expect((await add(clientId, secret, requestId)).credentialId).to.equal(credentialId);
      const other = { ...secret, secret: `${secret.secret}!` };
      expect(await codeOf(add(clientId, other, requestId))).to.equal('REQUEST_ID_REUSED');
    });

    it('replace a secret with an overlap, of two at most', async () => {
      const { clientId } = await addClient(auth);
      const one = await add(clientId, { kind: 'generated-secret' });
      const two = await add(clientId, { kind: 'generated-secret' });
      expect(await codeOf(add(clientId, { kind: 'generated-secret' }))).to.equal('TOO_MANY_CREDENTIALS');
      for (const { clientSecret } of [one, two]) await tokenBySecret(clientId, clientSecret);
      await remove(clientId, one.credentialId);
      const refused = tokenBySecret(clientId, one.clientSecret);
      expect(await codeOf(refused)).to.equal('CLIENT_AUTHENTICATION_FAILED');
      await tokenBySecret(clientId, two.clientSecret);
    });

    it('are rejected for a key that it has, one too many, the last one, an unknown one, and a bad one', async () => {
      const { clientId } = await addClient(auth);
      const key = { kind: 'public-key', pem: newKey().pem } as const;
      expect(await codeOf(remove(clientId, 'first'))).to.equal('LAST_CREDENTIAL');
      await add(clientId, key);
      const spelled = { ...key, pem: `\n${key.pem}\n` };
      expect(await codeOf(add(clientId, spelled))).to.equal('ALREADY_EXISTS');
      for (let count = 2; count < CLIENT_KEYS_MAX; count += 1) {
        await add(clientId, { kind: 'public-key', pem: newKey().pem });
      }
      const more = add(clientId, { kind: 'public-key', pem: newKey().pem });
      expect(await codeOf(more)).to.equal('TOO_MANY_CREDENTIALS');
      expect(await codeOf(remove(clientId, randomUUID()))).to.equal('NOT_FOUND');
      for (const credential of [
        undefined,
        { kind: 'public-key', pem: 'no pem' },
        { kind: 'secret', secret: 'short' },
      ] as const) {
        expect(await codeOf(add(clientId, credential))).to.equal('FIELD_INVALID');
      }
      expect(await codeOf(add(clientId, key, ''))).to.equal('FIELD_INVALID');
      expect(await codeOf(add('nobody', key))).to.equal('NOT_FOUND');
      expect(await codeOf(add('direct', key))).to.equal('FIELD_INVALID');
    });

    it('give a token to nobody who authenticated with a key that was removed meanwhile', async () => {
      const old = await addClient(auth);
      await add(old.clientId, { kind: 'public-key', pem: newKey().pem });
      const assertion = await signAssertion(old);
      // The request waits for the removal, which holds the client.
      const outcome = await auth.store.transaction(async (tx) => {
        await tx.clients.raiseGeneration(old.clientId);
        const waiting = codeOf(issue(auth, old, assertion));
        const { credentials = [] } = (await tx.clients.find(old.clientId)) ?? {};
        await tx.clients.setCredentials(old.clientId, credentials.slice(1));
        return { waiting };
      });
      expect(await outcome.waiting).to.equal('CLIENT_AUTHENTICATION_FAILED');
    });
  });

  describe('by deletion', () => {
    const remove = (clientId: string, requestId = '') => auth.clients.delete({ ...by, clientId, requestId });

    it('revoke its tokens, end its credentials, and leave its events', async () => {
      const client = await addClient(auth);
      const token = await serviceToken(auth, client);
      const requestId = randomUUID();
      const { sequence } = await remove(client.clientId, requestId);
      expect((await remove(client.clientId, requestId)).sequence).to.equal(sequence);
      expect(await isLive(token)).to.equal(false);
      expect(await codeOf(serviceToken(auth, client))).to.equal('CLIENT_AUTHENTICATION_FAILED');
      expect(await codeOf(auth.clients.get(client.clientId))).to.equal('NOT_FOUND');
      const { clients } = await auth.clients.list({ pageSize: 200, pageToken: '' });
      expect(clients.map(({ clientId }) => clientId)).to.not.include(client.clientId);
      for (const change of [
        remove(client.clientId),
        auth.clients.disable({ ...by, clientId: client.clientId, requestId: '' }),
        auth.clients.enable({ actor: 'admin', clientId: client.clientId, requestId: '' }),
      ]) {
        expect(await codeOf(change)).to.equal('NOT_FOUND');
      }
      expect((await eventTypes(client.clientId)).map(({ type }) => type)).to.deep.equal(['client-deleted']);
    });

    it('keep its generation, so that a later client of the same id revives none of its tokens', async () => {
      const client = await addClient(auth);
      const token = await serviceToken(auth, client);
      await remove(client.clientId);
      const { pem, privateKey } = newKey();
      const credential = { kind: 'public-key', pem } as const;
      await auth.clients.create({
        ...{ actor: 'admin', clientId: client.clientId, credential, requestId: randomUUID() },
        ...{
          audiences: ['auth'],
          scopes: [],
          exchangeAudiences: [],
          exchangeScopes: [],
          certificateBound: false,
        },
      });
      expect(await isLive(token)).to.equal(false);
      expect(await codeOf(serviceToken(auth, client))).to.equal('CLIENT_AUTHENTICATION_FAILED');
      const fresh = await serviceToken(auth, { clientId: client.clientId, privateKey });
      expect(await isLive(fresh)).to.equal(true);
    });

    it('are not undone by the bootstrap file', async () => {
      const { clientId } = await addClient(auth);
      await remove(clientId);
      const client = { clientId, publicKeyPem: newKey().pem, secret: undefined, audiences: [], scopes: [] };
      const more = { exchangeAudiences: [], exchangeScopes: undefined, certificateBound: false };
      const result = await applyBootstrap({ users: [], clients: [{ ...client, ...more }] }, auth);
      expect(result.clients).to.equal(0);
      expect(await codeOf(auth.clients.get(clientId))).to.equal('NOT_FOUND');
    });

    it('are rejected for an unknown client and that of the logins', async () => {
      expect(await codeOf(remove('nobody'))).to.equal('NOT_FOUND');
      expect(await codeOf(remove('direct'))).to.equal('FIELD_INVALID');
    });
  });

  describe('over the wire', function () {
    this.timeout(180_000);
    let cluster: Cluster;

    before(async () => {
      cluster = await startCluster({ leaseMs: 1500 });
    });
    after(() => cluster.close());

    it('replace a key without a refused call, at any replica, from the first step to the last', async () => {
      const [first, second] = cluster.replicas;
      const { clientService } = first;
      const token = await cluster.token(cluster.admin);
      const client = await addClient(first, { scopes: ['auth.sync', 'auth.introspect'] });
      let { privateKey } = client;
      let calls = 0;
      let running = true;
      const introspect = second.auth.introspect.bind(second.auth);
      // Each round gets a token of its own and calls with it; a refusal ends the test.
      const caller = (async () => {
        while (running) {
          for (const replica of [first, second]) {
            const own = await serviceToken(replica, { clientId: client.clientId, privateKey });
            const { active } = await ask(introspect, { token: own }, { token: own });
            expect(active).to.equal(true);
            calls += 1;
          }
        }
      })();
      const someCalls = async () => {
        const before = calls;
        while (calls < before + 4) {
          await Promise.race([caller, new Promise((resolve) => setTimeout(resolve, 5))]);
          if (!running) throw new Error('the caller has stopped');
        }
      };
      const fresh = newKey();
      await someCalls();
      const added = await ask(
        clientService.addClientCredential.bind(clientService),
        {
          clientId: client.clientId,
          credential: { $case: 'publicKeyPem', value: fresh.pem } as const,
          requestId: randomUUID(),
        },
        { token },
      );
      await someCalls();
      privateKey = fresh.privateKey;
      await someCalls();
      const [former] = added.client?.credentials ?? [];
      expect(former?.credentialId).to.not.equal(added.credentialId);
      const removed = await ask(
        clientService.removeClientCredential.bind(clientService),
        {
          clientId: client.clientId,
          credentialId: former?.credentialId ?? '',
          revokeTokens: false,
          reason: '',
          requestId: '',
        },
        { token },
      );
      await someCalls();
      running = false;
      await caller;
      expect(removed).to.deep.include({ sequence: 0n, enforcedEverywhereBy: undefined });
      expect(removed.client?.credentials.map(({ credentialId }) => credentialId)).to.deep.equal([
        added.credentialId,
      ]);
    });

    it('revoke on every instance when rights are taken or the client is deleted', async () => {
      const [first] = cluster.replicas;
      const { clientService } = first;
      const token = await cluster.token(cluster.admin);
      const { clientId, privateKey } = await addClient(first, { audiences: ['auth', 'inventory'] });
      const own = await serviceToken(first, { clientId, privateKey });
      expect(await verdictOf(cluster.followers.inventory, own)).to.equal('OK');
      const { client } = await ask(clientService.getClient.bind(clientService), { clientId }, { token });
      const updated = await ask(
        clientService.updateClient.bind(clientService),
        {
          client: RegisteredClient.fromPartial({ ...client, scopes: [] }),
          updateMask: ['scopes'],
          reason: '',
          requestId: '',
        },
        { token },
      );
      expect(updated.sequence > 0n).to.equal(true);
      expect(updated.client?.etag).to.not.equal(client?.etag);
      const stale = ask(
        clientService.updateClient.bind(clientService),
        { client: RegisteredClient.fromPartial(client ?? {}), updateMask: ['*'], reason: '', requestId: '' },
        { token },
      );
      expect(await refusalOf(stale)).to.include({ code: status.ABORTED, reason: 'ETAG_MISMATCH' });
      first.guard.syncNow();
      while ((await verdictOf(cluster.followers.inventory, own)) !== 'TOKEN_REVOKED') {
        cluster.followers.inventory.syncNow();
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      const later = await serviceToken(first, { clientId, privateKey });
      const { sequence } = await ask(
        clientService.deleteClient.bind(clientService),
        { clientId, reason: '', requestId: '' },
        { token },
      );
      expect(sequence).to.equal(updated.sequence + 1n);
      while ((await verdictOf(cluster.followers.inventory, later)) !== 'TOKEN_REVOKED') {
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      const customer = await cluster.token(await addUser(first));
      const refused = ask(clientService.getClient.bind(clientService), { clientId }, { token: customer });
      expect((await refusalOf(refused)).code).to.equal(status.PERMISSION_DENIED);
    });
  });
});
