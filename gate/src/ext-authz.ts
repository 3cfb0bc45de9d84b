/** Envoy's ext_authz v3 (`envoy.service.auth.v3.Authorization`): one decision when a request begins. */

import {
  status as grpcStatus,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type sendUnaryData,
} from '@grpc/grpc-js';
import type { ReadyStatus } from '@portcullis/guard/engine';
import { serverCredentialsFrom, type TlsFiles, watchTlsFiles } from '@portcullis/guard/tls';
import {
  type AuthorizationServer,
  AuthorizationService,
  type CheckRequest,
  type CheckResponse,
  HeaderAppendAction,
  type HeaderValueOption,
  type HttpRequest,
} from '../gen/envoy/service/auth/v3/external_auth.js';
import { type Address, formatAddress } from './addresses.js';
import { type Answer, type Asked, isLoopbackAddress } from './decide.js';
import { type Header, IDENTITY_HEADERS, type Identity, isIdentityName } from './identity.js';
import type { GateLog } from './log.js';
import { httpStatusOf, protocolOf, type RequestForm, refusalOf } from './refusals.js';

/** A port that is open. */
export interface OpenPort {
  readonly address: Address;
  /** Reads certificates again. Never rejects. */
  reload(): Promise<void>;
  close(): Promise<void>;
}

/** Maximum size of a CheckRequest, in bytes. Envoy's headers are at most 60 KiB; bodies are not asked for. */
const CHECK_BYTES_MAX = 256 * 1024;

/** Only where the scheme of a request is this, nobody on the network could read the caller's token. */
const PRIVATE_SCHEME = 'https';

/** Opens the port. Whoever can call it can ask whether a token is good: a unix socket, or certificates of both sides. */
export async function openExtAuthz(options: {
  readonly address: Address;
  readonly tls: TlsFiles | undefined;
  readonly asked: Asked;
  readonly identity: () => Identity;
  readonly log: GateLog;
}): Promise<OpenPort> {
  const { address, tls, asked, identity, log } = options;
  if (address.kind !== 'unix' && (tls?.ca === undefined || tls.cert === undefined)) {
    throw new TypeError('ext_authz needs a unix socket, or certificates of both sides');
  }
  const server = createServer(asked, identity, log);
  const watch = tls && watchTlsFiles({ files: tls, log });
  const credentials =
    watch === undefined ? ServerCredentials.createInsecure() : serverCredentialsFrom(watch, 'required');
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(formatAddress(address), credentials, (error, bound) => {
      if (error === null) resolve(bound);
      else reject(error);
    });
  });
  return {
    address: address.kind === 'unix' ? address : { ...address, port },
    reload: async () => await watch?.reload(),
    close: async () => {
      watch?.close();
      await new Promise<void>((resolve) => server.tryShutdown(() => resolve()));
    },
  };
}

function createServer(asked: Asked, identity: () => Identity, log: GateLog): Server {
  const server = new Server({ 'grpc.max_receive_message_length': CHECK_BYTES_MAX });
  const handlers: AuthorizationServer = {
    check: (
      { request }: ServerUnaryCall<CheckRequest, CheckResponse>,
      callback: sendUnaryData<CheckResponse>,
    ) => {
      Promise.resolve()
        .then(() => check(request, asked, identity()))
        .then(
          (response) => callback(null, response),
          (error: unknown) => {
            log.error({ event: 'check_failed', err: error }, 'a check failed');
            // Envoy treats it as an error of the filter: closed, unless failure_mode_allow is set.
            callback({ code: grpcStatus.INTERNAL, details: 'internal error' });
          },
        );
    },
  };
  server.addService(AuthorizationService, handlers);
  return server;
}

/** Decides one request of Envoy. */
async function check(request: CheckRequest, asked: Asked, identity: Identity): Promise<CheckResponse> {
  const { source, request: described } = request.attributes ?? {};
  const http = described?.http;
  const socket = source?.address?.address;
  const address = socket?.$case === 'socketAddress' ? socket.value.address : '';
  const headers = headersOf(http);
  const answer = await asked.decide({
    path: http?.path ?? '',
    authorizations: headers.filter(([name]) => name === 'authorization').map(([, value]) => value),
    address,
    port: socket?.$case === 'socketAddress' ? socket.value.portValue : 0,
    // A proxy that says nothing about the connection is taken for one that others can read.
    isPrivate: http?.scheme === PRIVATE_SCHEME || (address !== '' && isLoopbackAddress(address)),
    certificate: source?.certificate === '' ? undefined : source?.certificate,
  });
  return responseOf(answer, headers, http, identity);
}

/** Raw headers show repeated ones; the others are joined by Envoy, and a joined credential is none. */
function headersOf(http: HttpRequest | undefined): Header[] {
  const raw = http?.headerMap?.headers ?? [];
  if (raw.length > 0) {
    return raw.map(({ key, value, rawValue }) => [
      key.toLowerCase(),
      rawValue.length > 0 ? Buffer.from(rawValue).toString('latin1') : value,
    ]);
  }
  return Object.entries(http?.headers ?? {}).map(([name, value]) => [name.toLowerCase(), value]);
}

function responseOf(
  answer: Answer,
  headers: readonly Header[],
  http: HttpRequest | undefined,
  identity: Identity,
): CheckResponse {
  if (!answer.isAdmitted) return denied(answer.status, formOf(headers, http));
  const set = identity.headersOf(answer.principal);
  const names = new Set(set.map(([name]) => name));
  // What a caller says about identity never reaches the upstream. Envoy removes after it has set.
  const sent = headers.map(([name]) => name).filter(isIdentityName);
  const removed = new Set([...IDENTITY_HEADERS, ...sent].filter((name) => !names.has(name)));
  if (identity.stripsToken) removed.add('authorization');
  return {
    status: { code: grpcStatus.OK, message: '' },
    httpResponse: {
      $case: 'okResponse',
      value: { headers: set.map(optionOf), headersToRemove: [...removed] },
    },
  };
}

/** Envoy turns an HTTP status into one of gRPC; the headers, which it sets last, say which one the guard sends. */
function denied(status: ReadyStatus, form: RequestForm): CheckResponse {
  const refusal = protocolOf(form) === 'grpc' ? undefined : refusalOf(status, form);
  const headers =
    refusal === undefined ? status.headers : refusal.headers.filter(([name]) => name !== 'content-length');
  return {
    status: { code: status.code, message: status.message },
    httpResponse: {
      $case: 'deniedResponse',
      value: {
        status: { code: refusal?.status ?? httpStatusOf(status.code) },
        headers: headers.map(optionOf),
        body: refusal === undefined ? status.message : refusal.body.toString('utf8'),
      },
    },
  };
}

function formOf(headers: readonly Header[], http: HttpRequest | undefined): RequestForm {
  return {
    method: http?.method ?? '',
    path: http?.path ?? '',
    header: (wanted) => headers.find(([name]) => name === wanted)?.[1],
  };
}

function optionOf([key, value]: Header): HeaderValueOption {
  return {
    header: { key, value, rawValue: Buffer.alloc(0) },
    appendAction: HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
  };
}
