/** What one question of ext_authz costs a gate. */

import { join } from 'node:path';
import { Client, credentials, status } from '@grpc/grpc-js';
import { loadSync, type ServiceDefinition } from '@grpc/proto-loader';
import { PROJECT_FOLDER } from '../../scripts/system/project.js';
import { type Spread, spreadOf } from '../shared/statistics.js';
import { UNARY_PATH } from './echo.js';
import type { Deployment } from './gate-deployment.js';
import type { LoadCommands } from './load-process.js';
import { preciseTimeMs } from './processor-time.js';
import type { BenchContext } from './section.js';
import { startWorker } from './worker.js';

const PROTO = join(PROJECT_FOLDER, 'gate', 'proto', 'envoy', 'service', 'auth', 'v3', 'external_auth.proto');
const SERVICE = 'envoy.service.auth.v3.Authorization';
/** The name of what the load generator prepares. */
const CHECK = 'checks';
const CONNECTIONS = 4;
const IN_FLIGHT = 32;
const WARM_UP_CHECKS = 5_000;
const TURNS = 12;
const CHECKS_PER_TURN = 8_000;
const TURNS_SHORT = 4;
const CHECKS_PER_TURN_SHORT = 2_000;
const MICROSECONDS_PER_MILLISECOND = 1_000;

/** The cost of a check. */
export interface CheckFigures {
  readonly cpuMicroseconds: Spread;
  /** Checks a second of a gate on one core. */
  readonly perSecond: Spread;
}

/** Asks a gate about one token again and again, in the form in which Envoy does. */
export async function measureChecks(context: BenchContext, deployment: Deployment): Promise<CheckFigures> {
  const socketPath = join(deployment.folder, 'checks.sock');
  context.progress('starting a gate for checks');
  const gate = await deployment.startGate(context.cores.server, { 'ext-authz': `unix:${socketPath}` });
  const load = startWorker<LoadCommands>({ program: 'load-process', core: context.cores.load });
  try {
    const { token } = await deployment.logIn();
    const { path, message } = checkOf(token);
    await expectAdmitted(socketPath, token);
    // The credential of the question itself is none: the socket's permissions say who may ask.
    await load.call('prepare', { name: CHECK, path, tokens: [''], message: Uint8Array.from(message) });
    await load.call('open', { name: CHECK, socketPath, calls: CHECK, connections: CONNECTIONS });
    const run = async (calls: number) => {
      const flow = { connections: CHECK, calls: CHECK, until: { calls }, inFlight: IN_FLIGHT };
      const beforeMs = await preciseTimeMs([gate.pid]);
      const [result] = await load.call('run', [flow]);
      const afterMs = await preciseTimeMs([gate.pid]);
      if (result === undefined || result.refused > 0) throw new Error('a check has failed');
      return {
        cpuMicroseconds: ((afterMs - beforeMs) * MICROSECONDS_PER_MILLISECOND) / result.calls,
        perSecond: result.calls / result.seconds,
      };
    };
    await run(WARM_UP_CHECKS);
    const turns: Awaited<ReturnType<typeof run>>[] = [];
    for (let turn = 1; turn <= (context.isShort ? TURNS_SHORT : TURNS); turn += 1) {
      context.signal.throwIfAborted();
      context.progress(`checks: turn ${turn}`);
      turns.push(await run(context.isShort ? CHECKS_PER_TURN_SHORT : CHECKS_PER_TURN));
    }
    return {
      cpuMicroseconds: spreadOf(turns.map(({ cpuMicroseconds }) => cpuMicroseconds)),
      perSecond: spreadOf(turns.map(({ perSecond }) => perSecond)),
    };
  } finally {
    await load.stop();
    await gate.stop();
  }
}

/** The method of Envoy's service, from the schema that the gate has. */
function checkMethod() {
  const service = loadSync(PROTO, { keepCase: true })[SERVICE] as ServiceDefinition | undefined;
  const check = service?.['Check'];
  if (check === undefined) throw new TypeError(`${SERVICE} has no method Check`);
  return check;
}

/** A question about a call, with the headers that Envoy sends (`encode_raw_headers`). */
function checkOf(token: string): { readonly path: string; readonly message: Buffer } {
  const { path, requestSerialize } = checkMethod();
  const headers = Object.entries({
    ':authority': 'echo.example',
    ':method': 'POST',
    ':path': UNARY_PATH,
    ':scheme': 'https',
    'content-type': 'application/grpc',
    te: 'trailers',
    'user-agent': 'grpc-node-js/1.14.7',
    authorization: `Bearer ${token}`,
    'x-forwarded-proto': 'https',
    'x-request-id': 'd6a31f3c-6c93-4fa9-9f7b-6b6d5f1f4f60',
  }).map(([key, value]) => ({ key, raw_value: Buffer.from(value) }));
  const message = requestSerialize({
    attributes: {
      source: { address: { socket_address: { address: '10.0.0.7', port_value: 50_123 } } },
      request: {
        http: {
          method: 'POST',
          scheme: 'https',
          host: 'echo.example',
          path: UNARY_PATH,
          header_map: { headers },
        },
      },
    },
  });
  return { path, message };
}

/** One question whose answer is read: a refusal would be answered as fast. */
async function expectAdmitted(socketPath: string, token: string): Promise<void> {
  const { path, responseDeserialize } = checkMethod();
  const client = new Client(`unix:${socketPath}`, credentials.createInsecure());
  const message = checkOf(token).message;
  try {
    const answer = await new Promise<unknown>((resolve, reject) => {
      const serialize = (bytes: Buffer): Buffer => bytes;
      client.makeUnaryRequest(path, serialize, responseDeserialize, message, (error, value) =>
        error === null ? resolve(value) : reject(error),
      );
    });
    const { code = status.OK } = (answer as { status?: { code?: number } }).status ?? {};
    if (code !== status.OK) throw new Error(`the gate refuses a good token: ${JSON.stringify(answer)}`);
  } finally {
    client.close();
  }
}
