/** An HTTP check for proxies that ask by a subrequest: nginx's `auth_request`, and forward-auth of Caddy and Traefik. */

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo, isIP } from 'node:net';
import { type Address, isOnThisMachine } from './addresses.js';
import { type Answer, type Asked, isLoopbackAddress } from './decide.js';
import type { OpenPort } from './ext-authz.js';
import { type Header, IDENTITY_PREFIX, type Identity } from './identity.js';
import type { GateLog } from './log.js';
import { protocolOf, type RequestForm, refusalOf } from './refusals.js';

/** Maximum size of a request's headers, in bytes: a token, and what proxies add. */
const HEADER_BYTES_MAX = 64 * 1024;

/** How long a proxy may take to send a request, in milliseconds. */
const REQUEST_TIMEOUT_MS = 5_000;

/** UNAUTHENTICATED of gRPC. */
const UNAUTHENTICATED = 16;

/** Settings of the check. */
export interface HttpCheckOptions {
  readonly address: Address;
  /** The header with the path of the method, in lower case. */
  readonly pathHeader: string;
  /** The header whose last address is that of the caller, in lower case. */
  readonly addressHeader: string;
  /** The header with the caller's verified certificate; undefined: certificates are not read. */
  readonly certHeader: string | undefined;
  readonly asked: Asked;
  readonly identity: () => Identity;
  readonly log: GateLog;
}

/**
 * Opens the port. It answers 200 with the headers of the identity; 401 for UNAUTHENTICATED; 403 for everything else,
 * because nginx knows no other refusals. The status of gRPC is in the headers of a refusal.
 *
 * @throws TypeError when others on the network could ask whether a token is good
 */
export async function openHttpCheck(options: HttpCheckOptions): Promise<OpenPort> {
  const { address, log } = options;
  if (!isOnThisMachine(address)) throw new TypeError('the HTTP check must stay on this machine');
  const settings = {
    maxHeaderSize: HEADER_BYTES_MAX,
    requestTimeout: REQUEST_TIMEOUT_MS,
    headersTimeout: REQUEST_TIMEOUT_MS,
  };
  const server = createServer(settings, (request, response) => {
    request.resume();
    Promise.resolve()
      .then(() => options.asked.decide(askedOf(request, options)))
      .then(
        (answer) => send(response, answer, request, options),
        (error: unknown) => {
          log.error({ event: 'check_failed', err: error }, 'a check failed');
          response.writeHead(500).end();
        },
      );
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    if (address.kind === 'unix') server.listen(address.path, resolve);
    else server.listen({ host: address.host, port: address.port, exclusive: true }, resolve);
  });
  server.on('error', (error) =>
    log.warn({ event: 'http_check_error', err: error }, 'error of the HTTP check'),
  );
  const bound: Address =
    address.kind === 'unix' ? address : { ...address, port: (server.address() as AddressInfo).port };
  return {
    address: bound,
    reload: async () => {},
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** Only where the proxy names this scheme, nobody on the network could read the caller's token. */
const PRIVATE_SCHEME = 'https';

function askedOf(request: IncomingMessage, { pathHeader, addressHeader, certHeader }: HttpCheckOptions) {
  const address = callerAddressOf(request, addressHeader);
  const scheme = only(request, 'x-forwarded-proto');
  return {
    // Two of them, or none: there is no such method.
    path: only(request, pathHeader) ?? '',
    authorizations: allOf(request, 'authorization'),
    address,
    port: 0,
    // A proxy that says nothing about the connection is taken for one that others can read.
    isPrivate: scheme === PRIVATE_SCHEME || (address !== '' && isLoopbackAddress(address)),
    certificate: certHeader === undefined ? undefined : only(request, certHeader),
  };
}

/**
 * As the proxy names it: the last address is the one that the proxy has added, those before it may be the caller's words.
 * No other header is looked at, because proxies pass those that they do not know from the caller. Empty when it is none.
 */
function callerAddressOf(request: IncomingMessage, header: string): string {
  const last = allOf(request, header).join(',').split(',').at(-1)?.trim() ?? '';
  return isIP(last) === 0 ? '' : last;
}

/** Every value of a header, as it was sent: Node hides repeated ones. */
function allOf({ rawHeaders }: IncomingMessage, name: string): string[] {
  const values: string[] = [];
  for (let at = 0; at < rawHeaders.length; at += 2) {
    if (rawHeaders[at]?.toLowerCase() === name) values.push(rawHeaders[at + 1] ?? '');
  }
  return values;
}

/** The value of a header that was sent once and is not empty. */
function only(request: IncomingMessage, name: string): string | undefined {
  const values = allOf(request, name);
  return values.length === 1 && values[0] !== '' ? values[0] : undefined;
}

function send(
  response: ServerResponse,
  answer: Answer,
  request: IncomingMessage,
  { identity, pathHeader }: HttpCheckOptions,
): void {
  if (answer.isAdmitted) {
    response
      .writeHead(200, flat([['cache-control', 'no-store'], ...identity().headersOf(answer.principal)]))
      .end();
    return;
  }
  const { status } = answer;
  const form: RequestForm = {
    method: only(request, 'x-forwarded-method') ?? 'POST',
    path: only(request, pathHeader) ?? '',
    header: (name) => only(request, name),
  };
  const refusal = protocolOf(form) === 'grpc' ? undefined : refusalOf(status, form);
  const headers: Header[] = [
    ['cache-control', 'no-store'],
    ...status.headers,
    [`${IDENTITY_PREFIX}reason`, status.reason],
  ];
  for (const header of refusal?.headers ?? []) {
    if (!headers.some(([name]) => name === header[0])) headers.push(header);
  }
  response.writeHead(status.code === UNAUTHENTICATED ? 401 : 403, flat(headers)).end(refusal?.body);
}

function flat(headers: readonly Header[]): string[] {
  return headers.flat();
}
