/** The issuer's revocation log over gRPC: real calls, and how they end on both sides. */

import { generateKeyPairSync } from 'node:crypto';
import { getEventListeners } from 'node:events';
import {
  credentials,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  status,
} from '@grpc/grpc-js';
import { expect } from 'chai';
import type { RevocationSource } from '../../../interceptors/src/revocation/feed-runner.js';
import { createRemoteSource } from '../../../interceptors/src/revocation/source.js';
import {
  PullRequest,
  type PullResponse,
  RevocationServiceService,
  SyncRequest,
  type SyncResponse,
} from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import {
  IssueServiceTokenRequest,
  IssueServiceTokenResponse,
} from '../../../proto/gen/portcullis/token/v1/token.js';
import { refusalOf } from '../../support/outcomes.js';
import { until } from '../../support/waiting.js';
import { answer, endOfPull, partOf } from './feed-support.js';

const { sync: SYNC, pull: PULL } = RevocationServiceService;
/** The one method of the issuer's own service that the library calls. */
const ISSUE_SERVICE_TOKEN = {
  path: '/auth.v1.AuthService/IssueServiceToken',
  requestStream: false,
  responseStream: false,
  requestSerialize: (value: IssueServiceTokenRequest) =>
    Buffer.from(IssueServiceTokenRequest.encode(value).finish()),
  requestDeserialize: (bytes: Buffer) => IssueServiceTokenRequest.decode(bytes),
  responseSerialize: (value: IssueServiceTokenResponse) =>
    Buffer.from(IssueServiceTokenResponse.encode(value).finish()),
  responseDeserialize: (bytes: Buffer) => IssueServiceTokenResponse.decode(bytes),
};

type Unary<Request, Response> = ServerUnaryCall<Request, Response>;

