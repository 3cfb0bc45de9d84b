/** The console: pages for operators on a port of their own, which call auth as the operator who has logged in. */

import { readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Clock } from '@portcullis/guard/clock';
import type { TlsWatch } from '@portcullis/guard/tls';
import { endIfUnread, type HttpPort, openHttpListener } from '../../common/host/http-port.js';
import type { LocalConnections } from '../../common/host/local-connections.js';
import type { Log } from '../../common/host/log.js';
import { joinHostPort, type ListenAddress, listenError, requireFreePort } from '../../common/host/ports.js';
import { CallError, createCalls } from './calls.js';
import { eventsPage, eventsSource } from './events-page.js';
import { html } from './html.js';
import {
  type ConsoleRequest,
  type ConsoleResponse,
  createLoginCookies,
  type Place,
  RefusedRequest,
  readRequest,
  sendFile,
  sendResponse,
} from './http.js';
import { instancesPage, instancesSource } from './instances-page.js';
import { keysPage } from './keys-page.js';
import { alertOf, documentOf, failureStatus, failureText, type Page } from './layout.js';
import { createLiveStreams, type LiveSource, type LiveStreams } from './live.js';
import { logIn, loginPage } from './login-page.js';
import {
  createOperators,
  hasFormToken,
  LoginEndedError,
  type Operator,
  type Operators,
} from './operators.js';
import { policyPage } from './policy-page.js';
import { revocationPage, revocationsPage, sequenceOf, spreadSource } from './revocations-page.js';
import { revoke, revokePage } from './revoke-page.js';
import { sessionPage } from './session-page.js';
import { userPage, usersPage } from './users-page.js';

/** How long a browser may take to read a page, in milliseconds. */
const READ_TIMEOUT_MS = 30_000;

export interface ConsoleOptions {
  readonly listen: ListenAddress;
  /** Where browsers find the console; the address on which it listens when undefined. */
  readonly origin: string | undefined;
  /** HTTPS with these certificates; HTTP when undefined. */
  readonly tls: TlsWatch | undefined;
  readonly local: Pick<LocalConnections, 'connect'>;
  readonly connectionsMax: number;
  readonly requestsPerAddress: number;
  readonly log: Log;
  readonly clock: Clock;
  /** The folder with what browsers load, compiled. Default: beside this file. */
  readonly files?: URL;
}

/** The console, open. */
export interface Console {
  /** `HOST:PORT`, with the real port. */
  readonly address: string;
  readonly port: HttpPort;
  /** Ends the streams, and waits for the answers to requests under way. */
  close(): Promise<void>;
}

/** @throws ListenError */
export async function openConsole(options: ConsoleOptions): Promise<Console> {
  const { listen, tls, log, clock, connectionsMax, requestsPerAddress } = options;
  const calls = createCalls(options.local);
  const operators = createOperators({ calls, clock });
  const streams = createLiveStreams(clock);
  const files = readFiles(options.files ?? new URL('./browser/', import.meta.url));
  let parts: ConsoleParts | undefined;
  let port: HttpPort;
  let host: string;
  try {
    const at = await requireFreePort(listen);
    host = at.host;
    port = await openHttpListener(
      { ...at, log, tls, connectionsMax, requestsPerAddress, clock },
      (message, response) => {
        if (parts === undefined) response.destroy();
        else void answer(parts, message, response);
      },
    );
  } catch (error) {
    operators.close();
    throw listenError(listen, error);
  }
  const address = joinHostPort(host, port.port);
  // Only the address itself: at `localhost` or `[::1]`, a browser may find the server of another user of this machine.
  const origin = options.origin ?? new URL(`${tls === undefined ? 'http' : 'https'}://${address}`).origin;
  parts = { place: { origin, cookies: createLoginCookies(origin) }, operators, files, streams, log, clock };
  log.info({ address, origin }, 'the console is open');
  return {
    address,
    port,
    close: async () => {
      streams.close();
      // Requests under way still need their login and their calls.
      await port.close();
      calls.close();
      operators.close();
    },
  };
}

interface ConsoleParts {
  readonly place: Place;
  readonly operators: Operators;
  readonly files: Files;
  readonly streams: LiveStreams;
  readonly log: Log;
  readonly clock: Clock;
}

