/** The guard over real sockets: the calls that it admits, rejects and cuts. */

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  Client,
  type ClientDuplexStream,
  type ClientReadableStream,
  credentials,
  type ServiceError as GrpcError,
  Metadata,
  Server,
  ServerCredentials,
  type ServiceDefinition,
  status,
  type UntypedHandleCall,
} from '@grpc/grpc-js';
import { expect } from 'chai';
import { errorOf } from '../../../interceptors/src/client.js';
import { createGuard, native } from '../../../interceptors/src/index.js';
import { EntryKind } from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import {
  bearer,
  callEcho,
  ECHO,
  ECHO_RULES,
  type Echo,
  echoHandlers,
  echoSchema,
  HELLO,
  identity,
  openEchoStream,
  startEcho,
  Trace,
} from '../../support/echo.js';
import { AUDIENCE, createTestKey, ISSUER, idOf, TestIssuer } from '../../support/issuer.js';
import { until } from '../../support/waiting.js';

/** How a call ended: its status and its reason. */
interface End {
  readonly code: status;
  readonly reason: string;
  readonly details: string;
  readonly wire: string;
}

function endOf(error: GrpcError | null): End {
  if (error === null) return { code: status.OK, reason: '', details: '', wire: '' };
  const { reason } = errorOf(error);
  const wire = JSON.stringify([error.code, error.details, error.metadata.get('grpc-status-details-bin')]);
  return { code: error.code, reason, details: error.details, wire };
}

function call(client: Client, method: string, metadata: Metadata, request: Buffer = HELLO): Promise<End> {
  return callEcho(client, metadata, { method, request }).then(() => endOf(null), endOf);
}

type Readable = ClientReadableStream<Buffer> | ClientDuplexStream<Buffer, Buffer>;

/** An open stream, whose first message has arrived. */
async function opened<S extends Readable>(
  stream: S,
): Promise<{ stream: S; end: Promise<End>; received: Buffer[] }> {
  const received: Buffer[] = [];
  const end = new Promise<End>((resolve) => {
    stream.on('error', (error: GrpcError) => resolve(endOf(error)));
    stream.on('status', (value: { code: status }) => {
      if (value.code === status.OK) resolve(endOf(null));
    });
  });
  await new Promise<void>((resolve) => {
    stream.on('data', (message: Buffer) => {
      received.push(message);
      resolve();
    });
    void end.then(() => resolve());
  });
  return { stream, end, received };
}

function openServerStream(echo: Echo, token: string, method = 'ServerStream') {
  return opened(openEchoStream(echo.client, bearer(token), { method }));
}

function openBidi(echo: Echo, token: string) {
  const stream = echo.client.makeBidiStreamRequest(
    '/test.v1.EchoService/Bidi',
    identity,
    identity,
    bearer(token),
    {
      deadline: Date.now() + 15_000,
    },
  );
  stream.write(HELLO);
  return opened(stream);
}

