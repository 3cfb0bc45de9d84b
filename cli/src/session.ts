/** Calls of auth as whoever has logged in: the stored tokens, renewed when they are old. */

import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import {
  type CallOptions,
  type ChannelCredentials,
  type ClientUnaryCall,
  credentials,
  Metadata,
  type ServiceError,
} from '@grpc/grpc-js';
import { channelOptionsFor, errorOf } from '@portcullis/guard/client';
import { AuthServiceClient } from '../gen/auth/v1/auth_service.js';
import { PolicyServiceClient } from '../gen/auth/v1/policy_service.js';
import type { Context, ContextStore } from './contexts.js';
import { CommandError } from './failures.js';

/** Deadline of a call, in milliseconds. */
const CALL_MS_MAX = 60_000;

/** An access token that is this old is renewed before it is used, in milliseconds before its end. */
const RENEW_BEFORE_MS = 10_000;

/** The part of a context that a connection needs. */
export type Endpoint = Pick<Context, 'address' | 'caFile' | 'certFile' | 'keyFile'>;

/** A unary method of a generated client. */
type UnaryMethod<Request, Response> = (
  request: Request,
  metadata: Metadata,
  options: Partial<CallOptions>,
  callback: (error: ServiceError | null, response: Response) => void,
) => ClientUnaryCall;

/** A class that ts-proto generates for a service. */
type ClientClass<Client> = new (address: string, credentials: ChannelCredentials, options?: object) => Client;

/** A client that can be closed. */
interface Closable {
  close(): void;
}

/** An open connection, with nobody's credential. */
export interface Connection {
  client<Client extends Closable>(of: ClientClass<Client>): Client;
  /** Calls a unary method: `call(client.login.bind(client), request)`. */
  call<Request, Response>(
    method: UnaryMethod<Request, Response>,
    request: Request,
    token?: string,
  ): Promise<Response>;
  close(): void;
}

/**
 * @throws CommandError when a file cannot be read, or tokens would travel in plaintext
 */
export async function connect(endpoint: Endpoint): Promise<Connection> {
  const channelCredentials = await credentialsOf(endpoint);
  const options = channelOptions(endpoint.address, channelCredentials);
  /** One for each service: each has a connection of its own, and auth limits those of an address. */
  const clients = new Map<unknown, Closable>();
  return {
    client: <Client extends Closable>(of: ClientClass<Client>): Client => {
      const known = clients.get(of);
      if (known instanceof of) return known;
      const client = new of(endpoint.address, channelCredentials, options);
      clients.set(of, client);
      return client;
    },
    call: (method, request, token) =>
      new Promise((resolve, reject) => {
        const metadata = new Metadata();
        if (token !== undefined) metadata.set('authorization', `Bearer ${token}`);
        method(request, metadata, { deadline: Date.now() + CALL_MS_MAX }, (error, response) => {
          if (error === null) resolve(response);
          else reject(error);
        });
      }),
    close: () => {
      for (const client of clients.values()) client.close();
    },
  };
}

function channelOptions(address: string, channelCredentials: ChannelCredentials): object {
  try {
    return channelOptionsFor({ address, credentials: channelCredentials });
  } catch (cause) {
    throw new CommandError(
      `Refusing to send a password or a token to ${address} in plaintext: name the CA certificate with --ca.`,
      { cause },
    );
  }
}

async function credentialsOf({ caFile, certFile, keyFile }: Endpoint): Promise<ChannelCredentials> {
  if (caFile === undefined) return credentials.createInsecure();
  const [ca, cert, key] = await Promise.all([caFile, certFile, keyFile].map(contentOf));
  try {
    return credentials.createSsl(ca ?? null, key ?? null, cert ?? null);
  } catch (cause) {
    throw new CommandError('The certificates cannot be used: are they PEM, and do they belong together?', {
      cause,
    });
  }
}

async function contentOf(file: string | undefined): Promise<Buffer | undefined> {
  if (file === undefined) return undefined;
  return await readFile(file).catch((cause: NodeJS.ErrnoException) => {
    throw new CommandError(`${file} cannot be read: ${cause.message}`, { cause });
  });
}

/** Calls of one system, with the stored session. */
export interface Session {
  readonly name: string;
  readonly context: Context;
  client<Client extends Closable>(of: ClientClass<Client>): Client;
  /** An access token, renewed when it is about to expire. */
  token(): Promise<string>;
  /** Calls a unary method with a token of the session. */
  call<Request, Response>(method: UnaryMethod<Request, Response>, request: Request): Promise<Response>;
  /** Replaces the access token, also one that is not about to expire: it may have been revoked without the session. */
  renew(): Promise<void>;
  close(): void;
}

/**
 * Opens the session of a context.
 *
 * @param wanted - the context's name; the current one without it
 * @throws CommandError when nobody is logged in
 */
