/** The sagas of checkouts in SQL: their steps, and the claims of their workers. */

import { asCaller, type DatabaseLane, type Sql } from '../common/database/database.js';
import { answerToStore, storedAnswer } from '../common/database/stored-answer.js';
import { canonicalRequestId, requestIdToStore, storedRequestIds } from '../common/validation/request-id.js';
import { PaymentError } from './errors.js';
import { confirmPermit, createLedgerTransaction } from './ledger-store.js';
import { type PaymentRow, paymentOf, selectPayment } from './payment-store.js';
import type { Payment } from './payments.js';
import type { Change, CheckoutStore, Failure, NewPayment, Saga, Step } from './saga.js';

/** Creates the store of the sagas. */
export function createCheckoutStore(database: DatabaseLane): CheckoutStore {
  return {
    begin: (payment, leaseMs) => {
      const { subject } = payment.caller;
      // Repetitions of one request wait for each other.
      const contends = [`checkout ${subject} ${canonicalRequestId(payment.requestId)}`];
      const place = { contends, caller: subject };
      return database.transaction((sql) => beginPayment(sql, payment, leaseMs), place);
    },
    claim: (paymentId, worker, leaseMs) => claimPayment(database, paymentId, worker, leaseMs),
    claimAbandoned: (limit, leaseMs) => claimAbandoned(database, limit, leaseMs),
    findSaga: (paymentId) => selectSaga(database, paymentId),
    advance: (saga, from, leaseMs, work, permit) =>
      database.transaction(
        async (sql) => {
          await lockSaga(sql, saga, from);
          const change = await work(createLedgerTransaction(sql));
          const next = await updatePayment(sql, saga.paymentId, change, leaseMs);
          if (permit !== undefined) await confirmPermit(sql, permit);
          return next;
        },
        { contends: [`account ${saga.accountId}`], caller: saga.userId },
      ),
    releaseClaim: (saga) => releaseClaim(asCaller(database, saga.userId), saga),
  };
}

async function beginPayment(
  sql: Sql,
  payment: NewPayment,
  leaseMs: number,
): Promise<{ saga: Saga; isNew: boolean } | undefined> {
  const { accountId, requestId, payloadHash, caller } = payment;
  const currencyCode = await lockRequest(sql, accountId, caller.subject, requestId);
  if (currencyCode === undefined) return undefined;
  const earlier = await selectLastOfRequest(sql, caller.subject, requestId);
  if (earlier !== undefined && !mayBeRetried(earlier, payloadHash)) return { saga: earlier, isNew: false };
  const inserted = await insertPayment(sql, payment, currencyCode, leaseMs);
  if (inserted !== undefined) return { saga: inserted, isNew: true };
  // The same request began elsewhere between the two statements.
  const concurrent = await selectLastOfRequest(sql, caller.subject, requestId);
  if (concurrent === undefined) throw new Error('the payment that caused the conflict does not exist');
  return { saga: concurrent, isNew: false };
}

/** Returns undefined when the same request has a payment already. */
async function insertPayment(
  sql: Sql,
  payment: NewPayment,
  currencyCode: string,
  leaseMs: number,
): Promise<Saga | undefined> {
  const { accountId, requestId, payloadHash, worker } = payment;
  const { subject, clientId, sessionId = null, tokenId } = payment.caller;
  const lines = JSON.stringify(payment.lines.map(({ sku, quantity }) => [sku, String(quantity)]));
  const { rows } = await sql.query<PaymentRow>(
    `INSERT INTO payments (user_id, account_id, currency_code, request_id, payload_hash, lines,
         client_id, session_id, token_id, worker, lease_until)
       VALUES ($1, $2, $3, $4, decode($5, 'hex'), $6, $7, $8, $9, $10, ${leaseUntil('$11')})
       ON CONFLICT DO NOTHING RETURNING *`,
    [
      subject,
      accountId,
      currencyCode,
      requestIdToStore(requestId),
      payloadHash,
      lines,
      clientId,
      sessionId,
      tokenId,
      worker,
      leaseMs,
    ],
  );
  return rows[0] && sagaOf(rows[0]);
}

async function claimPayment(
  sql: Sql,
  paymentId: string,
  worker: string,
  leaseMs: number,
): Promise<Saga | undefined> {
  const { rows } = await sql.query<PaymentRow>(
    `UPDATE payments SET worker = $2, lease_until = ${leaseUntil('$3')}
       WHERE payment_id = $1 AND ${IS_UNFINISHED} AND lease_until <= clock_timestamp() RETURNING *`,
    [paymentId, worker, leaseMs],
  );
  return rows[0] && sagaOf(rows[0]);
}

async function claimAbandoned(sql: Sql, limit: number, leaseMs: number): Promise<readonly Saga[]> {
  const { rows } = await sql.query<PaymentRow>(
    `UPDATE payments SET worker = gen_random_uuid(), lease_until = ${leaseUntil('$2')}
       WHERE payment_id IN (
         SELECT payment_id FROM payments
           WHERE ${IS_UNFINISHED} AND lease_until <= (SELECT clock_timestamp())
           ORDER BY lease_until LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
       ) RETURNING *`,
    [limit, leaseMs],
  );
  return rows.map(sagaOf);
}

async function releaseClaim(sql: Sql, { paymentId, worker }: Saga): Promise<void> {
  await sql.query(
    `UPDATE payments SET lease_until = clock_timestamp()
       WHERE payment_id = $1 AND worker = $2 AND ${IS_UNFINISHED}`,
    [paymentId, worker],
  );
}

