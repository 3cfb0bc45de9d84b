/** The client half over real sockets: it attaches, shares, renews and tries once more. */

import { type CallOptions, Metadata, status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { authenticate, createTokenSource, type TokenSource } from '../../../interceptors/src/client.js';
import { callEcho, type Echo, startEcho } from '../../support/echo.js';
import { TestIssuer } from '../../support/issuer.js';
import { outcomeOf } from '../../support/outcomes.js';
import { until } from '../../support/waiting.js';

function call(echo: Echo, source: TokenSource, options: CallOptions = {}): Promise<string> {
  const interceptors = [authenticate(source)];
  return outcomeOf(callEcho(echo.client, new Metadata(), { interceptors, ...options }));
}

describe('authenticate', () => {
  let issuer: TestIssuer;
  let echo: Echo;

  beforeEach(async () => {
    issuer = await TestIssuer.create();
    echo = await startEcho(issuer);
    await echo.guard.ready;
  });

  afterEach(async () => {
    await echo.stop();
  });

  it('fetches one token for many calls', async () => {
    let fetched = 0;
    const source = createTokenSource(async () => {
      fetched += 1;
      return { token: await issuer.token(), expireTimeMs: Date.now() + 300_000 };
    });
    const ends = await Promise.all(Array.from({ length: 50 }, () => call(echo, source)));
    expect(new Set(ends)).to.deep.equal(new Set(['OK']));
    expect(fetched).to.equal(1);
  });

  it('tries a unary call once more, with a fresh token, when the first was expired', async () => {
    const now = Math.floor(Date.now() / 1000);
    const expired = await issuer.token({ iat: now - 300, auth_time: now - 300, exp: now - 20 });
    const tokens = [expired, await issuer.token()];
    let fetched = 0;
    const source = createTokenSource(async () => ({
      token: tokens[fetched++] ?? '',
      expireTimeMs: Date.now() + 300_000,
    }));
    expect(await call(echo, source)).to.equal('OK');
    expect(fetched).to.equal(2);
    expect(echo.trace.started).to.equal(1);
  });

  it('tries once and no more: an issuer that keeps giving expired tokens ends in the refusal', async () => {
    const now = Math.floor(Date.now() / 1000);
    let fetched = 0;
    const source = createTokenSource(async () => {
      fetched += 1;
      return {
        token: await issuer.token({ iat: now - 300, auth_time: now - 300, exp: now - 20 }),
        expireTimeMs: Date.now() + 300_000,
      };
    });
    expect(await call(echo, source)).to.equal('UNAUTHENTICATED TOKEN_EXPIRED');
    expect(fetched).to.equal(2);
  });

  it('does not try a revoked token again', async () => {
    const claims = issuer.claims();
    issuer.revokeSession(String(claims['sid']));
    echo.guard.syncNow();
    let fetched = 0;
    const source = createTokenSource(async () => {
      fetched += 1;
      return { token: await issuer.sign(claims), expireTimeMs: Date.now() + 300_000 };
    });
    await until(() => echo.guard.state().applied > 0n);
    expect(await call(echo, source)).to.equal('UNAUTHENTICATED TOKEN_REVOKED');
    expect(fetched).to.equal(1);
  });

  it('comes back after the time that a stale server names', async () => {
    issuer.leaseMs = 200;
    issuer.answers = false;
    const stale = await startEcho(issuer);
    const source = createTokenSource(async () => ({
      token: await issuer.token(),
      expireTimeMs: Date.now() + 300_000,
    }));
    const end = call(stale, source);
    setTimeout(() => {
      issuer.answers = true;
      stale.guard.syncNow();
    }, 300);
    expect(await end).to.equal('OK');
    await stale.stop();
  });

  it('ends the call with what the issuer said when no token can be had', async () => {
    const refusal = Object.assign(new Error('no'), {
      code: status.UNAVAILABLE,
      details: 'the issuer is away',
      metadata: new Metadata(),
    });
    const source = createTokenSource(() => Promise.reject(refusal));
    expect(await call(echo, source)).to.equal('UNAVAILABLE');
    expect(echo.trace.started).to.equal(0);
  });
});
