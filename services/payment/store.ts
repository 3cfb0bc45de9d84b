/** Everything that payment keeps in PostgreSQL, put together from the stores of its parts. */

import type { DatabaseLane, Sql } from '../common/database/database.js';
import { createAccountStore } from './account-store.js';
import type { AccountStore } from './accounts.js';
import { createCheckoutStore } from './checkout-store.js';
import { createPaymentStore } from './payment-store.js';
import type { PaymentStore } from './payments.js';
import { createReversalStore } from './reversal-store.js';
import type { ReversalStore } from './reversals.js';
import type { CheckoutStore } from './saga.js';

/** The store of payment. */
export interface Store extends AccountStore, PaymentStore, CheckoutStore, ReversalStore {
  /** Whether the database role of the service has the privilege to change ledger entries; triggers forbid it anyway. */
  mayRewriteLedger(): Promise<boolean>;
}

/** Creates the store on a migrated database. */
export function createStore(database: DatabaseLane): Store {
  return {
    ...createAccountStore(database),
    ...createPaymentStore(database),
    ...createCheckoutStore(database),
    ...createReversalStore(database),
    mayRewriteLedger: () => selectMayRewriteLedger(database),
  };
}

async function selectMayRewriteLedger(sql: Sql): Promise<boolean> {
  const { rows } = await sql.query<{ may: boolean }>(
    "SELECT has_table_privilege('entries', 'UPDATE, DELETE, TRUNCATE') AS may",
  );
  return rows[0]?.may === true;
}
