/**
 * The kit against auth itself: tokens have the same claims, and the guard decides the same about them, before and after
 * revocations. What a test with the kit shows holds for a service that follows auth.
 */

import { createGuard, type Guard } from '@portcullis/guard';
import { createTestKit, type Persona, type TestKit } from '@portcullis/guard/testing';
import { expect } from 'chai';
import { InventoryServiceService, protoMetadata } from '../../../proto/gen/inventory/v1/inventory_service.js';
import { createRevocationSource } from '../../../services/auth/adapters/revocation-source.js';
import type { Target } from '../../../services/auth/revocation/revoke-targets.js';
import {
  addClient,
  addUser,
  claimsOf,
  type FreshAuth,
  ISSUER,
  issue,
  logIn,
  openFreshAuth,
  serviceToken,
  signAssertion,
} from '../../services/auth/instance.js';
import { ECHO, echoSchema } from '../../support/echo.js';
import { until } from '../../support/waiting.js';

const AUDIENCE = 'inventory';

/** A real service, and one whose rules have all conditions there are. */
const SERVICES = [
  { definition: InventoryServiceService, rules: protoMetadata },
  { definition: ECHO, rules: echoSchema() },
];

/** The callers, each once by auth and once by the kit. */
const NAMES = ['customer', 'operator', 'narrowed', 'elsewhere', 'worker', 'acting', 'narrowActing'] as const;
type Callers<T> = Readonly<Record<(typeof NAMES)[number], T>>;

