/** `portcullis login` and `portcullis logout`. */

import { readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { resolve } from 'node:path';
import { AuthServiceClient } from '../../gen/auth/v1/auth_service.js';
import type { ContextStore } from '../contexts.js';
import { DEFAULT_CONTEXT } from '../contexts.js';
import { CommandError, EXIT } from '../failures.js';
import { clockWarning, connect, type Endpoint, openSession } from '../session.js';
import { askPassword, note, readInput, type Terminal, writeResult } from '../terminal.js';

/** Options of `login`. */
export interface LoginOptions {
  readonly address: string;
  readonly user: string;
  readonly context?: string;
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly passwordStdin?: true;
  readonly passwordFile?: string;
  /** Default: all that the user may have. */
  readonly scopes?: readonly string[];
  readonly audiences?: readonly string[];
}

/** Logs in, and stores the session. The password is read from the terminal or from standard input, never from arguments. */
export async function login(terminal: Terminal, store: ContextStore, options: LoginOptions): Promise<void> {
  const { user: username, context: name = DEFAULT_CONTEXT } = options;
  const endpoint = endpointOf(options);
  const password = await passwordFor(terminal, options);
  const connection = await connect(endpoint);
  try {
    const auth = connection.client(AuthServiceClient);
    const opened = await connection.call(auth.login.bind(auth), {
      username,
      password,
      audiences: [...(options.audiences ?? [])],
      scopes: [...(options.scopes ?? [])],
      deviceName: `portcullis on ${hostname()}`.slice(0, 100),
    });
    await store.save(
      name,
      {
        ...endpoint,
        username,
        sessionId: opened.session?.sessionId ?? '',
        accessToken: opened.accessToken,
        accessTokenExpireTime: (opened.accessTokenExpireTime ?? new Date(0)).toISOString(),
        refreshToken: opened.refreshToken,
      },
      { isCurrent: true },
    );
    const { scopes, audiences } = opened;
    writeResult(terminal, { context: name, username, scopes, audiences }, () => `Logged in as ${username}.`);
    note(terminal, `The session is kept in ${store.file}.`);
    const warning = clockWarning(opened.accessToken);
    if (warning !== undefined) note(terminal, warning);
  } finally {
    connection.close();
  }
}

async function passwordFor(terminal: Terminal, options: LoginOptions): Promise<string> {
  if (options.passwordStdin === true) return await readInput(terminal);
  const { passwordFile, user, address } = options;
  if (passwordFile === undefined) return await askPassword(terminal, `Password of ${user} at ${address}:`);
  const text = await readFile(passwordFile, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    throw new CommandError(`${passwordFile} cannot be read: ${cause.message}`, {
      exitCode: EXIT.usage,
      cause,
    });
  });
  return text.replace(/\r?\n$/, '');
}

/** Paths are stored whole, because later commands run in other folders. */
function endpointOf({ address, ca, cert, key }: LoginOptions): Endpoint {
  if ((cert === undefined) !== (key === undefined)) {
    throw new CommandError('--cert and --key are given together.', { exitCode: EXIT.usage });
  }
  if (cert !== undefined && ca === undefined) {
    throw new CommandError('--cert needs --ca.', { exitCode: EXIT.usage });
  }
  return {
    address,
    ...(ca !== undefined && { caFile: resolve(ca) }),
    ...(cert !== undefined && { certFile: resolve(cert) }),
    ...(key !== undefined && { keyFile: resolve(key) }),
  };
}

/** Ends the session at auth, and forgets it. When auth cannot be reached, the session stays, here as well. */
export async function logout(
  terminal: Terminal,
  store: ContextStore,
  { context: wanted }: { readonly context?: string },
): Promise<void> {
  const { name, context } = await store.load(wanted);
  const connection = await connect(context);
  try {
    const auth = connection.client(AuthServiceClient);
    // The refresh token is proof enough, also after the access token has expired.
    await connection.call(auth.revokeToken.bind(auth), { token: context.refreshToken });
  } finally {
    connection.close();
  }
  await store.remove(name);
  writeResult(terminal, { context: name }, () => `Logged out of ${context.address}.`);
}

/** Prints an access token of the session that is valid for at least some seconds. */
export async function printToken(
  terminal: Terminal,
  store: ContextStore,
  { context }: { readonly context?: string },
): Promise<void> {
  const session = await openSession(store, context);
  try {
    const accessToken = await session.token();
    writeResult(terminal, { accessToken }, () => accessToken);
  } finally {
    session.close();
  }
}
