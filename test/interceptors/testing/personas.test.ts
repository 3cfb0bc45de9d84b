/** Personas: who they are, which token they have, and what cannot be. */

import { createHash } from 'node:crypto';
import { createTestKit, type TestKit } from '@portcullis/guard/testing';
import { expect } from 'chai';
import { decodeProtectedHeader } from 'jose';
import { rejectionOf } from '../../support/outcomes.js';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

describe('the personas of the kit', () => {
  let kit: TestKit;

  beforeEach(async () => {
    kit = await createTestKit({ audience: 'echo' });
  });
  afterEach(() => kit.close());

  const claimsOf = (token: string) => kit.guard.authenticateToken(token, 'echo');

  it('are users with a session', async () => {
    const ada = kit.user({ id: 'ada', scopes: ['a', 'b'], roles: ['customer'], loggedInSecondsAgo: 60 });
    const claims = await claimsOf(ada.token);
    expect(claims).to.include({ kind: 'USER', subject: 'ada', clientId: 'direct', generation: 1n });
    expect(claims.scopes).to.deep.equal(new Set(['a', 'b']));
    expect(claims.roles).to.deep.equal(new Set(['customer']));
    expect(claims.issuedAtSeconds - (claims.authTimeSeconds ?? 0)).to.equal(60);
    expect(claims.expiresAtSeconds - claims.issuedAtSeconds).to.equal(300);
    expect(claims.sessionId).to.equal(ada.sessionId).and.to.match(UUID);
    expect(claims.tokenId).to.equal(ada.tokenId);
    expect(ada).to.include({ kind: 'USER', id: 'ada', clientId: 'direct' });
    expect(decodeProtectedHeader(ada.token)).to.have.all.keys('alg', 'kid', 'typ');
    expect(decodeProtectedHeader(ada.token)).to.include({ alg: 'EdDSA', typ: 'at+jwt' });
  });

  it('are different users when nothing is said, and one user in two sessions when the id is', async () => {
    const [one, other] = [kit.user(), kit.user()];
    expect(one.id).to.not.equal(other.id);
    const [first, second] = [kit.user({ id: one.id }), kit.user({ id: one.id })];
    expect(first.sessionId).to.not.equal(second.sessionId);
    expect(first.id).to.equal(second.id);
  });

  it('are services without a session', async () => {
    const worker = kit.service('worker', { scopes: ['a'], audiences: ['echo', 'other'] });
    const claims = await claimsOf(worker.token);
    expect(claims).to.include({
      kind: 'SERVICE',
      subject: 'worker',
      clientId: 'worker',
      sessionId: undefined,
    });
    expect(claims.audiences).to.deep.equal(['echo', 'other']);
    expect(worker.sessionId).to.equal(undefined);
  });

  it('are users through services, who are revoked with the token that they come from', async () => {
    const ada = kit.user({ id: 'ada', scopes: ['a', 'b'], roles: ['customer'], lifetimeSeconds: 60 });
    const shop = ada.through(kit.service('shop'));
    const stock = shop.through('stock', { scopes: ['b'] });
    const claims = await claimsOf(stock.token);
    expect(claims).to.include({ kind: 'USER', subject: 'ada', clientId: 'stock', sessionId: ada.sessionId });
    expect(claims.actors).to.deep.equal(['stock', 'shop']);
    expect(claims.ancestors).to.deep.equal([ada.tokenId, shop.tokenId]);
    expect(claims.clients).to.deep.equal([
      ['direct', 1n],
      ['shop', 1n],
      ['stock', 1n],
    ]);
    expect(claims.scopes).to.deep.equal(new Set(['b']));
    // Of a narrowed token the kit cannot know which roles it keeps.
    expect(claims.roles).to.deep.equal(new Set());
    expect((await claimsOf(shop.token)).roles).to.deep.equal(new Set(['customer']));
    expect(claims.expiresAtSeconds).to.equal((await claimsOf(ada.token)).expiresAtSeconds);
    await kit.revoke({ token: ada });
    expect(await rejectionOf(claimsOf(stock.token))).to.have.property('code', 'TOKEN_REVOKED');
  });

  it('keep their token until they renew it, in the same session', async () => {
    const ada = kit.user({ id: 'ada' });
    const { token, sessionId } = ada;
    await kit.advance(400_000);
    expect(ada.token).to.equal(token);
    expect(await rejectionOf(claimsOf(token))).to.have.property('code', 'TOKEN_EXPIRED');
    expect(ada.renew()).to.equal(ada.token).and.to.not.equal(token);
    expect(await claimsOf(ada.token)).to.include({ sessionId, subject: 'ada' });
  });

  it('cannot renew what was revoked, but a service can authenticate again', async () => {
    const ada = kit.user({ id: 'ada' });
    const shop = ada.through('shop');
    const worker = kit.service('worker');
    await kit.revoke({ session: ada });
    await kit.revoke({ client: worker });
    const sentence = /cannot get a token: its session, user, client or subject token was revoked/;
    expect(() => ada.renew()).to.throw(Error, sentence);
    expect(() => shop.renew()).to.throw(Error, sentence);
    expect(() => ada.through('other')).to.throw(Error, sentence);
    expect(await claimsOf(worker.renew())).to.deep.include({ clients: [['worker', 2n]] });
  });

  it('cannot exchange a token that has expired', async () => {
    const ada = kit.user({ id: 'ada' });
    await kit.advance(300_000);
    expect(() => ada.through('shop')).to.throw(
      Error,
      'user ada through shop cannot get a token: the token of the user has expired; call its renew() first',
    );
  });

  it('can be bound to a client certificate', async () => {
    const certificateThumbprint = createHash('sha256').update('certificate').digest('base64url');
    const ada = kit.user({ certificateThumbprint });
    expect(await claimsOf(ada.token)).to.include({ certificateThumbprint });
    expect(ada.certificateThumbprint).to.equal(certificateThumbprint);
  });

  it('authenticate calls by metadata, call credentials and an interceptor', async () => {
    const ada = kit.user();
    const expected = [`Bearer ${ada.token}`];
    expect(ada.metadata().get('authorization')).to.deep.equal(expected);
    const options = { method_name: '', service_url: '' };
    expect((await ada.callCredentials.generateMetadata(options)).get('authorization')).to.deep.equal(
      expected,
    );
  });

  it('say what is wrong with claims that every guard rejects', () => {
    const thumbprint = 'not a thumbprint';
    const ada = kit.user({ id: 'ada', scopes: ['a'] });
    const worker = kit.service('worker');
    const far = ['a', 'b', 'c', 'd'].reduce((persona, service) => persona.through(service), ada);
    const cases = [
      [() => kit.user({ id: '' }), 'the claim sub = ""'],
      [() => kit.user({ id: 'direct' }), 'the claim sub = "direct"'],
      [() => kit.user({ roles: ['\u0000'] }), 'the claim roles = ["\\u0000"]'],
      [() => kit.user({ certificateThumbprint: thumbprint }), 'the claim cnf = {"x5t#S256":"not a thumb'],
      [() => kit.service('worker', { audiences: [''] }), 'the claim aud = [""]'],
      [() => kit.user({ scopes: ['a b'] }), 'expected each scope as a text of its own, got "a b"'],
      [() => kit.user({ lifetimeSeconds: 3601 }), 'expected lifetimeSeconds from 1 to 3600, got 3601'],
      [() => kit.user({ lifetimeSeconds: 0 }), 'expected lifetimeSeconds from 1 to 3600, got 0'],
      [() => kit.user({ lifetimeSeconds: 0.5 }), 'expected lifetimeSeconds from 1 to 3600, got 0.5'],
      [() => kit.user({ roles: Array(60).fill('r'.repeat(200)) }), 'which every guard rejects'],
      [() => worker.through('shop'), 'expected a user, got service worker: services act for users only'],
      [() => ada.through(ada), 'expected a service that acts for user ada, got user ada'],
      [() => ada.through('shop', { scopes: ['b'] }), 'user ada through shop cannot have scope b'],
      [() => far.through('e'), 'at most 4 services act for a user'],
    ] as const;
    for (const [create, sentence] of cases) expect(create, sentence).to.throw(TypeError, sentence);
  });

  it('may have scopes and roles that nothing else knows', async () => {
    const claims = await claimsOf(kit.user({ scopes: ['never.heard.of'], roles: ['wizard'] }).token);
    expect(claims.scopes).to.deep.equal(new Set(['never.heard.of']));
  });

  it('belong to their kit: another one trusts the same key, but not what it has not issued', async () => {
    const other = await createTestKit({ audience: 'echo', issuer: 'https://other.test' });
    try {
      const error = await rejectionOf(other.guard.authenticateToken(kit.user().token));
      expect(error).to.have.property('code', 'TOKEN_INVALID');
    } finally {
      await other.close();
    }
  });
});
