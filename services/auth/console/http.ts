/**
 * The console's side of HTTP: what a request may look like, and the headers of every response. A request that changes
 * something must come from a page of the console itself.
 */

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Html } from './html.js';

/** Maximum size of the body of a request, in bytes. */
const BODY_BYTES_MAX = 32 * 1024;

/** A page may load its own script, style and image, and connect to its own address. Nothing inline runs. */
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "form-action 'self'",
  "base-uri 'none'",
  "frame-ancestors 'none'",
].join('; ');

const HEADERS = {
  'content-security-policy': CONTENT_SECURITY_POLICY,
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  // With no-referrer, browsers would send `Origin: null` with forms.
  'referrer-policy': 'same-origin',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'permissions-policy': 'camera=(), geolocation=(), microphone=()',
  'cache-control': 'no-store',
};

/** A request that is refused before any page sees it. */
export class RefusedRequest extends Error {
  readonly status: number;

  constructor(status: number, message: string, options?: ErrorOptions) {
    super(message, options);
    this.status = status;
  }
}

/** A request of a browser. */
export interface ConsoleRequest {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly query: URLSearchParams;
  /** Empty unless the method is POST. */
  readonly form: URLSearchParams;
  /** The id of the login; undefined without a cookie, and with more than one. */
  readonly loginId: string | undefined;
  /** The address of the browser. */
  readonly peer: string;
}

/** What a page responds. */
export type ConsoleResponse =
  | { readonly status: number; readonly page: Html; readonly cookie?: string | undefined }
  | { readonly redirectTo: string; readonly cookie?: string | undefined };

/** Where the console is, as browsers see it. */
export interface Place {
  /** Such as `http://127.0.0.1:52051`; a request for another host or from another origin is refused. */
  readonly origin: string;
  readonly cookies: LoginCookies;
}

/** The cookie of a login. */
export interface LoginCookies {
  read(header: string | undefined): string | undefined;
  /** The header that sets it. */
  set(id: string): string;
  /** The header that removes it. */
  readonly removed: string;
}

/**
 * Browsers send a cookie to every port of its host. The port in the name keeps two consoles on one host apart.
 *
 * @param origin - where browsers find the console; with HTTPS, the prefix `__Host-` binds the cookie to the host
 */
export function createLoginCookies(origin: string): LoginCookies {
  const { protocol, port } = new URL(origin);
  const isSecure = protocol === 'https:';
  const name = `${isSecure ? '__Host-' : ''}portcullis-console-${port || (isSecure ? '443' : '80')}`;
  const attributes = `Path=/; HttpOnly; SameSite=Strict${isSecure ? '; Secure' : ''}`;
  return {
    read: (header = '') => {
      const values = header
        .split(';')
        .map((pair) => pair.trim())
        .filter((pair) => pair.startsWith(`${name}=`))
        .map((pair) => pair.slice(name.length + 1));
      return values.length === 1 && values[0] !== '' ? values[0] : undefined;
    },
    set: (id) => `${name}=${id}; ${attributes}`,
    removed: `${name}=; ${attributes}; Max-Age=0`,
  };
}

/**
 * Reads a request.
 *
 * @throws RefusedRequest
 */
export async function readRequest(
  message: IncomingMessage,
  { origin, cookies }: Place,
): Promise<ConsoleRequest> {
  const { method = '', headers, url = '/' } = message;
  requireOwnHost(headers.host, origin);
  const [path = '/', query = ''] = url.split('?', 2);
  const request = {
    path,
    query: new URLSearchParams(query),
    loginId: cookies.read(headers.cookie),
    peer: message.socket.remoteAddress ?? '',
  };
  if (method === 'GET' || method === 'HEAD') {
    requireOwnPageOrNavigation(message);
    return { ...request, method: 'GET', form: new URLSearchParams() };
  }
  if (method !== 'POST') throw new RefusedRequest(405, 'This method is not supported.');
  requireOwnOrigin(message, origin);
  return { ...request, method, form: await readForm(message) };
}

