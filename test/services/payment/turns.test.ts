/** Users of payment take turns when they wait for its database. */

import { randomUUID } from 'node:crypto';
import type { Database } from '../../../services/common/database/database.js';
import { createStore, type Store } from '../../../services/payment/store.js';
import { type FreshDatabase, freshDatabase } from '../../support/postgres.js';
import { expectTurns, openNarrowDatabase } from '../turns.js';

const PAGE = { pageSize: 0, pageToken: '', filter: '' };

describe('a user of payment who fills the queue for the database', () => {
  let fresh: FreshDatabase;
  let database: Database;
  let store: Store;

  before(async () => {
    fresh = await freshDatabase();
    const migrations = new URL('../../../services/payment/migrations/', import.meta.url);
    database = await openNarrowDatabase(fresh.url, migrations);
    store = createStore(database);
  });
  after(async () => {
    await database.close();
    await fresh.drop();
  });

  const reads: Record<string, (caller: string) => Promise<unknown>> = {
    GetAccount: (caller) => store.findAccount(randomUUID(), caller),
    ListEntries: (caller) => store.listEntries(randomUUID(), PAGE, caller),
    GetPayment: (caller) => store.findPayment(randomUUID(), caller),
    ListPayments: (caller) => store.listPayments(caller, PAGE),
  };
  for (const [method, read] of Object.entries(reads)) {
    it(`does not keep others from ${method}`, () => expectTurns(database, read));
  }
});
