/** The environment of the attacks: a running system, the keys stolen from it, and its exact refusals. */

import { createPrivateKey, type KeyObject } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer, type Server as TcpServer } from 'node:net';
import { credentials, status } from '@grpc/grpc-js';
import { AuthServiceClient, type LoginResponse } from '../../proto/gen/auth/v1/auth_service.js';
import { ask } from '../../scripts/system/calls.js';
import type { ServiceProcess } from '../../scripts/system/parts.js';
import type { UserName } from '../../scripts/system/secrets.js';
import type { System } from '../../scripts/system/system.js';
import { encodeField } from '../shared/hpack.js';
import { type Answer, createPeer, EMPTY_MESSAGE, headersOf, messageOf, type Peer } from '../shared/wire.js';
import { claimsIn, createForge, type Forge, segmentsOf } from './forge.js';
import { GUARDED_METHODS, type GuardedMethod } from './schema.js';
import type { Scoreboard } from './scoreboard.js';
import { type StolenKeys, stealKeys } from './stolen-keys.js';

/** Concurrent requests to all processes together. */
export const IN_FLIGHT_MAX = 64;

const UNAUTHENTICATED = 16;

/** A process under attack. */
export interface Target {
  readonly process: ServiceProcess;
  readonly pid: number;
  readonly audience: 'auth' | 'inventory' | 'payment';
  readonly peer: Peer;
  /** A read-only method that every customer may call. */
  readonly path: string;
  /** Every method of the process that requires a token. */
  readonly guarded: readonly GuardedMethod[];
}

/** How a request differs from an ordinary call of the target's method. */
export interface RequestChanges {
  readonly path?: string;
  /** The values of `authorization`, in order; no header when empty. */
  readonly authorization?: readonly string[];
  /** Further headers, after `authorization`. */
  readonly metadata?: readonly (readonly [name: string, value: string])[];
  readonly message?: Uint8Array;
  readonly method?: string;
  readonly contentType?: string | undefined;
}

/** A running system under attack. */
export interface Environment {
  readonly system: System;
  readonly targets: readonly Target[];
  readonly target: Readonly<Record<Target['audience'], Target>>;
  readonly auth: AuthServiceClient;
  readonly alice: LoginResponse;
  readonly bob: LoginResponse;
  readonly olga: LoginResponse;
  readonly keys: StolenKeys;
  /** Creates tokens with alice's claims, signed with the issuer's key. */
  readonly forge: Forge;
  readonly clientKey: KeyObject;
  /** A server that no process may ever connect to. */
  readonly listener: { readonly url: string; readonly connections: () => number };
  /** The exact responses to a bad token and to a missing one. @throws TypeError before they are recorded */
  readonly refusals: { readonly invalid: string; readonly missing: string };
  /** Records the refusals. Sends one bad token to each method, which is enough to raise an alarm. */
  recordRefusals(): Promise<void>;
  readonly board: Scoreboard;
  /** Shows progress. @throws when the attack was interrupted */
  progress(className: string, done: number, of: number): void;
  /** The number of calls with valid tokens that checked the processes. */
  readonly honest: { calls: number };
  logIn(name: UserName): Promise<LoginResponse>;
  send(target: Target, changes: RequestChanges): Promise<Answer>;
  /** Whether a request was served that should have been refused, by its answer. */
  isServed(answer: Answer): boolean;
  /** The number of calls by method and code, over all processes. */
  handledCalls(): Promise<ReadonlyMap<string, number>>;
  close(): void;
}

/** Logs the demo's users in, steals the keys, and connects to every process. */
export async function openEnvironment(
  system: System,
  board: Scoreboard,
  progress: Environment['progress'],
): Promise<Environment> {
  const auth = new AuthServiceClient(system.auth.address, credentials.createInsecure());
  const logIn = async (name: UserName): Promise<LoginResponse> => {
    const { username, password } = system.users[name];
    const request = { username, password, audiences: [], scopes: [], deviceName: 'attack' };
    return await ask(auth.login.bind(auth), request);
  };
  const [alice, bob, olga] = [await logIn('alice'), await logIn('bob'), await logIn('olga')];
  const keys = await stealKeys(system);
  const header = JSON.parse(
    Buffer.from(segmentsOf(alice.accessToken).header, 'base64url').toString('utf8'),
  ) as Record<string, unknown>;
  const targets = targetsOf(system);
  const [authTarget, inventoryTarget, , paymentTarget] = targets;
  if (authTarget === undefined || inventoryTarget === undefined || paymentTarget === undefined) {
    throw new TypeError('a process is missing');
  }
  const listener = await startListener();
  let refusals: Environment['refusals'] | undefined;
  return {
    system,
    targets,
    target: { auth: authTarget, inventory: inventoryTarget, payment: paymentTarget },
    auth,
    alice,
    bob,
    olga,
    keys,
    forge: createForge(keys.token.privateKey, header, claimsIn(alice.accessToken)),
    clientKey: createPrivateKey(await readFile(system.secrets.clientKeyFiles.payment, 'utf8')),
    listener,
    get refusals() {
      if (refusals === undefined) throw new TypeError('the refusals have not been recorded yet');
      return refusals;
    },
    recordRefusals: async () => {
      refusals = await recordRefusals(targets);
    },
    board,
    progress,
    honest: { calls: 0 },
    logIn,
    send,
    isServed: ({ status: code, body }) => code === status.OK || body.length > 0,
    handledCalls: () => readHandledCalls(targets),
    close: () => {
      for (const { peer } of targets) peer.close();
      auth.close();
      listener.server.close();
    },
  };
}

