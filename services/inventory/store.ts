/** Everything that inventory keeps in PostgreSQL, put together from the stores of its parts. */

import { setTimeout as sleep } from 'node:timers/promises';
import type { Database, Sql } from '../common/database/database.js';
import { forgetRequests, oncePerRequest } from '../common/database/requests.js';
import type { Log } from '../common/host/log.js';
import type { ChangeStore } from './change-feed.js';
import { itemTransaction, selectChanges, selectItem, selectItems } from './item-store.js';
import type { ItemStore } from './items.js';
import { reservationTransaction, selectReservation, selectWhetherDue } from './reservation-store.js';
import type { ReservationStore } from './reservations.js';
import type { SweeperStore } from './sweeper.js';
import type { WatchStore } from './watch.js';
import { changeReads, watchReads } from './watch-store.js';

/** The channel on which the instances tell each other that stock has changed; the payload is empty. */
export const CHANGES_CHANNEL = 'stock_changes';

/** How long after one announcement the next one is sent: under load, one of them stands for many changes. */
const ANNOUNCE_PAUSE_MS = 20;

/** Everything that the service keeps. */
export type Store = ItemStore & ReservationStore & ChangeStore & WatchStore & SweeperStore;

/** The store in a database that is migrated by this service's migrations. */
export function createStore({ database, log }: { database: Database; log: Log }): Store {
  const announce = createNotifier(database, log);

  /** Runs the work in a transaction; what it moves is announced once that has committed. */
  async function change<T>(work: (sql: Sql, moved: () => void) => Promise<T>): Promise<T> {
    let hasMoved = false;
    const moved = () => {
      hasMoved = true;
    };
    const result = await database.transaction((sql) => work(sql, moved));
    if (hasMoved) announce();
    return result;
  }

  return {
    getItem: (sku) => selectItem(database, sku),
    listItems: (page) => selectItems(database, page),
    listChanges: (sku, page) => selectChanges(database, sku, page),
    getReservation: (reservationId) => selectReservation(database, reservationId),
    hasDueReservations: () => selectWhetherDue(database),
    changeItemsOnce: (request, work) =>
      change((sql, moved) => oncePerRequest(sql, request, () => work(itemTransaction(sql, moved)))),
    changeReservations: (work) => change((sql, moved) => work(reservationTransaction(sql, moved))),
    changeReservationsOnce: (request, work) =>
      change((sql, moved) => oncePerRequest(sql, request, () => work(reservationTransaction(sql, moved)))),
    deleteOldRequests: () => forgetRequests(database),
    ...changeReads(database),
    ...watchReads(database),
  };
}

/**
 * Wakes the watchers of all instances, after the commit and outside its transaction: a NOTIFY
 * inside would make PostgreSQL commit one transaction at a time. One notification stands for
 * everything that was committed before it was sent; a lost one costs a watcher some time, no more.
 * So it need not be on the disk, and under load it is sent now and then.
 */
function createNotifier(database: Database, log: Log): () => void {
  let isSending = false;
  let isWanted = false;

  async function send(): Promise<void> {
    isSending = true;
    while (isWanted) {
      isWanted = false;
      try {
        await database.query(`SET LOCAL synchronous_commit = off; NOTIFY ${CHANGES_CHANNEL}`);
      } catch (error) {
        log.warn({ err: error }, 'could not announce a change of stock');
      }
      await sleep(ANNOUNCE_PAUSE_MS);
    }
    isSending = false;
  }

  return () => {
    isWanted = true;
    if (!isSending) void send();
  };
}