describe('guard', () => {
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

  describe('at start', () => {
    it('rejects a service with a method without a rule, naming the method', async () => {
      const guard = await createGuard({
        log: 'silent',
        issuer: ISSUER,
        audience: AUDIENCE,
        auth: { source: issuer.source },
      });
      const schema = echoSchema({ ...ECHO_RULES, Unary: undefined });
      expect(() => guard.addService(new Server(), ECHO, schema, native(echoHandlers(new Trace())))).to.throw(
        TypeError,
        '/test.v1.EchoService/Unary declares no access rule',
      );
      await guard.close();
    });

    it('rejects a service with a method without a handler', async () => {
      const { Unary: _, ...handlers } = echoHandlers(new Trace());
      expect(() => echo.guard.addService(new Server(), ECHO, echoSchema(), native(handlers))).to.throw(
        TypeError,
        '/test.v1.EchoService/Unary',
      );
    });

    it('serves no call on a server without its interceptor', async () => {
      const server = new Server();
      const trace = new Trace();
      echo.guard.addService(server, ECHO, echoSchema(), native(echoHandlers(trace)));
      const port = await new Promise<number>((resolve, reject) => {
        server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
          error === null ? resolve(bound) : reject(error),
        );
      });
      const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
      try {
        const metadata = bearer(await issuer.token());
        expect(await call(client, 'Unary', metadata)).to.include({ code: status.INTERNAL });
        expect(await call(client, 'Public', metadata)).to.include({ code: status.INTERNAL });
        expect(
          (await openServerStream({ ...echo, client }, await issuer.token()).then(({ end }) => end)).code,
        ).to.equal(status.INTERNAL);
        expect(trace.started).to.equal(0);
      } finally {
        client.close();
        server.forceShutdown();
      }
    });

    it('refuses a method that was added without a rule, with and without a token', async () => {
      const guard = await createGuard({
        log: 'silent',
        issuer: ISSUER,
        audience: AUDIENCE,
        auth: { source: issuer.source },
      });
      const server = new Server({ interceptors: [guard.interceptor] });
      const trace = new Trace();
      guard.addService(server, ECHO, echoSchema(), native(echoHandlers(trace)));
      const path = '/test.v1.EchoService/Forgotten';
      const definition = { Forgotten: { ...ECHO['Unary'], path } } as ServiceDefinition;
      server.addService(definition, { Forgotten: echoHandlers(trace)['Unary'] as UntypedHandleCall });
      const port = await new Promise<number>((resolve) => {
        server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (_, bound) => resolve(bound));
      });
      const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
      await guard.ready;
      for (const metadata of [new Metadata(), bearer(await issuer.token())]) {
        expect(await call(client, 'Forgotten', metadata)).to.include({
          code: status.NOT_FOUND,
          reason: 'NOT_FOUND',
        });
      }
      expect(trace.started).to.equal(0);
      client.close();
      server.forceShutdown();
      await guard.close();
    });

    it('serves only public methods before the list has been complete', async () => {
      const silent = await TestIssuer.create();
      silent.answers = false;
      const waiting = await startEcho(silent);
      try {
        const metadata = bearer(await silent.token());
        expect(await call(waiting.client, 'Unary', metadata)).to.include({
          code: status.UNAVAILABLE,
          reason: 'REVOCATION_STATE_STALE',
        });
        expect(await call(waiting.client, 'Stale', metadata)).to.include({ code: status.UNAVAILABLE });
        expect(await call(waiting.client, 'Public', metadata)).to.include({ code: status.OK });
        expect(waiting.trace.started).to.equal(1);
      } finally {
        await waiting.stop();
      }
    });
  });

  describe('admits', () => {
    it('a valid token on all four kinds of calls', async () => {
      const token = await issuer.token();
      expect(await call(echo.client, 'Unary', bearer(token))).to.include({ code: status.OK });
      const server = await openServerStream(echo, token);
      expect(server.received).to.deep.equal([HELLO]);
      server.stream.cancel();
      const bidi = await openBidi(echo, token);
      expect(bidi.received).to.deep.equal([HELLO]);
      bidi.stream.end();
      expect(await bidi.end).to.include({ code: status.OK });
      const answer = await new Promise<Buffer | undefined>((resolve, reject) => {
        const stream = echo.client.makeClientStreamRequest(
          '/test.v1.EchoService/ClientStream',
          identity,
          identity,
          bearer(token),
          (error: GrpcError | null, response?: Buffer) =>
            error === null ? resolve(response) : reject(error),
        );
        for (let index = 0; index < 100; index += 1) stream.write(Buffer.from([index]));
        stream.end();
      });
      expect(answer?.length).to.equal(100);
    });

    it('a token whose scheme is spelled in any case', async () => {
      const token = await issuer.token();
      for (const scheme of ['bearer', 'BEARER', 'bEaReR']) {
        const metadata = new Metadata();
        metadata.set('authorization', `${scheme} ${token}`);
        expect(await call(echo.client, 'Unary', metadata), scheme).to.include({ code: status.OK });
      }
    });

    it('a call of a public method without a token, and with an invalid one', async () => {
      expect(await call(echo.client, 'Public', new Metadata())).to.include({ code: status.OK });
      expect(await call(echo.client, 'Public', bearer('x.y.z'))).to.include({ code: status.OK });
    });

    it('concurrent calls with one new token, without losing a message', async () => {
      const token = await issuer.token();
      const ends = await Promise.all(
        Array.from({ length: 100 }, () => call(echo.client, 'Unary', bearer(token))),
      );
      expect(ends.every((end) => end.code === status.OK)).to.equal(true);
      expect(echo.guard.state().tokens).to.equal(1);
    });
  });

  describe('rejects', () => {
    it('a call without a token', async () => {
      expect(await call(echo.client, 'Unary', new Metadata())).to.include({
        code: status.UNAUTHENTICATED,
        reason: 'TOKEN_MISSING',
      });
      expect(echo.trace.started).to.equal(0);
    });

    it('every invalid token with the same bytes, whatever the fault, without running a handler', async () => {
      const now = Math.floor(Date.now() / 1000);
      const good = await issuer.token();
      const [header = '', payload = '', signature = ''] = good.split('.');
      const stranger = await createTestKey();
      const { exp: _exp, ...withoutExpiry } = issuer.claims();
      const { jti: _jti, ...withoutId } = issuer.claims();
      const bad: Record<string, string> = {
        'is no token': 'hello',
        'has a stranger signature': await issuer.sign(issuer.claims(), { kid: issuer.key.kid }, stranger),
        'has an unknown kid': await issuer.sign(issuer.claims(), {}, stranger),
        'has alg none': `${Buffer.from(JSON.stringify({ alg: 'none', kid: issuer.key.kid, typ: 'at+jwt' })).toString('base64url')}.${payload}.`,
        'brings its own key': await issuer.sign(
          issuer.claims(),
          { jwk: JSON.parse(stranger.published.jwk) },
          stranger,
        ),
        'is of another type': await issuer.sign(issuer.claims(), { typ: 'JWT' }),
        'is of another issuer': await issuer.token({ iss: 'https://other.test' }),
        'is for another service': await issuer.token({ aud: ['other'] }),
        'never expires': await issuer.sign(withoutExpiry),
        'expires far away': await issuer.token({ exp: now + 86_400 }),
        'has no identifier': await issuer.sign(withoutId),
        'is from the future': await issuer.token({ iat: now + 60, exp: now + 120 }),
        'has a padded signature': `${good}=`,
        'has a space in it': `${header}.${payload} .${signature}`,
        'has a fourth segment': `${good}.x`,
        'is cut short': good.slice(0, -1),
        'is a broadcast': (await issuer.broadcast([])).toString(),
        'says something twice': await issuer.sign(
          JSON.stringify(issuer.claims()).replace('"sub":', '"sub":"admin","sub":'),
        ),
      };
      const answers = new Map<string, string>();
      for (const [fault, token] of Object.entries(bad)) {
        const end = await call(echo.client, 'Unary', bearer(token));
        expect(end, fault).to.include({ code: status.UNAUTHENTICATED, reason: 'TOKEN_INVALID' });
        answers.set(end.wire, fault);
      }
      expect([...answers.keys()]).to.have.length(1);
      expect(echo.trace.started).to.equal(0);
    });

    it('other schemes, more than one space after the scheme, and two tokens in one call', async () => {
      const token = await issuer.token();
      for (const value of [
        token,
        `Basic ${token}`,
        `Bearers ${token}`,
        `Bearer  ${token}`,
        `Bearer ${token}, Bearer ${token}`,
      ]) {
        const metadata = new Metadata();
        metadata.set('authorization', value);
        expect((await call(echo.client, 'Unary', metadata)).code, value.slice(0, 12)).to.equal(
          status.UNAUTHENTICATED,
        );
      }
      const elsewhere = new Metadata();
      for (const key of ['x-authorization', 'token', 'x-forwarded-user', 'portcullis.call'])
        elsewhere.set(key, `Bearer ${token}`);
      expect(await call(echo.client, 'Unary', elsewhere)).to.include({ reason: 'TOKEN_MISSING' });
      expect(echo.trace.started).to.equal(0);
    });

    it('an expired token as expired only when it is otherwise valid', async () => {
      const now = Math.floor(Date.now() / 1000);
      const past = { iat: now - 300, exp: now - 10, auth_time: now - 300 };
      expect(await call(echo.client, 'Unary', bearer(await issuer.token(past)))).to.include({
        reason: 'TOKEN_EXPIRED',
      });
      expect(
        await call(echo.client, 'Unary', bearer(await issuer.token({ ...past, aud: ['other'] }))),
      ).to.include({
        reason: 'TOKEN_INVALID',
      });
    });

    it('a caller that does not meet the rule, naming the condition', async () => {
      const user = bearer(await issuer.token());
      const service = bearer(
        await issuer.token({
          sub: 'direct',
          sid: undefined,
          gen: undefined,
          auth_time: undefined,
          roles: [],
        }),
      );
      const tired = bearer(await issuer.token({ auth_time: Math.floor(Date.now() / 1000) - 120 }));
      const operator = bearer(await issuer.token({ roles: ['operator'], scope: '' }));
      const near = bearer(await issuer.token({ scope: 'echo.cal echo.callx Echo.call' }));
      const rows: [string, Metadata, string][] = [
        ['Unary', operator, 'SCOPE_MISSING'],
        ['Unary', near, 'SCOPE_MISSING'],
        ['TwoScopes', user, 'SCOPE_MISSING'],
        ['Operators', user, 'ROLE_MISSING'],
        ['Operators', operator, ''],
        ['Services', user, 'CALLER_KIND'],
        ['Services', service, ''],
        ['Users', service, 'CALLER_KIND'],
        ['Users', user, ''],
        ['Fresh', tired, 'LOGIN_TOO_OLD'],
        ['Fresh', service, 'LOGIN_TOO_OLD'],
        ['Fresh', user, ''],
      ];
      for (const [method, metadata, reason] of rows) {
        const end = await call(echo.client, method, metadata);
        expect(end, `${method} ${reason}`).to.include({
          code: reason === '' ? status.OK : status.PERMISSION_DENIED,
          reason,
        });
      }
    });

    it('a large body without a token before it is read', async () => {
      const end = await call(echo.client, 'Unary', new Metadata(), Buffer.alloc(3_000_000));
      expect(end.code).to.equal(status.UNAUTHENTICATED);
      expect(echo.trace.started).to.equal(0);
    });
  });

  describe('revokes', () => {
    const kinds: [string, (claims: Record<string, unknown>) => [EntryKind, Uint8Array | string, bigint]][] = [
      ['a token', (claims) => [EntryKind.ENTRY_KIND_TOKEN, idOf(String(claims['jti'])), 0n]],
      ['a session', (claims) => [EntryKind.ENTRY_KIND_SESSION, idOf(String(claims['sid'])), 0n]],
      ['a user', (claims) => [EntryKind.ENTRY_KIND_USER, String(claims['sub']), 2n]],
      ['a client', () => [EntryKind.ENTRY_KIND_CLIENT, 'direct', 2n]],
      ['a key', () => [EntryKind.ENTRY_KIND_KEY, issuer.key.kid, 0n]],
    ];
    for (const [name, entryFor] of kinds) {
      it(`${name}: known and new tokens are rejected, live streams of both kinds end`, async () => {
        const claims = issuer.claims();
        const token = await issuer.sign(claims);
        const unseen = await issuer.sign({
          ...claims,
          ...(name === 'a token' ? { amr: ['otp'] } : { jti: randomUUID() }),
        });
        expect(await call(echo.client, 'Unary', bearer(token))).to.include({ code: status.OK });
        const server = await openServerStream(echo, token);
        const bidi = await openBidi(echo, token);
        issuer.revoke(...entryFor(claims));
        echo.guard.syncNow();
        for (const { end } of [server, bidi]) {
          expect(await end).to.include({ code: status.UNAUTHENTICATED, reason: 'TOKEN_REVOKED' });
        }
        for (const text of [token, unseen]) {
          expect(await call(echo.client, 'Unary', bearer(text))).to.include({ reason: 'TOKEN_REVOKED' });
        }
        await until(() => echo.trace.ended >= 1);
      });
    }

    it('tokens derived from a revoked token', async () => {
      const parent = randomUUID();
      const derived = await issuer.token({
        client_id: 'payment',
        clients: [
          ['direct', 1],
          ['payment', 1],
        ],
        act: { sub: 'payment' },
        ancestors: [parent],
      });
      expect(await call(echo.client, 'Unary', bearer(derived))).to.include({ code: status.OK });
      issuer.revoke(EntryKind.ENTRY_KIND_TOKEN, idOf(parent));
      echo.guard.syncNow();
      await until(() => echo.guard.state().applied === 1n);
      expect(await call(echo.client, 'Unary', bearer(derived))).to.include({ reason: 'TOKEN_REVOKED' });
    });

    it('nothing else: another session, the next generation and another client continue', async () => {
      const claims = issuer.claims();
      const others = [
        issuer.claims({ sub: claims['sub'], gen: 2 }),
        issuer.claims({ clients: [['direct', 2]] }),
        issuer.claims(),
      ];
      const streams = await Promise.all(
        others.map(async (other) => openServerStream(echo, await issuer.sign(other))),
      );
      issuer.revoke(EntryKind.ENTRY_KIND_SESSION, idOf(String(claims['sid'])));
      issuer.revoke(EntryKind.ENTRY_KIND_USER, String(claims['sub']), 2n);
      issuer.revoke(EntryKind.ENTRY_KIND_TOKEN, idOf(String(claims['jti'])));
      echo.guard.syncNow();
      await until(() => echo.guard.state().applied === 3n);
      await sleep(50);
      for (const { stream } of streams) {
        expect(stream.destroyed).to.equal(false);
        stream.cancel();
      }
    });

    it('a token that was being verified when the revocation arrived', async () => {
      const claims = issuer.claims();
      const token = await issuer.sign(claims);
      const ends = Array.from({ length: 20 }, () => call(echo.client, 'Unary', bearer(token)));
      // The revocation is in the list before the calls reach the server's event loop again.
      issuer.revokeSession(String(claims['sid']));
      echo.guard.syncNow();
      await until(() => echo.guard.state().applied === 1n);
      const after = await call(echo.client, 'Unary', bearer(token));
      expect(after).to.include({ reason: 'TOKEN_REVOKED' });
      for (const end of await Promise.all(ends))
        expect(end.code).to.be.oneOf([status.OK, status.UNAUTHENTICATED]);
    });

    it('the stream of a peer that does not read, by a reset after the grace period', async () => {
      const claims = issuer.claims();
      const { stream } = await openServerStream(echo, await issuer.sign(claims), 'ServerStream');
      stream.pause();
      issuer.revokeSession(String(claims['sid']));
      echo.guard.syncNow();
      await until(() => echo.trace.ended === 1);
      stream.resume();
    });
  });

  describe('without sync responses', () => {
    it('rejects calls after the lease except on_stale ALLOW, cuts the other streams, and recovers by itself', async () => {
      issuer.leaseMs = 300;
      echo.guard.syncNow();
      await until(() => echo.guard.state().leaseMs <= 300);
      const token = await issuer.token();
      const refused = await openServerStream(echo, token);
      const allowed = await openServerStream(echo, token, 'StaleStream');
      const silentAt = Date.now();
      issuer.answers = false;
      expect(await refused.end).to.include({ code: status.UNAVAILABLE, reason: 'REVOCATION_STATE_STALE' });
      expect(Date.now() - silentAt).to.be.lessThan(5000);
      expect(await call(echo.client, 'Unary', bearer(token))).to.include({
        reason: 'REVOCATION_STATE_STALE',
      });
      expect(await call(echo.client, 'Stale', bearer(token))).to.include({ code: status.OK });
      expect(allowed.stream.destroyed).to.equal(false);
      expect(echo.guard.state()).to.include({ ready: true, current: false });
      expect(echo.guard.state().staleReason).to.contain('revocations');
      // The process may have missed a new key, so it must not call the token invalid.
      const [key] = issuer.keys;
      issuer.keys = [await createTestKey(), ...issuer.keys];
      const unknown = bearer(await issuer.token());
      expect(await call(echo.client, 'Unary', unknown)).to.include({ code: status.UNAVAILABLE });
      issuer.keys = key === undefined ? [] : [key];
      issuer.answers = true;
      await until(() => echo.guard.state().current);
      expect(await call(echo.client, 'Unary', bearer(token))).to.include({ code: status.OK });
      allowed.stream.cancel();
    });
  });

  it('rejects calls when its list is full, instead of evicting entries, and reports it', async () => {
    const small = await TestIssuer.create();
    small.leaseMs = 300;
    const full = await startEcho(small, { listEntriesMax: 3 });
    try {
      await full.guard.ready;
      const token = await small.token();
      expect(await call(full.client, 'Unary', bearer(token))).to.include({ code: status.OK });
      for (let count = 0; count < 4; count += 1) small.revokeSession(randomUUID());
      await until(() => !full.guard.state().current);
      expect(full.guard.state().staleReason).to.contain('the revocation list is full');
      expect(await call(full.client, 'Unary', bearer(token))).to.include({
        code: status.UNAVAILABLE,
        reason: 'REVOCATION_STATE_STALE',
      });
    } finally {
      await full.stop();
    }
  });

  it('drops everything in a new epoch, and continues with the new log', async () => {
    const token = await issuer.token();
    const live = await openServerStream(echo, token);
    const next = await createTestKey();
    issuer.epoch = Buffer.from(randomUUID().replaceAll('-', ''), 'hex');
    issuer.keys = [next];
    echo.guard.syncNow();
    expect(await live.end).to.include({ code: status.UNAUTHENTICATED, reason: 'TOKEN_REVOKED' });
    await until(() => echo.guard.state().current);
    expect((await call(echo.client, 'Unary', bearer(token))).code).to.equal(status.UNAUTHENTICATED);
    expect(await call(echo.client, 'Unary', bearer(await issuer.token()))).to.include({ code: status.OK });
  });

  it('cuts the streams of a token that expires', async () => {
    const now = Math.floor(Date.now() / 1000);
    // Expired by the token's own time, within the allowed skew.
    const live = await openServerStream(
      echo,
      await issuer.token({ iat: now - 60, auth_time: now - 60, exp: now - 4 }),
    );
    expect(await live.end).to.include({ code: status.UNAUTHENTICATED, reason: 'TOKEN_EXPIRED' });
  });
});
