/** Gates of the drill: each stands in front of a server in another language that guards nothing. */

import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ServiceProcess } from '../../scripts/system/parts.js';
import { PROJECT_FOLDER } from '../../scripts/system/project.js';
import type { System } from '../../scripts/system/system.js';
import { goServer, pythonWithGrpc } from '../interop/peers.js';
import { type Program, startProgram } from '../interop/programs.js';
import { createGateProcess } from '../shared/gate-process.js';
import type { Peer } from '../shared/programs.js';

const PYTHON_SERVER = join(PROJECT_FOLDER, 'proofs', 'interop', 'upstreams', 'python', 'server.py');

/** The name of a gate among the instances. */
export type GateName = 'gate-python' | 'gate-go';

/** A server that gets a gate. */
export interface UpstreamProgram {
  readonly gate: GateName;
  /** The library that it stands on, with its version. */
  readonly library: string;
  readonly program: string;
  /** The words before the address. */
  readonly words: readonly string[];
}

/** The server behind a gate. */
interface Upstream {
  kill(signal: NodeJS.Signals): void;
  /** Resolves when it has ended. */
  ended(): Promise<void>;
  /** Starts it again under the same address. */
  restart(): Promise<void>;
}

/** A gate and the server behind it. */
export interface DrillGate {
  readonly name: GateName;
  readonly process: ServiceProcess;
  readonly upstream: Upstream;
  stop(): Promise<void>;
}

/** The methods of the drill's echo, as every user and service of the drill may call them. */
const RULES = `services:
  drill.v1.EchoService:
    Witness: public
${['Unary', 'ClientStream', 'ServerStream', 'Bidi'].map((name) => `    ${name}: {scopes: inventory.read}`).join('\n')}
`;

/** A few users make all calls of the drill. */
const SETTINGS = JSON.stringify({ limits: { callsPerUser: 1e9, streamsPerUser: 1e9 } });

/** Servers in Python and Go, and those that cannot be had here, with the reason. */
export async function findUpstreams(): Promise<{
  readonly programs: readonly UpstreamProgram[];
  readonly missing: readonly string[];
}> {
  const programs: UpstreamProgram[] = [];
  const missing: string[] = [];
  for (const [gate, get, words] of [
    ['gate-python', pythonWithGrpc, [PYTHON_SERVER]],
    ['gate-go', goServer, []],
  ] as const) {
    const peer: Peer<string> = await get();
    if (peer.had) {
      const library = `${peer.name} ${peer.version}`;
      programs.push({ gate, library, program: peer.value, words });
    } else missing.push(`${peer.name} (${peer.why})`);
  }
  return { programs, missing };
}

/** Starts the server, and the gate in front of it, which follows the system over the given addresses. */
export async function openGate(
  program: UpstreamProgram,
  options: {
    readonly dataDir: string;
    readonly system: System;
    readonly authAddress: string;
    readonly natsUrl: string;
    readonly address: string;
    readonly opsAddress: string;
    readonly nodeArguments: readonly string[];
    readonly signal: AbortSignal;
  },
): Promise<DrillGate> {
  const { dataDir, system, authAddress, natsUrl, address, opsAddress, nodeArguments, signal } = options;
  const { gate: name } = program;
  const socket = join(dataDir, `${name}.sock`);
  const rules = join(dataDir, `${name}-rules.yaml`);
  const settings = join(dataDir, `${name}.json`);
  await writeFile(rules, RULES);
  await writeFile(settings, SETTINGS);
  const upstream = new RestartableServer(program, socket);
  await upstream.restart();
  const process = createGateProcess({
    name,
    address,
    opsAddress,
    flags: {
      config: settings,
      issuer: system.issuer,
      auth: authAddress,
      'client-id': 'inventory',
      'client-key': system.secrets.clientKeyFiles.inventory,
      nats: natsUrl,
      rules,
      upstream: `unix:${socket}`,
      'drain-seconds': '1',
    },
    logFile: join(dataDir, 'logs', `${name}.log`),
    nodeArguments,
  });
  const stop = async (): Promise<void> => {
    await process.stop();
    await upstream.stop();
  };
  try {
    await process.launch();
    await process.ready({ signal });
    return { name, process, upstream, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

class RestartableServer implements Upstream {
  readonly #program: UpstreamProgram;
  readonly #socket: string;
  #running: Program | undefined;

  constructor(program: UpstreamProgram, socket: string) {
    this.#program = program;
    this.#socket = socket;
  }

  kill(signal: NodeJS.Signals): void {
    this.#running?.signal(signal);
  }

  async ended(): Promise<void> {
    await this.#running?.stop();
  }

  async restart(): Promise<void> {
    await this.#running?.stop();
    // A server that was killed has left its socket.
    await rm(this.#socket, { force: true });
    const { program, words } = this.#program;
    const running = startProgram(program, [...words, `unix:${this.#socket}`]);
    this.#running = running;
    await running.line((line) => line.startsWith('{'));
  }

  async stop(): Promise<void> {
    await this.#running?.stop();
  }
}
