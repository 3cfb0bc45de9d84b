/** What a guard logs, observes and states, call by call between fakes, without a server that listens. */

import { generateKeyPairSync } from 'node:crypto';
import { credentials, Metadata, Server, type UntypedServiceImplementation } from '@grpc/grpc-js';
import { expect } from 'chai';
import { connect } from 'nats';
import {
  createGuard,
  type Guard,
  type GuardOptions,
  native,
  passFence,
  signalOf,
  stillAllowed,
} from '../../../interceptors/src/index.js';
import { BROADCAST_SUBJECT } from '../../../interceptors/src/revocation/broadcasts.js';
import { stateOf } from '../../../interceptors/src/server/call-state.js';
import { startNats } from '../../../scripts/system/nats.js';
import { makeTemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { MovableClock } from '../../support/clock.js';
import { bearer, ECHO, ECHO_RULES, echoHandlers, echoSchema, Trace } from '../../support/echo.js';
import { AUDIENCE, ISSUER, TestIssuer } from '../../support/issuer.js';
import { codeOf, rejectionOf } from '../../support/outcomes.js';
import { until } from '../../support/waiting.js';
import { FakeInnerCall, startFakeCallOf } from './fake-calls.js';

/** A lease that no test outlives. */
const LEASE_MS = 600_000;
const REMOTE_PLAINTEXT = { socket: { remoteAddress: '192.0.2.1' } };

describe('a guard, as its operators see it', () => {
  let issuer: TestIssuer;
  let guard: Guard;
  let clock: MovableClock;
  let lines: Record<string, unknown>[];
  let decided: string[];
  let limited: string[];
  let faults: string[];
  let verifiedMs: number[];
  let guards: Guard[];

  beforeEach(async () => {
    issuer = await TestIssuer.create();
    issuer.leaseMs = LEASE_MS;
    clock = new MovableClock();
    lines = [];
    decided = [];
    limited = [];
    faults = [];
    verifiedMs = [];
    guards = [];
  });
  afterEach(async () => {
    for (const each of guards) await each.close();
  });

  async function create(options: Partial<GuardOptions> = {}): Promise<Guard> {
    const record = (fields: object) => void lines.push(fields as Record<string, unknown>);
    guard = await createGuard({
      issuer: ISSUER,
      audience: AUDIENCE,
      auth: { source: issuer.source },
      clock,
      log: { info: () => {}, warn: record, error: record },
      observer: {
        decided: (path, outcome) => decided.push(`${path.split('/').at(-1)} ${outcome}`),
        limited: (limit) => limited.push(limit),
        tokenInvalid: (fault) => faults.push(fault),
        verified: (ms) => verifiedMs.push(ms),
      },
      ...options,
    });
    guards.push(guard);
    return guard;
  }

  async function start(options: Partial<GuardOptions> = {}): Promise<void> {
    await create(options);
    guard.addService(new Server(), ECHO, echoSchema(), native(echoHandlers(new Trace())));
    await guard.ready;
  }

  /** The guard's interceptor on a call of a method of the echo service. */
  function guarded(method: string, inner: FakeInnerCall) {
    const definition = { ...(ECHO[method] ?? ECHO['Unary']), path: `/test.v1.EchoService/${method}` };
    return guard.interceptor(definition as Parameters<typeof guard.interceptor>[0], inner as never);
  }

  /** A call of a method of the echo service, decided. */
  async function call(method: string, metadata = new Metadata(), session?: object) {
    const before = decided.length;
    const started = startFakeCallOf((inner) => guarded(method, inner), metadata, new FakeInnerCall(session));
    await until(() => decided.length > before);
    return started;
  }

  describe('at its start', () => {
    it('rejects an empty issuer or audience', async () => {
      for (const over of [{ issuer: '' }, { audience: '' }]) {
        const error = await rejectionOf(create(over));
        expect(error).to.be.instanceOf(TypeError);
        expect(error.message).to.equal('expected an issuer and an audience, got an empty string');
      }
    });

    it('names every method without a handler', async () => {
      await create();
      const { Unary: _one, Bidi: _other, ...handlers } = echoHandlers(new Trace());
      expect(() => guard.addService(new Server(), ECHO, echoSchema(), native(handlers))).to.throw(
        TypeError,
        'no handler for /test.v1.EchoService/Unary, /test.v1.EchoService/Bidi: ' +
          'add Unary, Bidi to the handlers',
      );
    });

    it('names every handler without a method, with the name that was probably meant', async () => {
      await create();
      const { Unary, ...handlers } = echoHandlers(new Trace());
      const add = (given: UntypedServiceImplementation) => () =>
        guard.addService(new Server(), ECHO, echoSchema(), native(given));
      expect(add({ ...handlers, unari: Unary, Forgotten: Unary } as UntypedServiceImplementation)).to.throw(
        TypeError,
        'no handler for /test.v1.EchoService/Unary: add Unary to the handlers; ' +
          'the handler unari belongs to no method: did you mean Unary?; ' +
          'the handler Forgotten belongs to no method',
      );
      // One object may have the handlers of several services.
      expect(add({ ...handlers, Unary, Helper: Unary } as UntypedServiceImplementation)).to.not.throw();
    });

    it('lets a class have further functions, and names one of them that was probably meant as a handler', async () => {
      await create();
      const { Unary, ...handlers } = echoHandlers(new Trace());
      class Handlers {
        helper(): void {}
        readonly value = 'echo';
      }
      const add = (given: object) => () =>
        guard.addService(new Server(), ECHO, echoSchema(), native(given as UntypedServiceImplementation));
      expect(add(Object.assign(new Handlers(), handlers, { Unary }))).to.not.throw();
      class Misspelt extends Handlers {
        unry(): void {}
      }
      expect(add(Object.assign(new Misspelt(), handlers))).to.throw(
        TypeError,
        /^no handler for \S+Unary: [^;]*; the handler unry belongs to no method: did you mean Unary\?$/,
      );
    });

    it('tells of another copy of the library in the process', async () => {
      await create();
      expect(lines).to.deep.equal([]);
      const copies: unknown = Reflect.get(globalThis, Symbol.for('@portcullis/guard.copies'));
      if (!(copies instanceof Set)) throw new Error('the library has not named itself');
      const other = 'file:///elsewhere/guard/dist/src/wire/copies.js';
      copies.add(other);
      try {
        await create();
      } finally {
        copies.delete(other);
      }
      expect(lines).to.deep.equal([{ event: 'several_copies' }]);
    });

    it('needs neither a log nor an observer', async () => {
      await start({ log: undefined, observer: undefined, limits: { callsPerUser: 1 } } as object);
      const token = bearer(await issuer.token());
      const ends: string[] = [];
      for (const metadata of [new Metadata(), bearer('x'), token, token, token]) {
        const { inner, received } = startFakeCallOf((below) => guarded('Unary', below), metadata);
        await until(() => inner.sent.length + received.length > 0);
        ends.push(inner.sent[0] ?? 'OK');
      }
      expect(ends).to.deep.equal([
        'UNAUTHENTICATED TOKEN_MISSING',
        'UNAUTHENTICATED TOKEN_INVALID',
        'OK',
        'RESOURCE_EXHAUSTED RATE_LIMITED',
        'RESOURCE_EXHAUSTED RATE_LIMITED',
      ]);
    });
  });

  describe('in its state', () => {
    it('has the lease, the list and the tokens, and never a negative lease', async () => {
      await start();
      await call('Unary', bearer(await issuer.token()));
      issuer.revokeSession('00000000-0000-4000-8000-000000000000');
      guard.syncNow();
      await until(() => guard.state().applied === 1n);
      const { leaseMs, ...state } = guard.state();
      expect(leaseMs).to.be.within(LEASE_MS - 60_000, LEASE_MS);
      expect(state).to.deep.include({
        ready: true,
        current: true,
        entries: 1,
        tokens: 1,
        staleReason: '',
        lastSyncSucceeded: true,
        broker: [],
        connections: 0,
        publicCalls: 0,
        bytesInFlight: 0,
        reports: { sent: 0, lost: 0, waiting: 0 },
      });
      expect(state.entriesMax).to.equal(20_000_000);
      issuer.answers = false;
      clock.pass(2 * LEASE_MS);
      expect(guard.state()).to.include({ leaseMs: 0, current: false, ready: true });
    });

    it('is up to date at once when it is told to sync', async () => {
      await start();
      let asked: number;
      do {
        asked = issuer.asked;
        await new Promise((resolve) => setTimeout(resolve, 200));
      } while (issuer.asked !== asked);
      issuer.revokeSession('00000000-0000-4000-8000-000000000000');
      guard.syncNow();
      await until(() => guard.state().applied === 1n);
      expect(issuer.asked).to.equal(asked + 1);
    });

    it('is neither ready nor current before the first sync', async () => {
      issuer.answers = false;
      await create();
      expect(guard.state()).to.include({
        ready: false,
        current: false,
        leaseMs: 0,
        lastSyncSucceeded: false,
      });
    });

    it('does not count public calls of a network that has shown a valid token', async () => {
      await start();
      await call('Public');
      expect(guard.state().publicCalls).to.equal(1);
      await call('Unary', bearer(await issuer.token()));
      await call('Public');
      expect(guard.state().publicCalls).to.equal(1);
    });

    it('has the maximum of the list that its options set', async () => {
      await start({ listEntriesMax: 5 });
      expect(guard.state().entriesMax).to.equal(5);
    });

    it('has no connections to a broker, one, or two with the reports', async () => {
      const nats = { url: 'nats://127.0.0.1:1' };
      await create({ nats });
      expect(guard.state().broker.map(({ use }) => use)).to.deep.equal(['revocations']);
      // The issuer's own process does not wait for the broker.
      await guard.ready;
      const auth = {
        address: '127.0.0.1:1',
        credentials: credentials.createInsecure(),
        clientId: 'echo',
        clientKey: generateKeyPairSync('ed25519').privateKey,
      };
      await create({ auth, nats });
      expect(guard.state().broker.map(({ use }) => use)).to.deep.equal(['revocations', 'reports']);
      expect(guard.state().staleReason).to.contain('the broker has not been reached yet');
      await create({ auth });
      expect(guard.state().broker).to.deep.equal([]);
    });

    it('notifies its listeners when the list becomes current or stale, until they are removed', async () => {
      issuer.leaseMs = 500;
      clock = new MovableClock();
      await create();
      const seen: boolean[] = [];
      const removed: boolean[] = [];
      guard.onStateChange(() => seen.push(guard.state().current));
      guard.onStateChange(() => removed.push(true))();
      await guard.ready;
      issuer.answers = false;
      clock.pass(1000);
      await until(() => seen.length === 2);
      expect([seen, removed]).to.deep.equal([[true, false], []]);
    });

    it('closes its source', async () => {
      const closed: string[] = [];
      await create({ auth: { source: { ...issuer.source, close: () => void closed.push('source') } } });
      await guards.pop()?.close();
      expect(closed).to.deep.equal(['source']);
    });
  });

  describe('calls', () => {
    it('decides public methods without a rule that its options name, within the public size', async () => {
      await create({ publicMethods: ['/test.v1.EchoService/Health'], limits: { publicRequestBytes: 77 } });
      const { received, inner } = await call('Health');
      expect(received).to.deep.equal(['metadata']);
      expect(inner.maxReceiveMessageSize).to.equal(77);
      expect(decided).to.deep.equal(['Health ADMITTED']);
    });

    it('refuses a method without a rule, and logs it as an error of the server', async () => {
      await start();
      const { inner } = await call('Forgotten', bearer(await issuer.token()));
      expect(inner.sent).to.deep.equal(['NOT_FOUND NOT_FOUND']);
      const line = { event: 'method_without_rule', path: '/test.v1.EchoService/Forgotten', count: 1 };
      expect(lines).to.deep.equal([line]);
    });

    it('reads no other header than authorization', async () => {
      await start();
      const metadata = new Metadata();
      for (const key of [
        'x-authorization',
        'proxy-authorization',
        'cookie',
        'x-user-id',
        'x-forwarded-user',
      ]) {
        metadata.set(key, `Bearer ${await issuer.token()}`);
      }
      expect((await call('Unary', metadata)).inner.sent).to.deep.equal(['UNAUTHENTICATED TOKEN_MISSING']);
    });

    it('rejects a token that came in plaintext from another machine, and logs it as invalid', async () => {
      await start();
      const token = bearer(await issuer.token());
      expect((await call('Unary', token, REMOTE_PLAINTEXT)).inner.sent).to.deep.equal([
        'UNAUTHENTICATED TLS_REQUIRED',
      ]);
      expect((await call('Unary', new Metadata(), REMOTE_PLAINTEXT)).inner.sent).to.deep.equal([
        'UNAUTHENTICATED TOKEN_MISSING',
      ]);
      expect((await call('Public', token, REMOTE_PLAINTEXT)).received).to.deep.equal(['metadata']);
      expect((await call('Unary', token)).received).to.deep.equal(['metadata']);
      expect(faults).to.deep.equal(['plaintext']);
      expect(lines).to.deep.equal([{ event: 'token_invalid', fault: 'plaintext', count: 1 }]);
    });

    it('accepts a token in plaintext where the options allow it', async () => {
      await start({ plaintext: 'allow' });
      const { received } = await call('Unary', bearer(await issuer.token()), REMOTE_PLAINTEXT);
      expect(received).to.deep.equal(['metadata']);
    });

    it('observes each decision, each verification and each cut', async () => {
      // Shorter than the life of a token.
      issuer.leaseMs = 100_000;
      await start();
      const token = bearer(await issuer.token());
      const { inner, call: live } = await call('Unary', token);
      await call('Unary', token);
      await call('Unary');
      expect(verifiedMs).to.have.length(1);
      expect(verifiedMs[0]).to.be.within(0, 10_000);
      issuer.answers = false;
      clock.pass(issuer.leaseMs);
      live.sendMetadata(new Metadata());
      expect(inner.sent).to.deep.equal(['UNAVAILABLE REVOCATION_STATE_STALE']);
      expect(decided).to.deep.equal([
        'Unary ADMITTED',
        'Unary ADMITTED',
        'Unary TOKEN_MISSING',
        'Unary REVOCATION_STATE_STALE',
      ]);
    });

    it('logs five rejected tokens a second, and one limit', async () => {
      await start({ limits: { callsPerUser: 1 } });
      clock.pass(1000);
      for (let count = 0; count < 12; count += 1) await call('Unary', bearer('x'));
      const invalid = lines.filter(({ event }) => event === 'token_invalid');
      // A second may end meanwhile.
      expect(invalid.length).to.be.within(5, 10);
      expect(invalid[0]).to.deep.equal({ event: 'token_invalid', fault: 'form', count: 1 });
      expect(faults).to.have.length(12);
      lines = [];
      const token = bearer(await issuer.token());
      for (let count = 0; count < 5; count += 1) await call('Unary', token);
      expect(lines.length).to.be.within(1, 2);
      expect(lines[0]).to.deep.equal({ event: 'limited', limit: 'calls_per_user', count: 1 });
      expect(limited).to.deep.equal(new Array(4).fill('calls_per_user'));
    });

    it('lets a handler rely on the lease, and on the expiry of the token', async () => {
      await start();
      const started = await call(
        'Unary',
        bearer(await issuer.token({ exp: Math.floor(clock.wallMs() / 1000) + 60 })),
      );
      expect(stillAllowed(started)).to.be.within(55_000, 65_000);
    });

    it('asks for what the fence of a transaction is ahead of, and tells when that does not come', async () => {
      const refused: string[] = [];
      const observer = { decided: (path: string) => void decided.push(path) };
      for (const observers of [
        { ...observer, fenceRefused: (reason: string) => void refused.push(reason) },
        observer,
      ]) {
        await start({ observer: observers });
        const started = await call('Unary', bearer(await issuer.token()));
        const asked = refused.length > 0 ? 0 : await issuer.quiet();
        const row = { fence_id: '00'.repeat(16), epoch_number: '9', sequence: '9' };
        const passing = passFence(started, async () => ({ rows: [row] }));
        expect(await codeOf(passing)).to.equal('REVOCATION_STATE_STALE');
        expect(issuer.asked).to.be.above(asked);
      }
      expect(refused).to.deep.equal(['REVOCATION_STATE_STALE']);
    });

    it('logs what a handler throws while its call is cut, and what a handler reports', async () => {
      await start();
      const claims = issuer.claims();
      const started = await call('Unary', bearer(await issuer.sign(claims)));
      const fault = new Error('a fault');
      started.received.push = () => {
        throw fault;
      };
      issuer.revokeSession(String(claims['sid']));
      guard.syncNow();
      await until(() => lines.length > 0);
      expect(lines).to.deep.equal([{ event: 'cut_failed', err: fault }]);
      expect(signalOf(started).aborted).to.equal(true);
      expect(() => stillAllowed(started)).to.throw('the access token has been revoked');
      lines = [];
      stateOf(started)?.reportFailure(fault);
      expect(lines).to.deep.equal([
        { event: 'handler_failed', path: '/test.v1.EchoService/Unary', err: fault },
      ]);
    });

    it('cuts the live calls of a list that becomes stale, and of expired tokens', async () => {
      issuer.leaseMs = 1000;
      await start();
      const now = Math.floor(Date.now() / 1000);
      const expiring = await call('Stale', bearer(await issuer.token({ iat: now - 100, exp: now + 100 })));
      const stale = await call('Unary', bearer(await issuer.token()));
      issuer.answers = false;
      clock.pass(1000);
      await until(() => stale.inner.sent.length > 0);
      expect(stale.inner.sent).to.deep.equal(['UNAVAILABLE REVOCATION_STATE_STALE']);
      expect(expiring.inner.sent).to.deep.equal([]);
      clock.pass(110_000);
      await until(() => expiring.inner.sent.length > 0);
      expect(expiring.inner.sent).to.deep.equal(['UNAUTHENTICATED TOKEN_EXPIRED']);
    });

    it('ends requests that do not arrive in time', async () => {
      await start();
      const { inner } = await call('Public');
      expect(guard.state().publicCalls).to.equal(1);
      clock.pass(60_000);
      await until(() => inner.sent.length > 0);
      expect(inner.sent).to.deep.equal(['DEADLINE_EXCEEDED REQUEST_TIMEOUT']);
      expect(guard.state().publicCalls).to.equal(0);
    });
  });

  describe('in mode observe', () => {
    it('tells once of a call whose token was revoked, which handlers may rely on as before', async () => {
      const observed: string[] = [];
      await start({ mode: 'observe', observer: { observed: (_path, reason) => observed.push(reason) } });
      const claims = issuer.claims();
      const token = bearer(await issuer.sign(claims));
      const started = startFakeCallOf((inner) => guarded('ServerStream', inner), token);
      await until(() => started.received.length > 0);
      issuer.revokeSession(String(claims['sid']));
      guard.syncNow();
      await until(() => guard.state().applied === 1n);
      expect(stillAllowed(started)).to.equal(Number.POSITIVE_INFINITY);
      started.call.sendMessage('one', () => {});
      started.call.sendMessage('two', () => {});
      expect(started.inner.sent).to.deep.equal(['one', 'two']);
      expect(observed).to.deep.equal(['TOKEN_REVOKED']);
    });

    it('reads requests by the size of their method, and needs no observer', async () => {
      await start({ mode: 'observe', observer: undefined, limits: { publicRequestBytes: 77 } } as object);
      const { inner, received } = startFakeCallOf((below) => guarded('Unary', below));
      await until(() => received.length > 0);
      expect(inner.maxReceiveMessageSize).to.be.greaterThan(77);
      const forgotten = startFakeCallOf((below) => guarded('Forgotten', below));
      await until(() => forgotten.received.length > 0);
      expect(forgotten.inner.maxReceiveMessageSize).to.equal(77);
    });
  });

  describe('verifies a token that is not the credential of a call', () => {
    it('and returns its claims, or fails with the reason', async () => {
      await start();
      const claims = issuer.claims();
      const token = await issuer.sign(claims);
      expect(await guard.authenticateToken(token)).to.include({ tokenId: claims['jti'] });
      expect(await guard.authenticateToken(token, AUDIENCE)).to.include({ tokenId: claims['jti'] });
      expect(await codeOf(guard.authenticateToken(token, 'other'))).to.equal('TOKEN_INVALID');
      expect(await codeOf(guard.authenticateToken('x'))).to.equal('TOKEN_INVALID');
    });
  });

  describe('on the broker', () => {
    it('reports a broadcast that its issuer has not signed', async () => {
      const folder = await makeTemporaryFolder();
      const nats = await startNats({ dataDir: folder.path, port: 0 });
      const { username: user, password: pass, host: servers } = new URL(nats.url('auth'));
      const sender = await connect({ servers, user, pass });
      try {
        let forged = 0;
        const observer = { broadcastForged: () => (forged += 1) };
        await start({ nats: { url: nats.url('inventory') }, observer });
        await until(() => guard.state().broker.some(({ state }) => state === 'connected'));
        sender.publish(BROADCAST_SUBJECT, 'no broadcast');
        await until(() => forged === 1);
      } finally {
        await sender.close();
        await Promise.all(guards.map((each) => each.close()));
        await nats.stop();
        await folder.remove();
      }
    });
  });

  describe('on a server', () => {
    const settingsOf = (server: Server) =>
      Reflect.get(Reflect.get(server, 'commonServerOptions'), 'settings');

    it('announces its limits, once, whatever the number of services', async () => {
      await create({ limits: { streamsPerConnection: 7, headerBytes: 2000 } });
      const server = new Server();
      guard.addService(server, ECHO, echoSchema(), native(echoHandlers(new Trace())));
      expect(settingsOf(server)).to.deep.equal({ maxConcurrentStreams: 7, maxHeaderListSize: 2000 });
      const settings = settingsOf(server);
      const { Unary } = ECHO;
      const other = { Unary: { ...Unary, path: '/test.v1.EchoService2/Unary' } } as typeof ECHO;
      const rules = {
        options: { services: { EchoService2: { methods: { Unary: { rule: ECHO_RULES['Unary'] } } } } },
      };
      guard.addService(server, other, rules, native(echoHandlers(new Trace())));
      expect(settingsOf(server)).to.equal(settings);
    });

    it('announces the largest value of HTTP/2 where a limit is off', async () => {
      const infinite = Number.POSITIVE_INFINITY;
      await create({ limits: { streamsPerConnection: infinite, headerBytes: infinite } });
      const server = new Server();
      guard.addService(server, ECHO, echoSchema(), native(echoHandlers(new Trace())));
      expect(settingsOf(server)).to.deep.equal({
        maxConcurrentStreams: 2 ** 32 - 1,
        maxHeaderListSize: 2 ** 32 - 1,
      });
    });
  });
});
