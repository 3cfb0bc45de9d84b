/** A console in the process of the test, which calls the auth of a running system, and a browser without scripts. */

import { request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { connect } from 'node:net';
import { pathToFileURL } from 'node:url';
import type { TlsWatch } from '@portcullis/guard/tls';
import type { System } from '../../../../scripts/system/system.js';
import { type Console, openConsole } from '../../../../services/auth/console/console.js';
import { createLog } from '../../../../services/common/host/log.js';
import { MovableClock } from '../../../support/clock.js';
import { PROJECT_FOLDER } from '../../../support/project-copy.js';

/** The console, and what a test sets of it. */
export interface TestConsole extends Console {
  readonly clock: MovableClock;
  readonly origin: string;
  /** The lines of its log about errors. */
  readonly errors: readonly string[];
  /** @param localAddress - the address that the browser has */
  browser(localAddress?: string): Browser;
}

/** What the browser got. */
interface Shown {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** Sends requests with the cookies that it has received. */
export interface Browser {
  cookie: string;
  get(path: string, headers?: Readonly<Record<string, string>>): Promise<Shown>;
  /** Sends a form, as a page of the console does unless `headers` say otherwise. */
  post(
    path: string,
    form: Readonly<Record<string, string>>,
    headers?: Readonly<Record<string, string | undefined>>,
  ): Promise<Shown>;
  logIn(user: { readonly username: string; readonly password: string }): Promise<Shown>;
  /** The token that forms need, as the first page has it. */
  formToken(): Promise<string>;
}

interface TestConsoleOptions {
  /** HTTPS with these certificates. */
  readonly tls?: TlsWatch;
  readonly listenHost?: string;
  /** No call to auth succeeds. */
  readonly isAuthDown?: boolean;
}

export async function openTestConsole(
  system: System,
  { tls, listenHost = '127.0.0.1', isAuthDown = false }: TestConsoleOptions = {},
): Promise<TestConsole> {
  const clock = new MovableClock();
  const errors: string[] = [];
  const [host = '', port = ''] = system.auth.address.split(':');
  const opened = await openConsole({
    listen: { address: `${listenHost}:0`, variable: 'PORTCULLIS_CONSOLE_LISTEN' },
    origin: undefined,
    tls,
    local: {
      connect: (peer) =>
        new Promise((resolve, reject) => {
          if (isAuthDown) return reject(new Error('auth is down'));
          const socket = connect({ host, port: Number(port), localAddress: peer });
          socket.once('connect', () => resolve(socket));
          socket.once('error', reject);
        }),
    },
    connectionsMax: 100,
    requestsPerAddress: 10_000,
    log: createLog({ service: 'auth', level: 'error' }, { write: (line) => void errors.push(line) }),
    clock,
    files: pathToFileURL(`${PROJECT_FOLDER}/dist/services/auth/console/browser/`),
  });
  const ownOrigin = `${tls === undefined ? 'http' : 'https'}://${opened.address}`;
  return {
    ...opened,
    clock,
    origin: ownOrigin,
    errors,
    browser: (localAddress) => createBrowser(ownOrigin, localAddress),
  };
}

export function createBrowser(origin: string, localAddress = '127.0.0.1'): Browser {
  const send = async (
    method: string,
    path: string,
    headers: Readonly<Record<string, string | undefined>>,
    body?: string,
  ): Promise<Shown> => {
    const shown = await exchange(
      `${origin}${path}`,
      { method, localAddress },
      { cookie: browser.cookie, ...headers },
      body,
    );
    for (const cookie of shown.headers['set-cookie'] ?? []) browser.cookie = cookie.split(';', 1)[0] ?? '';
    return shown;
  };
  const browser: Browser = {
    cookie: '',
    get: (path, headers = {}) => send('GET', path, headers),
    post: (path, form, headers = {}) => {
      const own = {
        origin,
        'sec-fetch-site': 'same-origin',
        'content-type': 'application/x-www-form-urlencoded',
      };
      return send('POST', path, { ...own, ...headers }, new URLSearchParams(form).toString());
    },
    logIn: ({ username, password }) => browser.post('/login', { username, password }),
    formToken: async () => {
      const { body } = await browser.get('/');
      return /name="form_token" value="([^"]+)"/.exec(body)?.[1] ?? '';
    },
  };
  return browser;
}

function exchange(
  url: string,
  options: { readonly method: string; readonly localAddress: string },
  headers: Readonly<Record<string, string | undefined>>,
  body = '',
): Promise<Shown> {
  const sent = Object.fromEntries(
    Object.entries(headers).filter(([, value]) => value !== undefined && value !== ''),
  );
  return new Promise((resolve, reject) => {
    const send = url.startsWith('https:') ? httpsRequest : httpRequest;
    // The certificate is one of the test's own.
    const all = { ...options, headers: sent, agent: false, rejectUnauthorized: false } as const;
    const request = send(url, all, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
      });
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text }),
      );
    });
    request.once('error', reject);
    request.end(body);
  });
}
