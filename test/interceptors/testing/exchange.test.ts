/** The kit's token exchange: the issuer's answers, without an issuer process. */

import { Client } from '@grpc/grpc-js';
import { native, unary } from '@portcullis/guard';
import { errorOf, type TokenSource } from '@portcullis/guard/client';
import { createTestKit, type Persona, type Served, type TestKit } from '@portcullis/guard/testing';
import { expect } from 'chai';
import { callEcho, ECHO, echoHandlers, echoSchema, Trace } from '../../support/echo.js';
import { rejectionOf } from '../../support/outcomes.js';

const SCOPES = ['echo.call', 'stock.take'];

describe("the kit's token exchange", () => {
  let kit: TestKit;
  let served: Served;
  let target: { audience: string; scopes: string[] };
  let source: TokenSource | undefined;

  beforeEach(async () => {
    target = { audience: 'stock', scopes: ['stock.take'] };
    source = undefined;
    kit = await createTestKit({ audience: 'echo' });
    const exchange = kit.exchange('echo');
    const handlers = native({
      ...echoHandlers(new Trace()),
      Unary: unary<Buffer, Buffer>(async (_request, call) => {
        source = exchange.forCall(call, target);
        return Buffer.alloc(0);
      }),
    });
    served = await kit.serve((server, guard) => guard.addService(server, ECHO, echoSchema(), handlers));
  });
  afterEach(() => kit.close());

  /** The tokens that the service gets for a caller. */
  async function sourceFor(caller: Persona): Promise<TokenSource> {
    await callEcho(served.client(Client, caller));
    if (source === undefined) throw new TypeError('the handler did not run');
    return source;
  }

  const claimsOf = (token: string) => kit.guard.authenticateToken(token, 'stock');

  const reasonFor = async (caller: Persona): Promise<string> => {
    const own = await sourceFor(caller);
    return errorOf(await rejectionOf(own.get())).reason;
  };

  it('acts for the caller, at the target alone, with the scopes that were asked for', async () => {
    const ada = kit.user({ id: 'ada', scopes: SCOPES, lifetimeSeconds: 60 });
    const claims = await claimsOf(await (await sourceFor(ada)).get());
    expect(claims).to.include({ kind: 'USER', id: 'ada', clientId: 'echo', sessionId: ada.sessionId });
    expect(claims.audiences).to.deep.equal(['stock']);
    expect(claims.scopes).to.deep.equal(new Set(['stock.take']));
    expect(claims.actors).to.deep.equal(['echo']);
    expect(claims.ancestors).to.deep.equal([ada.tokenId]);
    expect(claims.expiresAtSeconds).to.equal(Number(ada.payload['exp']));
  });

  it('ends with the token, the session, the user or the client that it comes from', async () => {
    const targets = [
      (ada: Persona) => ({ token: ada }),
      (ada: Persona) => ({ session: ada }),
      (ada: Persona) => ({ user: ada }),
      () => ({ client: 'echo' }),
    ];
    for (const targetOf of targets) {
      const ada = kit.user({ scopes: SCOPES });
      const token = await (await sourceFor(ada)).get();
      await kit.revoke(targetOf(ada));
      expect(await rejectionOf(claimsOf(token))).to.have.property('code', 'TOKEN_REVOKED');
    }
  });

  it('gives no scope that the caller lacks', async () => {
    expect(await reasonFor(kit.user({ scopes: ['echo.call'] }))).to.equal('SCOPE_MISSING');
  });

  it('does not act for services, nor for a caller who was revoked since', async () => {
    expect(await reasonFor(kit.service('worker', { scopes: SCOPES }))).to.equal('SUBJECT_TOKEN_INVALID');
    const ada = kit.user({ scopes: SCOPES });
    const late = await sourceFor(ada);
    await kit.revoke({ session: ada });
    expect(errorOf(await rejectionOf(late.get())).reason).to.equal('SUBJECT_TOKEN_INVALID');
  });

  it('wants to know the scopes, because the kit has no policy', async () => {
    target = { audience: 'stock', scopes: [] };
    const own = await sourceFor(kit.user({ scopes: SCOPES }));
    expect(await rejectionOf(own.get())).to.be.instanceOf(TypeError);
  });
});
