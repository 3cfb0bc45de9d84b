/** A system with canary tokens and a gate before one of its services, and traffic of every kind that dashboards show. */

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { credentials } from '@grpc/grpc-js';
import { AuthServiceClient } from '../../proto/gen/auth/v1/auth_service.js';
import { InventoryServiceClient } from '../../proto/gen/inventory/v1/inventory_service.js';
import { ask } from '../../scripts/system/calls.js';
import { type System, startSystem } from '../../scripts/system/system.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { Environment, type GateProcess } from './environment.js';

/** The gate is in front of a service that is guarded itself, so it passes the token on. */
const GATE_RULES = `services:
  inventory.v1.InventoryService:
    ListItems: {scopes: inventory.read}
`;

const LEASE_MS = 5_000;

/** What Prometheus scrapes. */
export interface Target {
  readonly job: string;
  readonly address: string;
}

/** The system, running. */
export interface Watched {
  readonly system: System;
  readonly environment: Environment;
  readonly leaseMs: number;
  /** Auth first. */
  targets(): readonly Target[];
  /** Calls that are admitted, refused and ended, at a service and through the gate. */
  makeTraffic(): Promise<void>;
  stop(): Promise<void>;
}

/** Starts everything. */
export async function startWatched(signal?: AbortSignal): Promise<Watched> {
  const folder = await makeTemporaryFolder();
  const stopping: (() => Promise<void>)[] = [() => folder.remove()];
  const stop = async (): Promise<void> => {
    for (const step of stopping.splice(0).reverse()) await step();
  };
  try {
    const system = await startSystem({
      dataDir: join(folder.path, 'data'),
      ports: 'free',
      ephemeral: true,
      leaseMs: LEASE_MS,
      withTestUser: true,
      environment: { PORTCULLIS_CANARY_SECONDS: '1' },
      ...(signal !== undefined && { signal }),
    });
    stopping.push(() => system.stop());
    const environment = await Environment.open(system, folder.path);
    stopping.push(async () => environment.close());
    const rules = join(folder.path, 'gate-rules.yaml');
    await writeFile(rules, GATE_RULES);
    const [first] = system.inventory;
    const gate = await environment.startGate({ upstream: first.address, rules, token: 'forward' });
    stopping.push(() => gate.stop());
    return {
      system,
      environment,
      leaseMs: LEASE_MS,
      targets: () => targetsOf(system, gate),
      makeTraffic: () => makeTraffic(system, environment, gate),
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

function targetsOf(system: System, gate: GateProcess): readonly Target[] {
  const { auth, inventory, payment } = system;
  return [
    { job: 'portcullis-auth', address: auth.opsAddress },
    ...[...inventory, payment].map(({ opsAddress }) => ({ job: 'portcullis-service', address: opsAddress })),
    { job: 'portcullis-gate', address: `127.0.0.1:${gate.opsPort}` },
  ];
}

async function makeTraffic(system: System, environment: Environment, gate: GateProcess): Promise<void> {
  const operator = await environment.logIn('olga');
  const auth = new AuthServiceClient(system.auth.address, credentials.createInsecure());
  const inventories = [system.inventory[1].address, `127.0.0.1:${gate.port}`].map(
    (address) => new InventoryServiceClient(address, credentials.createInsecure()),
  );
  const list = { pageSize: 0, pageToken: '', filter: '' };
  try {
    const { username, password } = system.users.alice;
    const login = { username, password, audiences: [], scopes: [], deviceName: 'watched' };
    const { refreshToken } = await ask(auth.login.bind(auth), login);
    await ask(auth.refresh.bind(auth), { refreshToken, requestId: '' });
    for (const inventory of inventories) {
      const call = async (token: string): Promise<void> => {
        await ask(inventory.listItems.bind(inventory), list, token === '' ? {} : { token });
      };
      const refused = (token: string): Promise<void> => call(token).catch(() => undefined);
      const token = await environment.logIn('alice');
      await call(token);
      await call(token);
      await refused('');
      await refused(`${token.slice(0, -3)}AAA`);
      await environment.revoke(token, operator);
      await refused(token);
    }
  } finally {
    for (const client of [auth, ...inventories]) client.close();
  }
}