async function answer(parts: ConsoleParts, message: IncomingMessage, to: ServerResponse): Promise<void> {
  // A browser may disconnect before the response is complete.
  to.on('error', () => {});
  const file = parts.files.get(message.url ?? '');
  if (file !== undefined && (message.method === 'GET' || message.method === 'HEAD'))
    return sendFile(to, file);
  const response = await responseTo(parts, message, to);
  if (response === undefined) return;
  endIfUnread(to, READ_TIMEOUT_MS);
  sendResponse(to, response);
}

/** @returns undefined when the response is a stream */
async function responseTo(
  parts: ConsoleParts,
  message: IncomingMessage,
  to: ServerResponse,
): Promise<ConsoleResponse | undefined> {
  // A request whose body was not read to its end has no socket any more.
  const peer = message.socket.remoteAddress ?? '';
  try {
    const request = await readRequest(message, parts.place);
    if (request.method === 'GET' && request.path.endsWith('/live')) return await streamTo(parts, request, to);
    return await route(parts, request);
  } catch (error) {
    // Under a foreign name, the page shows nothing of the operator.
    const isForeign = error instanceof RefusedRequest && error.status === 421;
    const operator = isForeign ? undefined : operatorOf(parts, message.headers.cookie, peer);
    if (error instanceof RefusedRequest) return errorPage(error.status, error.message, operator);
    if (error instanceof LoginEndedError) {
      return loginEnded(parts, parts.place.cookies.read(message.headers.cookie));
    }
    if (error instanceof CallError) return errorPage(failureStatus(error), failureText(error), operator);
    parts.log.error({ err: error }, 'a page of the console failed');
    if (!to.headersSent) {
      return errorPage(500, 'The page cannot be shown. The log of auth has the cause.', operator);
    }
    to.destroy();
    return undefined;
  }
}

/** The operator of a request that has failed; undefined without a login. */
function operatorOf(
  { operators, place }: ConsoleParts,
  cookie: string | undefined,
  peer: string,
): Operator | undefined {
  const loginId = place.cookies.read(cookie);
  return loginId === undefined ? undefined : operators.find(loginId, peer, false);
}

async function streamTo(
  { operators, streams, clock }: ConsoleParts,
  request: ConsoleRequest,
  to: ServerResponse,
): Promise<ConsoleResponse | undefined> {
  const { loginId, peer } = request;
  // A page that stays open does not keep its login alive.
  const operator = loginId === undefined ? undefined : operators.find(loginId, peer, false);
  if (operator === undefined) {
    streams.end(to);
    return undefined;
  }
  const source = sourceUnder(operator, request, clock);
  if (source === undefined) return notFound(operator);
  // A confirmation changes the id of the login, and not this.
  await streams.run(operator.formToken, to, source);
  return undefined;
}

function sourceUnder(operator: Operator, request: ConsoleRequest, clock: Clock): LiveSource | undefined {
  const { path } = request;
  if (path === '/events/live') return eventsSource(operator, request, clock.wallMs);
  if (path === '/instances/live') return instancesSource(operator);
  const [, text = ''] = /^\/revocations\/(\d+)\/live$/.exec(path) ?? [];
  const sequence = sequenceOf(text);
  return sequence === undefined ? undefined : spreadSource(operator, sequence, clock.wallMs);
}

async function route(parts: ConsoleParts, request: ConsoleRequest): Promise<ConsoleResponse> {
  const { operators, place } = parts;
  const { cookies } = place;
  const { loginId, peer, path, method, form } = request;
  if (path === '/login') {
    return method === 'POST' ? await logIn(request, operators, cookies) : loginPage();
  }
  const operator = loginId === undefined ? undefined : operators.find(loginId, peer, true);
  if (loginId === undefined || operator === undefined) {
    return loginId === undefined ? { redirectTo: '/login' } : loginEnded(parts, loginId);
  }
  if (method === 'GET') return await pageOf(parts, operator, request);
  if (!hasFormToken(operator, form)) {
    throw new RefusedRequest(403, 'The form is older than your login. Open the page again.');
  }
  switch (path) {
    case '/logout':
      await operators.logOut(loginId, peer);
      return { redirectTo: '/login', cookie: cookies.removed };
    case '/revoke':
      return await revoke(operator, request, { operators, cookies });
    default:
      return notFound(operator);
  }
}

