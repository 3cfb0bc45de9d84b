/** A running system, and gates as processes that follow it. */

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { credentials } from '@grpc/grpc-js';
import { AuthServiceClient } from '../../proto/gen/auth/v1/auth_service.js';
import {
  RevocationServiceClient,
  RevokeRequest,
} from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { ask } from '../../scripts/system/calls.js';
import { findFreePort } from '../../scripts/system/ports.js';
import { PROJECT_FOLDER } from '../../scripts/system/project.js';
import type { UserName } from '../../scripts/system/secrets.js';
import type { System } from '../../scripts/system/system.js';
import { waitUntil } from '../shared/waiting.js';
import { type Program, startProgram } from './programs.js';

const COMMAND_LINE = join(PROJECT_FOLDER, 'cli', 'dist', 'src', 'main.js');
const READY_TIMEOUT_MS = 20_000;
const POLL_MS = 50;

/** The methods of the servers under test: every user of the demo has this scope. */
const RULES = `services:
  interop.v1.EchoService:
    Public: public
${[
  'Unary',
  'Metadata',
  'Fail',
  'Deadline',
  'Cancellations',
  'Compressed',
  'ServerStream',
  'ClientStream',
  'Bidi',
]
  .map((name) => `    ${name}: {scopes: inventory.read}`)
  .join('\n')}
    Operators: {roles: [operator]}
`;

/** A gate as a process. */
export interface GateProcess {
  readonly program: Program;
  readonly port: number;
  readonly opsPort: number;
  stop(): Promise<void>;
}

/** The system, its users, and what is started beside it. */
export class Environment {
  readonly system: System;
  readonly folder: string;
  readonly #auth: AuthServiceClient;
  readonly #revocations: RevocationServiceClient;
  readonly #rulesFile: string;

  private constructor(system: System, folder: string) {
    this.system = system;
    this.folder = folder;
    this.#auth = new AuthServiceClient(system.auth.address, credentials.createInsecure());
    this.#revocations = new RevocationServiceClient(system.auth.address, credentials.createInsecure());
    this.#rulesFile = join(folder, 'rules.yaml');
  }

  static async open(system: System, folder: string): Promise<Environment> {
    const environment = new Environment(system, folder);
    await writeFile(environment.#rulesFile, RULES);
    return environment;
  }

  /** A new session of a user, as its access token. */
  async logIn(name: UserName): Promise<string> {
    const { username, password } = this.system.users[name];
    const request = { username, password, audiences: [], scopes: [], deviceName: 'interop' };
    const { accessToken } = await ask(this.#auth.login.bind(this.#auth), request);
    return accessToken;
  }

  /** Revokes a token. @returns when Revoke had returned, on the clock of `performance.now` */
  async revoke(token: string, operator: string): Promise<number> {
    const request = RevokeRequest.fromPartial({
      target: { $case: 'token', value: token },
      reason: 'interop',
    });
    await ask(this.#revocations.revoke.bind(this.#revocations), request, { token: operator });
    return performance.now();
  }

  /** Starts `portcullis gate` as another instance of inventory, whose client and audience the demo has. */
  async startGate(flags: Readonly<Record<string, string>>): Promise<GateProcess> {
    const { system } = this;
    const [port, opsPort] = [await findFreePort(), await findFreePort()];
    const settings: Record<string, string> = {
      issuer: system.issuer,
      auth: system.auth.address,
      'client-id': 'inventory',
      'client-key': system.secrets.clientKeyFiles.inventory,
      rules: this.#rulesFile,
      'ops-listen': `127.0.0.1:${opsPort}`,
      ...(system.nats && { nats: system.nats.url('inventory') }),
      ...(flags['upstream'] && { listen: `127.0.0.1:${port}` }),
      ...flags,
    };
    const words = Object.entries(settings).map(([name, value]) => `--${name}=${value}`);
    const program = startProgram(process.execPath, [COMMAND_LINE, 'gate', ...words]);
    try {
      await waitUntil(() => isReady(opsPort, program), {
        timeoutMs: READY_TIMEOUT_MS,
        pollMs: POLL_MS,
        failure: () => `the gate is not ready: ${program.lines.slice(-5).join(' | ')}`,
      });
      // It has ended, and says why.
      if (!program.isRunning) await program.line(() => false);
    } catch (error) {
      await program.stop();
      throw error;
    }
    return { program, port, opsPort, stop: () => program.stop() };
  }

  close(): void {
    this.#auth.close();
    this.#revocations.close();
  }
}

async function isReady(port: number, program: Program): Promise<boolean> {
  if (!program.isRunning) return true;
  const response = await fetch(`http://127.0.0.1:${port}/readyz`).catch(() => undefined);
  return response?.status === 200;
}