export async function openSession(store: ContextStore, wanted: string | undefined): Promise<Session> {
  const { name, context } = await store.load(wanted);
  const connection = await connect(context);
  const auth = connection.client(AuthServiceClient);
  let current = context;

  const renew = async (): Promise<void> => {
    const { refreshToken } = current;
    const request = { refreshToken, requestId: requestIdFor(refreshToken) };
    const renewed = await connection.call(auth.refresh.bind(auth), request);
    current = {
      ...current,
      accessToken: renewed.accessToken,
      accessTokenExpireTime: (renewed.accessTokenExpireTime ?? new Date(0)).toISOString(),
      refreshToken: renewed.refreshToken,
    };
    await store.replace(name, refreshToken, current);
  };

  const token = async (): Promise<string> => {
    if (Date.parse(current.accessTokenExpireTime) - Date.now() < RENEW_BEFORE_MS) await renew();
    return current.accessToken;
  };

  return {
    name,
    context,
    client: connection.client,
    token,
    call: async (method, request) => {
      const accessToken = await token();
      try {
        return await connection.call(method, request, accessToken);
      } catch (error) {
        // This machine's clock may be wrong.
        const { reason, message } = errorOf(error);
        if (reason === 'SCOPE_MISSING') throw await missingScope(connection, accessToken, message);
        if (reason !== 'TOKEN_EXPIRED') throw error;
        await renew();
        return await connection.call(method, request, current.accessToken);
      }
    },
    renew,
    close: connection.close,
  };
}

/** The error of a call whose scope the session lacks: it names the roles that grant it, as far as they can be known. */
async function missingScope(
  connection: Connection,
  accessToken: string,
  message: string,
): Promise<CommandError> {
  const scopes = /requires scope (.+)$/.exec(message)?.[1]?.split(' and ') ?? [];
  const policies = connection.client(PolicyServiceClient);
  const granting = await connection.call(policies.getPolicy.bind(policies), {}, accessToken).then(
    ({ policy }) =>
      (policy?.roles ?? [])
        .filter((role) => scopes.every((scope) => role.scopes.includes(scope)))
        .map(({ role }) => role),
    () =>
      BUILT_IN_ROLES.filter((role) => scopes.every((scope) => role.scopes.includes(scope))).map(
        ({ role }) => role,
      ),
  );
  const roles =
    granting.length === 0
      ? 'No role is known that grants it: ask an administrator.'
      : `The role ${granting.join(' or ')} grants it: ask an administrator for it, or log in as a user who has it.`;
  return new CommandError(`SCOPE_MISSING: ${message}.\n${roles}`);
}

/** What the built-in roles grant at auth, for those who may not read the policy. */
const BUILT_IN_ROLES = [
  {
    role: 'admin',
    scopes: [
      ...['auth.self', 'auth.users.read', 'auth.users.write', 'auth.clients.write', 'auth.keys.write'],
      ...['auth.policy.read', 'auth.policy.write', 'auth.revoke', 'auth.security.read'],
    ],
  },
  { role: 'security', scopes: ['auth.self', 'auth.revoke', 'auth.security.read', 'auth.users.read'] },
];

/**
 * Two commands may renew the session at the same time. With the same request id they get the same tokens, while any other
 * second use of a refresh token would end the session. Who can compute the id has the token already.
 */
function requestIdFor(refreshToken: string): string {
  const bytes = createHash('sha256')
    .update('portcullis refresh\0')
    .update(refreshToken)
    .digest()
    .subarray(0, 16);
  // Version and variant of a UUID (RFC 9562 §5.4).
  bytes.writeUInt8((bytes.readUInt8(6) & 0x0f) | 0x40, 6);
  bytes.writeUInt8((bytes.readUInt8(8) & 0x3f) | 0x80, 8);
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}

/** The smallest difference between the clocks that is reported, in milliseconds. */
const CLOCK_DIFFERENCE_TOLD_MS = 30_000;

/**
 * What to say about this machine's clock; undefined when it is right.
 *
 * @param token - an access token that was issued just now
 */
export function clockWarning(token: string, nowMs = Date.now()): string | undefined {
  const payload: unknown = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
  const issued =
    typeof payload === 'object' && payload !== null && 'iat' in payload ? Number(payload.iat) * 1000 : nowMs;
  const aheadMs = nowMs - issued;
  if (Math.abs(aheadMs) < CLOCK_DIFFERENCE_TOLD_MS) return undefined;
  const minutes = Math.max(1, Math.round(Math.abs(aheadMs) / 60_000));
  return `The clock of this machine is ${minutes} min ${aheadMs > 0 ? 'ahead of' : 'behind'} that of auth: set it. Times below are auth's.`;
}
