/** The client interceptor over real sockets: attaches, shares and renews tokens, and retries once. */

import { setTimeout as sleep } from 'node:timers/promises';
import {
  type CallOptions,
  type Client,
  type ServiceError as GrpcError,
  InterceptingCall,
  type Interceptor,
  Metadata,
  status,
} from '@grpc/grpc-js';
import { expect } from 'chai';
import { authenticate, createTokenSource, type TokenSource } from '../../../interceptors/src/client.js';
import { callEcho, type Echo, HELLO, identity, openEchoStream, startEcho } from '../../support/echo.js';
import { TestIssuer } from '../../support/issuer.js';
import { endOf, outcomeOf, rejectionOf } from '../../support/outcomes.js';
import { until } from '../../support/waiting.js';

/** The delay after which a server with a stale list asks callers to come again, in milliseconds. */
const RETRY_AFTER_MS = 1000;

function call(echo: Echo, source: TokenSource, options: CallOptions = {}): Promise<string> {
  const interceptors = [authenticate(source)];
  return outcomeOf(callEcho(echo.client, new Metadata(), { interceptors, ...options }));
}

/** A unary call that can be cancelled. */
function cancellable(client: Client, options: CallOptions): { end: Promise<string>; cancel: () => void } {
  let cancel = (): void => {};
  const answer = new Promise((resolve, reject) => {
    const path = '/test.v1.EchoService/Unary';
    const begun = client.makeUnaryRequest(
      path,
      identity,
      identity,
      HELLO,
      new Metadata(),
      options,
      (error, response) => (error === null ? resolve(response) : reject(error)),
    );
    cancel = () => begun.cancel();
  });
  return { end: outcomeOf(answer), cancel };
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

  it('ends the call with the cause when no token can be fetched for another reason', async () => {
    for (const [cause, text] of [
      [new Error('no key'), 'no key'],
      ['no key', 'no key'],
      [undefined, 'undefined'],
    ]) {
      const source: TokenSource = { get: () => Promise.reject(cause), reject: () => {} };
      const answer = callEcho(echo.client, new Metadata(), { interceptors: [authenticate(source)] });
      const { code, details } = (await rejectionOf(answer)) as GrpcError;
      expect({ code, details }).to.deep.equal({
        code: status.UNAUTHENTICATED,
        details: `no access token could be fetched: ${text}`,
      });
    }
  });

  describe('while a token is being fetched', () => {
    let deliver: () => void;
    let source: TokenSource;

    beforeEach(async () => {
      const token = await issuer.token();
      const fetched = new Promise<string>((resolve) => {
        deliver = () => resolve(token);
      });
      source = { get: () => fetched, reject: () => {} };
    });

    /** Begins a unary call and a stream. */
    function begin(options: CallOptions = {}) {
      const settings = { deadline: Date.now() + 10_000, interceptors: [authenticate(source)], ...options };
      const { client } = echo;
      const unary = cancellable(client, settings);
      const stream = openEchoStream(client, new Metadata(), settings);
      return {
        unaryEnd: unary.end,
        ends: Promise.all([unary.end, endOf(stream)]),
        cancel: () => {
          unary.cancel();
          stream.cancel();
        },
      };
    }

    /** The token arrives too late: nothing is sent to the server any more. */
    async function deliverTooLate(): Promise<void> {
      deliver();
      await new Promise(setImmediate);
      expect(await call(echo, source)).to.equal('OK');
      expect(echo.trace.started).to.equal(1);
    }

    it('ends a call that is cancelled, and sends nothing', async () => {
      const { ends, cancel } = begin();
      cancel();
      expect(await ends).to.deep.equal(['CANCELLED', 'CANCELLED']);
      await deliverTooLate();
    });

    it('ends a call at its deadline, and sends nothing', async () => {
      for (const deadline of [Date.now() + 50, new Date(Date.now() - 50)]) {
        const ends = ['DEADLINE_EXCEEDED', 'DEADLINE_EXCEEDED'];
        expect(await begin({ deadline }).ends).to.deep.equal(ends);
      }
      await deliverTooLate();
    });

    it('keeps a call whose deadline is far away, or that has none', async () => {
      const far = [Date.now() + 30 * 86_400_000, Number.POSITIVE_INFINITY];
      const begun = far.map((deadline) => begin({ deadline }));
      setTimeout(deliver, 20);
      await Promise.all(begun.map(({ unaryEnd }) => unaryEnd));
      await until(() => echo.trace.started === 4);
      for (const { cancel } of begun) cancel();
      for (const { ends } of begun) expect(await ends).to.deep.equal(['OK', 'CANCELLED']);
    });

    it('ends a call whose client is closed', async () => {
      const { ends } = begin();
      echo.client.close();
      deliver();
      expect(await ends).to.deep.equal(['UNAVAILABLE', 'UNAVAILABLE']);
    });
  });

  it('ends a call that is cancelled before its retry, and does not retry it', async () => {
    issuer.answers = false;
    const stale = await startEcho(issuer);
    const token = await issuer.token();
    const source: TokenSource = { get: async () => token, reject: () => {} };
    const attempts: string[] = [];
    const observe: Interceptor = (options, nextCall) =>
      new InterceptingCall(nextCall(options), {
        start: (metadata, _listener, next) =>
          next(metadata, {
            onReceiveStatus: (end, pass) => {
              attempts.push(status[end.code]);
              pass(end);
            },
          }),
      });
    const { end, cancel } = cancellable(stale.client, { interceptors: [authenticate(source), observe] });
    await until(() => attempts.length === 1);
    cancel();
    expect(await end).to.equal('CANCELLED');
    await sleep(RETRY_AFTER_MS + 100);
    expect(attempts).to.deep.equal(['UNAVAILABLE']);
    await stale.stop();
  });
});
