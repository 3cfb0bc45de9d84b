/** Payments in SQL, as their owners read them. */

import type { FieldViolation } from '@portcullis/guard/errors';
import { asCaller, type DatabaseLane, type Sql } from '../common/database/database.js';
import { type FilterFields, filterOf } from '../common/validation/filter.js';
import { cursorPatterns, cutPage, type PageRequest, pageOf } from '../common/validation/paging.js';
import type { OrderLine } from './order-lines.js';
import type { Payment, PaymentState, PaymentStore } from './payments.js';
import type { Step } from './saga.js';

/** Creates the store that payments are read from. */
export function createPaymentStore(database: DatabaseLane): PaymentStore {
  return {
    findPayment: async (paymentId, caller) => {
      const row = await selectPayment(asCaller(database, caller), paymentId);
      return row && paymentOf(row);
    },
    listPayments: (userId, page) => selectPayments(asCaller(database, userId), userId, page),
  };
}

async function selectPayments(
  sql: Sql,
  userId: string,
  page: PageRequest,
): Promise<{ payments: readonly Payment[]; nextPageToken: string }> {
  const { condition, values, fingerprint, pattern } = filterOf(page.filter, PAYMENT_FIELDS, 4);
  const { limit, after } = pageOf(page, [pattern, cursorPatterns.integer]);
  const { rows } = await sql.query<PaymentRow>(
    `SELECT * FROM payments WHERE user_id = $1 AND ($2::bigint IS NULL OR sequence < $2)${condition}
           ORDER BY sequence DESC LIMIT $3`,
    [userId, after?.[1] ?? null, limit + 1, ...values],
    { isOneOff: values.length > 0 },
  );
  const { items, nextPageToken } = cutPage(rows, limit, ({ sequence }) => [fingerprint, String(sequence)]);
  return { payments: items.map(paymentOf), nextPageToken };
}

/** The fields of a payment that a filter may name. */
const PAYMENT_FIELDS: FilterFields = {
  state: { type: 'word', sql: 'state', words: ['PENDING', 'CAPTURED', 'FAILED'] },
  account_id: { type: 'uuid', sql: 'account_id' },
  'amount.minor_units': { type: 'integer', sql: 'amount' },
  'amount.currency_code': { type: 'text', sql: 'currency_code' },
  failure_reason: { type: 'text', sql: 'failure_reason' },
  create_time: { type: 'time', sql: 'create_time' },
  update_time: { type: 'time', sql: 'update_time' },
};

/** A row of `payments`. */
export interface PaymentRow {
  readonly payment_id: string;
  readonly sequence: bigint;
  readonly user_id: string;
  readonly account_id: string;
  readonly currency_code: string;
  readonly payload_hash: Buffer;
  readonly lines: readonly (readonly [sku: string, quantity: string])[];
  readonly step: Step;
  readonly state: PaymentState;
  readonly amount: bigint | null;
  readonly reservation_id: string | null;
  readonly failure_reason: string | null;
  readonly failure_message: string | null;
  readonly failure_violations: readonly FieldViolation[] | null;
  readonly retriable: boolean;
  readonly refunded: bigint;
  readonly first_answer: Buffer | null;
  readonly first_answer_json: unknown;
  readonly client_id: string;
  readonly session_id: string | null;
  readonly token_id: string;
  readonly worker: string;
  readonly create_time: Date;
  readonly update_time: Date;
}

/** Reads a row of `payments`; `locking` is a locking clause of SELECT. */
export async function selectPayment(
  sql: Sql,
  paymentId: string,
  locking = '',
): Promise<PaymentRow | undefined> {
  const select = `SELECT * FROM payments WHERE payment_id = $1 ${locking}`;
  return (await sql.query<PaymentRow>(select, [paymentId])).rows[0];
}

/** Maps a row of `payments` to what its owner reads. */
export function paymentOf(row: PaymentRow): Payment {
  const { currency_code: currencyCode } = row;
  return {
    paymentId: row.payment_id,
    userId: row.user_id,
    accountId: row.account_id,
    state: row.state,
    amount: row.amount === null ? undefined : { minorUnits: row.amount, currencyCode },
    refunded: row.step === 'captured' ? { minorUnits: row.refunded, currencyCode } : undefined,
    lines: row.lines.map(([sku, quantity]): OrderLine => ({ sku, quantity: BigInt(quantity) })),
    reservationId: row.reservation_id ?? undefined,
    failureReason: row.failure_reason ?? undefined,
    createTime: row.create_time,
    updateTime: row.update_time,
  };
}
