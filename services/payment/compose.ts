/**
 * The parts of payment, put together. `main` runs them as they are; the drill, a program of its own, puts itself
 * between the saga and its ports, so that nothing in the service needs to know how to fail.
 */

import { systemClock } from '@portcullis/guard';
import { createExchange, createServiceTokenSource } from '@portcullis/guard/client';
import { PaymentServiceService, protoMetadata } from '../../proto/gen/payment/v1/payment_service.js';
import type { Log } from '../common/host/log.js';
import { runService, type ServiceParts, type ServiceResources } from '../common/host/run-service.js';
import { untilAvailable } from '../common/host/start-step.js';
import { createAccounts } from './accounts.js';
import { connectInventory, type InventoryConnection, type ServedCall } from './adapters/inventory.js';
import { type Checkout, createCheckout } from './checkout.js';
import type { Config } from './config.js';
import { createHandlers } from './handlers.js';
import type { Inventory, Settlement } from './inventory-port.js';
import { createPayments } from './payments.js';
import { RESUME_INTERVAL_MS, startResumer } from './resumer.js';
import { createReversals } from './reversals.js';
import { type CheckoutStore, type CheckoutTimes, defaultCheckoutTimes } from './saga.js';
import { createStore, type Store } from './store.js';

/** What may be put around the ports of the saga, and its times. */
export interface Seams {
  readonly store?: (store: CheckoutStore) => CheckoutStore;
  readonly inventory?: (inventory: Inventory) => Inventory;
  readonly settlement?: (settlement: Settlement) => Settlement;
  readonly times?: CheckoutTimes;
  readonly resumeIntervalMs?: number;
}

/** The migrations of payment's database. */
export const MIGRATIONS = new URL('./migrations/', import.meta.url);

/** Runs the service until a signal stops it. */
export async function runPayment(config: Config, seams: Seams = {}): Promise<void> {
  await runService({
    name: 'payment',
    config,
    migrations: MIGRATIONS,
    compose: (resources) => composePayment(config, seams, resources),
  });
}

function composePayment(config: Config, seams: Seams, resources: ServiceResources): ServiceParts {
  const { log, tls, database, telemetry, closer } = resources;
  const identity = {
    address: config.authAddress,
    credentials: tls.credentialsFor(config.authCaFile),
    plaintext: config.tls.plaintext,
    clientId: config.clientId,
    clientKey: config.clientKey,
    issuer: config.issuer,
    interceptors: telemetry.client,
  };
  const inventory = openInventory(config, identity, resources);
  const store = createStore(database);
  const times = seams.times ?? defaultCheckoutTimes;
  const checkoutOn = (sagas: CheckoutStore): Checkout =>
    createCheckout({
      store: seams.store?.(sagas) ?? sagas,
      settlement: seams.settlement?.(inventory.settlement) ?? inventory.settlement,
      clock: systemClock,
      log,
      times,
    });
  const checkout = checkoutOn(store);
  // What was begun is ended however many callers there are.
  const { resumeAbandoned } = checkoutOn(createStore(database.lane('promise')));
  const inventoryFor = (call: ServedCall): Inventory => {
    const forCall = inventory.forCall(call);
    return seams.inventory?.(forCall) ?? forCall;
  };
  const handlers = createHandlers({
    accounts: createAccounts({ store }),
    payments: createPayments({ store }),
    checkout,
    reversals: createReversals({ store, finish: checkout.finish, leaseMs: times.leaseMs }),
    inventoryFor,
  });
  return {
    auth: identity,
    trustedIssuers: config.trustedIssuers,
    fences: [{ transaction: (work) => database.lane('promise').transaction(({ query }) => work(query)) }],
    services: [{ definition: PaymentServiceService, schema: protoMetadata, handlers }],
    start: async ({ signal }) => {
      await untilAvailable(() => warnOfRewritableLedger(store, log), { signal, log });
      const { resumeIntervalMs: intervalMs = RESUME_INTERVAL_MS } = seams;
      closer.add('resumer', startResumer({ resumeAbandoned, log, intervalMs }).stop);
    },
  };
}

/** Opens the connections to inventory, and what fetches the tokens that are sent there. */
function openInventory(
  config: Config,
  identity: Parameters<typeof createExchange>[0],
  { tls, telemetry, closer }: ServiceResources,
): InventoryConnection {
  const exchange = createExchange(identity);
  closer.add('token exchange', exchange.close);
  const own = createServiceTokenSource({
    ...identity,
    audiences: ['inventory'],
    scopes: ['inventory.settle'],
  });
  closer.add('service tokens', own.close);
  const inventory = connectInventory({
    addresses: config.inventoryAddresses,
    credentials: tls.credentialsFor(config.inventoryCaFile),
    plaintext: config.tls.plaintext,
    exchange,
    own,
    interceptors: telemetry.client,
    clock: systemClock,
  });
  closer.add('connections to inventory', inventory.close);
  return inventory;
}

async function warnOfRewritableLedger(store: Store, log: Log): Promise<void> {
  if (!(await store.mayRewriteLedger())) return;
  log.warn('the database role may change what is written in the ledger: give the service one that may not');
}
