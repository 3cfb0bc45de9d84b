/**
 * The parts of payment, put together. `main` runs them as they are; the drill, a program of its own, puts itself
 * between the saga and its ports, so that nothing in the service needs to know how to fail.
 */

import { createGuard, systemClock } from '@portcullis/guard';
import { createExchange, createServiceTokenSource } from '@portcullis/guard/client';
import { PaymentServiceService, protoMetadata } from '../../proto/gen/payment/v1/payment_service.js';
import { openDatabase } from '../common/database/database.js';
import { hostMethods, startHost } from '../common/host/host.js';
import { createLog } from '../common/host/log.js';
import { exitWith, runUntilSignal } from '../common/host/process.js';
import { createGuardMetrics } from '../common/metrics/guard-metrics.js';
import { openTls } from '../common/tls/tls.js';
import { createAccounts } from './accounts.js';
import { connectInventory, type ServedCall } from './adapters/inventory.js';
import { type CheckoutStore, type CheckoutTimes, createCheckout, defaultCheckoutTimes } from './checkout.js';
import type { Config } from './config.js';
import { createHandlers } from './handlers.js';
import type { Inventory, Settlement } from './inventory.js';
import { createPayments } from './payments.js';
import { RESUME_INTERVAL_MS, type Resumer, startResumer } from './resumer.js';
import { createReversals } from './reversals.js';
import { createStore } from './store.js';

const SERVICE = 'payment';
const SERVICE_NAME = 'payment.v1.PaymentService';

/** What may be put around the ports of the saga, and its times. */
export interface Seams {
  readonly store?: (store: CheckoutStore) => CheckoutStore;
  readonly inventory?: (inventory: Inventory) => Inventory;
  readonly settlement?: (settlement: Settlement) => Settlement;
  readonly times?: CheckoutTimes;
  readonly resumeIntervalMs?: number;
}

/** Runs the service until it is told to stop. */
export async function runPayment(config: Config, seams: Seams = {}): Promise<void> {
  const log = createLog({ service: SERVICE, level: config.logLevel });
  const tls = openTls(config.tls, { log });
  const migrations = new URL('./migrations/', import.meta.url);
  const database = openDatabase({
    url: config.databaseUrl,
    migrationUrl: config.migrationDatabaseUrl,
    migrations,
    log,
  });
  const store = createStore(database);
  const identity = {
    address: config.authAddress,
    credentials: tls.credentialsFor(config.authCaFile),
    plaintext: config.tls.plaintext,
    clientId: config.clientId,
    clientKey: config.clientKey,
    issuer: config.issuer,
  };
  const exchange = createExchange(identity);
  const own = createServiceTokenSource({
    ...identity,
    audiences: ['inventory'],
    scopes: ['inventory.settle'],
  });
  const inventory = connectInventory({
    addresses: config.inventoryAddresses,
    credentials: tls.credentialsFor(config.inventoryCaFile),
    plaintext: config.tls.plaintext,
    exchange,
    own,
    clock: systemClock,
  });
  const accounts = createAccounts({ store });
  const payments = createPayments({ store });
  const times = seams.times ?? defaultCheckoutTimes;
  const checkout = createCheckout({
    store: seams.store?.(store) ?? store,
    settlement: seams.settlement?.(inventory.settlement) ?? inventory.settlement,
    clock: systemClock,
    log,
    times,
  });
  const reversals = createReversals({ store, finish: checkout.finish, leaseMs: times.leaseMs });
  const inventoryFor = (call: ServedCall): Inventory => {
    const forCall = inventory.forCall(call);
    return seams.inventory?.(forCall) ?? forCall;
  };
  const handlers = createHandlers({ accounts, payments, checkout, reversals, inventoryFor });
  const metrics = createGuardMetrics();
  const guard = await createGuard({
    issuer: config.issuer,
    audience: SERVICE,
    auth: identity,
    trustedIssuers: config.trustedIssuers,
    nats: { url: config.natsUrl, files: tls.broker },
    plaintext: config.tls.plaintext,
    publicMethods: hostMethods(config),
    log,
    observer: metrics.observer,
  });
  metrics.attach(guard);
  const host = await startHost({
    service: SERVICE,
    listen: config.listen,
    opsListen: config.opsListen,
    log,
    registry: metrics.registry,
    reflection: config.reflection,
    drainMs: config.drainMs,
    interceptors: [guard.interceptor],
    tls: tls.listener,
    addServices: (server) => guard.addService(server, PaymentServiceService, protoMetadata, handlers),
    serviceNames: [SERVICE_NAME],
    readiness: { database: database.missing, revocations: () => guard.state().staleReason },
  });
  guard.onStateChange(host.readinessChanged);
  database.onStateChange(host.readinessChanged);

  const stopping = new AbortController();
  let resumer: Resumer | undefined;
  runUntilSignal({
    log,
    drainMs: config.drainMs,
    reload: tls.reload,
    stop: async () => {
      stopping.abort();
      await host.stop();
      await resumer?.stop();
      inventory.close();
      exchange.close();
      own.close();
      await guard.close();
      await database.close();
      tls.close();
    },
  });

  try {
    await database.ready(stopping.signal);
    if (await store.mayRewriteLedger()) {
      log.warn(
        'the database role may change what is written in the ledger: give the service one that may not',
      );
    }
    const { resumeAbandoned } = checkout;
    const { resumeIntervalMs: intervalMs = RESUME_INTERVAL_MS } = seams;
    if (!stopping.signal.aborted) resumer = startResumer({ resumeAbandoned, log, intervalMs });
  } catch (error) {
    if (!stopping.signal.aborted) exitWith(error);
  }
}
