/** RevocationService over a real socket, behind a stand-in for the guard. */

import {
  credentials,
  Metadata,
  Server,
  ServerCredentials,
  ServerInterceptingCall,
  type ServerInterceptor,
  status,
} from '@grpc/grpc-js';
import type { Principal } from '@portcullis/guard';
import { attachState } from '@portcullis/guard/internal';
import { expect } from 'chai';
import {
  EntryKind,
  type PullResponse,
  RevocationServiceClient,
  RevocationServiceService,
  type RevokeRequest,
  type RevokeResponse,
  RevokeWait,
  type SyncRequest,
  type SyncResponse,
} from '../../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { createRevocationSource } from '../../../../services/auth/adapters/revocation-source.js';
import { createRevocationHandlers } from '../../../../services/auth/revocation/handlers.js';
import { userRevocation } from '../../../../services/auth/revocation/log.js';
import { refusalOf } from '../../../support/outcomes.js';
import { openTestLog, question, type TestLog } from './revocation-support.js';

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

  beforeEach(async () => {
    log = await openTestLog();
    server = new Server({ interceptors: [admitAll] });
    const source = createRevocationSource(log.revocations);
    server.addService(
      RevocationServiceService,
      createRevocationHandlers({
        ...log,
        epochs: { open: () => Promise.reject(new TypeError('no epoch expected')) },
        source,
      }),
    );
    const port = await new Promise<number>((resolve, reject) =>
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
        error === null ? resolve(bound) : reject(error),
      ),
    );
    client = new RevocationServiceClient(`127.0.0.1:${port}`, credentials.createInsecure());
  });
  afterEach(async () => {
    client.close();
    server.forceShutdown();
    await log.close();
  });

  const revoke = (request: Partial<RevokeRequest>) =>
    new Promise<RevokeResponse>((resolve, reject) => {
      const whole = { target: undefined, reason: '', wait: RevokeWait.REVOKE_WAIT_UNSPECIFIED, ...request };
      client.revoke(whole, (error, response) => (error === null ? resolve(response) : reject(error)));
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
    seen: [],
    ...over,
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
      const response = await revoke({ target, reason: 'stolen', wait: RevokeWait.REVOKE_WAIT_NONE });
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

  it('rejects a request without a target, and one with an unknown wait', async () => {
    expect(await refusedFields(revoke({}))).to.deep.equal([
      status.INVALID_ARGUMENT,
      'FIELD_INVALID',
      'target',
    ]);
    const target = { $case: 'tokenId' as const, value: TOKEN_ID };
    expect(await refusedFields(revoke({ target, wait: RevokeWait.UNRECOGNIZED }))).to.deep.equal([
      status.INVALID_ARGUMENT,
      'FIELD_INVALID',
      'wait',
    ]);
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