async function pageOf(
  parts: ConsoleParts,
  operator: Operator,
  request: ConsoleRequest,
): Promise<ConsoleResponse> {
  if (request.path === '/revoke') return await revokePage(operator, request);
  const found = await pageUnder(parts, operator, request);
  if (found === undefined) return notFound(operator);
  if ('redirectTo' in found) return found;
  return { status: 200, page: documentOf(found, operator, request.path) };
}

async function pageUnder(
  { clock }: ConsoleParts,
  operator: Operator,
  request: ConsoleRequest,
): Promise<Page | { readonly redirectTo: string } | undefined> {
  const [, place = '', id, ...more] = request.path.split('/');
  if (more.length > 0) return undefined;
  switch (place) {
    case '':
      return await usersPage(operator, request);
    case 'users':
      return id === undefined ? { redirectTo: '/' } : await userPage(operator, id, request);
    case 'revocations': {
      if (id === undefined) return await revocationsPage(operator, request);
      const sequence = sequenceOf(id);
      return sequence === undefined ? undefined : await revocationPage(operator, sequence, clock.wallMs);
    }
    case 'instances':
      return id === undefined ? await instancesPage(operator) : undefined;
    case 'events':
      return id === undefined ? await eventsPage(operator, request, clock.wallMs) : undefined;
    case 'sessions':
      return id === undefined ? undefined : await sessionPage(operator, id);
    case 'keys':
      return id === undefined ? await keysPage(operator, request, clock.wallMs()) : undefined;
    case 'policy':
      return id === undefined ? await policyPage(operator) : undefined;
    default:
      return undefined;
  }
}

function notFound(operator: Operator): ConsoleResponse {
  const body = html`<p>There is no such page. <a href="/">Go to the users</a></p>`;
  return { status: 404, page: documentOf({ title: 'Not found', body }, operator) };
}

/** What went wrong, by the status of the page, and what the operator can do next. */
const FAILURES: ReadonlyMap<number, readonly [title: string, next: string]> = new Map([
  [400, ['The request is not valid', 'Go back and correct it.']],
  [403, ['Not allowed', 'Log in as a user who may do this, or open the page again.']],
  [404, ['Not found', 'It may have been removed. Choose another page.']],
  [413, ['The form is too large', 'Go back and shorten it.']],
  [421, ['Wrong address', 'Open the console at the address that its log states.']],
  [429, ['Too many requests', 'Wait a minute, then load the page again.']],
  [500, ['An error in the console', 'Load the page again. If that fails too, read the log of auth.']],
  [502, ['Auth could not answer', 'Load the page again. If that fails too, read the log of auth.']],
]);

/** @param operator - for the navigation; undefined without a login */
function errorPage(status: number, text: string, operator?: Operator): ConsoleResponse {
  const [title, next] = FAILURES.get(status) ?? ['The request was refused', 'Choose another page.'];
  const body = html`${alertOf(text)}
<p>${next} <a href="/">Go to the users</a></p>`;
  return { status, page: documentOf({ title, body }, operator) };
}

/** The cookie of a login that has ended is removed, so that the next request starts afresh, unless a new one is in its place. */
function loginEnded({ operators, place }: ConsoleParts, loginId: string | undefined): ConsoleResponse {
  const isCurrent = loginId === undefined || !operators.wasReplaced(loginId);
  return {
    ...loginPage('Your login has ended: it has expired, or its session was revoked. Log in again.', '', 401),
    cookie: isCurrent ? place.cookies.removed : undefined,
  };
}

/** Files of the console, by path. */
type Files = ReadonlyMap<string, { readonly type: string; readonly bytes: Buffer }>;

/** @param folder - where the build puts what browsers load */
function readFiles(folder: URL): Files {
  return new Map(
    FILES.map(([name, type]) => [`/assets/${name}`, { type, bytes: readFileSync(new URL(name, folder)) }]),
  );
}

const FILES = [
  ['console.css', 'text/css; charset=utf-8'],
  ['console.js', 'text/javascript; charset=utf-8'],
  ['icon.svg', 'image/svg+xml'],
] as const;
