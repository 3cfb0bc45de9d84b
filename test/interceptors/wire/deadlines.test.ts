/** Deadlines that grpc-js misreads, as raw headers and from a grpc-js client. */

import type { ClientHttp2Session } from 'node:http2';
import { Server, ServerCredentials, status } from '@grpc/grpc-js';
import { unary } from '@portcullis/guard';
import { expect } from 'chai';
import { bearer, callEcho, ECHO, type Echo, startEcho } from '../../support/echo.js';
import { TestIssuer } from '../../support/issuer.js';
import { connectRaw, frameOf, openRaw } from '../server/raw-calls.js';

const HOUR_MS = 3_600_000;

/** Timeouts whose milliseconds do not fit into 32 bits with a sign: 25 days and more. */
const LONG = ['597H', '1000H', '1194H', '35792M', '2147484S', '99999999H'];
const SHORT_AND_GOOD = ['596H', '10S', '60000m', '99999999u', '99999999n', '1M'];
const MALFORMED = ['-1S', '1', 'S', '', '1 S', '123456789S', '1.5S', '1s', '1S,2S', '+1S', '0x1S', '1SS'];

describe('a deadline', () => {
  let issuer: TestIssuer;
  let echo: Echo;
  let session: ClientHttp2Session;

  beforeEach(async () => {
    issuer = await TestIssuer.create();
    echo = await startEcho(issuer);
    await echo.guard.ready;
    session = connectRaw(echo.port);
  });

  afterEach(async () => {
    session.destroy();
    await echo.stop();
  });

  async function codeWith(timeout: string): Promise<number> {
    const headers = { authorization: `Bearer ${await issuer.token()}`, 'grpc-timeout': timeout };
    const call = openRaw(session, 'Unary', headers);
    call.stream.resume();
    call.stream.end(frameOf(Buffer.from('x')));
    return (await call.ended).code;
  }

  it('holds when it is long, and when it is short', async () => {
    for (const timeout of [...LONG, ...SHORT_AND_GOOD.filter((value) => !/[un]$/.test(value))]) {
      expect(await codeWith(timeout), timeout).to.equal(status.OK);
    }
  });

  it('is what its handler sees, when it is long', async () => {
    await codeWith('1000H');
    expect(Number(echo.trace.deadline) - Date.now()).to.be.within(999.9 * HOUR_MS, 1000 * HOUR_MS);
  });

  it('is refused when it is malformed, and no handler runs', async () => {
    for (const timeout of MALFORMED) {
      expect(await codeWith(timeout), JSON.stringify(timeout)).to.equal(status.INVALID_ARGUMENT);
    }
    expect(echo.trace.started).to.equal(0);
  });

  it('is not told to a caller without a token, which fails with TOKEN_MISSING', async () => {
    const call = openRaw(session, 'Unary', { 'grpc-timeout': '-1S' });
    expect((await call.ended).reason).to.equal('TOKEN_MISSING');
  });

  it('may be any time ahead, 2^31 milliseconds and more, for a client of grpc-js', async () => {
    const metadata = bearer(await issuer.token());
    for (const hours of [596, 597, 1000, 10_000]) {
      const deadline = Date.now() + hours * HOUR_MS;
      expect(await callEcho(echo.client, metadata, { deadline }), `${hours} h`).to.have.length(5);
    }
  });

  it('is misread by grpc-js alone: a version that reads it well makes the workaround unnecessary', async () => {
    const server = new Server();
    const seen: number[] = [];
    server.addService({ Unary: ECHO['Unary'] } as typeof ECHO, {
      Unary: unary<Buffer, Buffer>((request, call) => {
        seen.push(Number(call.getDeadline()) - Date.now());
        return request;
      }),
    });
    const port = await new Promise<number>((resolve) => {
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (_, bound) => resolve(bound));
    });
    const plain = connectRaw(port);
    for (const timeout of ['597H', '1194H', '-1S']) {
      const call = openRaw(plain, 'Unary', { 'grpc-timeout': timeout });
      call.stream.resume();
      call.stream.end(frameOf(Buffer.from('x')));
      await call.ended;
    }
    plain.destroy();
    server.forceShutdown();
    const [in597Hours, in1194Hours, inMinusOneSecond] = seen;
    expect(in597Hours).to.be.lessThan(0);
    expect(in1194Hours).to.be.lessThan(2 * HOUR_MS);
    expect(inMinusOneSecond).to.be.within(0, 1000);
  });
});
