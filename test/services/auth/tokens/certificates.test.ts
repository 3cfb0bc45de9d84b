/** Tests of certificate-bound tokens, against PostgreSQL. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { ask as askOver } from '../../../../scripts/system/calls.js';
import type { LoginBinding } from '../../../../services/auth/sessions/login.js';
import { codeOf } from '../../../support/outcomes.js';
import { startReplica } from '../cluster.js';
import {
  type AuthInstance,
  addClient,
  addUser,
  claimsOf,
  type FreshAuth,
  issue,
  logIn,
  newKeyEncryptionKey,
  openAuth,
  openFreshAuth,
  serviceToken,
  signAssertion,
  type TestClient,
} from '../instance.js';

const [MINE, OTHER] = [`${'m'.repeat(42)}A`, `${'o'.repeat(42)}A`];
const confirmationOf = (token: string): unknown => claimsOf(token)['cnf'];
const BOUND = { 'x5t#S256': MINE };

describe('the binding of tokens to certificates', () => {
  const keyEncryptionKey = newKeyEncryptionKey();
  let instances: Record<LoginBinding, AuthInstance>;
  let auth: FreshAuth;

  before(async () => {
    auth = await openFreshAuth({ keyEncryptionKey });
    const optional = await openAuth(auth.url, { keyEncryptionKey, loginBinding: 'optional' });
    const required = await openAuth(auth.url, { keyEncryptionKey, loginBinding: 'required' });
    instances = { off: auth, optional, required };
  });
  after(async () => {
    for (const instance of Object.values(instances).reverse()) await instance.close();
  });

  describe('of a service', () => {
    const ask = async (client: TestClient, certificateThumbprint?: string) =>
      auth.serviceTokens.issue({
        clientId: client.clientId,
        credential: { kind: 'assertion', assertion: await signAssertion(client) },
        audiences: [],
        scopes: [],
        peer: '192.0.2.1:1',
        certificateThumbprint,
      });

    it('follows the configuration of the client, and then requires a certificate', async () => {
      const client = await addClient(auth, { certificateBound: true });
      expect(confirmationOf((await ask(client, MINE)).token)).to.deep.equal(BOUND);
      expect(await codeOf(ask(client))).to.equal('CERTIFICATE_REQUIRED');
      const plain = await addClient(auth);
      expect(confirmationOf((await ask(plain, MINE)).token)).to.equal(undefined);
    });

    it('is returned by introspection, whose caller cannot check the connection', async () => {
      const replica = await startReplica(auth.url, { keyEncryptionKey });
      try {
        await replica.guard.ready;
        const watcher = await addClient(auth, { scopes: ['auth.introspect'] });
        const asker = { token: await serviceToken(auth, watcher) };
        const explain = async (client: TestClient) => {
          const { token } = await ask(client, MINE);
          return await askOver(replica.auth.introspect.bind(replica.auth), { token }, asker);
        };
        expect(await explain(await addClient(auth, { certificateBound: true }))).to.include({
          active: true,
          certificateThumbprint: MINE,
        });
        expect(await explain(await addClient(auth))).to.include({ active: true, certificateThumbprint: '' });
      } finally {
        await replica.close();
      }
    });

    it('does not authenticate the client: without a valid assertion the error does not mention the certificate', async () => {
      const client = await addClient(auth, { certificateBound: true });
      const forged = await signAssertion({ ...(await addClient(auth)), clientId: client.clientId });
      expect(await codeOf(issue(auth, client, forged))).to.equal('CLIENT_AUTHENTICATION_FAILED');
    });
  });

  describe('of a login', () => {
    it('follows the configuration, with the certificate of the connection', async () => {
      const user = await addUser(auth);
      const outcome = async (binding: LoginBinding, certificateThumbprint?: string): Promise<unknown> => {
        const attempt = logIn(instances[binding], user, { certificateThumbprint });
        return await attempt.then(
          ({ access }) => confirmationOf(access.token),
          () => codeOf(attempt),
        );
      };
      expect(await outcome('off', MINE)).to.equal(undefined);
      expect(await outcome('off')).to.equal(undefined);
      expect(await outcome('optional', MINE)).to.deep.equal(BOUND);
      expect(await outcome('optional')).to.equal(undefined);
      expect(await outcome('required', MINE)).to.deep.equal(BOUND);
      expect(await outcome('required')).to.equal('CERTIFICATE_REQUIRED');
    });

    it('lasts for the session: no other peer can refresh it, and a thief’s attempt does not end it', async () => {
      const { optional } = instances;
      const login = await logIn(optional, await addUser(auth), { certificateThumbprint: MINE });
      const refresh = (refreshToken: string, certificateThumbprint?: string, instance = optional) =>
        instance.sessions.refresh({ refreshToken, requestId: randomUUID(), certificateThumbprint });
      expect(await codeOf(refresh(login.refreshToken, OTHER))).to.equal('REFRESH_INVALID');
      expect(await codeOf(refresh(login.refreshToken))).to.equal('REFRESH_INVALID');
      const next = await refresh(login.refreshToken, MINE);
      expect(confirmationOf(next.access.token)).to.deep.equal(BOUND);
      // A replica with another setting does not remove the binding.
      expect(await codeOf(refresh(next.refreshToken, undefined, auth))).to.equal('REFRESH_INVALID');
      const last = await refresh(next.refreshToken, MINE, auth);
      expect(confirmationOf(last.access.token)).to.deep.equal(BOUND);
    });
  });

  describe('of an exchange', () => {
    const subjectToken = async (certificateThumbprint?: string): Promise<string> => {
      const user = await addUser(auth);
      const { session, refreshToken } = await logIn(instances.optional, user, { certificateThumbprint });
      await auth.database.query('UPDATE sessions SET audiences = $1 WHERE session_id = $2', [
        ['payment'],
        session.sessionId,
      ]);
      const request = { refreshToken, requestId: randomUUID(), certificateThumbprint };
      return (await auth.sessions.refresh(request)).access.token;
    };
    const trade = async (client: TestClient, subject: string, certificateThumbprint?: string) =>
      auth.exchange.exchange({
        callerToken: await serviceToken(auth, client),
        subjectToken: subject,
        audience: 'inventory',
        scopes: ['inventory.read'],
        certificateThumbprint,
      });
    let payment: TestClient;

    before(async () => {
      payment = await addClient(auth, { clientId: 'payment' });
    });

    it('never returns a bearer token for a bound one', async () => {
      const bound = await subjectToken(OTHER);
      expect(await codeOf(trade(payment, bound))).to.equal('CERTIFICATE_REQUIRED');
      const { token } = await trade(payment, bound, MINE);
      // Bound to the certificate of the acting service, which uses the token.
      expect(confirmationOf(token)).to.deep.equal(BOUND);
    });

    it('follows the configuration of the client, whatever the subject token is', async () => {
      const free = await subjectToken();
      expect(confirmationOf((await trade(payment, free, MINE)).token)).to.equal(undefined);
      await auth.database.query('UPDATE clients SET certificate_bound = true WHERE client_id = $1', [
        payment.clientId,
      ]);
      const own = await auth.serviceTokens.issue({
        clientId: payment.clientId,
        credential: { kind: 'assertion', assertion: await signAssertion(payment) },
        audiences: [],
        scopes: [],
        peer: '192.0.2.1:1',
        certificateThumbprint: MINE,
      });
      const request = { callerToken: own.token, subjectToken: free, audience: 'inventory', scopes: [] };
      expect(await codeOf(auth.exchange.exchange(request))).to.equal('CERTIFICATE_REQUIRED');
      const { token } = await auth.exchange.exchange({ ...request, certificateThumbprint: MINE });
      expect(confirmationOf(token)).to.deep.equal(BOUND);
    });
  });
});
