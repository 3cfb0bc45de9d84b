/** Cancellations and refunds in SQL. */

import type { Database, Sql } from '../common/database/database.js';
import { oncePerRequest } from '../common/database/requests.js';
import { findSaga, writeChange } from './checkout-store.js';
import { askLast, openBooks } from './ledger-store.js';
import { type PaymentRow, paymentFrom } from './payment-store.js';
import type { Payment } from './payments.js';
import type { ReversalStore } from './reversals.js';

export function createReversalStore(database: Database): ReversalStore {
  return {
    reverseOnce: (request, stillAllowed, work) =>
      database.transaction(async (sql) => {
        const answer = await oncePerRequest(sql, request, () =>
          work({
            books: openBooks(sql),
            lockPayment: (paymentId) => findSaga(sql, paymentId, 'FOR NO KEY UPDATE'),
            async seize(paymentId, worker, change, leaseMs) {
              await sql.query('UPDATE payments SET worker = $2 WHERE payment_id = $1', [paymentId, worker]);
              return await writeChange(sql, paymentId, change, leaseMs);
            },
            noteRefund: (paymentId, minorUnits) => noteRefund(sql, paymentId, minorUnits),
          }),
        );
        await askLast(sql, stillAllowed);
        return answer;
      }),
  };
}

export async function noteRefund(sql: Sql, paymentId: string, minorUnits: bigint): Promise<Payment> {
  const { rows } = await sql.query<PaymentRow>(
    `UPDATE payments SET refunded = refunded + $2, update_time = clock_timestamp()
       WHERE payment_id = $1 AND step = 'captured' RETURNING *`,
    [paymentId, minorUnits],
  );
  if (rows[0] === undefined) throw new Error('a payment that was locked is not there');
  return paymentFrom(rows[0]);
}
