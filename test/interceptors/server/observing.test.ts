/** Mode `observe`: nothing is refused because of tokens, and what would be is told. The log of a guard without one. */

import { status } from '@grpc/grpc-js';
import { createGuard, type GuardErrorCode } from '@portcullis/guard';
import { expect } from 'chai';
import { createConsoleLog } from '../../../interceptors/src/server/console-log.js';
import { bearer, callEcho, type Echo, openEchoStream, startEcho } from '../../support/echo.js';
import { AUDIENCE, ISSUER, TestIssuer } from '../../support/issuer.js';
import { until } from '../../support/waiting.js';

interface Line {
  readonly event: string;
  readonly reason?: GuardErrorCode;
  readonly path?: string;
}

describe('a guard that only observes', () => {
  let issuer: TestIssuer;
  let echo: Echo;
  let lines: Line[];
  let observed: string[];

  beforeEach(async () => {
    lines = [];
    observed = [];
    issuer = await TestIssuer.create();
    const write = (fields: object): void => void lines.push(fields as Line);
    echo = await startEcho(issuer, {
      mode: 'observe',
      log: { info: write, warn: write, error: write },
      observer: { observed: (path, reason) => void observed.push(`${path.split('/')[2]} ${reason}`) },
    });
    await echo.guard.ready;
  });

  afterEach(() => echo.stop());

  it('lets calls through that lack a token, a right, or a valid token, and says so', async () => {
    const bad = bearer('a.b.c');
    const narrow = bearer(await issuer.token({ scope: 'other.scope' }));
    for (const metadata of [undefined, bad, narrow]) {
      expect(String(await callEcho(echo.client, metadata))).to.equal('hello');
    }
    expect(observed).to.deep.equal(['Unary TOKEN_MISSING', 'Unary TOKEN_INVALID', 'Unary SCOPE_MISSING']);
    const told = lines.filter(({ event }) => event === 'would_refuse');
    expect(told.map(({ reason }) => reason)).to.deep.equal([
      'TOKEN_MISSING',
      'TOKEN_INVALID',
      'SCOPE_MISSING',
    ]);
    expect(told[0]).to.include({ path: '/test.v1.EchoService/Unary' });
  });

  it('says at its start that it protects nothing', () => {
    expect(lines.map(({ event }) => event)).to.include('observing');
  });

  it('does not cut a stream whose token was revoked, and says so once', async () => {
    const sid = 'c2b4d1a0-0000-4000-8000-000000000001';
    const stream = openEchoStream(echo.client, bearer(await issuer.token({ sid })));
    let end: number | undefined;
    stream.on('status', ({ code }) => {
      end = code;
    });
    stream.on('error', () => undefined);
    await new Promise((resolve) => stream.once('data', resolve));
    issuer.revokeSession(sid);
    echo.guard.syncNow();
    await until(() => observed.includes('ServerStream TOKEN_REVOKED'));
    expect(end).to.equal(undefined);
    expect(observed).to.deep.equal(['ServerStream TOKEN_REVOKED']);
    stream.cancel();
    await until(() => end === status.CANCELLED);
  });

  it('keeps the sizes of requests limited', async () => {
    const request = Buffer.alloc(5 * 1024 * 1024);
    const refused = await callEcho(echo.client, undefined, { request }).then(
      () => 'answered',
      (error: { code: number }) => error.code,
    );
    expect(refused).to.equal(status.RESOURCE_EXHAUSTED);
  });
});

describe('a guard without a log', () => {
  it('tells on standard error why a call was refused, but nothing of the token', async () => {
    const written: string[] = [];
    const log = createConsoleLog({ write: (text: string | Uint8Array) => written.push(String(text)) > 0 });
    const issuer = await TestIssuer.create();
    const echo = await startEcho(issuer, { log });
    await echo.guard.ready;
    const token = await issuer.token({ scope: 'other.scope' });
    await callEcho(echo.client, bearer(token)).catch(() => undefined);
    await echo.stop();
    const line = written.find((text) => text.includes('a call was refused')) ?? '';
    expect(line).to.match(/^portcullis info: a call was refused \{"event":"refused",.*\}\n$/);
    expect(line).to.include('"reason":"SCOPE_MISSING"').and.include('/test.v1.EchoService/Unary');
    expect(written.join('')).not.to.include(token.split('.')[2]);
  });

  it('writes errors with their stacks, large integers, and lines of bounded length', () => {
    const written: string[] = [];
    const log = createConsoleLog({ write: (text: string | Uint8Array) => written.push(String(text)) > 0 });
    log.error({ err: new RangeError('too far'), big: 2n ** 64n }, 'it broke');
    log.warn({ text: 'x'.repeat(10_000) }, 'long');
    expect(written[0]).to.match(
      /^portcullis error: it broke .*RangeError: too far.*"big":"18446744073709551616"/,
    );
    expect(written[1]).to.have.lengthOf(2001);
  });

  it('is the default', async () => {
    const { write } = process.stderr;
    const written: string[] = [];
    process.stderr.write = (text: string | Uint8Array) => written.push(String(text)) > 0;
    try {
      const guard = await createGuard({
        issuer: ISSUER,
        audience: AUDIENCE,
        auth: { source: (await TestIssuer.create()).source },
        mode: 'observe',
      });
      await guard.close();
    } finally {
      process.stderr.write = write;
    }
    expect(written.join('')).to.include('portcullis warn: mode observe');
  });
});
