/** Changes of the policy that revoke the token of the command that makes them, at an auth that answers so. */

import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { type handleUnaryCall, Server, ServerCredentials } from '@grpc/grpc-js';
import { expect } from 'chai';
import { createContextStore } from '../../cli/src/contexts.js';
import { runProgram } from '../../cli/src/program.js';
import { GuardError } from '../../interceptors/src/errors.js';
import { statusOf } from '../../interceptors/src/wire/status.js';
import { AuthServiceService, RefreshResponse } from '../../proto/gen/auth/v1/auth_service.js';
import { ClientServiceService } from '../../proto/gen/auth/v1/client_service.js';
import {
  ApplyPolicyResponse,
  GetPolicyResponse,
  PolicyServiceService,
  RegisterServiceResponse,
} from '../../proto/gen/auth/v1/policy_service.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';

/** A call that changes the policy. */
interface Change {
  readonly requestId: string;
  readonly authorization: string;
}

/** A text in the form of a token; each session has another one. */
const tokenOf = (name: string): string =>
  `e30.${Buffer.from(JSON.stringify({ iss: 'https://auth.example', name })).toString('base64url')}.e30`;

describe('a command that changes the policy', () => {
  let folder: Awaited<ReturnType<typeof makeTemporaryFolder>>;
  let server: Server;
  let address: string;
  let changes: Change[];
  let refreshes: number;
  /** The names of the tokens that auth does not accept any more. */
  let revoked: ReadonlySet<string>;

  beforeEach(async () => {
    folder = await makeTemporaryFolder();
    [changes, refreshes, revoked] = [[], 0, new Set(['before'])];
    server = new Server();
    const answering =
      (answer: () => object): handleUnaryCall<unknown, unknown> =>
      (_call, respond) =>
        respond(null, answer());
    const changing =
      (answer: object): handleUnaryCall<{ requestId: string; dryRun: boolean }, object> =>
      ({ request, metadata }, respond) => {
        if (request.dryRun) return respond(null, answer);
        const authorization = String(metadata.get('authorization')[0]);
        changes.push({ requestId: request.requestId, authorization });
        const isRevoked = [...revoked].some((name) => authorization === `Bearer ${tokenOf(name)}`);
        if (!isRevoked) return respond(null, answer);
        const status = statusOf(new GuardError('TOKEN_REVOKED', 'the token was revoked'));
        respond({ name: 'Error', message: status.details, ...status });
      };
    const all = (definition: object) =>
      Object.fromEntries(Object.keys(definition).map((name) => [name, answering(() => ({}))]));
    server.addService(AuthServiceService, {
      ...all(AuthServiceService),
      refresh: answering(() => {
        refreshes += 1;
        const accessTokenExpireTime = new Date(Date.now() + 300_000);
        const accessToken = tokenOf('after');
        return RefreshResponse.fromPartial({ accessToken, accessTokenExpireTime, refreshToken: 'next' });
      }),
    });
    server.addService(ClientServiceService, all(ClientServiceService));
    server.addService(PolicyServiceService, {
      ...all(PolicyServiceService),
      getPolicy: answering(() => GetPolicyResponse.fromPartial({ policy: { etag: 'e1' } })),
      applyPolicy: changing(ApplyPolicyResponse.fromPartial({ narrowedUsers: 1n })),
      registerService: changing(RegisterServiceResponse.fromPartial({})),
    });
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
        error === null ? resolve(bound) : reject(error),
      );
    });
    address = `127.0.0.1:${port}`;
  });
  afterEach(async () => {
    server.forceShutdown();
    await folder.remove();
  });

  async function run(words: readonly string[]) {
    const store = createContextStore({ PORTCULLIS_CONFIG: join(folder.path, 'contexts.json') });
    await store.save('default', {
      address,
      username: 'olga',
      sessionId: '',
      accessToken: tokenOf('before'),
      accessTokenExpireTime: new Date(Date.now() + 300_000).toISOString(),
      refreshToken: 'refresh',
    });
    const [output, notes] = [new PassThrough(), new PassThrough()];
    const code = await runProgram({ terminal: { input: new PassThrough(), output, notes }, store, words });
    return { code, err: String(notes.read() ?? '') };
  }

  async function apply() {
    const file = join(folder.path, 'policy.yaml');
    await writeFile(file, 'services: []\nroles: []\n');
    return await run(['policy', 'apply', file]);
  }

  async function add() {
    const proto = join(folder.path, 'shop.binpb');
    await writeFile(proto, '');
    return await run(['service', 'add', 'shop', '--proto', proto, '--out', folder.path]);
  }

  for (const [name, command] of [
    ['policy apply', apply],
    ['service add', add],
  ] as const) {
    it(`renews the session, and repeats the same request: ${name}`, async () => {
      const { code, err } = await command();
      expect(code, err).to.equal(0);
      expect(refreshes).to.equal(1);
      expect(changes.map(({ authorization }) => authorization)).to.deep.equal([
        `Bearer ${tokenOf('before')}`,
        `Bearer ${tokenOf('after')}`,
      ]);
      const [first, second] = changes;
      expect(first?.requestId).to.be.a('string').with.length(36);
      expect(second?.requestId).to.equal(first?.requestId);
      const stored = await readFile(join(folder.path, 'contexts.json'), 'utf8');
      expect(stored).to.include(tokenOf('after')).and.include('"next"');
    });

    it(`gives up when the renewed token is revoked as well: ${name}`, async () => {
      revoked = new Set(['before', 'after']);
      const { code, err } = await command();
      expect([code === 0, refreshes, changes.length]).to.deep.equal([false, 1, 2]);
      expect(err).to.include('revoked');
    });
  }
});
