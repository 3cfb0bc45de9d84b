/** Tests of the clients and of what disabling one does, against PostgreSQL and with replicas behind sockets. */

import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { status } from '@grpc/grpc-js';
import { errorOf as receivedError } from '@portcullis/guard/client';
import { systemClock } from '@portcullis/guard/clock';
import { expect } from 'chai';
import { nkeys } from 'nats';
import { infinityPem, pemOf, weakKeys } from '../../../../proofs/attack/weak-keys.js';
import {
  ClientAuthentication,
  ClientState,
  type CreateClientRequest,
} from '../../../../proto/gen/auth/v1/client_service.js';
import { ask } from '../../../../scripts/system/calls.js';
import { DIRECT_CLIENT } from '../../../../services/auth/clients/client-ids.js';
import { createClients } from '../../../../services/auth/clients/clients.js';
import type { NewCredential } from '../../../../services/auth/clients/credentials.js';
import { codeOf, serviceErrorOf } from '../../../support/outcomes.js';
import { until } from '../../../support/waiting.js';
import { type Cluster, startCluster, verdictOf } from '../cluster.js';
import {
  type AuthInstance,
  addClient,
  addUser,
  entriesOf,
  ISSUER,
  issue,
  logIn,
  openFreshAuth,
  serviceToken,
  signAssertion,
} from '../instance.js';

const SECRET = 'a secret of the client that is long enough';

function keyPem(kind: 'ed25519' | 'rsa-1024' = 'ed25519'): string {
  const { publicKey } =
    kind === 'ed25519' ? generateKeyPairSync('ed25519') : generateKeyPairSync('rsa', { modulusLength: 1024 });
  return publicKey.export({ type: 'spki', format: 'pem' }).toString();
}

/** The bound of the promise at the lease of tests (1.5 s), with 85 ms for timers, in milliseconds. */
const BOUND_MS = 1_700;

