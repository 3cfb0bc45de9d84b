/** Everything that inventory keeps in PostgreSQL, put together from the stores of its parts. */

import { setTimeout as sleep } from 'node:timers/promises';
import type { Database } from '../common/database/database.js';
import { forgetRequests } from '../common/database/requests.js';
import type { Log } from '../common/host/log.js';
import type { FeedStore } from './change-feed.js';
import { createItemStore } from './item-store.js';
import type { ItemStore } from './items.js';
import type { ReservationStore } from './reservation.js';
import { createReservationStore } from './reservation-store.js';
import type { ChangeStock } from './stock-store.js';
import type { RequestStore } from './sweeper.js';
import type { WatchStore } from './watch.js';
import { createChangeStore, createWatchStore } from './watch-store.js';

/** The channel on which instances notify each other that stock has changed; the payload is empty. */
export const CHANGES_CHANNEL = 'stock_changes';

/** The pause between notifications, in milliseconds: under load, one notification covers many changes. */
const NOTIFICATION_PAUSE_MS = 20;

/** The store of inventory. */
export type Store = ItemStore & ReservationStore & FeedStore & WatchStore & RequestStore;

/** Creates the store on a migrated database. */
export function createStore({ database, log }: { database: Database; log: Log }): Store {
  const changeStock = createChangeStock(database, createNotifier(database, log));
  return {
    ...createItemStore(database, changeStock),
    ...createReservationStore(database, changeStock),
    // One feed serves all watchers, so it must not wait behind single calls.
    ...createChangeStore(database.lane('promise')),
    ...createWatchStore(database),
    deleteOldRequests: () => forgetRequests(database.lane('promise')),
  };
}

/** Runs changes of stock in a transaction, and calls `notify` after the commit of those that moved stock. */
function createChangeStock(database: Database, notify: () => void): ChangeStock {
  return async (work, { importance = 'known', skus = [], caller } = {}) => {
    let hasMoved = false;
    const onMoved = () => {
      hasMoved = true;
    };
    const place = { contends: skus.map((sku) => `item ${sku}`), caller };
    const result = await database.lane(importance).transaction((sql) => work(sql, onMoved), place);
    if (hasMoved) notify();
    return result;
  };
}

/**
 * Wakes the watchers of all instances, after the commit and outside its transaction: with a NOTIFY inside, PostgreSQL would
 * commit one transaction at a time. One notification covers everything that was committed before it was sent; a lost one
 * delays watchers until the next poll. So it need not be flushed to disk, and under load it is sent at intervals.
 */
function createNotifier(database: Database, log: Log): () => void {
  let isSending = false;
  let isPending = false;

  async function send(): Promise<void> {
    isSending = true;
    while (isPending) {
      isPending = false;
      try {
        await database.lane('promise').query(`SET LOCAL synchronous_commit = off; NOTIFY ${CHANGES_CHANNEL}`);
      } catch (error) {
        log.warn({ err: error }, 'cannot notify the watchers of a change of stock');
      }
      await sleep(NOTIFICATION_PAUSE_MS);
    }
    isSending = false;
  }

  return () => {
    isPending = true;
    if (!isSending) void send();
  };
}
