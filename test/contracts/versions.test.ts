/**
 * Versions side by side: this library with an issuer of another version. The reverse is in the tests of the handlers of
 * RevocationService.
 */

import { generateKeyPairSync } from 'node:crypto';
import {
  credentials,
  type handleServerStreamingCall,
  type handleUnaryCall,
  Server,
  ServerCredentials,
} from '@grpc/grpc-js';
import { createGuard, type Guard } from '@portcullis/guard';
import { expect } from 'chai';
import {
  type EntryKind,
  PullRequest,
  PullResponse,
  RevocationServiceService,
  SyncRequest,
  SyncResponse,
} from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { IssueServiceTokenResponse } from '../../proto/gen/portcullis/token/v1/token.js';
import { TestIssuer } from '../support/issuer.js';
import { until } from '../support/waiting.js';

/** Fields that no version has: a number, a text, and a message. */
const UNKNOWN_FIELDS = Buffer.from([
  0xf8, 0x7f, 0x07, 0xfa, 0x7f, 0x01, 0x78, 0x82, 0x80, 0x01, 0x02, 0x08, 0x01,
]);

const { sync: SYNC, pull: PULL } = RevocationServiceService;
const AUDIENCE = 'echo';

const raw = {
  requestSerialize: bytesOf,
  requestDeserialize: bytesOf,
  responseSerialize: bytesOf,
  responseDeserialize: bytesOf,
};

function bytesOf(value: Buffer): Buffer {
  return value;
}

async function listen(server: Server): Promise<number> {
  return await new Promise((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) =>
      error === null ? resolve(port) : reject(error),
    );
  });
}

describe('this library with a newer issuer', () => {
  const { privateKey } = generateKeyPairSync('ed25519');
  let issuer: TestIssuer;
  let server: Server;
  let guard: Guard | undefined;
  /** What the newer issuer adds to its messages. */
  let added: Buffer;
  /** What it sends in place of the parts of a pull; undefined for those of this version. */
  let pulled: Buffer[] | undefined;
  let problems: string[];

  beforeEach(async () => {
    issuer = await TestIssuer.create();
    added = UNKNOWN_FIELDS;
    pulled = undefined;
    problems = [];
    server = new Server();
  });
  afterEach(async () => {
    await guard?.close();
    guard = undefined;
    server.forceShutdown();
  });

  const token: handleUnaryCall<Buffer, Buffer> = (_call, respond) => {
    const response = { accessToken: 'token', expireTime: new Date(Date.now() + 300_000) };
    respond(
      null,
      Buffer.concat([
        IssueServiceTokenResponse.encode({
          ...IssueServiceTokenResponse.fromPartial({}),
          ...response,
        }).finish(),
        UNKNOWN_FIELDS,
      ]),
    );
  };
  const sync: handleUnaryCall<Buffer, Buffer> = ({ request }, respond) => {
    void issuer.source.sync(SyncRequest.decode(request), new AbortController().signal).then((response) => {
      respond(null, Buffer.concat([SyncResponse.encode(response).finish(), added]));
    });
  };
  const pull: handleServerStreamingCall<Buffer, Buffer> = (call) => {
    void (async () => {
      for (const part of pulled ?? []) call.write(part);
      if (pulled === undefined) {
        for await (const part of issuer.source.pull(
          PullRequest.decode(call.request),
          new AbortController().signal,
        )) {
          call.write(Buffer.concat([PullResponse.encode(part).finish(), UNKNOWN_FIELDS]));
        }
      }
      call.end();
    })();
  };

  async function start(services: readonly ('sync' | 'pull')[] = ['sync', 'pull']): Promise<Guard> {
    const path = '/auth.v1.AuthService/IssueServiceToken';
    server.addService({ token: { path, requestStream: false, responseStream: false, ...raw } }, { token });
    if (services.length > 0) {
      server.addService({ sync: { ...SYNC, ...raw }, pull: { ...PULL, ...raw } }, { sync, pull });
    }
    const port = await listen(server);
    guard = await createGuard({
      issuer: issuer.claims()['iss'] as string,
      audience: AUDIENCE,
      auth: {
        address: `127.0.0.1:${port}`,
        credentials: credentials.createInsecure(),
        clientId: AUDIENCE,
        clientKey: privateKey,
      },
      log: {
        info: () => {},
        error: () => {},
        warn: (fields) => {
          const { event, problem } = fields as { event?: string; problem?: string };
          if (event === 'sync_failed' && problem !== undefined) problems.push(problem);
        },
      },
    });
    return guard;
  }

  it('ignores fields that it does not know', async () => {
    const revoked = issuer.revokeSession('c9b1a1a0-6f4e-4f1b-9a57-0d7c2f7c0003');
    await (await start()).ready;
    await until(() => guard?.state().current === true);
    expect(guard?.state()).to.include({ applied: revoked.sequence, entries: 1 });
    expect(problems).to.deep.equal([]);
  });

  it('trusts its list no longer when an entry is of a kind that it does not know, and says what to do', async () => {
    issuer.revoke(99 as EntryKind, 'network 192.0.2.0/24');
    await start();
    await until(() => problems.length > 0);
    expect(guard?.state().current).to.equal(false);
    expect(problems[0]).to.match(
      /^a revocation entry is of unknown kind 99: update @portcullis\/guard or the issuer/,
    );
  });

  it('trusts its list no longer when a part of a pull is unknown, and says what to do', async () => {
    // The field `pull` of SyncResponse, and a part with a field that this version does not know.
    added = Buffer.from([0x28, 0x01]);
    pulled = [UNKNOWN_FIELDS];
    await start();
    await until(() => problems.length > 0);
    expect(guard?.state().current).to.equal(false);
    expect(problems[0]).to.match(
      /^a part of the revocation list is of unknown kind: update @portcullis\/guard or/,
    );
  });

  it('says which protocol it needs where the issuer serves another one', async () => {
    await start([]);
    await until(() => problems.length > 0);
    expect(guard?.state().current).to.equal(false);
    expect(problems[0]).to.match(
      /^127\.0\.0\.1:\d+ does not serve portcullis\.revocation\.v1, the revocation protocol of this version: update/,
    );
  });
});
