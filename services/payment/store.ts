/** Everything that payment keeps in PostgreSQL, put together from the stores of its parts. */

import type { Database } from '../common/database/database.js';
import { createAccountStore } from './account-store.js';
import type { AccountStore } from './accounts.js';
import { createCheckoutStore } from './checkout-store.js';
import { createPaymentStore } from './payment-store.js';
import type { PaymentStore } from './payments.js';
import { createReversalStore } from './reversal-store.js';
import type { ReversalStore } from './reversals.js';
import type { CheckoutStore } from './saga.js';

/** Everything that the payment service keeps. */
export interface Store extends AccountStore, PaymentStore, CheckoutStore, ReversalStore {
  /** Whether the role that the service works with could change entries, triggers apart. */
  mayRewriteLedger(): Promise<boolean>;
}

/** The store in a database that has been migrated. */
export function createStore(database: Database): Store {
  return {
    ...createAccountStore(database),
    ...createPaymentStore(database),
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
