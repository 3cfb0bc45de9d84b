/** Users of inventory take turns when they wait for its database. */

import { randomUUID } from 'node:crypto';
import type { Database } from '../../../services/common/database/database.js';
import { createLog } from '../../../services/common/host/log.js';
import { createStore, type Store } from '../../../services/inventory/store.js';
import { type FreshDatabase, freshDatabase } from '../../support/postgres.js';
import { expectTurns, openNarrowDatabase } from '../turns.js';

const PAGE = { pageSize: 0, pageToken: '', filter: '' };

describe('a user of inventory who fills the queue for the database', () => {
  let fresh: FreshDatabase;
  let database: Database;
  let store: Store;

  before(async () => {
    fresh = await freshDatabase();
    const migrations = new URL('../../../services/inventory/migrations/', import.meta.url);
    database = await openNarrowDatabase(fresh.url, migrations);
    store = createStore({ database, log: createLog({ service: 'inventory', level: 'silent' }) });
  });
  after(async () => {
    await database.close();
    await fresh.drop();
  });

  const reads: Record<string, (caller: string) => Promise<unknown>> = {
    GetItem: (caller) => store.findItem('MUG-01', caller),
    ListItems: (caller) => store.listItems(PAGE, caller),
    ListStockChanges: (caller) => store.listChanges('MUG-01', PAGE, caller),
    GetReservation: (caller) => store.findReservation(randomUUID(), caller),
    WatchStock: (caller) => store.levels({ afterSku: '', skus: undefined, limit: 1, caller }),
  };
  for (const [method, read] of Object.entries(reads)) {
    it(`does not keep others from ${method}`, () => expectTurns(database, read));
  }
});
