/** The range: a running system, what was taken from it, and the bytes in which it refuses. */

import { createPrivateKey, type KeyObject } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer, type Server as TcpServer } from 'node:net';
import { credentials } from '@grpc/grpc-js';
import { AuthServiceClient, type LoginResponse } from '../../proto/gen/auth/v1/auth_service.js';
import { ask } from '../../scripts/system/calls.js';
import type { ServiceProcess } from '../../scripts/system/parts.js';
import type { UserName } from '../../scripts/system/secrets.js';
import type { System } from '../../scripts/system/system.js';
import { claimsIn, createForge, type Forge, segmentsOf } from './forge.js';
import { encodeField } from './hpack.js';
import { GUARDED_METHODS, type GuardedMethod } from './schema.js';
import type { Scoreboard } from './scoreboard.js';
import { type StolenKeys, stealKeys } from './stolen-keys.js';
import { type Answer, createPeer, EMPTY_MESSAGE, headersOf, messageOf, type Peer } from './wire.js';

/** Requests under way at one time, to all processes together. */
export const IN_FLIGHT_MAX = 64;

const UNAUTHENTICATED = 16;

/** A process under attack. */
export interface Target {
  readonly process: ServiceProcess;
  readonly pid: number;
  readonly audience: 'auth' | 'inventory' | 'payment';
  readonly peer: Peer;
  /** A method that reads, which any customer may call. */
  readonly path: string;
  /** Every method of the process that asks for a token. */
  readonly guarded: readonly GuardedMethod[];
}

/** A request as it is aimed: what differs from an ordinary one. */
export interface Aim {
  readonly path?: string;
  /** Values of `authorization`, in their order; none at all when empty. */
  readonly authorization?: readonly string[];
  /** More headers, after those. */
  readonly metadata?: readonly (readonly [name: string, value: string])[];
  readonly message?: Uint8Array;
  readonly method?: string;
  readonly contentType?: string | undefined;
}

/** A running system under attack. */
export interface Range {
  readonly system: System;
  readonly targets: readonly Target[];
  readonly target: Readonly<Record<Target['audience'], Target>>;
  readonly auth: AuthServiceClient;
  readonly alice: LoginResponse;
  readonly bob: LoginResponse;
  readonly olga: LoginResponse;
  readonly keys: StolenKeys;
  /** Makes tokens that say what alice's says, and are signed by the issuer's own key. */
  readonly forge: Forge;
  readonly clientKey: KeyObject;
  /** Somebody who listens, and must never be asked. */
  readonly listener: { readonly url: string; readonly connections: () => number };
  /** The exact answers to a bad token and to none; TypeError before they were learned. */
  readonly refusals: { readonly invalid: string; readonly missing: string };
  /** Learns them with a bad token for each method, which is enough of them to be told of. */
  learnRefusals(): Promise<void>;
  readonly board: Scoreboard;
  /** Says how far the attack is; throws when it has been broken off. */
  progress(className: string, done: number, of: number): void;
  /** How often an honest caller was let through to see that all is well. */
  readonly honest: { calls: number };
  logIn(name: UserName): Promise<LoginResponse>;
  fire(target: Target, aim: Aim): Promise<Answer>;
  /** Counts calls by method and code over all processes. */
  handled(): Promise<ReadonlyMap<string, number>>;
  close(): void;
}

/** Takes from a system what an attacker may have, and learns how it refuses. */
export async function openRange(
  system: System,
  board: Scoreboard,
  progress: Range['progress'],
): Promise<Range> {
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
  let refusals: Range['refusals'] | undefined;
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
      if (refusals === undefined) throw new TypeError('it is not known yet how bad tokens are refused');
      return refusals;
    },
    learnRefusals: async () => {
      refusals = await learnRefusals(targets);
    },
    board,
    progress,
    honest: { calls: 0 },
    logIn,
    fire,
    handled: () => readHandled(targets),
    close: () => {
      for (const { peer } of targets) peer.close();
      auth.close();
      listener.server.close();
    },
  };
}

/** Sends one request. */
function fire(target: Target, aim: Aim): Promise<Answer> {
  const { path = target.path, authorization = [], metadata = [], message } = aim;
  const { method, contentType } = aim;
  const headers =
    method === undefined && !('contentType' in aim)
      ? preparedHeaders(path)
      : headersOf(path, {
          ...(method !== undefined && { method }),
          ...('contentType' in aim && { contentType }),
        });
  const fields = [...authorization.map((value) => ['authorization', value] as const), ...metadata];
  const block = Buffer.concat([headers, ...fields.map(([name, value]) => encodeField(name, value))]);
  return target.peer.send({ block, body: message === undefined ? EMPTY_MESSAGE : messageOf(message) });
}

const prepared = new Map<string, Buffer>();

function preparedHeaders(path: string): Buffer {
  let headers = prepared.get(path);
  if (headers === undefined) {
    headers = headersOf(path);
    prepared.set(path, headers);
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

/** All processes must refuse alike, whatever the method, or a bad token would tell where it was sent. */
async function learnRefusals(targets: readonly Target[]): Promise<Range['refusals']> {
  const answersTo = async (authorization: readonly string[]): Promise<string> => {
    const answers = await Promise.all(
      targets.flatMap((target) => target.guarded.map(({ path }) => fire(target, { path, authorization }))),
    );
    const kinds = new Set(answers.map(({ fields }) => fields));
    const [fields] = kinds;
    if (kinds.size !== 1 || fields === undefined || answers[0]?.status !== UNAUTHENTICATED) {
      throw new Error(`processes and methods differ in how they refuse:\n${[...kinds].join('\n')}`);
    }
    return fields;
  };
  return { invalid: await answersTo(['Bearer x']), missing: await answersTo([]) };
}

async function startListener(): Promise<Range['listener'] & { server: TcpServer }> {
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

async function readHandled(targets: readonly Target[]): Promise<ReadonlyMap<string, number>> {
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