/** Sends a request to a target. */
export function send(target: Target, changes: RequestChanges): Promise<Answer> {
  const { path = target.path, authorization = [], metadata = [], message } = changes;
  const { method, contentType } = changes;
  const headers =
    method === undefined && !('contentType' in changes)
      ? preparedHeaders(path)
      : headersOf(path, {
          ...(method !== undefined && { method }),
          ...('contentType' in changes && { contentType }),
        });
  const fields = [...authorization.map((value) => ['authorization', value] as const), ...metadata];
  const block = Buffer.concat([headers, ...fields.map(([name, value]) => encodeField(name, value))]);
  return target.peer.send({ block, body: message === undefined ? EMPTY_MESSAGE : messageOf(message) });
}

const headersByPath = new Map<string, Buffer>();

function preparedHeaders(path: string): Buffer {
  let headers = headersByPath.get(path);
  if (headers === undefined) {
    headers = headersOf(path);
    headersByPath.set(path, headers);
  }
  return headers;
}

function targetsOf(system: System): Target[] {
  const targetOf = (process: ServiceProcess, audience: Target['audience'], path: string): Target => ({
    process,
    pid: process.pid,
    audience,
    peer: createPeer(process.address),
    path,
    guarded: GUARDED_METHODS.filter((method) => method.audience === audience),
  });
  const [one, two] = system.inventory;
  return [
    targetOf(system.auth, 'auth', '/auth.v1.AuthService/ListSessions'),
    targetOf(one, 'inventory', '/inventory.v1.InventoryService/ListItems'),
    targetOf(two, 'inventory', '/inventory.v1.InventoryService/ListItems'),
    targetOf(system.payment, 'payment', '/payment.v1.PaymentService/ListPayments'),
  ];
}

/**
 * The responses to a bad token and to a missing one. All processes and methods must refuse with the same bytes; a response must
 * not reveal where it comes from.
 *
 * @throws Error when they differ
 */
export async function recordRefusals(targets: readonly Target[]): Promise<Environment['refusals']> {
  const answersTo = async (authorization: readonly string[]): Promise<string> => {
    const answers = await Promise.all(
      targets.flatMap((target) => target.guarded.map(({ path }) => send(target, { path, authorization }))),
    );
    const kinds = new Set(answers.map(({ fields }) => fields));
    const [fields] = kinds;
    if (kinds.size !== 1 || fields === undefined || answers[0]?.status !== UNAUTHENTICATED) {
      throw new Error(`processes or methods refuse with different responses:\n${[...kinds].join('\n')}`);
    }
    return fields;
  };
  return { invalid: await answersTo(['Bearer x']), missing: await answersTo([]) };
}

async function startListener(): Promise<Environment['listener'] & { server: TcpServer }> {
  let connections = 0;
  const server = createServer((socket) => {
    connections += 1;
    socket.destroy();
  });
  await new Promise<void>((resolve) => {
    server.listen({ host: '127.0.0.1', port: 0 }, resolve);
  });
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  return { server, url: `http://127.0.0.1:${port}`, connections: () => connections };
}

async function readHandledCalls(targets: readonly Target[]): Promise<ReadonlyMap<string, number>> {
  const handled = new Map<string, number>();
  for (const { process } of targets) {
    const response = await fetch(`http://${process.opsAddress}/metrics`);
    const lines = (await response.text()).matchAll(
      /^grpc_server_handled_total\{.*grpc_service="([^"]*)",grpc_method="([^"]*)",grpc_code="([^"]*)"\} (\d+)/gm,
    );
    for (const [, service, method, code, count] of lines) {
      const key = `/${service}/${method} ${code}`;
      handled.set(key, (handled.get(key) ?? 0) + Number(count));
    }
  }
  return handled;
}
