/** Tests of verifying tokens with keys from the database, against PostgreSQL. */

import { expect } from 'chai';
import { createTokenVerifier } from '../../../../services/auth/adapters/token-verifier.js';
import type { PublishedKeys } from '../../../../services/auth/records/keys.js';
import { type AuthInstance, addUser, claimsOf, ISSUER, logIn, openFreshAuth } from '../instance.js';

describe('the token verifier', () => {
  let auth: AuthInstance;
  let token: string;
  let keySet: PublishedKeys['keySet'];

  before(async () => {
    auth = await openFreshAuth();
    token = (await logIn(auth, await addUser(auth))).access.token;
    ({ keySet } = await auth.publicKeys.read());
  });
  after(() => auth.close());

  const nowSeconds = () => Date.now() / 1000;
  const verify = (text: string, audience?: string, keys = keySet, issuer = ISSUER) =>
    createTokenVerifier(issuer)(text, keys, { audience, nowSeconds: nowSeconds() });
  const sign = (claims: object): Promise<string> =>
    auth.store.transaction(async (tx) => (await auth.keys.lockTokenSigner(tx))(claims));

  it('accepts a token of this issuer, for the expected audience or for any', async () => {
    expect(await verify(token)).to.include({ kind: 'USER', tokenId: claimsOf(token).jti });
    expect(await verify(token, 'payment')).to.not.equal(undefined);
    expect(await verify(token, 'shipping')).to.equal(undefined);
  });

  it('rejects a token of another issuer, and one whose key is not in the set', async () => {
    expect(await verify(token, undefined, keySet, 'https://other.example')).to.equal(undefined);
    const others = keySet.keys.filter(({ kid }) => !token.startsWith(headerOf(kid)));
    expect(others).to.have.length(1);
    expect(await verify(token, undefined, { version: Buffer.alloc(32, 1), keys: others })).to.equal(
      undefined,
    );
    expect(await verify(token, undefined, { version: Buffer.alloc(32, 2), keys: [] })).to.equal(undefined);
  });

  it('uses another key set from the first call with it', async () => {
    const verifier = createTokenVerifier(ISSUER);
    const expected = { audience: undefined, nowSeconds: nowSeconds() };
    expect(await verifier(token, keySet, expected)).to.not.equal(undefined);
    expect(await verifier(token, { version: Buffer.alloc(32), keys: [] }, expected)).to.equal(undefined);
    expect(await verifier(token, keySet, expected)).to.not.equal(undefined);
  });

  it('rejects claims that every instance would reject, although this issuer signed them', async () => {
    const good = claimsOf(token);
    expect(await verify(await sign(good))).to.not.equal(undefined);
    for (const change of [
      { exp: undefined },
      { exp: Number(good.iat) + 7200 },
      { iat: Number(good.iat) + 60, exp: Number(good.iat) + 120 },
      { sub: 7 },
      { aud: 'auth inventory' },
      { clients: [] },
      { jti: 'not a uuid' },
      { gen: undefined },
    ]) {
      expect(await verify(await sign({ ...good, ...change })), JSON.stringify(change)).to.equal(undefined);
    }
  });

  it('rejects a broadcast, and every non-canonical form of a token', async () => {
    expect(await verify(await auth.keys.broadcastSigner().sign(Buffer.from('{}')))).to.equal(undefined);
    for (const other of [`${token}=`, ` ${token}`, `${token}.`, token.slice(0, -1), token.replace('.', '')]) {
      expect(await verify(other)).to.equal(undefined);
    }
  });
});

/** The header segment of a token that this key signed. */
function headerOf(kid: string): string {
  return Buffer.from(JSON.stringify({ alg: 'EdDSA', kid, typ: 'at+jwt' })).toString('base64url');
}
