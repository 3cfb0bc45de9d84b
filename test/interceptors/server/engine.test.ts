/**
 * The engine: what it decides and sends equals what a guarded grpc-js server sends, byte for byte, and what it ends is
 * ended once.
 */

import { generateKeyPairSync } from 'node:crypto';
import { type ClientHttp2Session, connect, type IncomingHttpHeaders } from 'node:http2';
import { type AddressInfo, connect as connectTcp, createServer, type Socket } from 'node:net';
import { hostname } from 'node:os';
import {
  credentials,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type sendUnaryData,
} from '@grpc/grpc-js';
import { type GuardErrorCode, type LimitName, native, type SendReport } from '@portcullis/guard';
import {
  createEngine,
  type Decision,
  type Engine,
  type EngineCall,
  type EngineCaller,
  type Header,
  type ReadyStatus,
} from '@portcullis/guard/engine';
import { createTestKit, type Persona, type Served, type TestKit } from '@portcullis/guard/testing';
import { expect } from 'chai';
import { GuardError, invalidField, type ServiceError } from '../../../interceptors/src/errors.js';
import { DecidedEngineCall } from '../../../interceptors/src/server/engine-call.js';
import { DEFAULT_LIMITS, type GuardLimits } from '../../../interceptors/src/server/guard-limits.js';
import { limitRefusal, type RefusalCode, sharedRefusal } from '../../../interceptors/src/server/refusals.js';
import { accessRulesOf } from '../../../interceptors/src/server/rule-sources.js';
import { readyStatusOf } from '../../../interceptors/src/wire/ready-status.js';
import { statusOf } from '../../../interceptors/src/wire/status.js';
import type { Report } from '../../../proto/gen/portcullis/security/v1/report.js';
import { ECHO, ECHO_RULES, echoHandlers, echoSchema, HELLO, Trace } from '../../support/echo.js';
import { ISSUER, TestIssuer } from '../../support/issuer.js';
import { rejectionOf } from '../../support/outcomes.js';
import { until } from '../../support/waiting.js';
import { verifiedToken } from '../tokens-support.js';
import { FakeGuard } from './fake-calls.js';
import { frameOf } from './raw-calls.js';

const AUDIENCE = 'echo';

/** The kit's engines have no limits in time, because its clock is set forward. */
const NO_TIME_LIMITS: Partial<GuardLimits> = {
  requestMs: Number.POSITIVE_INFINITY,
  publicIdleMs: Number.POSITIVE_INFINITY,
  responseMs: Number.POSITIVE_INFINITY,
  connectionSetupMs: Number.POSITIVE_INFINITY,
  firstRequestMs: Number.POSITIVE_INFINITY,
};

/** A caller on this machine, as the guarded server sees the clients of these tests. */
const LOCAL: EngineCaller = {
  peer: '127.0.0.1:4711',
  address: '127.0.0.1',
  isPrivate: true,
  certificateThumbprint: undefined,
  retireConnection: () => {},
};

const pathOf = (method: string): string => `/test.v1.EchoService/${method}`;
const bearer = (persona: Persona | string): readonly [string] => [
  `Bearer ${typeof persona === 'string' ? persona : persona.token}`,
];

/** The headers of a response as they were sent, without the time. */
function sentOf(rawHeaders: readonly string[]): Header[] {
  const headers: Header[] = [];
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const name = rawHeaders[at] ?? '';
    if (name !== 'date') headers.push([name, rawHeaders[at + 1] ?? '']);
  }
  return headers;
}

/** A connection to a server of grpc-js, of which the bytes are compared. */
class RawClient {
  readonly #port: number;
  #session: ClientHttp2Session | undefined;

  constructor(port: number) {
    this.#port = port;
  }

  /** Another one when the server has asked for it. */
  #open(): ClientHttp2Session {
    if (this.#session !== undefined && !this.#session.closed) return this.#session;
    this.#session = connect(`http://127.0.0.1:${this.#port}`);
    this.#session.on('error', () => {});
    return this.#session;
  }

  /** Opens a call. `ends` are the headers with its status: those of the response, or the trailers. */
  open(path: string, authorization?: string, request: Buffer | undefined = frameOf(HELLO)) {
    const stream = this.#open().request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...(authorization === undefined ? {} : { authorization }),
    });
    stream.on('error', () => {});
    const ends = new Promise<Header[]>((resolve) => {
      const read = (headers: IncomingHttpHeaders, _flags: number, rawHeaders: string[] = []): void => {
        if (headers['grpc-status'] !== undefined) resolve(sentOf(rawHeaders));
      };
      stream.on('response', read as never);
      stream.on('trailers', read as never);
      stream.on('close', () => resolve([]));
    });
    const began = new Promise<void>((resolve) => stream.once('data', () => resolve()));
    if (request !== undefined) stream.end(request);
    return { stream, ends, began };
  }

  close(): void {
    this.#session?.destroy();
  }
}

