/** The issuer's revocation log over gRPC, with this service's own token. */

import {
  type ChannelCredentials,
  type ClientReadableStream,
  type ServiceError as GrpcError,
  Metadata,
  status,
} from '@grpc/grpc-js';
import {
  type PullRequest,
  type PullResponse,
  RevocationServiceClient,
  type SyncRequest,
  type SyncResponse,
} from '../../gen/portcullis/revocation/v1/revocation.js';
import type { ClientKey } from '../client/client-key.js';
import { authenticate } from '../client/interceptor.js';
import { channelOptionsFor } from '../client/issuer-client.js';
import { createServiceTokenSource } from '../client/service-tokens.js';
import type { Plaintext } from '../wire/connection.js';
import type { RevocationSource } from './feed-runner.js';
import { VersionError } from './version-error.js';

/** The scope that Sync and Pull require. */
const SYNC_SCOPE = 'auth.sync';

/** The version of the protocol that this library speaks: the package of its messages. */
const PROTOCOL = 'portcullis.revocation.v1';

/** Whether the server does not know the service: it serves another version of the protocol, or is no issuer. */
function isOtherVersion(error: GrpcError): boolean {
  return error.code === status.UNIMPLEMENTED;
}

function otherVersion(address: string, cause: GrpcError): Error {
  const problem = `${address} does not serve ${PROTOCOL}, the revocation protocol of this version`;
  return new VersionError(problem, { cause });
}

/**
 * @throws Error when the client key cannot be used, TypeError when tokens would leave this machine in plaintext
 */
export async function createRemoteSource(options: {
  address: string;
  credentials: ChannelCredentials;
  clientId: string;
  clientKey: ClientKey;
  issuer: string;
  plaintext?: Plaintext | undefined;
}): Promise<RevocationSource> {
  const tokens = createServiceTokenSource({ ...options, scopes: [SYNC_SCOPE] });
  const client = new RevocationServiceClient(
    options.address,
    options.credentials,
    channelOptionsFor(options),
  );
  const interceptors = [authenticate(tokens)];

  return {
    sync: (request: SyncRequest, signal: AbortSignal) =>
      new Promise<SyncResponse>((resolve, reject) => {
        const call = client.sync(
          request,
          new Metadata(),
          { interceptors },
          (error: GrpcError | null, response: SyncResponse) => {
            signal.removeEventListener('abort', cancel);
            if (error === null) resolve(response);
            else reject(isOtherVersion(error) ? otherVersion(options.address, error) : error);
          },
        );
        const cancel = (): void => call.cancel();
        if (signal.aborted) cancel();
        signal.addEventListener('abort', cancel);
      }),

    async *pull(request: PullRequest, signal: AbortSignal): AsyncGenerator<PullResponse> {
      const stream: ClientReadableStream<PullResponse> = client.pull(request, new Metadata(), {
        interceptors,
      });
      const cancel = (): void => stream.cancel();
      if (signal.aborted) cancel();
      signal.addEventListener('abort', cancel);
      try {
        for await (const part of stream) yield part as PullResponse;
      } finally {
        signal.removeEventListener('abort', cancel);
        cancel();
      }
    },

    close: () => {
      client.close();
      tokens.close();
    },
  };
}
