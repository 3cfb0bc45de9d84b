/** The environment of the stock and ledger drills: a system with logged-in customers who have accounts. */

import { randomBytes, randomUUID } from 'node:crypto';
import { type ChannelOptions, credentials } from '@grpc/grpc-js';
import { AuthServiceClient } from '../../proto/gen/auth/v1/auth_service.js';
import { UserServiceClient } from '../../proto/gen/auth/v1/user_service.js';
import { InventoryServiceClient } from '../../proto/gen/inventory/v1/inventory_service.js';
import { PaymentServiceClient } from '../../proto/gen/payment/v1/payment_service.js';
import { RevocationServiceClient } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { ask } from '../../scripts/system/calls.js';
import { type InvariantReader, openInvariants } from '../../scripts/system/invariants.js';
import { type Progress, type System, type SystemOptions, startSystem } from '../../scripts/system/system.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';

const PASSWORD_BYTES = 12;
/** Longer than a drill: expiry belongs to the revocation drill. */
const ACCESS_TOKEN_SECONDS_DEFAULT = 3_600;
const LEASE_MS = 3_000;
/** Concurrent logins: each hashes a password. */
const LOGINS_AT_ONCE = 8;

/** The currency of the shop. */
export const CURRENCY = 'EUR';

/** A client that reconnects soon after an instance was unreachable. */
const CHANNEL_OPTIONS: ChannelOptions = {
  'grpc.initial_reconnect_backoff_ms': 50,
  'grpc.min_reconnect_backoff_ms': 50,
  'grpc.max_reconnect_backoff_ms': 200,
};

/** A user's credentials. */
interface Customer {
  readonly username: string;
  readonly password: string;
}

/** A customer with a token and an account. */
export interface Shopper extends Customer {
  readonly token: string;
  readonly accountId: string;
}

/** The clients of all services. */
interface ShopClients {
  readonly auth: AuthServiceClient;
  readonly users: UserServiceClient;
  readonly revocation: RevocationServiceClient;
  readonly inventory: readonly [InventoryServiceClient, InventoryServiceClient];
  readonly payment: PaymentServiceClient;
}

/** The shop. */
export interface Shop {
  readonly system: System;
  readonly clients: ShopClients;
  readonly invariants: InvariantReader;
  readonly customers: readonly Customer[];
  /** The operator's token. */
  readonly operator: string;
  logIn(customer: Customer): Promise<string>;
  /** Logs in and opens an account with this balance. */
  admit(customer: Customer, minorUnits: bigint): Promise<Shopper>;
  /** Creates an item. */
  stockUp(sku: string, minorUnits: bigint, onHand: bigint): Promise<void>;
  stop(): Promise<void>;
}

/** Options of the shop. */
export interface ShopOptions {
  readonly customers: number;
  readonly accessTokenSeconds?: number;
  /** Whether the database syncs to disk; only measurements need it. */
  readonly isDurable?: boolean;
  /** Settings of the services, beside the usual ones. */
  readonly environment?: NodeJS.ProcessEnv;
  readonly paymentProgram?: (dataDir: string) => NonNullable<SystemOptions['paymentProgram']>;
  /** Runs before anything is started. */
  readonly prepare?: () => Promise<void>;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: Progress) => void;
}

/** Opens the shop in a temporary folder; stopping it removes the folder. */
export async function openShop(options: ShopOptions): Promise<Shop> {
  const folder = await makeTemporaryFolder();
  const undo: (() => Promise<void> | void)[] = [() => folder.remove()];
  const stop = async (): Promise<void> => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  try {
    return await openIn(folder.path, options, undo, stop);
  } catch (error) {
    await stop();
    throw error;
  }
}

