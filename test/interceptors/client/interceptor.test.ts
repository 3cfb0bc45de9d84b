/** The client interceptor over real sockets: attaches, shares and renews tokens, and retries once. */

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

  it('retries a unary call once with a new token when the server rejected the first as expired', async () => {
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

  it('retries only once, so that an issuer that keeps issuing expired tokens leads to TOKEN_EXPIRED', async () => {
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

  it('does not retry a call whose token was revoked', async () => {
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

  it('retries after the RetryInfo delay of a server whose list is stale', async () => {
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

  it("ends the call with the issuer's status when no token can be fetched", async () => {
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