/** Reads a payment with the fields of its saga; `locking` is a locking clause of SELECT. */
export async function selectSaga(sql: Sql, paymentId: string, locking = ''): Promise<Saga | undefined> {
  const row = await selectPayment(sql, paymentId, locking);
  return row && sagaOf(row);
}

/**
 * Locks the request, because the unique index takes two spellings of its UUID for two requests.
 *
 * @returns the currency of the user's account; undefined when it is not the user's
 */
async function lockRequest(
  sql: Sql,
  accountId: string,
  userId: string,
  requestId: string,
): Promise<string | undefined> {
  const { rows } = await sql.query<{ currency_code: string }>(
    `SELECT currency_code, pg_advisory_xact_lock(hashtextextended($3, 0))
       FROM accounts WHERE kind = 'USER' AND account_id = $1 AND user_id = $2`,
    [accountId, userId, JSON.stringify([userId, 'Checkout', canonicalRequestId(requestId)])],
  );
  return rows[0]?.currency_code;
}

async function selectLastOfRequest(sql: Sql, userId: string, requestId: string): Promise<Saga | undefined> {
  const { rows } = await sql.query<PaymentRow>(
    'SELECT * FROM payments WHERE user_id = $1 AND request_id = ANY($2) ORDER BY sequence DESC LIMIT 1',
    [userId, storedRequestIds(requestId)],
  );
  return rows[0] && sagaOf(rows[0]);
}

function mayBeRetried({ step, failure, payloadHash }: Saga, wanted: string): boolean {
  return step === 'failed' && failure?.isRetriable === true && payloadHash === wanted;
}

async function lockSaga(sql: Sql, { paymentId, worker }: Saga, from: readonly Step[]): Promise<void> {
  const { rowCount } = await sql.query(
    'SELECT FROM payments WHERE payment_id = $1 AND worker = $2 AND step = ANY ($3) FOR NO KEY UPDATE',
    [paymentId, worker, from],
  );
  if (rowCount === 1) return;
  throw new PaymentError('REQUEST_IN_PROGRESS', 'the payment is being worked on elsewhere', {
    retryAfterMs: 500,
  });
}

/** Writes the change of one step and renews the claim. The payment must be locked. */
export async function updatePayment(
  sql: Sql,
  paymentId: string,
  change: Change,
  leaseMs: number,
): Promise<Saga> {
  const { step, reservationId = null, amount = null, failure, allowedBy } = change;
  const { rows } = await sql.query<PaymentRow>(
    `UPDATE payments SET
         step = $2,
         reservation_id = coalesce($3, reservation_id),
         amount = coalesce($4, amount),
         failure_reason = coalesce($5, failure_reason),
         failure_message = coalesce($6, failure_message),
         failure_violations = coalesce($7, failure_violations),
         retriable = coalesce($8, retriable),
         client_id = coalesce($9, client_id),
         session_id = CASE WHEN $10::text IS NULL THEN session_id ELSE $11 END,
         token_id = coalesce($10, token_id),
         allowed_time = CASE WHEN $10 IS NULL THEN allowed_time ELSE clock_timestamp() END,
         update_time = clock_timestamp(),
         lease_until = ${leaseUntil('$12')}
       WHERE payment_id = $1 RETURNING *`,
    [
      paymentId,
      step,
      reservationId,
      amount,
      failure?.reason ?? null,
      failure?.message ?? null,
      failure === undefined ? null : JSON.stringify(failure.violations),
      failure?.isRetriable ?? null,
      allowedBy?.clientId ?? null,
      allowedBy?.tokenId ?? null,
      allowedBy?.sessionId ?? null,
      leaseMs,
    ],
  );
  const [row] = rows;
  if (row === undefined) throw new Error('a locked payment does not exist');
  if (step !== 'captured') return sagaOf(row);
  // Every retry receives the response of now, whatever is refunded by then.
  const response = answerToStore(paymentOf(row));
  await sql.query('UPDATE payments SET first_answer_json = $2 WHERE payment_id = $1', [paymentId, response]);
  return sagaOf({ ...row, first_answer_json: JSON.parse(response) as unknown });
}

/** When a lease that begins now ends, by the clock of the database, which all instances share. */
const leaseUntil = (parameter: string) =>
  `clock_timestamp() + ${parameter}::integer * interval '1 millisecond'`;

const IS_UNFINISHED = `step NOT IN ('captured', 'failed')`;

function sagaOf(row: PaymentRow): Saga {
  return {
    ...paymentOf(row),
    step: row.step,
    currencyCode: row.currency_code,
    payloadHash: row.payload_hash.toString('hex'),
    worker: row.worker,
    failure: storedFailureOf(row),
    authoriser: {
      subject: row.user_id,
      clientId: row.client_id,
      sessionId: row.session_id ?? undefined,
      tokenId: row.token_id,
    },
    response: storedResponseOf(row),
  };
}

/** Undefined before the capture. */
function storedResponseOf({ first_answer, first_answer_json }: PaymentRow): Payment | undefined {
  if (first_answer === null && first_answer_json === null) return undefined;
  return storedAnswer(first_answer_json, first_answer) as Payment;
}

function storedFailureOf(row: PaymentRow): Failure | undefined {
  if (row.failure_reason === null) return undefined;
  return {
    reason: row.failure_reason,
    message: row.failure_message ?? '',
    violations: row.failure_violations ?? [],
    isRetriable: row.retriable,
  };
}
