/** RevocationService over a real socket, behind a stand-in for the guard. */

import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  credentials,
  Metadata,
  Server,
  ServerCredentials,
  ServerInterceptingCall,
  type ServerInterceptor,
  status,
} from '@grpc/grpc-js';
import { createGuard, type Principal, serverStream, unary } from '@portcullis/guard';
import { createExchange, errorOf } from '@portcullis/guard/client';
import { attachState } from '@portcullis/guard/internal';
import { expect } from 'chai';
import { nativeHandlersOf } from '../../../../interceptors/src/server/handlers.js';
import { AuthServiceService } from '../../../../proto/gen/auth/v1/auth_service.js';
import {
  EnforcementState,
  type Entry,
  EntryKind,
  type GetRevocationResponse,
  type ListRevocationsRequest,
  type ListRevocationsResponse,
  PullResponse,
  RevocationServiceClient,
  RevocationServiceService,
  type RevokeRequest,
  type RevokeResponse,
  type RevokeSessionsRequest,
  type RevokeSessionsResponse,
  type RevokeTarget,
  RevokeWait,
  type SessionFilter,
  SyncRequest,
  SyncResponse,
} from '../../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { IssueServiceTokenResponse } from '../../../../proto/gen/portcullis/token/v1/token.js';
import { createRevocationSource } from '../../../../services/auth/adapters/revocation-source.js';
import { createRevocationHandlers } from '../../../../services/auth/revocation/handlers.js';
import { createRevocationRecords } from '../../../../services/auth/revocation/listed-revocations-store.js';
import { userRevocation } from '../../../../services/auth/revocation/log.js';
import { refusalOf } from '../../../support/outcomes.js';
import { until } from '../../../support/waiting.js';
import { following, openTestLog, question, type TestLog } from './revocation-support.js';

const TOKEN_ID = '0190b5a4-7c3e-7d1a-8f00-00112233aabb';

const principal: Principal = {
  issuer: 'https://auth.test',
  id: 'olga',
  subject: 'olga',
  clientId: 'direct',
  tokenId: TOKEN_ID,
  sessionId: undefined,
  kind: 'USER',
  scopes: new Set(),
  roles: new Set(),
  audiences: ['auth'],
  actors: [],
  authTimeSeconds: undefined,
  expiresAtSeconds: 0,
};

/** Admits every call as olga's. */
const admitAll: ServerInterceptor = (descriptor, call) =>
  new ServerInterceptingCall(call, {
    start: (next) => {
      const ended = new AbortController();
      next({
        onReceiveMetadata: (metadata, receive) => {
          attachState(metadata, {
            path: descriptor.path,
            principal,
            bearer: 'none',
            signal: ended.signal,
            certificateThumbprint: undefined,
            stillAllowed: () => 1000,
            passFence: () => Promise.resolve(1000),
            reportFailure: () => undefined,
          });
          receive(metadata);
        },
        onCancel: () => ended.abort(),
      });
    },
  });

