/** A gate in front of an unguarded server: calls, identities, reload, health and drain. */
import { once } from 'node:events';
import { connect, type IncomingHttpHeaders, type IncomingHttpStatusHeader } from 'node:http2';
import { Metadata, status } from '@grpc/grpc-js';
import { errorOf } from '@portcullis/guard/client';
import { expect } from 'chai';
import { bearer, callEcho, HELLO, openEchoStream } from '../support/echo.js';
import { rejectionOf } from '../support/outcomes.js';
import { until } from '../support/waiting.js';
import { type GateUnderTest, keptLog, startGateUnderTest } from './gate-support.js';

describe('startGate', () => {
  let under: GateUnderTest;
  const { log, lines } = keptLog();

  before(async () => {
    under = await startGateUnderTest({}, log);
  });
  after(() => under.stop());

  it('admits by the rule of the method, and refuses as the guard does', async () => {
    const { client, kit, upstream } = under;
    const before = upstream.received.length;
    const caller = kit.user({ scopes: ['echo.call'] });
    expect(await callEcho(client, bearer(caller.token))).to.deep.equal(HELLO);
    for (const [metadata, reason] of [
      [new Metadata(), 'TOKEN_MISSING'],
      [bearer('nonsense'), 'TOKEN_INVALID'],
      [bearer(kit.user().token), 'SCOPE_MISSING'],
    ] as const) {
      expect(errorOf(await rejectionOf(callEcho(client, metadata))).reason).to.equal(reason);
    }
    expect(upstream.received).to.have.length(before + 1);
  });

  it('tells the upstream who calls, and nothing that the caller says about that; the token stays here', async () => {
    const { client, kit, upstream } = under;
    const caller = kit.user({ scopes: ['echo.call'], roles: ['customer'] });
    const metadata = bearer(caller.token);
    metadata.set('x-portcullis-roles', 'admin');
    metadata.set('x-portcullis-unknown', 'x');
    metadata.set('x-other', 'kept');
    await callEcho(client, metadata);
    const received = upstream.received.at(-1)?.getMap();
    expect(received).to.include({
      'x-portcullis-subject': caller.id,
      'x-portcullis-scopes': 'echo.call',
      'x-portcullis-roles': 'customer',
      'x-other': 'kept',
    });
    expect(received).to.not.have.any.keys('authorization', 'x-portcullis-unknown');
  });

  it('strips what looks like an identity on public methods, too', async () => {
    const metadata = new Metadata();
    metadata.set('x-portcullis-subject', 'admin');
    await callEcho(under.client, metadata, { method: 'Public' });
    expect(under.upstream.received.at(-1)?.getMap()).to.not.have.property('x-portcullis-subject');
  });

  it('ends a live stream when its token is revoked', async () => {
    const { client, kit } = under;
    const caller = kit.user({ scopes: ['echo.call'] });
    const stream = openEchoStream(client, bearer(caller.token));
    await new Promise((resolve) => stream.once('data', resolve));
    const ended = new Promise<unknown>((resolve) => stream.once('error', resolve));
    await kit.revoke({ token: caller });
    const { code, reason } = errorOf(await ended);
    expect([code, reason]).to.deep.equal([status.UNAUTHENTICATED, 'TOKEN_REVOKED']);
  });

  it('refuses a method without a rule', async () => {
    const caller = under.kit.user({ scopes: ['echo.call'] });
    const error = errorOf(
      await rejectionOf(callEcho(under.client, bearer(caller.token), { method: 'Fresh' })),
    );
    expect(error.code).to.equal(status.UNIMPLEMENTED);
  });

  it('refuses callers of Connect and JSON in their own protocol', async () => {
    const session = connect(`http://${under.gate.addresses.listen}`);
    try {
      for (const [headers, status, code] of [
        [{ 'content-type': 'application/json' }, 401, 'UNAUTHENTICATED'],
        [{ 'content-type': 'application/json', 'connect-protocol-version': '1' }, 401, 'unauthenticated'],
      ] as const) {
        const stream = session.request({
          ':method': 'POST',
          ':path': '/test.v1.EchoService/Unary',
          ...headers,
        });
        stream.end('{}');
        const [answer] = (await once(stream, 'response')) as [IncomingHttpHeaders & IncomingHttpStatusHeader];
        const parts: Buffer[] = [];
        for await (const part of stream) parts.push(part as Buffer);
        expect(answer[':status']).to.equal(status);
        expect(String(Buffer.concat(parts))).to.include(`"${code}"`);
      }
    } finally {
      session.close();
    }
  });

  it('answers probes by its own list and the upstream, and serves metrics under the names of guards', async () => {
    const { gate, kit } = under;
    const get = async (path: string): Promise<[number, string]> => {
      const response = await fetch(`http://${gate.addresses.ops}${path}`);
      return [response.status, await response.text()];
    };
    await until(async () => (await get('/readyz'))[0] === 200);
    expect((await get('/livez'))[0]).to.equal(200);
    const [, metrics] = await get('/metrics');
    expect(metrics).to.match(
      /^portcullis_decisions_total\{grpc_method="\/test.v1.EchoService\/Unary",outcome="ADMITTED"\} [1-9]/m,
    );
    expect(metrics).to.match(/^portcullis_revocation_current 1$/m);
    expect(metrics).to.match(/^portcullis_gate_upstream_up 1$/m);
    expect((await get('/jwks.json'))[0]).to.equal(404);
    expect((await get('/else'))[0]).to.equal(404);
    await kit.goStale();
    const [code, body] = await get('/readyz');
    expect([code, Object.keys(JSON.parse(body).missing)]).to.deep.equal([503, ['revocations']]);
    await kit.recover();
    expect((await get('/readyz'))[0]).to.equal(200);
  });

  it('reads its rules again, closes methods that have left, and keeps the rules when they cannot be used', async () => {
    const { gate, client, kit } = under;
    const caller = kit.user({ scopes: ['echo.call'] });
    const outcome = async (method: string): Promise<number> =>
      callEcho(client, bearer(caller.token), { method }).then(
        () => status.OK,
        (error: unknown) => errorOf(error).code,
      );
    await under.rules('services: {test.v1.EchoService: {Unary: {scopes: echo.more}}}');
    await gate.reload();
    expect(await outcome('Unary')).to.equal(status.PERMISSION_DENIED);
    expect(await outcome('Public')).to.equal(status.UNIMPLEMENTED);
    await under.rules('services: {test.v1.EchoService: {Unary: {scope: echo.call}}}');
    await gate.reload();
    expect(lines.some(({ event }) => event === 'rules_refused')).to.equal(true);
    expect(await outcome('Unary')).to.equal(status.PERMISSION_DENIED);
    await under.rules('services: {test.v1.EchoService: {Unary: {scopes: echo.call}, Public: public}}');
    await gate.reload();
    expect(await outcome('Unary')).to.equal(status.OK);
    expect(await outcome('Public')).to.equal(status.OK);
  });
});

describe('a gate that stops', () => {
  it('lets calls end, and is not ready meanwhile', async () => {
    const under = await startGateUnderTest({ drainMs: 30_000 });
    try {
      const { client, gate, kit } = under;
      const caller = kit.user({ scopes: ['echo.call'] });
      const stream = openEchoStream(client, bearer(caller.token));
      await new Promise((resolve) => stream.once('data', resolve));
      const closed = gate.close();
      expect(gate.missing()).to.deep.equal({ process: 'shutting down' });
      const ended = new Promise((resolve) => stream.once('error', resolve));
      stream.cancel();
      await ended;
      await closed;
    } finally {
      await under.stop();
    }
  });
});
