/** A whole system for tests: one that several suites share, and private ones, with clients. */

import type { LoginResponse } from '../../proto/gen/auth/v1/auth_service.js';
import { AuthServiceClient } from '../../proto/gen/auth/v1/auth_service.js';
import { InventoryServiceClient } from '../../proto/gen/inventory/v1/inventory_service.js';
import { PaymentServiceClient } from '../../proto/gen/payment/v1/payment_service.js';
import { RevocationServiceClient } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { ask } from '../../scripts/system/calls.js';
import type { UserName } from '../../scripts/system/secrets.js';
import type { System, SystemOptions } from '../../scripts/system/system.js';
import { startSystem } from '../../scripts/system/system.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';

/** How long an instance of a test's system trusts its list; short, so that faults show soon. */
export const LEASE_MS = 1_500;

/** A system that a test can stop. */
export interface TestSystem extends System {
  /** Stops it and removes its data. */
  remove(): Promise<void>;
}

/** Clients of all services of a system. */
export interface SystemClients {
  readonly auth: AuthServiceClient;
  readonly revocation: RevocationServiceClient;
  readonly inventory: readonly [InventoryServiceClient, InventoryServiceClient];
  readonly payment: PaymentServiceClient;
  /** Logs one of the demo's users in. */
  logIn(name: UserName): Promise<LoginResponse>;
  close(): void;
}

let shared: Promise<TestSystem> | undefined;

/** The system of all suites that stop and break nothing in it; it ends with the run. */
export async function sharedSystem(): Promise<TestSystem> {
  shared ??= startTestSystem();
  return await shared;
}

/** A system for one suite, which may break it. */
export async function startTestSystem(
  more: Pick<SystemOptions, 'tls' | 'environment' | 'leaseMs' | 'nodeArguments'> = {},
): Promise<TestSystem> {
  const folder = await makeTemporaryFolder();
  const system = await startSystem({
    dataDir: folder.path,
    ports: 'free',
    ephemeral: true,
    leaseMs: LEASE_MS,
    ...more,
  });
  return {
    ...system,
    async remove() {
      await system.stop();
      await folder.remove();
    },
  };
}

/** Stops the shared system; called once, after the last test. */
export async function stopSharedSystem(): Promise<void> {
  const running = await shared?.catch(() => undefined);
  shared = undefined;
  await running?.remove();
}

/** Connects to every service of a system. */
export function clientsOf(system: System): SystemClients {
  const { credentials } = system;
  const [one, two] = system.inventory;
  const auth = new AuthServiceClient(system.auth.address, credentials);
  const revocation = new RevocationServiceClient(system.auth.address, credentials);
  const inventory = [
    new InventoryServiceClient(one.address, credentials),
    new InventoryServiceClient(two.address, credentials),
  ] as const;
  const payment = new PaymentServiceClient(system.payment.address, credentials);
  return {
    auth,
    revocation,
    inventory,
    payment,
    async logIn(name) {
      const { username, password } = system.users[name];
      const request = { username, password, audiences: [], scopes: [], deviceName: 'test' };
      return await ask(auth.login.bind(auth), request);
    },
    close() {
      for (const client of [auth, revocation, ...inventory, payment]) client.close();
    },
  };
}