/** How a call of the engine goes on: the statuses with which it was cut. */
function linked(call: EngineCall): ReadyStatus[] {
  const cuts: ReadyStatus[] = [];
  call.link({ cut: (status) => void cuts.push(status) });
  return cuts;
}

describe('an engine', () => {
  let kit: TestKit;
  let engine: Engine;
  let served: Served;
  let client: RawClient;
  const observed: string[] = [];
  const limited: string[] = [];

  beforeEach(() => start());

  afterEach(async () => {
    client.close();
    await kit.close();
  });

  async function start(limits: Partial<GuardLimits> = {}, mode: 'enforce' | 'observe' = 'enforce') {
    observed.length = 0;
    limited.length = 0;
    kit = await createTestKit({ audience: AUDIENCE, limits, mode });
    engine = await kit.createEngine({
      audience: AUDIENCE,
      limits,
      mode,
      observer: {
        decided: (path, outcome) => void observed.push(`${path.split('/').at(-1)} ${outcome}`),
        observed: (path, reason) => void observed.push(`${path.split('/').at(-1)} observed ${reason}`),
        limited: (limit) => void limited.push(limit),
      },
    });
    engine.addRules(accessRulesOf(ECHO, echoSchema()));
    served = await kit.serve((server, guard) =>
      guard.addService(server, ECHO, echoSchema(), native(echoHandlers(new Trace()))),
    );
    client = new RawClient(served.port);
  }

  async function restart(...options: Parameters<typeof start>): Promise<void> {
    client.close();
    await kit.close();
    await start(...options);
  }

  const user = (): Persona => kit.user({ scopes: ['echo.call'] });

  const admit = async (method: string, authorizations: readonly string[] = [], caller = LOCAL) =>
    await engine.admit(pathOf(method), authorizations, caller);

  async function refused(
    method: string,
    authorizations: readonly string[] = [],
    caller = LOCAL,
  ): Promise<ReadyStatus> {
    const decision = await admit(method, authorizations, caller);
    if (decision.kind !== 'refused') throw new Error(`${method} was ${decision.kind}`);
    return decision.status;
  }

  async function entered(method: string, authorizations: readonly string[] = []): Promise<EngineCall> {
    const decision = await admit(method, authorizations);
    if (decision.kind === 'refused') throw new Error(`${method} was refused: ${decision.status.reason}`);
    return decision.call;
  }

  /** Compares the refusals of both. @returns the reason */
  async function sameRefusal(method: string, authorization?: string): Promise<string> {
    const status = await refused(method, authorization === undefined ? [] : [authorization]);
    const sent = await client.open(pathOf(method), authorization).ends;
    expect(status.trailersOnly, `${method} ${status.reason}`).to.deep.equal(sent);
    return status.reason;
  }

  describe('refuses as the guard of grpc-js does', () => {
    it('every bad token of the catalogue, and none', async () => {
      expect(await sameRefusal('Unary')).to.equal('TOKEN_MISSING');
      const tokens = Object.entries(kit.badTokens(user()));
      expect(tokens.length).to.be.greaterThan(30);
      for (const [name, token] of tokens) {
        const reason = await sameRefusal('Unary', `Bearer ${token}`);
        expect(reason, name).to.equal(name === 'expired' ? 'TOKEN_EXPIRED' : 'TOKEN_INVALID');
      }
    });

    it('two credentials, and values that are none', async () => {
      const { token } = user();
      const both = await refused('Unary', [`Bearer ${token}`, `Bearer ${token}`]);
      const bad = await client.open(pathOf('Unary'), 'Bearer x').ends;
      expect(both.trailersOnly).to.deep.equal(bad);
      for (const value of ['', 'Basic eDp5', token, `Bearer  ${token}`]) {
        expect(await sameRefusal('Unary', value), value.slice(0, 9)).to.equal('TOKEN_INVALID');
      }
    });

    it('callers without the rights of a rule', async () => {
      const service = kit.service('shop', { scopes: ['echo.call'] });
      const late = kit.user({ scopes: ['echo.call'], loggedInSecondsAgo: 1000 });
      expect(await sameRefusal('Unary', bearer(kit.user())[0])).to.equal('SCOPE_MISSING');
      expect(await sameRefusal('TwoScopes', bearer(user())[0])).to.equal('SCOPE_MISSING');
      expect(await sameRefusal('Operators', bearer(user())[0])).to.equal('ROLE_MISSING');
      expect(await sameRefusal('Services', bearer(user())[0])).to.equal('CALLER_KIND');
      expect(await sameRefusal('Users', bearer(service)[0])).to.equal('CALLER_KIND');
      expect(await sameRefusal('Fresh', bearer(late)[0])).to.equal('LOGIN_TOO_OLD');
    });

    it('what was revoked, has expired, or comes while the list is stale', async () => {
      const gone = user();
      const left = kit.user({ scopes: ['echo.call'], lifetimeSeconds: 60 });
      await kit.revoke({ session: gone });
      expect(await sameRefusal('Unary', bearer(gone)[0])).to.equal('TOKEN_REVOKED');
      await kit.goStale();
      expect(await sameRefusal('Unary', bearer(left)[0])).to.equal('REVOCATION_STATE_STALE');
      expect((await admit('Stale', bearer(left))).kind).to.equal('admitted');
      expect(await sameRefusal('Stale', bearer(gone)[0])).to.equal('TOKEN_REVOKED');
      await kit.recover();
      await kit.advance(70_000);
      expect(await sameRefusal('Unary', bearer(left)[0])).to.equal('TOKEN_EXPIRED');
    });

    it('paths that are not exactly those of a method', async () => {
      for (const method of ['Nothing', 'unary', 'Unary/', 'Unary?x=1']) {
        const status = await refused(method, bearer(user()));
        const sent = await client.open(pathOf(method), bearer(user())[0]).ends;
        expect(status.trailersOnly, method).to.deep.equal(sent);
        expect(status.reason, method).to.equal('NOT_FOUND');
      }
      const { headers } = await refused('50%\u00e9\n\ud800');
      expect(headers[1]).to.deep.equal([
        'grpc-message',
        `The server does not implement the method ${pathOf('50%25%C3%A9%0A%EF%BF%BD')}`,
      ]);
      // A path of 256 characters is repeated whole, as grpc-js does. Longer ones are cut, so that none multiplies what is sent.
      const whole = '%'.repeat(256 - pathOf('').length);
      const { headers: longest } = await refused(whole);
      const { headers: cut } = await refused(`${whole}${'%'.repeat(4_000)}`);
      expect(longest[1]?.[1]).to.equal(
        `The server does not implement the method ${pathOf(whole)}`.replaceAll('%', '%25'),
      );
      expect(cut).to.deep.equal(longest);
    });

    it('calls and streams beyond the limits of a user, a service and a network', async () => {
      await restart({ callsPerUser: 1, callsPerService: 1 });
      await sameLimit('ServerStream', bearer(user())[0], 'calls_per_user');
      await sameLimit(
        'ServerStream',
        bearer(kit.service('shop', { scopes: ['echo.call'] }))[0],
        'calls_per_service',
      );
      await restart({ streamsPerUser: 1, streamsPerService: 1 });
      await sameLimit('ServerStream', bearer(user())[0], 'streams_per_user');
      await sameLimit(
        'ServerStream',
        bearer(kit.service('shop', { scopes: ['echo.call'] }))[0],
        'streams_per_service',
      );
    });

    /** A call that stays open, and another one that the limit refuses. */
    async function sameLimit(method: string, authorization: string, limit: LimitName): Promise<void> {
      const first = client.open(pathOf(method), authorization);
      await first.began;
      const held = await entered(method, [authorization]);
      expect(await sameRefusal(method, authorization)).to.equal('RATE_LIMITED');
      expect(limited.splice(0)).to.deep.equal([limit]);
      // Its end makes room.
      held.unlink();
      (await entered(method, [authorization])).unlink();
      first.stream.close();
    }

    it('with a status in trailers where the call has begun', async () => {
      const caller = user();
      const open = client.open(pathOf('ServerStream'), bearer(caller)[0]);
      await open.began;
      const cuts = linked(await entered('ServerStream', bearer(caller)));
      await kit.revoke({ token: caller });
      expect(cuts.map(({ reason }) => reason)).to.deep.equal(['TOKEN_REVOKED']);
      expect(cuts[0]?.headers).to.deep.equal(await open.ends);
    });
  });

  describe('a status in its ready form', () => {
    /** A server without a guard whose handler fails with an error. */
    async function sentFor(errors: readonly ServiceError[]): Promise<Header[][]> {
      const server = new Server();
      let next: ServiceError | undefined;
      server.addService(
        { Fail: { ...ECHO['Unary'], path: pathOf('Fail') } as never },
        {
          Fail: (_call: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>) =>
            callback({ name: '', message: '', ...statusOf(next) }),
        },
      );
      const port = await new Promise<number>((resolve) => {
        server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (_error, bound) =>
          resolve(bound),
        );
      });
      const raw = new RawClient(port);
      const sent: Header[][] = [];
      for (const error of errors) {
        next = error;
        sent.push(await raw.open(pathOf('Fail')).ends);
      }
      raw.close();
      server.forceShutdown();
      return sent;
    }

    const CODES: readonly RefusalCode[] = [
      'TOKEN_MISSING',
      'TOKEN_INVALID',
      'TOKEN_EXPIRED',
      'TOKEN_REVOKED',
      'TLS_REQUIRED',
      'REVOCATION_STATE_STALE',
      'DEPENDENCY_UNAVAILABLE',
    ];
    const LIMITS: readonly LimitName[] = [
      'request_bytes',
      'request_seconds',
      'public_idle_seconds',
      'response_seconds',
      'bytes_in_flight',
      'public_calls',
      'public_calls_per_address',
      'calls_per_user',
      'streams_per_user',
      'calls_per_service',
      'streams_per_service',
      'connections',
      'connections_per_address',
      'connection_setup_seconds',
      'first_request_seconds',
      'new_streams_per_address',
      'verifications',
    ];

    it('has the bytes that grpc-js sends, for every refusal and every limit', async () => {
      const errors: ServiceError[] = [
        ...CODES.map((code) => sharedRefusal(code)),
        ...LIMITS.map((limit) => limitRefusal(limit)),
        invalidField('größe', '100 % "wide"\r\n'),
        invalidField('half', '\ud800'),
      ];
      const ready = errors.map((error) => readyStatusOf(error));
      const sent = await sentFor(errors);
      expect(ready.map(({ trailersOnly }) => trailersOnly)).to.deep.equal(sent);
      for (const [index, { code, reason, headers }] of ready.entries()) {
        const withoutHead = sent[index]?.filter(([name]) => name !== ':status' && name !== 'content-type');
        expect(headers).to.deep.equal(withoutHead);
        expect([String(code), reason]).to.deep.equal([headers[0]?.[1], errors[index]?.code]);
      }
    });

    it('is one object for all calls that end for the same reason', async () => {
      expect(await refused('Unary')).to.equal(await refused('Bidi'));
    });
  });

  describe('admits', () => {
    it('a caller with a valid token, whose principal and token it passes on', async () => {
      const caller = user();
      const decision = await admit('Unary', bearer(caller));
      if (decision.kind !== 'admitted') throw new Error(decision.kind);
      expect(decision.call.principal.id).to.equal(caller.id);
      expect(decision.call.token).to.equal(caller.token);
      expect(decision.requestBytesMax).to.equal(DEFAULT_LIMITS.requestBytes);
      expect(decision.call.method).to.deep.equal({ requestStream: false, responseStream: false });
      expect(observed).to.deep.equal(['Unary ADMITTED']);
    });

    it('a known token in the same turn, a new one later', async () => {
      const caller = user();
      const first = engine.admit(pathOf('Unary'), bearer(caller), LOCAL);
      expect(first).to.be.instanceOf(Promise);
      await first;
      const second = engine.admit(pathOf('Unary'), bearer(caller), LOCAL) as Decision;
      expect(second.kind).to.equal('admitted');
    });

    it('everyone to a public method, and reads no credential there', async () => {
      for (const authorizations of [[], ['x'], bearer(user())]) {
        const decision = await admit('Public', authorizations);
        if (decision.kind !== 'public') throw new Error(decision.kind);
        expect([decision.call.principal, decision.call.token]).to.deep.equal([undefined, undefined]);
        expect(decision.requestBytesMax).to.equal(DEFAULT_LIMITS.publicRequestBytes);
        expect(decision.call.denial()).to.equal(undefined);
      }
    });

    it('no token that came in plaintext from another machine', async () => {
      const exposed = { ...LOCAL, isPrivate: false };
      expect((await refused('Unary', bearer(user()), exposed)).reason).to.equal('TLS_REQUIRED');
      expect((await refused('Unary', [], exposed)).reason).to.equal('TOKEN_MISSING');
      expect((await admit('Public', bearer(user()), exposed)).kind).to.equal('public');
    });

    it('a bound token over its certificate alone, and asks for a new connection otherwise', async () => {
      const certificateThumbprint = 'A'.repeat(43);
      const caller = kit.user({ scopes: ['echo.call'], certificateThumbprint });
      const retired: unknown[] = [];
      const other = { ...LOCAL, retireConnection: () => void retired.push('once') };
      expect((await refused('Unary', bearer(caller), other)).reason).to.equal('TOKEN_INVALID');
      expect(retired).to.deep.equal(['once']);
      expect((await admit('Unary', bearer(caller), { ...LOCAL, certificateThumbprint })).kind).to.equal(
        'admitted',
      );
    });
  });

  describe('ends', () => {
    it('the calls of a revoked token once, synchronously with the check, and no others', async () => {
      const caller = user();
      const [one, two, other] = [
        await entered('Bidi', bearer(caller)),
        await entered('Unary', bearer(caller)),
        await entered('Bidi', bearer(user())),
      ];
      const cuts = [one, two, other].map(linked);
      await kit.revoke({ session: caller });
      expect(cuts.map((each) => each.map(({ reason }) => reason))).to.deep.equal([
        ['TOKEN_REVOKED'],
        ['TOKEN_REVOKED'],
        [],
      ]);
      expect(one.denial()).to.equal(cuts[0]?.[0]);
      await kit.goStale();
      expect(cuts.map(({ length }) => length)).to.deep.equal([1, 1, 1]);
      expect(cuts[2]?.[0]?.reason).to.equal('REVOCATION_STATE_STALE');
      expect(observed.filter((each) => !each.endsWith('ADMITTED'))).to.have.length(3);
    });

    it('the calls of a token that expires', async () => {
      const cuts = linked(
        await entered('Bidi', bearer(kit.user({ scopes: ['echo.call'], lifetimeSeconds: 60 }))),
      );
      await kit.advance(70_000);
      expect(cuts.map(({ reason }) => reason)).to.deep.equal(['TOKEN_EXPIRED']);
    });

    it('nothing that was unlinked', async () => {
      const caller = user();
      const call = await entered('Bidi', bearer(caller));
      const cuts = linked(call);
      call.unlink();
      call.unlink();
      await kit.revoke({ session: caller });
      expect([cuts, call.denial()]).to.deep.equal([[], undefined]);
    });

    it('a call at once that is linked after its revocation', async () => {
      const caller = user();
      const call = await entered('Bidi', bearer(caller));
      await kit.revoke({ session: caller });
      expect(linked(call).map(({ reason }) => reason)).to.deep.equal(['TOKEN_REVOKED']);
    });

    it('a call whose token is revoked while it is verified', async () => {
      const caller = user();
      const admission = admit('Bidi', bearer(caller));
      await kit.revoke({ session: caller });
      const decision = await admission;
      expect(decision.kind === 'refused' && decision.status.reason).to.equal('TOKEN_REVOKED');
    });

    it('a call by the answer to its question, without a cut', async () => {
      const caller = user();
      const call = await entered('Bidi', bearer(caller));
      const cuts = linked(call);
      expect(call.denial()).to.equal(undefined);
      // Asked by the wire before the engine has come to it, as in a large revocation.
      const guard = new FakeGuard();
      const asking = new DecidedEngineCall(pathOf('Bidi'), undefined, guard, LOCAL);
      const token = verifiedToken();
      asking.begin({ kind: 'admitted', token, allowStale: false, requestBytesMax: 1 });
      const asked = linked(asking);
      guard.denial = 'TOKEN_REVOKED';
      expect(asking.denial()?.reason).to.equal('TOKEN_REVOKED');
      expect([asked, token.liveCalls(), guard.decisions]).to.deep.equal([
        [],
        [],
        ['ADMITTED', 'TOKEN_REVOKED'],
      ]);
      expect(asking.denial()).to.equal(asking.denial());
      expect(guard.decisions).to.have.length(2);
      await kit.revoke({ session: caller });
      expect(cuts).to.have.length(1);
    });

    it('no call whose only response is on its way', async () => {
      const caller = user();
      const [answered, streaming] = [
        await entered('Unary', bearer(caller)),
        await entered('ServerStream', bearer(caller)),
      ];
      const cuts = [answered, streaming].map(linked);
      answered.answered();
      streaming.answered();
      await kit.revoke({ session: caller });
      expect(cuts.map(({ length }) => length)).to.deep.equal([0, 1]);
      expect(answered.denial()).to.equal(undefined);
    });
  });

  describe('limits', () => {
    it('the time of a request that does not arrive in full', async () => {
      await restart({ requestMs: 1000, publicIdleMs: 5000 });
      const caller = user();
      const [complete, incomplete] = [
        await entered('Unary', bearer(caller)),
        await entered('Unary', bearer(caller)),
      ];
      const cuts = [complete, incomplete].map(linked);
      complete.requestEnded();
      await kit.advance(1000);
      expect(cuts.map((each) => each.map(({ reason }) => reason))).to.deep.equal([[], ['REQUEST_TIMEOUT']]);
      expect(limited).to.deep.equal(['request_seconds']);
    });

    it('the time of a response for which the caller leaves no room', async () => {
      await restart({ responseMs: 2000 });
      const calls = [
        await entered('Public'),
        await entered('Public'),
        await entered('Unary', bearer(user())),
      ];
      const cuts = calls.map(linked);
      const [passed] = calls;
      for (const call of calls) {
        call.requestEnded();
        call.sending();
      }
      await kit.advance(1500);
      passed?.sent();
      passed?.sending();
      await kit.advance(500);
      const reasons = cuts.map((each) => each.map(({ reason }) => reason));
      expect(reasons).to.deep.equal([[], ['RATE_LIMITED'], ['RATE_LIMITED']]);
      expect(limited).to.deep.equal(['response_seconds', 'response_seconds']);
      passed?.answered();
      await kit.advance(5000);
      expect(cuts[0], 'what was answered was read').to.be.empty;
      expect(engine.state().publicCalls).to.equal(1);
    });

    it('unread responses of one network, which make room for other calls', async () => {
      await restart({ publicCallsPerAddress: 1 });
      const unread = await entered('Public');
      const cuts = linked(unread);
      unread.requestEnded();
      unread.sending();
      expect((await refused('Public')).reason).to.equal('RATE_LIMITED');
      await kit.advance(1000);
      expect((await admit('Public')).kind).to.equal('public');
      expect(cuts).to.have.length(1);
    });

    it('the silence of a public stream of requests, but not one whose kind is unknown and that is complete', async () => {
      await restart({ publicIdleMs: 1000 });
      const quiet = await kit.createEngine({
        audience: AUDIENCE,
        limits: { publicIdleMs: 1000 },
        publicMethods: [pathOf('Unknown')],
      });
      const open = async (): Promise<EngineCall> => {
        const decision = await quiet.admit(pathOf('Unknown'), [], LOCAL);
        if (decision.kind !== 'public') throw new Error(decision.kind);
        expect(decision.call.method).to.equal(undefined);
        return decision.call;
      };
      const [silent, active, complete] = [await open(), await open(), await open()];
      const cuts = [silent, active, complete].map(linked);
      complete.requestEnded();
      await kit.advance(600);
      active.requestActive();
      await kit.advance(600);
      expect(cuts.map((each) => each.map(({ reason }) => reason))).to.deep.equal([
        ['REQUEST_TIMEOUT'],
        [],
        [],
      ]);
    });

    it('public calls of one network, where the oldest incomplete one makes room', async () => {
      await restart({ publicCallsPerAddress: 2, publicCalls: 4 });
      const calls = [await entered('Public'), await entered('Public')];
      const cuts = calls.map(linked);
      for (const call of calls) call.requestEnded();
      expect((await refused('Public')).reason).to.equal('RATE_LIMITED');
      calls[0]?.unlink();
      const third = await entered('Public');
      const thirdCuts = linked(third);
      await entered('Public');
      expect(thirdCuts.map(({ reason }) => reason)).to.deep.equal(['RATE_LIMITED']);
      expect(cuts).to.deep.equal([[], []]);
      expect(engine.state().publicCalls).to.equal(2);
    });

    it('nothing twice: what has ended keeps its first status', async () => {
      const caller = user();
      const call = await entered('Bidi', bearer(caller));
      await kit.revoke({ session: caller });
      const first = call.denial();
      expect(first?.reason).to.equal('TOKEN_REVOKED');
      expect(call.exceeded('request_bytes')).to.equal(first);
    });

    it('calls that have ended more than once, once', async () => {
      await restart({ callsPerUser: 1 });
      const caller = user();
      const call = await entered('Unary', bearer(caller));
      for (let each = 0; each < 3; each += 1) call.unlink();
      await entered('Unary', bearer(caller));
      expect((await refused('Unary', bearer(caller))).reason).to.equal('RATE_LIMITED');
    });

    it('what its wire finds exceeded, and counts it', async () => {
      const call = await entered('Unary', bearer(user()));
      const cuts = linked(call);
      const status = call.exceeded('request_bytes');
      expect([status.reason, cuts]).to.deep.equal(['REQUEST_TOO_LARGE', []]);
      expect(call.denial()).to.equal(status);
      expect([limited, observed.at(-1)]).to.deep.equal([['request_bytes'], 'Unary REQUEST_TOO_LARGE']);
      engine.recordLimit('new_streams_per_address');
      expect(limited.at(-1)).to.equal('new_streams_per_address');
    });
  });

  it('replaces its rules as a whole, or keeps them', async () => {
    const outcome = async (method: string): Promise<string> => {
      const decision = await admit(method, bearer(user()));
      return decision.kind === 'refused' ? decision.status.reason : decision.kind;
    };
    const live = await entered('ServerStream', bearer(user()));
    const rules = accessRulesOf(ECHO, echoSchema());
    engine.replaceRules([
      { rules, paths: [pathOf('TwoScopes')] },
      { rules, paths: [pathOf('Unary')] },
    ]);
    expect(engine.paths).to.deep.equal([pathOf('TwoScopes'), pathOf('Unary')]);
    expect([await outcome('Unary'), await outcome('ServerStream'), await outcome('Public')]).to.deep.equal([
      'admitted',
      'NOT_FOUND',
      'NOT_FOUND',
    ]);
    expect(live.denial()).to.equal(undefined);
    const { Unary } = ECHO;
    const changed = accessRulesOf({ Unary } as typeof ECHO, echoSchema({ Unary: ECHO_RULES['TwoScopes'] }));
    expect(() => engine.replaceRules([{ rules: changed }, { rules, paths: [pathOf('Unary')] }])).to.throw(
      TypeError,
      `${pathOf('Unary')} was added to this guard before, with another rule`,
    );
    expect(await outcome('Unary')).to.equal('admitted');
    expect((await entered('Unary', bearer(user()))).method).to.deep.equal({
      requestStream: false,
      responseStream: false,
    });
    engine.replaceRules([{ rules: changed }]);
    expect(await outcome('Unary')).to.equal('SCOPE_MISSING');
  });

  it('states its limits, and when its list becomes current or stale', async () => {
    await restart({ callsPerUser: 7 });
    expect(engine.limits).to.deep.equal({ ...DEFAULT_LIMITS, ...NO_TIME_LIMITS, callsPerUser: 7 });
    await engine.ready;
    const changes: boolean[] = [];
    const stop = engine.onStateChange(() => changes.push(engine.state().current));
    await kit.goStale();
    await kit.recover();
    expect(changes).to.deep.equal([false, true]);
    stop();
    await kit.goStale();
    expect(changes).to.have.length(2);
    await kit.recover();
  });

  it('verifies tokens that are no credential, for one audience or any', async () => {
    const caller = user();
    for (const audience of [undefined, AUDIENCE]) {
      expect((await engine.authenticateToken(caller.token, audience)).subject).to.equal(caller.id);
    }
    const other = await engine
      .authenticateToken(caller.token, 'other')
      .catch((error: ServiceError) => error.code);
    expect(other).to.equal('TOKEN_INVALID');
    await kit.revoke({ session: caller });
    const revoked = await engine.authenticateToken(caller.token).catch((error: ServiceError) => error.code);
    expect(revoked).to.equal('TOKEN_REVOKED');
  });

  it('counts the connections that are reported to it, and destroys those beyond a limit', async () => {
    await restart({ connections: 1 });
    const sockets: Socket[] = [];
    const listener = createServer((socket) => {
      sockets.push(socket);
      engine.connections.accepted(socket);
    });
    await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
    const { port } = listener.address() as AddressInfo;
    const peers = [connectTcp(port, '127.0.0.1'), connectTcp(port, '127.0.0.1')];
    for (const peer of peers) peer.on('error', () => {});
    await until(() => sockets.length === 2);
    expect(sockets.map(({ destroyed }) => destroyed)).to.deep.equal([false, true]);
    expect(limited).to.deep.equal(['connections']);
    for (const peer of peers) peer.destroy();
    await new Promise((resolve) => listener.close(resolve));
  });

  it('reports the calls that it admits, and the connections of which it is told', async () => {
    const issuer = await TestIssuer.create();
    const reports: Report[] = [];
    const report: SendReport = async (one) => void reports.push(one);
    const own = await createEngine({
      issuer: ISSUER,
      audience: AUDIENCE,
      auth: { source: issuer.source, report },
      log: 'silent',
    });
    own.addRules(accessRulesOf(ECHO, echoSchema()));
    await own.ready;
    own.recordConnection('remote');
    await own.admit(pathOf('Unary'), [`Bearer ${await issuer.token()}`], LOCAL);
    await own.close();
    expect(reports.some(({ remotePlaintext }) => remotePlaintext)).to.equal(true);
    const admitted = reports.flatMap((one) => one.admitted);
    expect(admitted.map(({ calls, addresses }) => [calls, addresses])).to.deep.equal([[1n, ['127.0.0.1']]]);
  });

  it('may be allowed plaintext for its callers, and not towards its issuer', async () => {
    const { privateKey: clientKey } = generateKeyPairSync('ed25519');
    const auth = {
      address: '192.0.2.1:50051',
      credentials: credentials.createInsecure(),
      clientId: 'echo',
      clientKey,
    };
    const open = async (plaintext: 'loopback' | undefined) =>
      await createEngine({
        issuer: ISSUER,
        audience: AUDIENCE,
        auth: { ...auth, ...(plaintext !== undefined && { plaintext }) },
        plaintext: 'allow',
        log: 'silent',
      });
    expect(await rejectionOf(open('loopback'))).to.be.instanceOf(TypeError);
    await (await open(undefined)).close();
  });

  it('says where it runs, asks its issuer when it is told to, and not after it was closed', async () => {
    const issuer = await TestIssuer.create();
    // No regular sync is due for minutes.
    issuer.leaseMs = 600_000;
    const own = await createEngine({
      issuer: ISSUER,
      audience: AUDIENCE,
      auth: { source: issuer.source },
      log: 'silent',
    });
    await own.ready;
    const { description } = issuer.request ?? {};
    expect(description?.host).to.equal(hostname());
    expect(description?.version).to.match(/^\d+\.\d+\.\d+/);
    const startedMs = Date.now() - process.uptime() * 1000;
    expect(description?.startTime?.getTime()).to.be.within(startedMs - 1000, startedMs + 1000);
    expect(own.ready).to.be.instanceOf(Promise);
    // The first list is followed by a sync of its own.
    const asked = await issuer.quiet();
    own.syncNow();
    await until(() => issuer.asked === asked + 1);
    await own.close();
    // It has said goodbye.
    const after = issuer.asked;
    own.syncNow();
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(issuer.asked).to.equal(after);
  });

  it('keeps the metrics of unknown methods bounded', async () => {
    for (const method of ['A', 'B', 'C']) await refused(method);
    expect(new Set(observed)).to.deep.equal(new Set(['unknown NOT_FOUND']));
  });

  it('holds nothing of calls that have ended', async () => {
    const caller = user();
    for (let each = 0; each < DEFAULT_LIMITS.callsPerUser * 2; each += 1) {
      (await entered('Unary', bearer(caller))).unlink();
    }
  });

  describe('that only observes', () => {
    beforeEach(() => restart({}, 'observe'));

    it('lets calls go on, and names the reason', async () => {
      for (const [authorizations, reason] of [
        [[], 'TOKEN_MISSING'],
        [['Bearer x'], 'TOKEN_INVALID'],
        [bearer(kit.user()), 'SCOPE_MISSING'],
      ] as const) {
        const decision = await admit('Unary', authorizations);
        if (decision.kind !== 'observed') throw new Error(decision.kind);
        expect(decision.reason).to.equal(reason satisfies GuardErrorCode);
        expect(decision.call.denial()).to.equal(undefined);
      }
      expect(((await engine.admit('/x/y', [], LOCAL)) as Decision).kind).to.equal('observed');
      expect(observed).to.deep.equal([
        'Unary observed TOKEN_MISSING',
        'Unary observed TOKEN_INVALID',
        'Unary observed SCOPE_MISSING',
        'unknown observed NOT_FOUND',
      ]);
    });

    it('says of a call that goes on without its rights nothing more when its token is revoked', async () => {
      const caller = kit.user();
      const call = await entered('Unary', bearer(caller));
      await kit.revoke({ session: caller });
      expect(call.denial()).to.equal(undefined);
      expect(observed).to.deep.equal(['Unary observed SCOPE_MISSING']);
    });

    it('cuts no call of a revoked token, and says so once', async () => {
      const caller = user();
      const call = await entered('Bidi', bearer(caller));
      const cuts = linked(call);
      await kit.revoke({ session: caller });
      expect([call.denial(), cuts]).to.deep.equal([undefined, []]);
      expect(observed).to.deep.equal(['Bidi ADMITTED', 'Bidi observed TOKEN_REVOKED']);
    });
  });

  describe('a decision that took several turns', () => {
    it('keeps the reason of its refusal, and is counted once', () => {
      const guard = new FakeGuard();
      guard.denial = 'TOKEN_REVOKED';
      const decision = new DecidedEngineCall(pathOf('Bidi'), undefined, guard, LOCAL).beginLate({
        kind: 'refused',
        error: new GuardError('SCOPE_MISSING', 'a scope is missing'),
        token: verifiedToken(),
      });
      expect(decision.kind === 'refused' && decision.status.reason).to.equal('SCOPE_MISSING');
      expect(guard.decisions).to.have.length(1);
    });

    it('may be about a method that no schema describes, which may have streams', async () => {
      const guard = new FakeGuard();
      const call = new DecidedEngineCall('/x.v1.X/Y', undefined, guard, LOCAL);
      expect([call.method, call.requestStream, call.isStream]).to.deep.equal([undefined, true, true]);
      const begun = call.begin({
        kind: 'admitted',
        token: verifiedToken(),
        allowStale: false,
        requestBytesMax: 1,
      });
      expect(begun.kind).to.equal('admitted');
      // Only a single response ends what could be withheld.
      call.answered();
      guard.denial = 'TOKEN_REVOKED';
      expect(call.denial()?.reason).to.equal('TOKEN_REVOKED');
    });

    it('is none when the token was revoked in the last of them', () => {
      const guard = new FakeGuard();
      const begin = (): Decision =>
        new DecidedEngineCall(pathOf('Bidi'), undefined, guard, LOCAL).beginLate({
          kind: 'admitted',
          token,
          allowStale: false,
          requestBytesMax: 1,
        });
      const token = verifiedToken();
      expect(begin().kind).to.equal('admitted');
      guard.denial = 'TOKEN_REVOKED';
      const decision = begin();
      expect(decision.kind === 'refused' && decision.status.reason).to.equal('TOKEN_REVOKED');
      expect(token.liveCalls()).to.have.length(1);
    });
  });
});
