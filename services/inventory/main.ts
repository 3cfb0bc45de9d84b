/** Inventory as a process: the one place where its parts are put together. */

import { createGuard, systemClock } from '@portcullis/guard';
import { InventoryServiceService, protoMetadata } from '../../proto/gen/inventory/v1/inventory_service.js';
import { openDatabase } from '../common/database/database.js';
import { hostMethods, startHost } from '../common/host/host.js';
import { createLog } from '../common/host/log.js';
import { exitWith, runMain, runUntilSignal } from '../common/host/process.js';
import { createGuardMetrics } from '../common/metrics/guard-metrics.js';
import { openTls } from '../common/tls/tls.js';
import { createChangeFeed } from './change-feed.js';
import { type Config, parseConfig } from './config.js';
import { createHandlers } from './handlers.js';
import { CHANGES_CHANNEL, createStore } from './store.js';
import { type Sweeper, startSweeper } from './sweeper.js';

const SERVICE = 'inventory';
const SERVICE_NAME = 'inventory.v1.InventoryService';

await runMain(() => main(parseConfig(process.env)));

async function main(config: Config): Promise<void> {
  const log = createLog({ service: SERVICE, level: config.logLevel });
  const tls = openTls(config.tls, { log });
  const migrations = new URL('./migrations/', import.meta.url);
  const database = openDatabase({ url: config.databaseUrl, migrations, log });
  const store = createStore({ database, log });
  const feed = createChangeFeed({ store, clock: systemClock, log });
  const metrics = createGuardMetrics();
  const guard = await createGuard({
    issuer: config.issuer,
    audience: SERVICE,
    auth: {
      address: config.authAddress,
      credentials: tls.credentialsFor(config.authCaFile),
      clientId: config.clientId,
      clientKey: config.clientKey,
    },
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
    addServices: (server) => {
      guard.addService(server, InventoryServiceService, protoMetadata, createHandlers({ store, feed }));
    },
    serviceNames: [SERVICE_NAME],
    readiness: { database: database.missing, revocations: () => guard.state().staleReason },
  });
  guard.onStateChange(host.readinessChanged);
  database.onStateChange(host.readinessChanged);

  const stopping = new AbortController();
  let sweeper: Sweeper | undefined;
  runUntilSignal({
    log,
    drainMs: config.drainMs,
    reload: tls.reload,
    stop: async () => {
      stopping.abort();
      // Watchers would use up the whole drain time: they are told to go elsewhere, and resume there.
      await feed.close();
      await host.stop();
      await sweeper?.stop();
      await guard.close();
      await database.close();
      tls.close();
    },
  });

  try {
    await database.ready(stopping.signal);
    await database.listen(CHANGES_CHANNEL, feed.hint, feed.hint);
    if (!stopping.signal.aborted) sweeper = startSweeper({ store, log });
  } catch (error) {
    if (!stopping.signal.aborted) exitWith(error);
  }
}