describe('the revocation log of a remote issuer', () => {
  const { privateKey } = generateKeyPairSync('ed25519');
  const syncRequest = SyncRequest.fromPartial({ service: 'inventory', applied: 7n });
  const pullRequest = PullRequest.fromPartial({ service: 'inventory' });
  let server: Server;
  let source: RevocationSource;
  let tokenRequests: IssueServiceTokenRequest[];
  let syncs: Unary<SyncRequest, SyncResponse>[];
  let pulls: ServerWritableStream<PullRequest, PullResponse>[];
  let onToken: (respond: () => void) => void;
  let onSync: (respond: sendUnaryData<SyncResponse>) => void;
  let onPull: (stream: ServerWritableStream<PullRequest, PullResponse>) => void;

  beforeEach(async () => {
    [tokenRequests, syncs, pulls] = [[], [], []];
    onToken = (respond) => respond();
    onSync = (respond) => respond(null, answer({ head: 9n }));
    onPull = (stream) => {
      stream.write(partOf());
      stream.write(endOfPull(9n));
      stream.end();
    };
    server = new Server();
    server.addService(
      { token: ISSUE_SERVICE_TOKEN, sync: SYNC, pull: PULL },
      {
        token: (
          { request }: Unary<IssueServiceTokenRequest, IssueServiceTokenResponse>,
          respond: sendUnaryData<IssueServiceTokenResponse>,
        ) => {
          tokenRequests.push(request);
          const expireTime = new Date(Date.now() + 300_000);
          const token = { ...IssueServiceTokenResponse.fromPartial({}), accessToken: 'token-1', expireTime };
          onToken(() => respond(null, token));
        },
        sync: (call: Unary<SyncRequest, SyncResponse>, respond: sendUnaryData<SyncResponse>) => {
          syncs.push(call);
          onSync(respond);
        },
        pull: (stream: ServerWritableStream<PullRequest, PullResponse>) => {
          pulls.push(stream);
          onPull(stream);
        },
      },
    );
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
        error === null ? resolve(bound) : reject(error),
      );
    });
    source = await createRemoteSource({
      address: `127.0.0.1:${port}`,
      credentials: credentials.createInsecure(),
      clientId: 'inventory',
      clientKey: privateKey,
      issuer: 'https://auth.example',
    });
  });
  afterEach(() => {
    source.close?.();
    server.forceShutdown();
  });

  async function partsOf(signal: AbortSignal): Promise<PullResponse[]> {
    const parts: PullResponse[] = [];
    for await (const part of source.pull(pullRequest, signal)) parts.push(part);
    return parts;
  }
  function listenersOf(signal: AbortSignal): number {
    return getEventListeners(signal, 'abort').length;
  }

  it("is read with the service's own token, which has no other scope", async () => {
    const { signal } = new AbortController();
    expect(await source.sync(syncRequest, signal)).to.deep.equal(answer({ head: 9n }));
    expect(await partsOf(signal)).to.deep.equal([partOf(), endOfPull(9n)]);
    expect(syncs.map(({ request }) => request)).to.deep.equal([syncRequest]);
    expect(pulls.map(({ request }) => request)).to.deep.equal([pullRequest]);
    for (const { metadata } of [...syncs, ...pulls]) {
      expect(metadata.get('authorization')).to.deep.equal(['Bearer token-1']);
    }
    expect(tokenRequests.map(({ clientId, scopes }) => ({ clientId, scopes }))).to.deep.equal([
      { clientId: 'inventory', scopes: ['auth.sync'] },
    ]);
  });

  it('reports the error of the issuer, and leaves no listener on the signal', async () => {
    const { signal } = new AbortController();
    const error = { code: status.FAILED_PRECONDITION, details: 'not this log' };
    onSync = (respond) => respond(error);
    onPull = (stream) => void stream.emit('error', error);
    expect(await refusalOf(source.sync(syncRequest, signal))).to.include({ code: error.code });
    expect(await refusalOf(partsOf(signal))).to.include({ code: error.code });
    onSync = (respond) => respond(null, answer());
    await source.sync(syncRequest, signal);
    expect(listenersOf(signal)).to.equal(0);
  });

  it('cancels a sync and a pull when their signal is aborted', async () => {
    const controller = new AbortController();
    onSync = () => {};
    onPull = (stream) => void stream.write(partOf());
    const [sync, pull] = [source.sync(syncRequest, controller.signal), partsOf(controller.signal)];
    await until(() => syncs.length === 1 && pulls.length === 1);
    expect(listenersOf(controller.signal)).to.equal(2);
    controller.abort();
    expect(await refusalOf(sync)).to.include({ code: status.CANCELLED });
    expect(await refusalOf(pull)).to.include({ code: status.CANCELLED });
    await until(() => syncs[0]?.cancelled === true && pulls[0]?.cancelled === true);
    expect(listenersOf(controller.signal)).to.equal(0);
  });

  it('ends when its signal is aborted while the token is still being fetched', async () => {
    const controller = new AbortController();
    let deliver = (): void => {};
    onToken = (respond) => {
      deliver = respond;
    };
    const [sync, pull] = [source.sync(syncRequest, controller.signal), partsOf(controller.signal)];
    await until(() => tokenRequests.length === 1);
    controller.abort();
    expect(await refusalOf(sync)).to.include({ code: status.CANCELLED });
    expect(await refusalOf(pull)).to.include({ code: status.CANCELLED });
    deliver();
    await source.sync(syncRequest, new AbortController().signal);
    expect([syncs.length, pulls.length]).to.deep.equal([1, 0]);
  });

  it('sends nothing when the signal is already aborted', async () => {
    const signal = AbortSignal.abort();
    expect(await refusalOf(source.sync(syncRequest, signal))).to.include({ code: status.CANCELLED });
    expect(await refusalOf(partsOf(signal))).to.include({ code: status.CANCELLED });
    expect([syncs, pulls]).to.deep.equal([[], []]);
  });

  it('cancels a pull whose reader stops early', async () => {
    const { signal } = new AbortController();
    onPull = (stream) => void stream.write(partOf());
    for await (const part of source.pull(pullRequest, signal)) {
      expect(part).to.deep.equal(partOf());
      break;
    }
    await until(() => pulls[0]?.cancelled === true);
    expect(listenersOf(signal)).to.equal(0);
  });

  it('is not read any more once it is closed', async () => {
    const { signal } = new AbortController();
    await source.sync(syncRequest, signal);
    source.close?.();
    expect(await refusalOf(source.sync(syncRequest, signal)))
      .to.have.property('code')
      .that.is.not.equal(status.OK);
    expect(syncs).to.have.length(1);
  });
});
