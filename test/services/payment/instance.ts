/** An instance of payment without its network side, on a real database, and helpers of payment's tests. */
import { randomUUID } from 'node:crypto';
import { systemClock } from '@portcullis/guard/clock';
import { type Database, openDatabase } from '../../../services/common/database/database.js';
import { createLog } from '../../../services/common/host/log.js';
import { type Accounts, createAccounts } from '../../../services/payment/accounts.js';
import type { Caller } from '../../../services/payment/caller.js';
import { type Checkout, createCheckout } from '../../../services/payment/checkout.js';
import type { Inventory, Settlement } from '../../../services/payment/inventory-port.js';
import type { Account } from '../../../services/payment/ledger.js';
import { createPayments, type Payments } from '../../../services/payment/payments.js';
import { createReversals, type Reversals } from '../../../services/payment/reversals.js';
import type { Buyer, CheckoutStore, CheckoutTimes } from '../../../services/payment/saga.js';
import { createStore, type Store } from '../../../services/payment/store.js';
import { freshDatabase } from '../../support/postgres.js';
import { Warehouse } from './warehouse.js';

/** The parts of one process of the service. */
export interface Instance {
  /** Connected as the owner of the tables, for tests that read the tables or tamper with them. */
  readonly database: Database;
  readonly store: Store;
  readonly accounts: Accounts;
  readonly payments: Payments;
  readonly checkout: Checkout;
  readonly reversals: Reversals;
  close(): Promise<void>;
}

/** Short times, so that tests need not wait. */
const quickTimes: CheckoutTimes = {
  leaseMs: 10_000,
  reservationTtlSeconds: 60,
  attempts: 3,
  backoffMs: 1,
  patienceMs: 1_000,
};

/** A log without output. */
export const silentLog = createLog({ service: 'payment', level: 'silent' });

/**
 * The same database under the role of the service in production. The connection assumes the role when it opens, so
 * that tests need no password for it.
 */
function asServiceRole(url: string): string {
  const changed = new URL(url);
  changed.searchParams.set('options', '-c role=portcullis_payment');
  return changed.href;
}

/** Opens an instance on a database that may be empty. */
export async function openInstance(url: string, times: Partial<CheckoutTimes> = {}): Promise<Instance> {
  const migrations = new URL('../../../services/payment/migrations/', import.meta.url);
  const database = openDatabase({ url, migrations, log: silentLog });
  await database.ready(new AbortController().signal);
  const served = openDatabase({ url: asServiceRole(url), migrationUrl: url, migrations, log: silentLog });
  await served.ready(new AbortController().signal);
  const store = createStore(served);
  const checkout = checkoutOver(store, times);
  const { leaseMs } = { ...quickTimes, ...times };
  return {
    database,
    store,
    accounts: createAccounts({ store }),
    payments: createPayments({ store }),
    checkout,
    reversals: createReversals({ store, finish: checkout.finish, leaseMs }),
    close: async () => {
      await served.close();
      await database.close();
    },
  };
}

/** An instance on a database of its own, which is dropped when it closes. */
export interface FreshInstance extends Instance {
  /** The connection string of the database. */
  readonly url: string;
}

/** Opens an instance on an empty database of its own. */
export async function openFreshInstance(times: Partial<CheckoutTimes> = {}): Promise<FreshInstance> {
  const fresh = await freshDatabase();
  const instance = await openInstance(fresh.url, times);
  const close = async (): Promise<void> => {
    await instance.close();
    await fresh.drop();
  };
  return { ...instance, url: fresh.url, close };
}

/** The checkout of one process, which shares only the store with others. */
export function checkoutOver(
  store: CheckoutStore,
  times: Partial<CheckoutTimes> = {},
  settlement: Settlement = Warehouse.settlement,
): Checkout {
  return createCheckout({
    store,
    settlement,
    clock: systemClock,
    log: silentLog,
    times: { ...quickTimes, ...times },
  });
}

/** A caller with valid credentials. */
export function callerOf(subject: string, overrides: Partial<Caller> = {}): Caller {
  return {
    subject,
    isOperator: false,
    clientId: 'direct',
    sessionId: randomUUID(),
    tokenId: randomUUID(),
    signal: new AbortController().signal,
    stillAllowed: () => 1_000,
    passFence: () => Promise.resolve(1_000),
    ...overrides,
  };
}

/** The same caller, with access to inventory. */
export function buyerOf(subject: string, inventory: Inventory, overrides: Partial<Caller> = {}): Buyer {
  return { ...callerOf(subject, overrides), inventory };
}

/** An operator. */
export const olga = callerOf('olga', { isOperator: true });

/** Opens an account with a balance of `minorUnits`. */
export async function accountWith(
  { accounts }: Instance,
  subject: string,
  minorUnits: bigint,
  currencyCode = 'EUR',
): Promise<Account> {
  const request = { currencyCode, requestId: randomUUID() };
  const account = await accounts.open(request, callerOf(subject));
  if (minorUnits === 0n) return account;
  const { accountId } = account;
  const amount = { minorUnits, currencyCode };
  return await accounts.deposit({ accountId, amount, requestId: randomUUID() }, olga);
}

/** Returns the invariants that do not hold, from the view that operators use. */
export async function breachesIn({ database }: Instance): Promise<object[]> {
  return (await database.query('SELECT invariant, breaches FROM invariants WHERE breaches > 0')).rows;
}