describe('the kit and auth', function () {
  this.timeout(120_000);
  let auth: FreshAuth;
  let guard: Guard;
  let kit: TestKit;
  let issued: Callers<string>;
  let personas: Callers<Persona>;

  before(async () => {
    auth = await openFreshAuth();
  });
  after(() => auth.close());
  beforeEach(async () => {
    guard = await createGuard({
      issuer: ISSUER,
      audience: AUDIENCE,
      auth: { source: createRevocationSource(auth.revocations) },
      log: 'silent',
    });
    await guard.ready;
    kit = await createTestKit({ issuer: ISSUER, audience: AUDIENCE });
    issued = await issueTokens();
    personas = imitate(issued);
  });
  afterEach(async () => {
    await kit.close();
    await guard.close();
  });

  /** Tokens as auth issues them: by logins, by the authentication of a client, and by exchanges. */
  async function issueTokens(): Promise<Callers<string>> {
    const [customer, operator] = [await addUser(auth), await addUser(auth, ['operator'])];
    const tokenOf = async (over: Parameters<typeof logIn>[2] = {}, user = customer): Promise<string> =>
      (await logIn(auth, user, over)).access.token;
    const worker = await addClient(auth, { audiences: [AUDIENCE], scopes: ['inventory.manage'] });
    const payment = await addClient(auth, { clientId: nextPayment(), exchangeAudiences: [AUDIENCE] });
    const subjectToken = await mintFor(payment.clientId, await tokenOf());
    const request = { callerToken: await serviceToken(auth, payment), subjectToken, audience: AUDIENCE };
    return {
      customer: await tokenOf(),
      operator: await tokenOf({}, operator),
      narrowed: await tokenOf({ scopes: ['inventory.read'] }),
      elsewhere: await tokenOf({ audiences: ['payment'] }),
      worker: (await issue(auth, worker, await signAssertion(worker))).token,
      acting: (await auth.exchange.exchange({ ...request, scopes: [] })).token,
      narrowActing: (await auth.exchange.exchange({ ...request, scopes: ['inventory.read'] })).token,
    };
  }

  let payments = 0;
  function nextPayment(): string {
    payments += 1;
    return `payment-${payments}`;
  }

  /** The token of a login, with the audience that an exchange by this client requires. */
  function mintFor(clientId: string, token: string): Promise<string> {
    return auth.store.transaction(async (tx) => {
      const session = await tx.sessions.lockShared(String(claimsOf(token)['sid']));
      if (session === undefined) throw new Error('the login has no session');
      const minted = await auth.tokens.mint(tx, {
        subject: session.userId,
        clientId: session.clientId,
        audiences: [clientId, AUDIENCE],
        scopes: session.scopes,
        roles: ['customer'],
        clients: [[session.clientId, session.clientGeneration]],
        session: { ...session, authTime: session.createTime },
      });
      return minted.token;
    });
  }

  /** Personas of the kit with the claims that auth has granted. */
  function imitate(tokens: Callers<string>): Callers<Persona> {
    const granted = (token: string) => {
      const claims = claimsOf(token);
      return {
        id: String(claims.sub),
        scopes: String(claims['scope']).split(' '),
        roles: claims['roles'] as string[],
        audiences: claims.aud as string[],
      };
    };
    const user = (token: string): Persona => kit.user(granted(token));
    const { roles: _roles, id: workerId, ...workerRights } = granted(tokens.worker);
    const acting = granted(tokens.acting);
    const clientId = String(claimsOf(tokens.acting)['client_id']);
    const subject = kit.user({ ...acting, audiences: [clientId, AUDIENCE] });
    return {
      customer: user(tokens.customer),
      operator: user(tokens.operator),
      narrowed: user(tokens.narrowed),
      elsewhere: user(tokens.elsewhere),
      worker: kit.service(workerId, workerRights),
      acting: subject.through(clientId),
      narrowActing: subject.through(clientId, { scopes: ['inventory.read'] }),
    };
  }

  const decidedByBoth = async () => ({
    withAuth: await kit.matrix(issued, { guard, services: SERVICES }),
    withKit: await kit.matrix(personas, { services: SERVICES }),
  });

  it('sign the same claims', () => {
    for (const name of NAMES) {
      const [real, kits] = [claimsOf(issued[name]), personas[name].payload];
      expect(Object.keys(kits).sort(), name).to.deep.equal(Object.keys(real).sort());
      // Of claims that are new in every token, only the form can be the same.
      const forms = (claims: Readonly<Record<string, unknown>>) =>
        Object.entries(claims)
          .map(([claim, value]) => [claim, NEW_IN_EVERY_TOKEN.has(claim) ? formOf(value) : value])
          .sort();
      expect(forms(kits), name).to.deep.equal(forms(real));
      expect(Number(kits['exp']) - Number(kits['iat']), name).to.be.within(290, 300);
    }
  });

  it('lead to the same verdicts', async () => {
    const { withAuth, withKit } = await decidedByBoth();
    expect(withKit).to.deep.equal(withAuth);
    // Otherwise a guard that admits no call, or every call, would pass.
    const verdicts = new Set(Object.values(withKit).flatMap((row) => Object.values(row)));
    expect([...verdicts].sort()).to.deep.equal([
      'ADMITTED',
      'CALLER_KIND',
      'LOGIN_TOO_OLD',
      'ROLE_MISSING',
      'SCOPE_MISSING',
      'TOKEN_INVALID',
    ]);
  });

  const revocations = {
    token: (name: 'customer' | 'acting') => ({
      real: { kind: 'token', token: issued[name] } as const,
      kits: { token: personas[name] },
    }),
    session: (name: 'customer' | 'acting') => ({
      real: { kind: 'session', sessionId: String(claimsOf(issued[name])['sid']) } as const,
      kits: { session: personas[name] },
    }),
    user: (name: 'customer' | 'acting') => ({
      real: { kind: 'user', userId: String(claimsOf(issued[name]).sub) } as const,
      kits: { user: personas[name] },
    }),
    client: (name: 'customer' | 'acting') => ({
      real: { kind: 'client', clientId: String(claimsOf(issued[name])['client_id']) } as const,
      kits: { client: personas[name] },
    }),
  };

  for (const [kind, targetsOf] of Object.entries(revocations)) {
    for (const name of ['customer', 'acting'] as const) {
      it(`lead to the same verdicts after the ${kind} of the ${name} caller was revoked`, async () => {
        const { real, kits } = targetsOf(name);
        const admitted = await decidedByBoth();
        await revokeByAuth(real);
        await kit.revoke(kits);
        const { withAuth, withKit } = await decidedByBoth();
        expect(withKit).to.deep.equal(withAuth);
        expect(withKit).to.not.deep.equal(admitted.withKit);
      });
    }
  }

  /** Revokes, and waits until the guard has the entry. */
  async function revokeByAuth(target: Target): Promise<void> {
    const { sequence } = await auth.revocations.revoke({ target, reason: 'a test', actor: 'test' });
    guard.syncNow();
    await until(() => guard.state().applied >= sequence);
  }
});

const NEW_IN_EVERY_TOKEN: ReadonlySet<string> = new Set([
  'iat',
  'exp',
  'auth_time',
  'jti',
  'sid',
  'gen',
  'clients',
  'ancestors',
]);

/** The form of a value: that of a UUID as UUID, of other texts as they are, of numbers as number. */
function formOf(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(formOf);
  if (typeof value === 'number') return Number.isInteger(value) ? 'integer' : 'fraction';
  return typeof value === 'string'
    ? value.replaceAll(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, 'UUID')
    : value;
}