describe('clients', () => {
  let auth: AuthInstance;

  before(async () => {
    auth = await openFreshAuth();
  });
  after(() => auth.close());

  const request = (over: Partial<Parameters<AuthInstance['clients']['create']>[0]> = {}) => ({
    actor: 'admin',
    clientId: `service-${randomUUID()}`,
    credential: { kind: 'public-key', pem: keyPem() } as NewCredential | undefined,
    audiences: ['auth'],
    scopes: ['auth.sync'],
    exchangeAudiences: ['inventory'],
    exchangeScopes: ['inventory.read'],
    certificateBound: false,
    requestId: randomUUID(),
    ...over,
  });
  const secretOf = (clientId: string, secret: string) =>
    auth.serviceTokens.issue({
      clientId,
      credential: { kind: 'secret', secret },
      audiences: [],
      scopes: [],
      peer: '192.0.2.9:4000',
    });

  it('are created with a key or a secret, and only an argon2id hash of the secret is stored', async () => {
    const { publicKey, privateKey } = generateKeyPairSync('ed25519');
    const pem = publicKey.export({ type: 'spki', format: 'pem' }).toString();
    const byKey = await auth.clients.create(request({ credential: { kind: 'public-key', pem } }));
    expect(byKey).to.deep.include({ disabled: false, exchangeScopes: ['inventory.read'] });
    expect(byKey.credentials.map((each) => 'pem' in each && each.pem)).to.deep.equal([pem]);
    await serviceToken(auth, { clientId: byKey.clientId, privateKey });

    const credential = { kind: 'secret', secret: SECRET } as const;
    const bySecret = await auth.clients.create(request({ credential, exchangeScopes: [] }));
    expect(bySecret.exchangeScopes).to.equal(undefined);
    expect(bySecret.credentials.map((each) => 'hash' in each && each.hash)).to.deep.equal(['']);
    await secretOf(bySecret.clientId, SECRET);
    expect(await codeOf(secretOf(bySecret.clientId, `${SECRET}.`))).to.equal('CLIENT_AUTHENTICATION_FAILED');
    const { rows } = await auth.database.query<{ dump: string }>(
      `SELECT (SELECT json_agg(c)::text FROM clients c) || (SELECT string_agg(answer_json::text, ',')
         || string_agg(encode(payload_hash, 'hex'), ',') FROM requests) AS dump`,
    );
    expect(rows[0]?.dump).to.contain('$argon2id$');
    expect(rows[0]?.dump).to.not.contain(SECRET);
    const { rows: answers } = await auth.database.query<{ answers: string }>(
      "SELECT string_agg(answer_json::text, ',') AS answers FROM requests",
    );
    expect(answers[0]?.answers).to.not.contain('$argon2id$');
  });

  it('are created once per request id, and their ids are unique', async () => {
    const first = request();
    const client = await auth.clients.create(first);
    expect(await auth.clients.create(first)).to.deep.equal(client);
    const brokerPublicKey = nkeys.createUser().getPublicKey();
    const withKey = request({ brokerPublicKey });
    const keyed = await auth.clients.create(withKey);
    expect(keyed.brokerKey).to.equal(brokerPublicKey);
    expect(await auth.clients.create(withKey)).to.deep.equal(keyed);
    const otherKey = { ...withKey, brokerPublicKey: nkeys.createUser().getPublicKey() };
    expect(await codeOf(auth.clients.create(otherKey))).to.equal('REQUEST_ID_REUSED');
    for (const over of [
      { scopes: [] },
      { credential: { kind: 'secret', secret: SECRET } as const },
      { brokerPublicKey },
    ]) {
      expect(await codeOf(auth.clients.create({ ...first, ...over }))).to.equal('REQUEST_ID_REUSED');
    }
    const withSecret = request({ credential: { kind: 'secret', secret: SECRET } });
    const created = await auth.clients.create(withSecret);
    expect(await auth.clients.create(withSecret)).to.deep.equal(created);
    const otherSecret = { kind: 'secret', secret: `${SECRET}!` } as const;
    expect(await codeOf(auth.clients.create({ ...withSecret, credential: otherSecret }))).to.equal(
      'REQUEST_ID_REUSED',
    );
    const again = request({ clientId: client.clientId });
    expect(await codeOf(auth.clients.create(again))).to.equal('ALREADY_EXISTS');
    expect(await codeOf(auth.clients.create(request({ clientId: DIRECT_CLIENT })))).to.equal(
      'ALREADY_EXISTS',
    );
  });

  it('reject each invalid field by its name, including an id that could be a user id', async () => {
    const user = await addUser(auth);
    const privatePem = generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' });
    const key = (pem: string) => ({ credential: { kind: 'public-key', pem } as const });
    const secret = (text: string) => ({ credential: { kind: 'secret', secret: text } as const });
    const faults: [Parameters<typeof request>[0], string][] = [
      [{ clientId: '' }, 'client_id'],
      [{ clientId: 'UPPER' }, 'client_id'],
      [{ clientId: 'x'.repeat(65) }, 'client_id'],
      [{ clientId: 'a\0b' }, 'client_id'],
      [{ clientId: user.userId }, 'client_id'],
      [{ credential: undefined }, 'credential'],
      [key('no pem'), 'public_key_pem'],
      [key('x'.repeat(10_000)), 'public_key_pem'],
      [key(keyPem('rsa-1024')), 'public_key_pem'],
      [key(privatePem.toString()), 'public_key_pem'],
      [secret('x'.repeat(31)), 'client_secret'],
      [secret('x'.repeat(257)), 'client_secret'],
      [secret(`${SECRET}\uFFFD`), 'client_secret'],
      [{ audiences: ['UPPER'] }, 'audiences[0]'],
      [{ scopes: ['auth.sync', 'a b'] }, 'scopes[1]'],
      [{ exchangeAudiences: Array<string>(33).fill('x') }, 'exchange_audiences'],
      [{ exchangeScopes: ['*'] }, 'exchange_scopes[0]'],
      [{ requestId: '' }, 'request_id'],
    ];
    for (const [over, field] of faults) {
      const { code, violations } = await serviceErrorOf(auth.clients.create(request(over)));
      expect([code, violations.map((violation) => violation.field)]).to.deep.equal([
        'FIELD_INVALID',
        [field],
      ]);
    }
    // The table itself rejects it as well.
    const row = [user.userId];
    const insert = auth.database.query('INSERT INTO clients (client_id) VALUES ($1)', row).then(
      () => 'inserted',
      () => 'refused',
    );
    expect(await insert).to.equal('refused');
  });

  it('get no weak key, and the refusal says why', async function () {
    this.timeout(180_000);
    for (const { name, jwk } of weakKeys()) {
      const credential = { kind: 'public-key', pem: pemOf(jwk) } as const;
      const { code, violations } = await serviceErrorOf(auth.clients.create(request({ credential })));
      expect([code, violations[0]?.field], name).to.deep.equal(['FIELD_INVALID', 'public_key_pem']);
      expect(violations[0]?.description, name).to.match(/^must .{20}/);
    }
    const credential = { kind: 'public-key', pem: infinityPem() } as const;
    expect(await codeOf(auth.clients.create(request({ credential })))).to.equal('FIELD_INVALID');
  });

  it('with a weak key from before its check cannot authenticate', async () => {
    const { clientId } = await addClient(auth, { scopes: ['auth.sync'] });
    const weak = weakKeys().find(({ name }) => name === 'RSA, exponent 1');
    if (weak?.sign === undefined) throw new Error('there is no such key');
    await auth.store.transaction((tx) =>
      tx.clients.setCredentials(clientId, [
        { credentialId: 'weak', kind: 'public-key', createTime: new Date(), pem: pemOf(weak.jwk) },
      ]),
    );
    const now = Math.floor(Date.now() / 1000);
    const claims = { iss: clientId, sub: clientId, aud: ISSUER, exp: now + 60, jti: randomUUID() };
    const head = [{ alg: 'RS256', typ: 'JWT' }, claims]
      .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
      .join('.');
    const assertion = `${head}.${weak.sign(Buffer.from(head)).toString('base64url')}`;
    const credential = { kind: 'assertion', assertion } as const;
    const issued = auth.serviceTokens.issue({
      ...{ clientId, credential, audiences: [], scopes: [], peer: '192.0.2.9:4000' },
    });
    expect(await codeOf(issued)).to.equal('CLIENT_AUTHENTICATION_FAILED');
  });

  it('are listed by id, page by page', async () => {
    for (const clientId of ['zz-b', 'zz-a', 'zz-c']) await auth.clients.create(request({ clientId }));
    const seen: string[] = [];
    let pageToken = '';
    do {
      const page = await auth.clients.list({ pageSize: 2, pageToken });
      expect(page.clients.length).to.be.at.most(2);
      seen.push(...page.clients.map(({ clientId }) => clientId));
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
    expect(seen).to.deep.equal([...new Set(seen)].sort());
    expect(seen).to.include.members(['zz-a', 'zz-b', 'zz-c', DIRECT_CLIENT]);
    expect(await codeOf(auth.clients.list({ pageSize: 0, pageToken: 'x' }))).to.equal('FIELD_INVALID');
    expect(await codeOf(auth.clients.list({ pageSize: -1, pageToken: '' }))).to.equal('FIELD_INVALID');
  });

  it('are listed in the turn of the caller', async () => {
    const turns: unknown[] = [];
    const clients = createClients({
      passwords: auth.passwords,
      clock: systemClock,
      fingerprint: String,
      store: {
        ...auth.store,
        transaction: (work, options) => {
          turns.push(options);
          return auth.store.transaction(work, options);
        },
      },
    });
    await clients.list({ pageSize: 1, pageToken: '' }, 'somebody');
    expect(turns).to.deep.equal([{ caller: 'somebody' }]);
  });

  describe('that are disabled', () => {
    const disable = (clientId: string, over: { requestId?: string; reason?: string } = {}) =>
      auth.clients.disable({ actor: 'admin', clientId, reason: 'gone', requestId: '', ...over });

    it('get no token, and their earlier tokens and those of users they act for are revoked', async () => {
      const client = await addClient(auth);
      const own = await serviceToken(auth, client);
      expect(await auth.exchange.introspect(own)).to.not.equal(undefined);
      const { sequence } = await disable(client.clientId);
      expect((await entriesOf(auth))[Number(sequence) - 1]).to.include({
        kind: 'CLIENT',
        key: Buffer.from(client.clientId).toString('hex'),
        reason: 'gone',
        actor: 'admin',
      });
      expect(await auth.exchange.introspect(own)).to.equal(undefined);
      const late = issue(auth, client, await signAssertion(client));
      expect(await codeOf(late)).to.equal('CLIENT_AUTHENTICATION_FAILED');
    });

    it('get tokens again once enabled, and earlier tokens stay revoked', async () => {
      const client = await addClient(auth);
      const own = await serviceToken(auth, client);
      await disable(client.clientId);
      const request = { actor: 'admin', clientId: client.clientId, requestId: randomUUID() };
      expect(await auth.clients.enable(request)).to.include({ disabled: false });
      expect(await auth.exchange.introspect(await serviceToken(auth, client))).to.not.equal(undefined);
      expect(await auth.exchange.introspect(own)).to.equal(undefined);
    });

    it('are disabled once per request id, so that a late retry changes nothing', async () => {
      const { clientId } = await addClient(auth);
      const requestId = randomUUID();
      const first = await disable(clientId, { requestId });
      await auth.clients.enable({ actor: 'admin', clientId, requestId: randomUUID() });
      expect(await disable(clientId, { requestId })).to.include({ sequence: first.sequence });
      const { clients } = await auth.clients.list({ pageSize: 200, pageToken: '' });
      expect(clients.find((client) => client.clientId === clientId)).to.include({ disabled: false });
      expect(await codeOf(disable(clientId, { requestId, reason: 'other' }))).to.equal('REQUEST_ID_REUSED');
    });

    it('are neither unknown clients nor the client of the logins', async () => {
      for (const clientId of ['nobody', '', 'a\0b', randomUUID()]) {
        expect(await codeOf(disable(clientId))).to.equal('NOT_FOUND');
        const enabling = auth.clients.enable({ actor: 'admin', clientId, requestId: '' });
        expect(await codeOf(enabling)).to.equal('NOT_FOUND');
      }
      expect(await codeOf(disable(DIRECT_CLIENT))).to.equal('FIELD_INVALID');
      expect(await codeOf(disable('x', { reason: 'x'.repeat(201) }))).to.equal('FIELD_INVALID');
      await logIn(auth, await addUser(auth));
    });
  });

  describe('over the wire', function () {
    this.timeout(180_000);
    let cluster: Cluster;

    before(async () => {
      cluster = await startCluster({ leaseMs: 1500 });
    });
    after(() => cluster.close());

    it('are created by admins only, and their tokens are rejected on every instance once they are disabled', async () => {
      const [first, second] = cluster.replicas;
      const { clientService } = first;
      const { publicKey, privateKey } = generateKeyPairSync('ed25519');
      const message: CreateClientRequest = {
        clientId: 'shipping',
        credential: {
          $case: 'publicKeyPem',
          value: publicKey.export({ type: 'spki', format: 'pem' }).toString(),
        },
        audiences: ['auth'],
        scopes: ['auth.sync'],
        exchangeAudiences: [],
        exchangeScopes: [],
        certificateBound: false,
        brokerPublicKey: '',
        requestId: randomUUID(),
      };
      const create = clientService.createClient.bind(clientService);
      const customer = await cluster.token(await addUser(first));
      const refusal = await ask(create, message, { token: customer }).catch((error: unknown) =>
        receivedError(error),
      );
      expect(refusal).to.include({ code: status.PERMISSION_DENIED });
      const token = await cluster.token(cluster.admin);
      const { client } = await ask(create, message, { token });
      expect(client).to.deep.include({
        clientId: 'shipping',
        authentication: ClientAuthentication.CLIENT_AUTHENTICATION_PRIVATE_KEY_JWT,
        state: ClientState.CLIENT_STATE_ACTIVE,
      });
      const { clients } = await ask(
        clientService.listClients.bind(clientService),
        { pageSize: 0, pageToken: '' },
        { token },
      );
      expect(clients.map(({ clientId }) => clientId)).to.include.members(['direct', 'inventory', 'shipping']);

      const shipping = { clientId: 'shipping', privateKey };
      // Another replica accepts the client's assertions, but none twice.
      const assertion = await signAssertion(shipping);
      const { token: own } = await issue(second, shipping, assertion);
      expect(await codeOf(issue(first, shipping, assertion))).to.equal('CLIENT_AUTHENTICATION_FAILED');
      const verdicts = () => Promise.all(cluster.guards().map((guard) => verdictOf(guard, own)));
      expect(new Set(await verdicts())).to.deep.equal(new Set(['OK']));
      const disabled = await ask(
        clientService.disableClient.bind(clientService),
        { clientId: 'shipping', reason: 'a test', requestId: randomUUID() },
        { token },
      );
      expect(disabled.client?.state).to.equal(ClientState.CLIENT_STATE_DISABLED);
      const disabledMs = performance.now();
      await until(async () => {
        const calledMs = performance.now();
        const isAdmitted = new Set(await verdicts()).has('OK');
        // Whatever keeps the machine busy: no call that begins after the bound is admitted.
        if (isAdmitted) expect(calledMs - disabledMs).to.be.below(BOUND_MS);
        return !isAdmitted;
      });
      expect(new Set(await verdicts())).to.deep.equal(new Set(['TOKEN_REVOKED']));
    });
  });
});
