/**
 * The attacks through gates: each process under attack is replaced by a gate with its rules, behind which a server answers
 * everything. What reaches that server was admitted; what the gate refuses is sent to the process itself as well, whose guard
 * must refuse it with the same bytes.
 */

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { status } from '@grpc/grpc-js';
import type { ServiceProcess } from '../../scripts/system/parts.js';
import { findFreePort } from '../../scripts/system/ports.js';
import type { System } from '../../scripts/system/system.js';
import { createGateProcess } from '../shared/gate-process.js';
import { type Answer, createPeer } from '../shared/wire.js';
import { isSendable } from './attempts.js';
import { type Environment, type RequestChanges, recordRefusals, send, type Target } from './environment.js';
import { NUMBER_HEADER, type OpenServer, openOpenServer } from './open-server.js';
import { rulesOf } from './schema.js';

const CLASS = 'gates refuse as guards do';
/** How much later than a gate a guard may learn of a revocation, in milliseconds. */
const LATER_MS = 500;

/** Statuses with which a guard refuses. */
const REFUSALS: readonly number[] = [status.UNAUTHENTICATED, status.PERMISSION_DENIED, status.UNIMPLEMENTED];

/** What processes call on auth by themselves. */
const OWN_TRAFFIC = /\/(Sync|Pull|GetKeys|ExchangeToken) /;

/** gRPC-Web, whose callers get refusals in their own protocol from a gate. */
const OTHER_PROTOCOL = /^application\/grpc-web/;

/** An answer of HTTP that says nothing of gRPC. */
const NO_STATUS = -1;

/** A process under attack, and what stands in its place. */
interface Gated {
  readonly guarded: Target;
  readonly server: OpenServer;
  readonly target: Target;
}

/** The environment of attacks through gates. */
export interface GatedEnvironment {
  readonly environment: Environment;
  /** Checks that every request that has reached a server was sent by the attacks. */
  checkServers(): void;
  stop(): Promise<void>;
}

/**
 * Starts a gate for each process, and records the refusals of the guards, which the gates must give.
 *
 * @param folder - where rules and logs of the gates are written
 */
