/** An instance of inventory without its network side, on a real database, and helpers of inventory's tests. */

import { randomUUID } from 'node:crypto';
import { systemClock } from '@portcullis/guard/clock';
import { type Database, openDatabase } from '../../../services/common/database/database.js';
import { createLog } from '../../../services/common/host/log.js';
import type { Caller } from '../../../services/inventory/caller.js';
import { type ChangeFeed, createChangeFeed } from '../../../services/inventory/change-feed.js';
import { createItems, type Items } from '../../../services/inventory/items.js';
import type { ReservationLimit, ReservationLimits } from '../../../services/inventory/reservation-limits.js';
import { createReservations, type Reservations } from '../../../services/inventory/reservations.js';
import type { Item } from '../../../services/inventory/stock.js';
import { CHANGES_CHANNEL, createStore, type Store } from '../../../services/inventory/store.js';
import { createStockWatch, type StockWatch } from '../../../services/inventory/watch.js';
import { freshDatabase } from '../../support/postgres.js';

/** The parts of one process of the service. */
export interface Instance {
  readonly database: Database;
  readonly store: Store;
  readonly feed: ChangeFeed;
  readonly items: Items;
  readonly reservations: Reservations;
  readonly stockWatch: StockWatch;
  close(): Promise<void>;
}

/** Differences to a usual instance. */
export interface InstanceOptions {
  readonly notifications?: boolean;
  /** Effectively none by default. */
  readonly limits?: ReservationLimits;
  readonly onLimit?: (limit: ReservationLimit) => void;
}

/** Limits that no test reaches by accident. */
export const NO_LIMITS: ReservationLimits = { openMax: 1_000_000, sharePercent: 100, secondsMax: 3600 };

/** An operator. */
export const olga: Caller = { subject: 'olga', isOperator: true, actingClient: undefined };
/** A customer. */
export const alice: Caller = { subject: 'alice', isOperator: false, actingClient: undefined };
/** Another customer. */
export const bob: Caller = { subject: 'bob', isOperator: false, actingClient: undefined };

/** Opens an instance on a database that may be empty; notifications arrive as in the real process unless `notifications` is false. */
export async function openInstance(url: string, options: InstanceOptions = {}): Promise<Instance> {
  const log = createLog({ service: 'inventory', level: 'silent' });
  const migrations = new URL('../../../services/inventory/migrations/', import.meta.url);
  const database = openDatabase({ url, migrations, log });
  await database.ready(new AbortController().signal);
  const store = createStore({ database, log });
  const feed = createChangeFeed({ store, clock: systemClock, log });
  if (options.notifications !== false) await database.listen(CHANGES_CHANNEL, feed.wake, feed.wake);
  return {
    database,
    store,
    feed,
    items: createItems({ store }),
    reservations: createReservations({
      store,
      limits: options.limits ?? NO_LIMITS,
      onLimit: options.onLimit ?? (() => {}),
    }),
    stockWatch: createStockWatch({ store, feed }),
    close: async () => {
      await feed.close();
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
export async function openFreshInstance(options: InstanceOptions = {}): Promise<FreshInstance> {
  const fresh = await freshDatabase();
  const instance = await openInstance(fresh.url, options);
  const close = async (): Promise<void> => {
    await instance.close();
    await fresh.drop();
  };
  return { ...instance, url: fresh.url, close };
}

/** A sku that no other test uses. */
export function newSku(prefix = 'T'): string {
  return `${prefix}-${randomUUID().toUpperCase()}`;
}

/** Creates an item with `onHand` units. */
export function stockUp(instance: Instance, onHand: bigint, sku = newSku()): Promise<Item> {
  const unitPrice = { minorUnits: 250n, currencyCode: 'EUR' };
  const request = { sku, name: 'Thing', unitPrice, onHand, requestId: randomUUID() };
  return instance.items.create(request, olga);
}

/** Returns the invariants of the database that do not hold. */
export async function breachesIn({ database }: Instance): Promise<object[]> {
  return (await database.query('SELECT * FROM invariants WHERE breaches > 0')).rows;
}
