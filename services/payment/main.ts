/** Payment as a process: the one place where its parts are put together. */
import { createExchange } from '../../interceptors/client.js';
import { createGuard, systemClock } from '../../interceptors/index.js';
import { PaymentServiceService, protoMetadata } from '../../proto/gen/payment/v1/payment_service.js';
import { openDatabase } from '../common/database.js';
import { createGuardMetrics } from '../common/guard-metrics.js';
import { hostMethods, startHost } from '../common/host.js';
import { createLog } from '../common/log.js';
import { exitWith, runMain, runUntilSignal } from '../common/process.js';
import { openTls } from '../common/tls.js';
import { createAccounts } from './accounts.js';
import { connectInventory } from './adapters/inventory.js';
import { createCheckout } from './checkout.js';
import { type Config, parseConfig } from './config.js';
import { createHandlers } from './handlers.js';
import { createPayments } from './payments.js';
import { type Resumer, startResumer } from './resumer.js';
import { createStore } from './store.js';

const SERVICE = 'payment';
const SERVICE_NAME = 'payment.v1.PaymentService';

await runMain(() => main(parseConfig(process.env)));

async function main(config: Config): Promise<void> {
  const log = createLog({ service: SERVICE, level: config.logLevel });
  const tls = openTls(config.tls, { log });
  const migrations = new URL('./migrations/', import.meta.url);
  const database = openDatabase({ url: config.databaseUrl, migrations, log });
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
  const inventory = connectInventory({
    addresses: config.inventoryAddresses,
    credentials: tls.credentialsFor(config.inventoryCaFile),
    plaintext: config.tls.plaintext,
    exchange,
    clock: systemClock,
  });
  const accounts = createAccounts({ store });
  const payments = createPayments({ store });
  const checkout = createCheckout({ store, clock: systemClock, log });
  const handlers = createHandlers({ accounts, payments, checkout, inventoryFor: inventory.forCall });
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
    readiness: { database: database.missing, revocations: () => guard.state().missing },
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
      await guard.close();
      await database.close();
      tls.close();
    },
  });

  try {
    await database.ready(stopping.signal);
    resumer = startResumer({ resumeAbandoned: checkout.resumeAbandoned, log });
  } catch (error) {
    if (!stopping.signal.aborted) exitWith(error);
  }
}
