/** Cancellations and refunds in SQL. */

import type { DatabaseLane, Sql } from '../common/database/database.js';
import { oncePerRequest } from '../common/database/requests.js';
import { selectSaga, updatePayment } from './checkout-store.js';
import { confirmPermit, createLedgerTransaction } from './ledger-store.js';
import { type PaymentRow, paymentOf } from './payment-store.js';
import type { Payment } from './payments.js';
import type { ReversalStore, ReversalTransaction } from './reversals.js';

/** Creates the store of cancellations and refunds. */
export function createReversalStore(database: DatabaseLane): ReversalStore {
  return {
    reverseOnce: ({ paymentId, ...request }, permit, work) =>
      database.transaction(
        async (sql) => {
          const response = await oncePerRequest(sql, request, () => work(reversalTransaction(sql)));
          await confirmPermit(sql, permit);
          return response;
        },
        { contends: [`payment ${paymentId}`], caller: request.subject },
      ),
  };
}

function reversalTransaction(sql: Sql): ReversalTransaction {
  return {
    ledger: createLedgerTransaction(sql),
    lockPayment: (paymentId) => selectSaga(sql, paymentId, 'FOR NO KEY UPDATE'),
    takeOver: async (paymentId, worker, change, leaseMs) => {
      await sql.query('UPDATE payments SET worker = $2 WHERE payment_id = $1', [paymentId, worker]);
      return await updatePayment(sql, paymentId, change, leaseMs);
    },
    addRefund: (paymentId, minorUnits) => addRefund(sql, paymentId, minorUnits),
  };
}

async function addRefund(sql: Sql, paymentId: string, minorUnits: bigint): Promise<Payment> {
  const { rows } = await sql.query<PaymentRow>(
    `UPDATE payments SET refunded = refunded + $2, update_time = clock_timestamp()
       WHERE payment_id = $1 AND step = 'captured' RETURNING *`,
    [paymentId, minorUnits],
  );
  if (rows[0] === undefined) throw new Error('a locked payment does not exist');
  return paymentOf(rows[0]);
}
