/** Calls of unary handlers as the guard admits them, without a connection. */

import { Metadata, type ServerUnaryCall } from '@grpc/grpc-js';
import { type Principal, unary } from '@portcullis/guard';
import { attachState } from '@portcullis/guard/internal';

/** The address from which the calls come. */
export const CALL_PEER = '192.0.2.77:4000';

/** The user whose calls these are. */
export const CALLER: Principal = {
  issuer: 'https://auth.example',
  id: 'c9b1a1a0-6f4e-4f1b-9a57-0d7c2f7c0001',
  subject: 'c9b1a1a0-6f4e-4f1b-9a57-0d7c2f7c0001',
  clientId: 'direct',
  tokenId: 'c9b1a1a0-6f4e-4f1b-9a57-0d7c2f7c0002',
  sessionId: 'c9b1a1a0-6f4e-4f1b-9a57-0d7c2f7c0003',
  kind: 'USER',
  scopes: new Set(),
  roles: new Set(),
  audiences: ['auth'],
  actors: [],
  authTimeSeconds: undefined,
  expiresAtSeconds: 0,
};

/** Calls a handler, and returns what the peer receives; rejects as a client's call does. */
export function callHandler<Request, Response>(
  handle: (request: Request, call: ServerUnaryCall<Request, Response>) => Promise<Response> | Response,
  request: Request,
  over: { readonly signal?: AbortSignal; readonly certificateThumbprint?: string } = {},
): Promise<Response> {
  const metadata = new Metadata();
  attachState(metadata, {
    path: '/test',
    principal: CALLER,
    bearer: 'none',
    signal: new AbortController().signal,
    certificateThumbprint: undefined,
    stillAllowed: () => 1000,
    passFence: () => Promise.resolve(1000),
    reportFailure: () => undefined,
    ...over,
  });
  const call = { request, metadata, getPeer: () => CALL_PEER } as ServerUnaryCall<Request, Response>;
  return new Promise((resolve, reject) => {
    unary(handle)(call, (error, response) => {
      if (error !== null) reject(Object.assign(new Error(error.details), error));
      else if (response === undefined || response === null) reject(new Error('neither error nor response'));
      else resolve(response);
    });
  });
}