describe('RevocationService', () => {
  let log: TestLog;
  let server: Server;
  let client: RevocationServiceClient;

  async function listen(to: Server): Promise<string> {
    const port = await new Promise<number>((resolve, reject) =>
      to.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
        error === null ? resolve(bound) : reject(error),
      ),
    );
    return `127.0.0.1:${port}`;
  }

  beforeEach(async () => {
    log = await openTestLog();
    server = new Server({ interceptors: [admitAll] });
    const source = createRevocationSource(log.revocations);
    server.addService(
      RevocationServiceService,
      nativeHandlersOf(
        RevocationServiceService,
        createRevocationHandlers({
          ...log,
          revocationRecords: createRevocationRecords(log.database),
          epochs: { open: () => Promise.reject(new TypeError('no epoch expected')) },
          source,
        }),
      ),
    );
    client = new RevocationServiceClient(await listen(server), credentials.createInsecure());
  });
  afterEach(async () => {
    client.close();
    server.forceShutdown();
    await log.close();
  });

  const revoke = (request: Partial<RevokeRequest>) =>
    new Promise<RevokeResponse>((resolve, reject) => {
      const whole = {
        target: undefined,
        targets: [],
        dryRun: false,
        fences: [],
        reason: '',
        wait: RevokeWait.REVOKE_WAIT_UNSPECIFIED,
        ...request,
      };
      client.revoke(whole, (error, response) => (error === null ? resolve(response) : reject(error)));
    });
  const revokeSessions = (request: Partial<RevokeSessionsRequest>) =>
    new Promise<RevokeSessionsResponse>((resolve, reject) => {
      const wait = RevokeWait.REVOKE_WAIT_UNSPECIFIED;
      const whole = { filter: undefined, reason: '', wait, dryRun: false, fences: [], ...request };
      client.revokeSessions(whole, (error, response) => (error === null ? resolve(response) : reject(error)));
    });
  const listRevocations = (request: ListRevocationsRequest) =>
    new Promise<ListRevocationsResponse>((resolve, reject) => {
      client.listRevocations(request, (error, response) =>
        error === null ? resolve(response) : reject(error),
      );
    });
  const getRevocation = (sequence: bigint) =>
    new Promise<GetRevocationResponse>((resolve, reject) => {
      client.getRevocation({ sequence }, (error, response) =>
        error === null ? resolve(response) : reject(error),
      );
    });
  const sync = (request: SyncRequest) =>
    new Promise<SyncResponse>((resolve, reject) => {
      client.sync(request, (error, response) => (error === null ? resolve(response) : reject(error)));
    });
  const refusedFields = async (answer: Promise<unknown>) => {
    const { code, reason, violations } = await refusalOf(answer);
    return [code, reason, ...violations.map(({ field }) => field)];
  };
  const syncRequest = (over: Partial<SyncRequest> = {}): SyncRequest => ({
    ...question(),
    description: undefined,
    leaving: false,
    seen: [],
    kinds: [],
    claimIds: [],
    fences: [],
    ...over,
  });

  describe('with a library of another version', () => {
    /** Fields that no version has: a number and a text. */
    const unknownFields = Buffer.from([0xf8, 0x7f, 0x07, 0xfa, 0x7f, 0x01, 0x78]);

    const syncBytes = async (request: Uint8Array): Promise<SyncResponse> => {
      const { path } = RevocationServiceService.sync;
      const same = (bytes: Buffer): Buffer => bytes;
      const bytes = await new Promise<Buffer>((resolve, reject) => {
        client.makeUnaryRequest(path, same, same, Buffer.from(request), (error, response) => {
          if (response === undefined) reject(error);
          else resolve(response);
        });
      });
      return SyncResponse.decode(bytes);
    };

    it('ignores fields and kinds of entries that a newer one names', async () => {
      await log.revokeToken();
      const kinds = [EntryKind.ENTRY_KIND_TOKEN, 99 as EntryKind];
      const newer = Buffer.concat([SyncRequest.encode(syncRequest({ kinds })).finish(), unknownFields]);
      expect(await syncBytes(newer)).to.include({ head: 1n, pull: true });
    });

    it('answers an older one, which names neither kinds nor what it holds, in messages that it can read', async () => {
      await log.revokeToken();
      const { service, instance, epoch, applied, entryIdAtApplied, keySetVersion, seen } = syncRequest();
      const position = { service, instance, epoch, applied, entryIdAtApplied, keySetVersion, seen };
      const first = await syncBytes(SyncRequest.encode(SyncRequest.fromPartial(position)).finish());
      expect(first).to.include({ head: 1n, pull: true });
      const following = SyncRequest.fromPartial({ ...position, epoch: first.epoch });
      const { pull, entries, leaseLength } = await syncBytes(SyncRequest.encode(following).finish());
      expect(pull).to.equal(false);
      expect(entries.map(({ kind, sequence }) => [kind, sequence])).to.deep.equal([
        [EntryKind.ENTRY_KIND_TOKEN, 1n],
      ]);
      expect(Number(leaseLength?.seconds)).to.be.greaterThan(0);
    });
  });

  describe('in an older form, without its newer fields and methods', () => {
    /** An absent field has its default, which is not sent. */
    const olderEntry = (entry: Entry): Entry => ({ ...entry, issuer: '', cutOffTime: undefined, claim: '' });
    let older: Server;
    let address: string;
    const { privateKey: clientKey, publicKey } = generateKeyPairSync('ed25519');
    const identity = () => ({
      address,
      credentials: credentials.createInsecure(),
      clientId: 'inventory',
      clientKey,
    });

    beforeEach(async () => {
      older = new Server();
      const { sync: syncMethod, pull } = RevocationServiceService;
      older.addService(
        { issueServiceToken: AuthServiceService.issueServiceToken, sync: syncMethod, pull },
        {
          issueServiceToken: unary(() => ({
            ...IssueServiceTokenResponse.fromPartial({}),
            accessToken: 'token',
            expireTime: new Date(Date.now() + 300_000),
          })),
          sync: unary<SyncRequest, SyncResponse>(async (request) => {
            const { service, instance, epoch, applied, entryIdAtApplied, keySetVersion, seen } = request;
            const position = { service, instance, epoch, applied, entryIdAtApplied, keySetVersion, seen };
            const { entries, ...response } = await sync(SyncRequest.fromPartial(position));
            return {
              ...response,
              entries: entries.map(olderEntry),
              broadcastKeys: [],
              horizon: undefined,
              epochNumber: 0n,
              fenceWanted: 0n,
            };
          }),
          pull: serverStream(async function* (request) {
            for await (const part of client.pull(request) as AsyncIterable<PullResponse>) {
              const { part: content } = part;
              if (content?.$case === 'entries') {
                const entries = content.value.entries.map(olderEntry);
                yield PullResponse.fromPartial({ part: { $case: 'entries', value: { entries } } });
              } else {
                yield part;
              }
            }
          }),
        },
      );
      address = await listen(older);
    });
    afterEach(() => older.forceShutdown());

    it('is followed by this library, which raises no fence', async () => {
      const key = {
        kid: 'one',
        algorithm: 'EdDSA',
        jwk: JSON.stringify(publicKey.export({ format: 'jwk' })),
      };
      log.keys.published = {
        keySet: { version: Buffer.alloc(32, 1), keys: [key] },
        broadcastKeys: [{ ...key, kid: 'two' }],
      };
      await log.revokeToken();
      let raised = 0;
      const transaction = (): Promise<void> => {
        raised += 1;
        return Promise.resolve();
      };
      const guard = await createGuard({
        issuer: principal.issuer,
        audience: 'inventory',
        auth: identity(),
        fences: [{ transaction }],
        log: 'silent',
      });
      try {
        await guard.ready;
        await until(() => guard.state().current);
        expect(guard.state().applied).to.equal(1n);
        await log.revokeToken(randomUUID());
        guard.syncNow();
        await until(() => guard.state().applied === 2n);
        expect(guard.state().current).to.equal(true);
        expect(raised).to.equal(0);
      } finally {
        await guard.close();
      }
    });

    it('ends an exchange of tokens with UNIMPLEMENTED', async () => {
      const exchange = createExchange({ ...identity(), issuer: principal.issuer });
      const metadata = new Metadata();
      attachState(metadata, {
        path: '/test.v1.EchoService/Unary',
        principal: { ...principal, expiresAtSeconds: Math.ceil(Date.now() / 1000) + 300 },
        bearer: 'token',
        signal: new AbortController().signal,
        certificateThumbprint: undefined,
        stillAllowed: () => 1000,
        passFence: () => Promise.resolve(1000),
        reportFailure: () => undefined,
      });
      try {
        const source = exchange.forCall({ metadata }, { audience: 'payment', scopes: ['payment.pay'] });
        const failed = await source.get().then(undefined, (error: unknown) => error);
        expect(errorOf(failed).code).to.equal(status.UNIMPLEMENTED);
      } finally {
        exchange.close();
      }
    });
  });

  it('revokes each kind of target, in the name of the caller', async () => {
    const userId = await log.addUser();
    const sessionId = await log.addSession(userId);
    const targets: RevokeRequest['target'][] = [
      { $case: 'tokenId', value: TOKEN_ID },
      { $case: 'sessionId', value: sessionId },
      { $case: 'userId', value: userId },
    ];
    for (const [index, target] of targets.entries()) {
      const response = await revoke({
        target,
        reason: 'stolen',
        wait: RevokeWait.REVOKE_WAIT_NONE,
        targets: [],
      });
      expect(response.sequence).to.equal(BigInt(index + 1));
      expect(response.enforcedEverywhereBy?.getTime()).to.be.above(Date.now() + 4000);
    }
    const { rows } = await log.database.query(
      'SELECT kind, reason, actor FROM revocation_entries ORDER BY seq',
    );
    const by = { reason: 'stolen', actor: 'olga' };
    expect(rows).to.deep.equal([
      { kind: 'TOKEN', ...by },
      { kind: 'SESSION', ...by },
      { kind: 'USER', ...by },
    ]);
  });

  it('revokes many targets in one call, with a result for each and one receipt', async () => {
    const userId = await log.addUser();
    const [sessionId, other] = [await log.addSession(userId), await log.addSession(userId)];
    const unknown = '00000000-0000-4000-8000-000000000000';
    const targets: RevokeTarget[] = [
      { target: { $case: 'sessionId', value: sessionId } },
      { target: { $case: 'sessionId', value: unknown } },
      { target: { $case: 'tokenId', value: 'no UUID' } },
      { target: { $case: 'userId', value: userId } },
      { target: { $case: 'tokenId', value: TOKEN_ID } },
      { target: { $case: 'sessionId', value: other } },
    ];
    const response = await revoke({ targets, reason: 'stolen' });
    expect(response.results.map(({ errorReason }) => errorReason)).to.deep.equal([
      '',
      'NOT_FOUND',
      'FIELD_INVALID',
      '',
      '',
      '',
    ]);
    expect(response.results.map(({ targetKnown }) => targetKnown)).to.deep.equal([
      true,
      false,
      false,
      true,
      false,
      true,
    ]);
    expect(response.targetKnown).to.equal(false);
    const sequences = response.results.map(({ sequence }) => sequence).filter((sequence) => sequence > 0n);
    expect([...sequences].sort()).to.deep.equal([1n, 2n, 3n, 4n]);
    expect(response.sequence).to.equal(4n);
    expect(response.enforcedEverywhereBy?.getTime()).to.be.above(Date.now() + 4000);
  });

  it('returns no receipt when all of many targets fail', async () => {
    const target = { $case: 'sessionId', value: TOKEN_ID } as const;
    const response = await revoke({ targets: [{ target }, { target }] });
    expect(response).to.deep.include({ sequence: 0n, enforcedEverywhereBy: undefined, instances: [] });
  });

  it('rejects more than 1000 targets, targets beside a target, and an empty one among them', async () => {
    const target = { $case: 'tokenId', value: TOKEN_ID } as const;
    const refused = [status.INVALID_ARGUMENT, 'FIELD_INVALID'];
    const many = Array.from({ length: 1001 }, () => ({ target }));
    expect(await refusedFields(revoke({ targets: many }))).to.deep.equal([...refused, 'targets']);
    expect(await refusedFields(revoke({ target, targets: [{ target }] }))).to.deep.equal([
      ...refused,
      'targets',
    ]);
    expect(await refusedFields(revoke({ targets: [{ target: undefined }] }))).to.deep.equal([
      ...refused,
      'targets[0]',
    ]);
    expect((await log.revocations.sync(question())).head).to.equal(0n);
  });

  it('waits for the instances that have all of many entries', async () => {
    const follower = await log.revocations.sync(question());
    const targets = [1, 2, 3].map(
      (): RevokeTarget => ({ target: { $case: 'tokenId', value: randomUUID() } }),
    );
    const revoking = revoke({ targets, wait: RevokeWait.REVOKE_WAIT_KNOWN_INSTANCES });
    const start = following({ ...follower, head: 0n, headEntryId: Buffer.alloc(0) });
    await until(async () => (await log.revocations.sync(start)).head === 3n);
    const first = await log.revocations.sync(start);
    // It has the last entry, which does not show that it has the others.
    const last = first.entries.at(-1)?.entryId ?? Buffer.alloc(0);
    await log.revocations.sync({ ...question({ epoch: first.epoch }), seen: [last] });
    const isEarly = await Promise.race([revoking.then(() => true), sleep(100).then(() => false)]);
    expect(isEarly).to.equal(false);
    await log.revocations.sync(following(first));
    const { instances } = await revoking;
    expect(instances.map(({ state }) => state)).to.deep.equal([EnforcementState.ENFORCEMENT_STATE_ENFORCED]);
  });

  it('counts and lists the sessions that match a filter, then ends them', async () => {
    const [alice, bob] = [await log.addUser(), await log.addUser()];
    const mine = [await log.addSession(alice), await log.addSession(alice)].sort();
    const other = await log.addSession(bob);
    await log.database.query("INSERT INTO user_roles VALUES ($1, 'operator')", [alice]);
    const filter = { role: 'operator', clientId: '', loggedInBeforeTime: undefined, network: '', userId: '' };
    const dry = await revokeSessions({ filter, dryRun: true });
    expect(dry.sessionCount).to.equal(2n);
    expect(dry.sessions.map(({ sessionId }) => sessionId)).to.deep.equal(mine);
    expect(dry).to.deep.include({ sequence: 0n, enforcedEverywhereBy: undefined });
    const revoked = await revokeSessions({ filter, reason: 'role misused' });
    expect(revoked).to.deep.include({ sessionCount: 2n, sequence: 2n, sessions: [] });
    expect((await revokeSessions({ filter })).sessionCount).to.equal(0n);
    const { rows } = await log.database.query<{ session_id: string }>(
      'SELECT session_id FROM sessions WHERE end_time IS NULL',
    );
    expect(rows.map(({ session_id }) => session_id)).to.deep.equal([other]);
  });

  it('matches sessions by client, time, network and user, all of which must hold', async () => {
    const [alice, bob] = [await log.addUser(), await log.addUser()];
    const [first, second] = [await log.addSession(alice), await log.addSession(bob)];
    await log.database.query(
      `INSERT INTO security_events_unplaced
         (event_id, life, type, event_time, subject, subjects, actor, reason, network, source, details, keep_until)
       VALUES (gen_random_uuid(), 'routine', 'session-established', now(), '{}', ARRAY[$1], '', '', '192.0.2.7', 'auth',
               '{}', now())`,
      [first],
    );
    const none = { role: '', clientId: '', loggedInBeforeTime: undefined, network: '', userId: '' };
    const matching = async (over: Partial<SessionFilter>) => {
      const { sessions } = await revokeSessions({ filter: { ...none, ...over }, dryRun: true });
      return sessions.map(({ sessionId }) => sessionId);
    };
    expect(await matching({ clientId: 'direct' })).to.have.members([first, second]);
    expect(await matching({ clientId: 'other' })).to.deep.equal([]);
    expect(await matching({ loggedInBeforeTime: new Date(Date.now() + 1000) })).to.have.members([
      first,
      second,
    ]);
    expect(await matching({ loggedInBeforeTime: new Date(0) })).to.deep.equal([]);
    expect(await matching({ network: '192.0.2.7' })).to.deep.equal([first]);
    await log.database.query('SELECT place_security_events(10)');
    expect(await matching({ network: '192.0.2.7' })).to.deep.equal([first]);
    expect(await matching({ userId: bob.toUpperCase() })).to.deep.equal([second]);
    expect(await matching({ userId: bob, network: '192.0.2.7' })).to.deep.equal([]);
  });

  it('rejects a filter without a condition, and one with a malformed user', async () => {
    const none = { role: '', clientId: '', loggedInBeforeTime: undefined, network: '', userId: '' };
    for (const filter of [undefined, none]) {
      for (const dryRun of [true, false]) {
        expect(await refusedFields(revokeSessions({ filter, dryRun }))).to.deep.equal([
          status.INVALID_ARGUMENT,
          'FIELD_INVALID',
          'filter',
        ]);
      }
    }
    expect(await refusedFields(revokeSessions({ filter: { ...none, userId: 'bob' } }))).to.include(
      'filter.user_id',
    );
  });

  it('lists revocations with who made them and why, newest first', async () => {
    const sessionId = await log.addSession(await log.addUser());
    await revoke({ target: { $case: 'tokenId', value: TOKEN_ID }, reason: 'one' });
    await revoke({ target: { $case: 'sessionId', value: sessionId }, reason: 'two' });
    await revoke({ target: { $case: 'tokenId', value: TOKEN_ID }, reason: 'three' });
    const all = { pageSize: 2, pageToken: '', target: '', actor: '', eventId: '' };
    const first = await listRevocations(all);
    expect(first.revocations.map(({ reason }) => reason)).to.deep.equal(['three', 'two']);
    expect(first.revocations[1]).to.deep.include({
      sequence: 2n,
      kind: EntryKind.ENTRY_KIND_SESSION,
      target: sessionId,
      issuer: '',
      actor: 'olga',
    });
    expect(Math.abs(Date.now() - (first.revocations[0]?.revokeTime?.getTime() ?? 0))).to.be.below(60_000);
    const rest = await listRevocations({ ...all, pageToken: first.nextPageToken });
    expect(rest.revocations.map(({ reason }) => reason)).to.deep.equal(['one']);
    expect(rest.nextPageToken).to.equal('');
    const about = await listRevocations({ ...all, pageSize: 10, target: TOKEN_ID.toUpperCase() });
    expect(about.revocations.map(({ reason }) => reason)).to.deep.equal(['three', 'one']);
    expect((await listRevocations({ ...all, actor: 'eve' })).revocations).to.deep.equal([]);
    expect(await refusedFields(listRevocations({ ...all, actor: 'e\0ve' }))).to.include('actor');
    expect((await listRevocations({ ...all, target: 'e\0ve' })).revocations).to.deep.equal([]);
  });

  it('shows which instances enforce a revocation', async () => {
    const follower = await log.revocations.sync(question());
    await revoke({ target: { $case: 'tokenId', value: TOKEN_ID }, reason: 'lost laptop' });
    const before = await log.revocations.sync(
      following({ ...follower, head: 0n, headEntryId: Buffer.alloc(0) }),
    );
    await log.instances.list({ pageSize: 1, pageToken: '' });
    const pending = await getRevocation(1n);
    expect(pending.revocation).to.include({ reason: 'lost laptop', target: TOKEN_ID });
    const states = EnforcementState;
    expect(pending.instances.map(({ state }) => state)).to.deep.equal([states.ENFORCEMENT_STATE_PENDING]);
    const beforeSync = Date.now();
    await log.revocations.sync(following(before));
    await log.instances.list({ pageSize: 1, pageToken: '' });
    const enforced = await getRevocation(1n);
    expect(enforced.instances).to.have.length(1);
    const enforcedMs = enforced.instances[0]?.enforcedTime?.getTime() ?? 0;
    expect(enforcedMs).to.be.within(beforeSync - 1000, Date.now() + 1000);
    await log.revocations.sync(following(before));
    await log.instances.list({ pageSize: 1, pageToken: '' });
    expect((await getRevocation(1n)).instances[0]?.enforcedTime?.getTime()).to.equal(enforcedMs);
    expect(enforced.instances[0]).to.include({
      service: 'inventory',
      state: states.ENFORCEMENT_STATE_ENFORCED,
    });
    for (const sequence of [2n, 2n ** 64n - 1n]) {
      expect(await refusalOf(getRevocation(sequence))).to.include({ reason: 'NOT_FOUND' });
    }
  });

  it('rejects a request without a target, and one with an unknown wait', async () => {
    expect(await refusedFields(revoke({}))).to.deep.equal([
      status.INVALID_ARGUMENT,
      'FIELD_INVALID',
      'target',
    ]);
    const target = { $case: 'tokenId' as const, value: TOKEN_ID };
    expect(await refusedFields(revoke({ target, wait: RevokeWait.UNRECOGNIZED, targets: [] }))).to.deep.equal(
      [status.INVALID_ARGUMENT, 'FIELD_INVALID', 'wait'],
    );
    expect((await log.revocations.sync(question())).head).to.equal(0n);
  });

  it('fails with NOT_FOUND for an unknown session', async () => {
    const refusal = await refusalOf(revoke({ target: { $case: 'sessionId', value: TOKEN_ID } }));
    expect(refusal).to.include({ code: status.NOT_FOUND, reason: 'NOT_FOUND' });
  });

  it('returns entries, keys and lease to a sync request', async () => {
    await revoke({ target: { $case: 'tokenId', value: TOKEN_ID } });
    await log.store.setLeaseMs(1500);
    const first = await sync(syncRequest());
    expect(first.pull).to.equal(true);
    const { entries, ...answer } = await sync(syncRequest({ epoch: first.epoch }));
    expect(answer).to.deep.include({
      head: 1n,
      pull: false,
      leaseLength: { seconds: 1n, nanos: 500_000_000 },
    });
    expect(answer.keySet?.keys.map(({ kid }) => kid)).to.deep.equal(['token-one']);
    expect(answer.broadcastKeys.map(({ kid }) => kid)).to.deep.equal(['broadcast-one']);
    expect(entries).to.have.length(1);
    expect(entries[0]).to.deep.include({
      entryId: answer.entryIdAtHead,
      sequence: 1n,
      kind: EntryKind.ENTRY_KIND_TOKEN,
      key: Buffer.from(TOKEN_ID.replaceAll('-', ''), 'hex'),
      acknowledge: false,
    });
  });

  it('rejects the sync of an instance that is ahead of the log with LOG_CHANGED, and a malformed one', async () => {
    const { epoch } = await sync(syncRequest());
    const ahead = syncRequest({ epoch, applied: 9n, entryIdAtApplied: Buffer.alloc(16) });
    expect((await refusalOf(sync(ahead))).reason).to.equal('LOG_CHANGED');
    expect(await refusedFields(sync(syncRequest({ instance: Buffer.alloc(0) })))).to.deep.equal([
      status.INVALID_ARGUMENT,
      'FIELD_INVALID',
      'instance',
    ]);
  });

  it('streams the live list, the end last', async () => {
    await revoke({ target: { $case: 'tokenId', value: TOKEN_ID } });
    await log.transaction((tx) =>
      tx.revocations.append([{ ...userRevocation('alice', 5n), reason: '', actor: 'test' }]),
    );
    const parts: PullResponse['part'][] = [];
    const stream = client.pull({ service: 'inventory', instance: Buffer.alloc(16) }, new Metadata());
    for await (const { part } of stream as AsyncIterable<PullResponse>) parts.push(part);
    expect(parts.map((part) => part?.$case)).to.deep.equal(['packed', 'entries', 'end']);
    const [packed, listed, end] = parts;
    expect(packed?.$case === 'packed' && packed.value.ids.toString('hex')).to.equal(
      TOKEN_ID.replaceAll('-', ''),
    );
    expect(listed?.$case === 'entries' && listed.value.entries[0]).to.include({
      minGeneration: 5n,
      sequence: 2n,
    });
    expect(end?.$case === 'end' && end.value.sequence).to.equal(2n);
  });
});
