/** Token exchange for callers: one exchange for all calls with the same token, never shared by two callers. */

import { generateKeyPairSync } from 'node:crypto';
import { credentials, Metadata } from '@grpc/grpc-js';
import { expect } from 'chai';
import { createExchange, type Exchange } from '../../../interceptors/src/client.js';
import { type AnyCall, attachState } from '../../../interceptors/src/server/call-state.js';
import type { Principal } from '../../../interceptors/src/token/principal.js';
import { rejectionOf } from '../../support/outcomes.js';
import { claims, ISSUER, NOW_SECONDS, SetClock } from '../tokens-support.js';

describe('token exchange for callers', () => {
  const wanted = { audience: 'inventory', scopes: ['inventory.read'] };
  let exchange: Exchange;
  let clock: SetClock;

  beforeEach(() => {
    clock = new SetClock();
    exchange = createExchange({
      address: '127.0.0.1:1',
      credentials: credentials.createInsecure(),
      clientId: 'payment',
      clientKey: generateKeyPairSync('ed25519').privateKey,
      issuer: ISSUER,
      clock,
    });
  });
  afterEach(() => exchange.close());

  function callOf(principal: Principal, bearer: string): AnyCall {
    const metadata = new Metadata();
    attachState(metadata, {
      path: '/',
      principal,
      bearer,
      certificateThumbprint: undefined,
      signal: new AbortController().signal,
      stillAllowed: () => 1000,
      passFence: () => Promise.resolve(1000),
      reportFailure: () => undefined,
    });
    return { metadata };
  }

  it('exchanges once for one token, audience and scopes, for as long as the token lives', () => {
    const principal = claims();
    const source = exchange.forCall(callOf(principal, 'one'), wanted);
    expect(exchange.forCall(callOf(principal, 'one'), wanted)).to.equal(source);
    expect(exchange.forCall(callOf(principal, 'one'), { ...wanted, scopes: [] })).to.not.equal(source);
    expect(exchange.forCall(callOf(principal, 'one'), { ...wanted, audience: 'x' })).to.not.equal(source);
    clock.wall = (NOW_SECONDS + 290) * 1000;
    expect(exchange.forCall(callOf(principal, 'one'), wanted)).to.not.equal(source);
  });

  it('opens no connection after it was closed', async () => {
    const source = exchange.forCall(callOf(claims(), 'one'), wanted);
    exchange.close();
    expect((await rejectionOf(source.get())).message).to.match(/closed|shut ?down|no access token/i);
  });

  it("never uses one caller's exchanged token for another caller whose token has the same identifier", () => {
    const alice = claims();
    const other = 'https://other.example';
    const impostor = claims({
      issuer: other,
      id: `${other}#mallory`,
      subject: 'mallory',
      tokenId: alice.tokenId,
      isForeign: true,
    });
    const source = exchange.forCall(callOf(alice, 'hers'), wanted);
    expect(exchange.forCall(callOf(impostor, 'made up elsewhere'), wanted)).to.not.equal(source);
  });
});
