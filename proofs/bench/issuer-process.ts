/** An issuer as a process, which serves instances over gRPC. */

import { randomBytes } from 'node:crypto';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { serverStream, unary } from '@portcullis/guard';
import {
  type PullRequest,
  type PullResponse,
  RevocationServiceService,
  type SyncRequest,
  type SyncResponse,
} from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import {
  IssueServiceTokenRequest,
  IssueServiceTokenResponse,
} from '../../proto/gen/portcullis/token/v1/token.js';
import { BenchIssuer, ID_BYTES } from './issuer.js';
import { executeCommands } from './worker.js';

const TOKEN_MS = 3_600_000;
const NEVER = new AbortController().signal;

const issuer = await BenchIssuer.create();

const commands = {
  /** Opens a port. @param options.entries - number of revoked tokens in the log. @returns the port */
  listen: async (options: { entries: number; leaseMs: number }): Promise<number> => {
    issuer.packed = randomBytes(options.entries * ID_BYTES);
    issuer.leaseMs = options.leaseMs;
    const server = new Server();
    server.addService(RevocationServiceService, {
      sync: unary<SyncRequest, SyncResponse>((request) => issuer.source.sync(request, NEVER)),
      pull: serverStream<PullRequest, PullResponse>((request) => issuer.source.pull(request, NEVER)),
      revoke: unimplemented,
      listInstances: unimplemented,
      openEpoch: unimplemented,
    });
    server.addService(TOKENS, { IssueServiceToken: unary(issueToken) });
    return await new Promise((resolve, reject) => {
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) =>
        error === null ? resolve(port) : reject(error),
      );
    });
  },
};

export type IssuerCommands = typeof commands;

const TOKENS = {
  IssueServiceToken: {
    path: '/auth.v1.AuthService/IssueServiceToken',
    requestStream: false,
    responseStream: false,
    requestSerialize: (message: IssueServiceTokenRequest) =>
      Buffer.from(IssueServiceTokenRequest.encode(message).finish()),
    requestDeserialize: (bytes: Buffer) => IssueServiceTokenRequest.decode(bytes),
    responseSerialize: (message: IssueServiceTokenResponse) =>
      Buffer.from(IssueServiceTokenResponse.encode(message).finish()),
    responseDeserialize: (bytes: Buffer) => IssueServiceTokenResponse.decode(bytes),
  },
} as const;

async function issueToken(request: IssueServiceTokenRequest): Promise<IssueServiceTokenResponse> {
  const accessToken = await issuer.token({ sub: request.clientId, client_id: request.clientId });
  const { scopes, audiences } = request;
  return { accessToken, expireTime: new Date(Date.now() + TOKEN_MS), scopes, audiences };
}

const unimplemented = unary<object, never>(() => {
  throw new TypeError('the bench does not call this method');
});

executeCommands(commands);
