/** Everything that payment keeps in PostgreSQL, put together from the stores of its parts. */

import type { Database } from '../common/database/database.js';
import { createAccountsStore } from './account-store.js';
import type { AccountsStore } from './accounts.js';
import { createCheckoutStore } from './checkout-store.js';
import { createPaymentsStore } from './payment-store.js';
import type { PaymentsStore } from './payments.js';
import { createReversalStore } from './reversal-store.js';
import type { ReversalStore } from './reversals.js';
import type { CheckoutStore } from './saga.js';

/** Everything that the payment service keeps. */
export interface Store extends AccountsStore, PaymentsStore, CheckoutStore, ReversalStore {
  /** Whether the role that the service works with could change entries, triggers apart. */
  mayRewriteLedger(): Promise<boolean>;
}

/** The store in a database that has been migrated. */
export function createStore(database: Database): Store {
  return {
    ...createAccountsStore(database),
    ...createPaymentsStore(database),
    ...createCheckoutStore(database),
    ...createReversalStore(database),
    async mayRewriteLedger() {
      const { rows } = await database.query<{ may: boolean }>(
        "SELECT has_table_privilege('entries', 'UPDATE, DELETE, TRUNCATE') AS may",
      );
      return rows[0]?.may === true;
    },
  };
}