export async function openGates(direct: Environment, folder: string): Promise<GatedEnvironment> {
  const { board } = direct;
  await direct.recordRefusals();
  const undo: (() => Promise<void>)[] = [];
  const stop = async (): Promise<void> => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  try {
    const gated: Gated[] = [];
    for (const guarded of direct.targets) {
      const server = await openOpenServer();
      undo.push(async () => server.close());
      const process = await startGate(direct.system, guarded, server.address, folder);
      undo.push(() => process.stop());
      const peer = createPeer(process.address);
      undo.push(async () => peer.close());
      gated.push({ guarded, server, target: { ...guarded, process, pid: process.pid, peer } });
    }
    const own = await recordRefusals(gated.map(({ target }) => target));
    for (const [kind, fields] of Object.entries(direct.refusals)) {
      const got = own[kind as keyof typeof own];
      if (got === fields) board.refused(CLASS);
      else board.differs(CLASS, `${kind}: ${got} in place of ${fields}`);
    }
    return {
      environment: environmentOf(direct, gated),
      checkServers: () => checkServers(direct, gated),
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function startGate(
  system: System,
  { process: { name }, audience }: Target,
  upstream: string,
  folder: string,
): Promise<ServiceProcess> {
  const { descriptors, file } = rulesOf(audience);
  const descriptorsFile = join(folder, `gate-${audience}.binpb`);
  const rulesFile = join(folder, `gate-${audience}.json`);
  await writeFile(descriptorsFile, descriptors);
  await writeFile(rulesFile, JSON.stringify(file));
  // Auth is no client of its own: another service may follow the revocations in its place.
  const client = audience === 'auth' ? 'inventory' : audience;
  const gate = createGateProcess({
    name: `gate of ${name}`,
    address: `127.0.0.1:${await findFreePort()}`,
    opsAddress: `127.0.0.1:${await findFreePort()}`,
    flags: {
      issuer: system.issuer,
      audience,
      auth: system.auth.address,
      'client-id': client,
      'client-key': system.secrets.clientKeyFiles[client],
      ...(system.nats && { nats: system.nats.url(client) }),
      upstream,
      descriptors: descriptorsFile,
      rules: rulesFile,
    },
    logFile: join(folder, 'logs', `gate-of-${name}.log`),
  });
  await gate.launch();
  await gate.ready();
  return gate;
}

function environmentOf(direct: Environment, gated: readonly Gated[]): Environment {
  const served = new WeakSet<Answer>();
  let count = 0;
  const targetOf = (audience: Target['audience']): Target => {
    const found = gated.find(({ target }) => target.audience === audience);
    if (found === undefined) throw new TypeError(`${audience} has no gate`);
    return found.target;
  };
  return {
    ...direct,
    refusals: direct.refusals,
    targets: gated.map(({ target }) => target),
    target: { auth: targetOf('auth'), inventory: targetOf('inventory'), payment: targetOf('payment') },
    send: async (target, changes) => {
      const found = gated.find((one) => one.target === target);
      if (found === undefined) throw new TypeError('this process has no gate');
      count += 1;
      const number = String(count);
      const numbered = {
        ...changes,
        metadata: [...(changes.metadata ?? []), [NUMBER_HEADER, number]],
      } as const;
      const answer = await send(target, numbered);
      if (found.server.hasReached(number)) served.add(answer);
      else await compareWithGuard(direct, found.guarded, numbered, answer);
      return answer;
    },
    // A refusal may have a body: callers that do not speak gRPC get one.
    isServed: (answer) => served.has(answer) || answer.status === status.OK,
    handledCalls: async () => {
      const handled = new Map([...(await direct.handledCalls())].filter(([key]) => OWN_TRAFFIC.test(key)));
      for (const { server } of gated) {
        for (const [path, calls] of server.reached) {
          const key = `${path} OK`;
          handled.set(key, (handled.get(key) ?? 0) + calls);
        }
      }
      return handled;
    },
  };
}

/** Sends what a gate has refused to the process that it stands for. */
async function compareWithGuard(
  { board, refusals }: Environment,
  guarded: Target,
  changes: RequestChanges,
  answer: Answer,
): Promise<void> {
  // A gate that ends a stream or a connection has found a violation of HTTP/2, and no refusal of a guard.
  if (answer.kind !== 'answered' || !REFUSALS.includes(answer.status)) return;
  // Guards know no other protocol, and answer its callers as if they spoke gRPC.
  if (OTHER_PROTOCOL.test(changes.contentType ?? '')) return;
  let guards = await send(guarded, changes);
  if (guards.status === status.OK) {
    await sleep(LATER_MS);
    guards = await send(guarded, changes);
  }
  // grpc-js answers such requests without asking the guard.
  if (guards.kind === 'answered' && guards.status === NO_STATUS) return;
  if (isSameRefusal(changes, answer, guards, refusals)) board.refused(CLASS);
  else {
    const what = `${answer.fields} in place of ${guards.kind} ${guards.fields}`;
    board.differs(CLASS, `${describe(changes)}: ${what}`);
  }
}

function isSameRefusal(
  { authorization = [] }: RequestChanges,
  answer: Answer,
  guards: Answer,
  refusals: Environment['refusals'],
): boolean {
  // Node drops a value that HTTP/2 forbids, so that its guard misses the credential which the gate finds bad.
  if (!authorization.every(isSendable)) return Object.values(refusals).includes(answer.fields);
  // That a method does not exist is said by grpc-js, which does not encode the path in its message.
  if (answer.status === status.UNIMPLEMENTED) {
    return withoutMessage(answer.fields) === withoutMessage(guards.fields);
  }
  return answer.fields === guards.fields;
}

function withoutMessage(fields: string): string {
  return fields.replace(/^grpc-message: .*$/m, '');
}

function describe({ path, authorization, metadata, ...form }: RequestChanges): string {
  const values = authorization?.map((value) => value.slice(0, 30));
  return JSON.stringify({ path: path?.slice(0, 100), authorization: values, metadata, ...form });
}

function checkServers({ board }: Environment, gated: readonly Gated[]): void {
  for (const { server, guarded } of gated) {
    const { name } = guarded.process;
    board.holds(CLASS, server.unnumbered === 0, `${server.unnumbered} requests nobody sent reached ${name}`);
  }
}