async function openIn(
  dataDir: string,
  options: ShopOptions,
  undo: (() => Promise<void> | void)[],
  stop: () => Promise<void>,
): Promise<Shop> {
  const { customers: count, paymentProgram, prepare, signal, onProgress } = options;
  const { accessTokenSeconds = ACCESS_TOKEN_SECONDS_DEFAULT } = options;
  const program = paymentProgram?.(dataDir);
  await prepare?.();
  const system = await startSystem({
    dataDir,
    ports: 'free',
    ephemeral: !(options.isDurable ?? false),
    leaseMs: LEASE_MS,
    withoutDemo: true,
    environment: { PORTCULLIS_ACCESS_TOKEN_SECONDS: String(accessTokenSeconds), ...options.environment },
    ...(program === undefined ? {} : { paymentProgram: program }),
    signal,
    onProgress,
  });
  undo.push(() => system.stop());
  const clients = connect(system);
  undo.push(() => {
    const { auth, users, revocation, inventory, payment } = clients;
    for (const client of [auth, users, revocation, ...inventory, payment]) client.close();
  });
  const invariants = await openInvariants(system.databases);
  undo.push(() => invariants.close());
  const logIn = async ({ username, password }: Customer): Promise<string> => {
    const request = { username, password, audiences: [], scopes: [], deviceName: 'drill' };
    return (await ask(clients.auth.login.bind(clients.auth), request)).accessToken;
  };
  const operator = await logIn(system.users.olga);
  const customers = await createCustomers(clients.users, operator, count);
  const [inventory] = clients.inventory;
  const { payment } = clients;
  return {
    system,
    clients,
    invariants,
    customers,
    operator,
    logIn,
    admit: async (customer, minorUnits) => {
      const token = await logIn(customer);
      const open = { currencyCode: CURRENCY, requestId: 'account' };
      const { account } = await ask(payment.openAccount.bind(payment), open, { token });
      const { accountId = '' } = account ?? {};
      const amount = { minorUnits, currencyCode: CURRENCY };
      const deposit = { accountId, amount, requestId: randomUUID() };
      if (minorUnits > 0n) await ask(payment.deposit.bind(payment), deposit, { token: operator });
      return { ...customer, token, accountId };
    },
    stockUp: async (sku, minorUnits, onHand) => {
      const unitPrice = { minorUnits, currencyCode: CURRENCY };
      const item = { sku, name: sku, unitPrice, onHand, requestId: randomUUID() };
      await ask(inventory.createItem.bind(inventory), item, { token: operator });
    },
    stop,
  };
}

/** Runs a function for each item, with limited concurrency. */
export async function mapInBatches<T, R>(all: readonly T[], work: (one: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  for (let from = 0; from < all.length; from += LOGINS_AT_ONCE) {
    results.push(...(await Promise.all(all.slice(from, from + LOGINS_AT_ONCE).map(work))));
  }
  return results;
}

/** Creates customers as an administrator does. */
async function createCustomers(auth: UserServiceClient, token: string, count: number): Promise<Customer[]> {
  const numbers = Array.from({ length: count }, (_, index) => index + 1);
  return await mapInBatches(numbers, async (number) => {
    const username = `shopper-${number}`;
    const password = randomBytes(PASSWORD_BYTES).toString('base64url');
    const request = { username, password, roles: ['customer'], requestId: randomUUID() };
    await ask(auth.createUser.bind(auth), request, { token });
    return { username, password };
  });
}

function connect({ auth, inventory: [one, two], payment }: System): ShopClients {
  const plain = credentials.createInsecure();
  return {
    auth: new AuthServiceClient(auth.address, plain, CHANNEL_OPTIONS),
    users: new UserServiceClient(auth.address, plain, CHANNEL_OPTIONS),
    revocation: new RevocationServiceClient(auth.address, plain, CHANNEL_OPTIONS),
    inventory: [
      new InventoryServiceClient(one.address, plain, CHANNEL_OPTIONS),
      new InventoryServiceClient(two.address, plain, CHANNEL_OPTIONS),
    ],
    payment: new PaymentServiceClient(payment.address, plain, CHANNEL_OPTIONS),
  };
}
