/** What the section `gate` runs: a whole system, a server that nothing guards, and gates as they are shipped. */

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { credentials } from '@grpc/grpc-js';
import { AuthServiceClient } from '../../proto/gen/auth/v1/auth_service.js';
import { RevocationServiceClient, RevokeWait } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { ask } from '../../scripts/system/calls.js';
import { findFreePort } from '../../scripts/system/ports.js';
import { PROJECT_FOLDER } from '../../scripts/system/project.js';
import { type System, startSystem } from '../../scripts/system/system.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { waitUntil } from '../shared/waiting.js';
import { cutsIn } from './gate-metrics.js';
import type { ProbeCommands } from './gate-probe-process.js';
import type { UpstreamCommands } from './gate-upstream-process.js';
import type { BenchContext } from './section.js';
import { startNode, startWorker, type Worker } from './worker.js';

const COMMAND_LINE = join(PROJECT_FOLDER, 'cli', 'dist', 'src', 'main.js');
const PROBE = join(PROJECT_FOLDER, 'dist', 'proofs', 'bench', 'gate-probe-process.js');
const READY_MS_MAX = 30_000;
const READY_POLL_MS = 30;
/** Longer than the section takes. */
const ACCESS_TOKEN_SECONDS = 3_600;

/** Every user of the demo has this scope. */
const RULES = `services:
  bench.v1.EchoService:
    Unary: {scopes: inventory.read}
    Stream: {scopes: inventory.read}
    Flood: {scopes: inventory.read}
`;

/** One user makes all calls, and opens all streams. */
const SETTINGS = JSON.stringify({ limits: { callsPerUser: 1e9, streamsPerUser: 1e9 } });

/** A session of the user who makes all calls. */
export interface Session {
  readonly token: string;
  readonly sessionId: string;
}

/** A gate as a process: `portcullis gate` with the flags of Node that it has by default. */
export interface GateProcess {
  readonly pid: number;
  /** Where callers connect; unused by a gate that only answers checks. */
  readonly port: number;
  readonly probe: Worker<ProbeCommands>;
  /** How many calls it has cut so far. */
  cuts(): Promise<number>;
  stop(): Promise<void>;
}

/** Everything that runs. */
export interface Deployment {
  readonly folder: string;
  readonly upstream: { readonly pid: number; readonly port: number };
  logIn(): Promise<Session>;
  /** Revokes a session. @returns when Revoke had returned, on the clock of `performance.now` */
  revoke(session: Session): Promise<number>;
  /** @param flags - those beside auth and rules */
  startGate(core: number | undefined, flags: Readonly<Record<string, string>>): Promise<GateProcess>;
  stop(): Promise<void>;
}

/** Starts the system and the server. */
export async function openDeployment(context: BenchContext): Promise<Deployment> {
  const folder = await makeTemporaryFolder();
  const undo: (() => Promise<void>)[] = [() => folder.remove()];
  const stop = async (): Promise<void> => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  try {
    context.progress('starting a system');
    const system = await startSystem({
      dataDir: join(folder.path, 'data'),
      ports: 'free',
      environment: { PORTCULLIS_ACCESS_TOKEN_SECONDS: String(ACCESS_TOKEN_SECONDS) },
      signal: context.signal,
    });
    undo.push(() => system.stop());
    const worker = startWorker<UpstreamCommands>({
      program: 'gate-upstream-process',
      core: context.cores.load,
    });
    undo.push(() => worker.stop());
    const port = await worker.call('serve');
    await writeFile(join(folder.path, 'rules.yaml'), RULES);
    await writeFile(join(folder.path, 'gate.json'), SETTINGS);
    const callers = connectTo(system);
    undo.push(async () => callers.close());
    return {
      folder: folder.path,
      upstream: { pid: worker.pid, port },
      logIn: () => callers.logIn('alice'),
      revoke: (session) => callers.revoke(session),
      startGate: (core, flags) => startGate(system, folder.path, core, flags),
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

function connectTo(system: System) {
  const auth = new AuthServiceClient(system.auth.address, credentials.createInsecure());
  const revocation = new RevocationServiceClient(system.auth.address, credentials.createInsecure());
  const logIn = async (name: 'alice' | 'olga'): Promise<Session> => {
    const { username, password } = system.users[name];
    const request = { username, password, audiences: [], scopes: [], deviceName: 'bench' };
    const { accessToken, session } = await ask(auth.login.bind(auth), request);
    return { token: accessToken, sessionId: session?.sessionId ?? '' };
  };
  let operator: Promise<Session> | undefined;
  return {
    logIn,
    revoke: async ({ sessionId }: Session): Promise<number> => {
      operator ??= logIn('olga');
      const { token } = await operator;
      const target = { $case: 'sessionId' as const, value: sessionId };
      const wait = RevokeWait.REVOKE_WAIT_NONE;
      const request = { target, reason: 'bench', wait, targets: [], dryRun: false, fences: [] };
      await ask(revocation.revoke.bind(revocation), request, { token });
      return performance.now();
    },
    close: () => {
      auth.close();
      revocation.close();
    },
  };
}

/** As another instance of inventory, whose client and audience the demo has. */
async function startGate(
  system: System,
  folder: string,
  core: number | undefined,
  flags: Readonly<Record<string, string>>,
): Promise<GateProcess> {
  const [port, opsPort] = [await findFreePort(), await findFreePort()];
  const settings: Readonly<Record<string, string>> = {
    issuer: system.issuer,
    auth: system.auth.address,
    'client-id': 'inventory',
    'client-key': system.secrets.clientKeyFiles.inventory,
    ...(system.nats && { nats: system.nats.url('inventory') }),
    rules: join(folder, 'rules.yaml'),
    config: join(folder, 'gate.json'),
    'ops-listen': `127.0.0.1:${opsPort}`,
    'log-level': 'error',
    'drain-seconds': '0',
    ...(flags['upstream'] !== undefined && { listen: `127.0.0.1:${port}` }),
    ...flags,
  };
  const words = Object.entries(settings).map(([name, value]) => `--${name}=${value}`);
  const probe = startNode<ProbeCommands>(
    ['--expose-gc', '--import', pathToFileURL(PROBE).href, COMMAND_LINE, 'gate', ...words],
    { name: 'the gate', core, output: 'ignore' },
  );
  const get = async (path: string): Promise<Response | undefined> =>
    await fetch(`http://127.0.0.1:${opsPort}${path}`).catch(() => undefined);
  try {
    // Fails when the process has ended.
    await probe.call('memory');
    await waitUntil(async () => (await get('/readyz'))?.status === 200, {
      timeoutMs: READY_MS_MAX,
      pollMs: READY_POLL_MS,
      failure: 'the gate is not ready in time',
    });
  } catch (error) {
    await probe.stop();
    throw error;
  }
  return {
    pid: probe.pid,
    port,
    probe,
    cuts: async () => cutsIn((await (await get('/metrics'))?.text()) ?? ''),
    stop: () => probe.stop(),
  };
}
