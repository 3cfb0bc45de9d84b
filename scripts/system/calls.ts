/** Unary calls to running services as promises. */

import type { CallOptions, ClientUnaryCall, ServiceError } from '@grpc/grpc-js';
import { Metadata } from '@grpc/grpc-js';

const TIMEOUT_MS_DEFAULT = 10_000;

/** A unary method of a generated client. */
type UnaryMethod<Request, Response> = (
  request: Request,
  metadata: Metadata,
  options: Partial<CallOptions>,
  callback: (error: ServiceError | null, response: Response) => void,
) => ClientUnaryCall;

interface AskOptions {
  readonly token?: string;
  readonly timeoutMs?: number;
}

/**
 * Calls a unary method: `ask(client.getItem.bind(client), { sku }, { token })`.
 *
 * @throws ServiceError of grpc-js, with the status of the response
 */
export async function ask<Request, Response>(
  method: UnaryMethod<Request, Response>,
  request: Request,
  options: AskOptions = {},
): Promise<Response> {
  const deadline = Date.now() + (options.timeoutMs ?? TIMEOUT_MS_DEFAULT);
  return await new Promise((resolve, reject) => {
    method(request, tokenMetadata(options), { deadline }, (error, response) => {
      if (error === null) resolve(response);
      else reject(error);
    });
  });
}

/** Metadata with the token as credential; empty without a token. */
export function tokenMetadata({ token }: AskOptions): Metadata {
  const metadata = new Metadata();
  if (token !== undefined) metadata.set('authorization', `Bearer ${token}`);
  return metadata;
}
