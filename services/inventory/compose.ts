/** The parts of inventory, put together. */

import { systemClock } from '@portcullis/guard';
import { registerStateMetrics } from '@portcullis/guard/metrics';
import type { Registry } from 'prom-client';
import { InventoryServiceService, protoMetadata } from '../../proto/gen/inventory/v1/inventory_service.js';
import { runService, type ServiceParts, type ServiceResources } from '../common/host/run-service.js';
import { createChangeFeed } from './change-feed.js';
import type { Config } from './config.js';
import { createHandlers } from './handlers.js';
import { createItems } from './items.js';
import type { ReservationLimit } from './reservation-limits.js';
import { createReservations } from './reservations.js';
import { CHANGES_CHANNEL, createStore } from './store.js';
import { startSweeper } from './sweeper.js';
import { createStockWatch } from './watch.js';

/** The migrations of inventory's database. */
export const MIGRATIONS = new URL('./migrations/', import.meta.url);

/** Runs the service until a signal stops it. */
export async function runInventory(config: Config): Promise<void> {
  await runService({
    name: 'inventory',
    config,
    migrations: MIGRATIONS,
    compose: (resources) => composeInventory(config, resources),
  });
}

function composeInventory(
  config: Config,
  { log, tls, database, closer, registry }: ServiceResources,
): ServiceParts {
  const store = createStore({ database, log });
  const feed = createChangeFeed({ store, clock: systemClock, log });
  const reservations = createReservations({
    store,
    limits: config.reservationLimits,
    onLimit: countLimits(registry),
  });
  const handlers = createHandlers({
    items: createItems({ store }),
    reservations,
    stockWatch: createStockWatch({ store, feed }),
  });
  return {
    auth: {
      address: config.authAddress,
      credentials: tls.credentialsFor(config.authCaFile),
      clientId: config.clientId,
      clientKey: config.clientKey,
    },
    trustedIssuers: config.trustedIssuers,
    services: [{ definition: InventoryServiceService, schema: protoMetadata, handlers }],
    // Watchers resume at another instance.
    endStreams: feed.close,
    start: async () => {
      await database.listen(CHANGES_CHANNEL, feed.wake, feed.wake);
      closer.add('sweeper', startSweeper({ reservations, store, log }).stop);
    },
  };
}

/** Counts the reservations that a limit on one user refused, in a metric. */
function countLimits(registry: Registry): (limit: ReservationLimit) => void {
  const refused: Record<ReservationLimit, number> = { open: 0, share: 0 };
  registerStateMetrics(registry, [
    {
      name: 'reservations_refused_total',
      help: 'Reservations refused because the user holds too much, by limit.',
      kind: 'counter',
      labels: ['limit'],
      read: () => [
        [refused.open, 'open'],
        [refused.share, 'share'],
      ],
    },
  ]);
  return (limit) => {
    refused[limit] += 1;
  };
}