/** Otherwise a name that an attacker points at this address would make the console a page of the attacker's site. */
function requireOwnHost(host: string | undefined, ownOrigin: string): void {
  if (new URL(ownOrigin).host === host?.toLowerCase()) return;
  throw new RefusedRequest(421, 'The console is not at this address.');
}

/**
 * Browsers send the cookie with requests of other ports of the host. Those cannot read a response, but they would replace live
 * streams and keep the login from expiring. Links from elsewhere are allowed.
 */
function requireOwnPageOrNavigation({ headers }: IncomingMessage): void {
  const { 'sec-fetch-site': site = 'none', 'sec-fetch-mode': mode, 'sec-fetch-dest': dest } = headers;
  if (site === 'same-origin' || site === 'none' || (mode === 'navigate' && dest === 'document')) return;
  throw new RefusedRequest(403, 'The request was not made by a page of the console.');
}

/** Browsers send `Origin` with every form. Those that send `Sec-Fetch-Site` must agree. */
function requireOwnOrigin({ headers }: IncomingMessage, ownOrigin: string): void {
  const { origin, 'sec-fetch-site': site = 'same-origin' } = headers;
  if (origin === ownOrigin && site === 'same-origin') return;
  throw new RefusedRequest(403, 'The form was not sent by a page of the console.');
}

async function readForm(message: IncomingMessage): Promise<URLSearchParams> {
  const [type = ''] = (message.headers['content-type'] ?? '').split(';');
  if (type.trim().toLowerCase() !== 'application/x-www-form-urlencoded') {
    throw new RefusedRequest(415, 'Expected a form.');
  }
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of message) {
      const bytes = Buffer.from(chunk as Uint8Array);
      length += bytes.length;
      if (length > BODY_BYTES_MAX) throw new RefusedRequest(413, 'The form is too large.');
      chunks.push(bytes);
    }
  } catch (error) {
    // The browser has left, or was too slow.
    if (error instanceof RefusedRequest || message.complete) throw error;
    throw incompleteForm(error);
  }
  return new URLSearchParams(Buffer.concat(chunks).toString('utf8'));
}

function incompleteForm(cause: unknown): RefusedRequest {
  return new RefusedRequest(400, 'The form is incomplete. Send it again.', { cause });
}

/** Sends a page or a redirect. */
export function sendResponse(to: ServerResponse, response: ConsoleResponse): void {
  const cookie = response.cookie === undefined ? {} : { 'set-cookie': response.cookie };
  if ('redirectTo' in response) {
    // 303: the browser fetches the next page with GET, and reloading it repeats no form.
    to.writeHead(303, { ...HEADERS, ...cookie, location: response.redirectTo, 'content-length': 0 });
    to.end();
    return;
  }
  const bytes = Buffer.from(`<!doctype html>\n${response.page.text}`, 'utf8');
  to.writeHead(response.status, {
    ...HEADERS,
    ...cookie,
    'content-type': 'text/html; charset=utf-8',
    'content-length': bytes.length,
  });
  to.end(to.req.method === 'HEAD' ? undefined : bytes);
}

/** Sends a file of the console. */
export function sendFile(to: ServerResponse, file: { readonly type: string; readonly bytes: Buffer }): void {
  to.writeHead(200, { ...HEADERS, 'content-type': file.type, 'content-length': file.bytes.length });
  to.end(to.req.method === 'HEAD' ? undefined : file.bytes);
}

/** Begins a stream of server-sent events. */
export function beginEvents(to: ServerResponse): void {
  to.writeHead(200, { ...HEADERS, 'content-type': 'text/event-stream; charset=utf-8' });
}

/** Sends one event; its data is JSON, which has no line breaks. */
export function sendEvent(to: ServerResponse, event: string, data: unknown): void {
  to.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
}
