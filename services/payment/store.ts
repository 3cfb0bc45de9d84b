/** The books in PostgreSQL. What must always be true of them is enforced by the schema; see the migrations. */

import { randomUUID } from 'node:crypto';
import type { FieldViolation } from '@portcullis/guard/errors';
import { type Database, IDLE_IN_TRANSACTION_TIMEOUT_MS, type Sql } from '../common/database/database.js';
import { oncePerRequest } from '../common/database/requests.js';
import { answerToStore, storedAnswer } from '../common/database/stored-answer.js';
import { type FilterFields, filterOf } from '../common/validation/filter.js';
import { cursorPatterns, pageOf, pageTokenOf } from '../common/validation/paging.js';
import { storedRequestIds } from '../common/validation/request-id.js';
import type { AccountsStore } from './accounts.js';
import { PaymentError } from './errors.js';
import type { Account, Books, EntryKind, LedgerEntry, Transfer } from './ledger.js';
import type { OrderLine } from './order-lines.js';
import type { Payment, PaymentState, PaymentsStore } from './payments.js';
import type { ReversalStore } from './reversals.js';
import type { Change, CheckoutStore, Failure, Saga, Step } from './saga.js';

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

function createAccountsStore(database: Database): AccountsStore {
  return {
    once: (request, stillAllowed, work) =>
      database.transaction(async (sql) => {
        const answer = await oncePerRequest(sql, request, () => work(openBooks(sql)));
        await askLast(sql, stillAllowed);
        return answer;
      }),

    async findAccount(accountId) {
      const { rows } = await database.query<AccountRow>(`${SELECT_ACCOUNT} AND account_id = $1`, [accountId]);
      return rows[0] && accountFrom(rows[0]);
    },

    async listEntries(accountId, page) {
      const { condition, values, fingerprint, pattern } = filterOf(page.filter, ENTRY_FIELDS, 4);
      const { limit, after } = pageOf(page, [pattern, cursorPatterns.integer]);
      const { rows } = await database.query<EntryRow>(
        `SELECT entry_id, entries.sequence, currency_code, amount, kind, payment_id, entries.create_time
           FROM entries JOIN transfers USING (transfer_id)
           WHERE account_id = $1 AND ($2::bigint IS NULL OR entries.sequence < $2)${condition}
           ORDER BY entries.sequence DESC LIMIT $3`,
        [accountId, after?.[1] ?? null, limit + 1, ...values],
        { isOneOff: values.length > 0 },
      );
      const { items, nextPageToken } = cutPage(rows, limit, fingerprint);
      return { entries: items.map(entryFrom), nextPageToken };
    },
  };
}

function createPaymentsStore(database: Database): PaymentsStore {
  return {
    async findPayment(paymentId) {
      const row = await selectPayment(database, paymentId);
      return row && paymentFrom(row);
    },

    async listPayments(userId, page) {
      const { condition, values, fingerprint, pattern } = filterOf(page.filter, PAYMENT_FIELDS, 4);
      const { limit, after } = pageOf(page, [pattern, cursorPatterns.integer]);
      const { rows } = await database.query<PaymentRow>(
        `SELECT * FROM payments WHERE user_id = $1 AND ($2::bigint IS NULL OR sequence < $2)${condition}
           ORDER BY sequence DESC LIMIT $3`,
        [userId, after?.[1] ?? null, limit + 1, ...values],
        { isOneOff: values.length > 0 },
      );
      const { items, nextPageToken } = cutPage(rows, limit, fingerprint);
      return { payments: items.map(paymentFrom), nextPageToken };
    },
  };
}

function createCheckoutStore(database: Database): CheckoutStore {
  return {
    begin: (payment, leaseMs) =>
      database.transaction(async (sql) => {
        const { subject, clientId, sessionId = null, tokenId } = payment.caller;
        const { accountId, requestId, payloadHash, worker } = payment;
        const currencyCode = await ownCurrency(sql, accountId, subject);
        if (currencyCode === undefined) return undefined;
        const earlier = await lastOfRequest(sql, subject, requestId);
        if (earlier !== undefined && !mayBeTriedAgain(earlier, payloadHash)) {
          return { saga: earlier, isNew: false };
        }
        const lines = JSON.stringify(payment.lines.map(({ sku, quantity }) => [sku, String(quantity)]));
        const { rows } = await sql.query<PaymentRow>(
          `INSERT INTO payments (user_id, account_id, currency_code, request_id, payload_hash, lines,
               client_id, session_id, token_id, worker, lease_until)
             VALUES ($1, $2, $3, $4, decode($5, 'hex'), $6, $7, $8, $9, $10, ${LEASE_UNTIL('$11')})
             ON CONFLICT DO NOTHING RETURNING *`,
          [
            ...[subject, accountId, currencyCode, requestId, payloadHash, lines],
            ...[clientId, sessionId, tokenId, worker, leaseMs],
          ],
        );
        if (rows[0] !== undefined) return { saga: sagaFrom(rows[0]), isNew: true };
        // The same request began elsewhere between the two statements.
        const rival = await lastOfRequest(sql, subject, requestId);
        if (rival === undefined) throw new Error('a payment that was in the way is not there');
        return { saga: rival, isNew: false };
      }),

    async claim(paymentId, worker, leaseMs) {
      const { rows } = await database.query<PaymentRow>(
        `UPDATE payments SET worker = $2, lease_until = ${LEASE_UNTIL('$3')}
           WHERE payment_id = $1 AND ${IS_UNFINISHED} AND lease_until <= clock_timestamp() RETURNING *`,
        [paymentId, worker, leaseMs],
      );
      return rows[0] && sagaFrom(rows[0]);
    },

    async claimAbandoned(limit, leaseMs) {
      const { rows } = await database.query<PaymentRow>(
        `UPDATE payments SET worker = gen_random_uuid(), lease_until = ${LEASE_UNTIL('$2')}
           WHERE payment_id IN (
             SELECT payment_id FROM payments
               WHERE ${IS_UNFINISHED} AND lease_until <= (SELECT clock_timestamp())
               ORDER BY lease_until LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
           ) RETURNING *`,
        [limit, leaseMs],
      );
      return rows.map(sagaFrom);
    },

    findSaga: (paymentId) => findSaga(database, paymentId),

    advance: (saga, from, leaseMs, work, stillAllowed) =>
      database.transaction(async (sql) => {
        await lockSaga(sql, saga, from);
        const next = await writeChange(sql, saga.paymentId, await work(openBooks(sql)), leaseMs);
        if (stillAllowed !== undefined) await askLast(sql, stillAllowed);
        return next;
      }),

    async giveUp({ paymentId, worker }) {
      await database.query(
        `UPDATE payments SET lease_until = clock_timestamp()
           WHERE payment_id = $1 AND worker = $2 AND ${IS_UNFINISHED}`,
        [paymentId, worker],
      );
    },
  };
}

function createReversalStore(database: Database): ReversalStore {
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

async function findSaga(sql: Sql, paymentId: string, locking = ''): Promise<Saga | undefined> {
  const row = await selectPayment(sql, paymentId, locking);
  return row && sagaFrom(row);
}

async function selectPayment(sql: Sql, paymentId: string, locking = ''): Promise<PaymentRow | undefined> {
  const select = `SELECT * FROM payments WHERE payment_id = $1 ${locking}`;
  return (await sql.query<PaymentRow>(select, [paymentId])).rows[0];
}

async function noteRefund(sql: Sql, paymentId: string, minorUnits: bigint): Promise<Payment> {
  const { rows } = await sql.query<PaymentRow>(
    `UPDATE payments SET refunded = refunded + $2, update_time = clock_timestamp()
       WHERE payment_id = $1 AND step = 'captured' RETURNING *`,
    [paymentId, minorUnits],
  );
  if (rows[0] === undefined) throw new Error('a payment that was locked is not there');
  return paymentFrom(rows[0]);
}

/**
 * Asks whether the caller may still be relied on as the last thing before COMMIT, and lets the server end the
 * transaction if this process freezes in between for longer than the answer is good for.
 */
async function askLast(sql: Sql, stillAllowed: () => number): Promise<void> {
  let limitMs: number;
  do {
    // Half of the time for COMMIT to arrive, so that setting the limit may itself take the other half.
    limitMs = Math.max(1, Math.min(IDLE_IN_TRANSACTION_TIMEOUT_MS, Math.floor(stillAllowed() / 2)));
    await sql.query("SELECT set_config('idle_in_transaction_session_timeout', $1, true)", [String(limitMs)]);
  } while (stillAllowed() < limitMs);
}

function openBooks(sql: Sql): Books {
  return {
    async openAccount(userId, currencyCode) {
      const { rows } = await sql.query<AccountRow>(
        `INSERT INTO accounts (kind, user_id, currency_code, balance, held) VALUES ('USER', $1, $2, 0, 0)
           ON CONFLICT DO NOTHING RETURNING *`,
        [userId, currencyCode],
      );
      if (rows[0] === undefined) return undefined;
      await sql.query(
        `INSERT INTO accounts (kind, currency_code) VALUES ('SALES', $1), ('WORLD', $1) ON CONFLICT DO NOTHING`,
        [currencyCode],
      );
      return accountFrom(rows[0]);
    },

    async lockAccount(accountId) {
      // FOR UPDATE would also block payments that begin, because their foreign key locks the account's key.
      const select = `${SELECT_ACCOUNT} AND account_id = $1 FOR NO KEY UPDATE`;
      const { rows } = await sql.query<AccountRow>(select, [accountId]);
      return rows[0] && accountFrom(rows[0]);
    },

    post: (transfer) => post(sql, transfer),

    async hold(paymentId, accountId, minorUnits) {
      await sql.query('INSERT INTO holds (payment_id, account_id, amount) VALUES ($1, $2, $3)', [
        paymentId,
        accountId,
        minorUnits,
      ]);
    },

    async dropHold(paymentId) {
      await sql.query('DELETE FROM holds WHERE payment_id = $1', [paymentId]);
    },
  };
}

async function post(sql: Sql, transfer: Transfer): Promise<void> {
  const { kind, paymentId = null, actorId, reason, currencyCode, entries } = transfer;
  const transferId = randomUUID();
  await sql.query(
    'INSERT INTO transfers (transfer_id, kind, payment_id, actor_id, reason) VALUES ($1, $2, $3, $4, $5)',
    [transferId, kind, paymentId, actorId, reason],
  );
  for (const { account, minorUnits } of entries) {
    const [column, value] =
      'system' in account ? ['kind', account.system] : ['account_id', account.accountId];
    const { rowCount } = await sql.query(
      `INSERT INTO entries (transfer_id, account_id, currency_code, amount)
         SELECT $1, account_id, currency_code, $2 FROM accounts WHERE ${column} = $3 AND currency_code = $4`,
      [transferId, minorUnits, value, currencyCode],
    );
    if (rowCount !== 1) throw new Error(`a transfer names an account that is not there (${column})`);
  }
}

async function ownCurrency(sql: Sql, accountId: string, userId: string): Promise<string | undefined> {
  const { rows } = await sql.query<{ currency_code: string }>(
    `SELECT currency_code FROM accounts WHERE kind = 'USER' AND account_id = $1 AND user_id = $2`,
    [accountId, userId],
  );
  return rows[0]?.currency_code;
}

async function lastOfRequest(sql: Sql, userId: string, requestId: string): Promise<Saga | undefined> {
  const { rows } = await sql.query<PaymentRow>(
    'SELECT * FROM payments WHERE user_id = $1 AND request_id = ANY($2) ORDER BY sequence DESC LIMIT 1',
    [userId, storedRequestIds(requestId)],
  );
  return rows[0] && sagaFrom(rows[0]);
}

function mayBeTriedAgain({ step, failure, payloadHash }: Saga, wanted: string): boolean {
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

async function writeChange(sql: Sql, paymentId: string, change: Change, leaseMs: number): Promise<Saga> {
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
         lease_until = ${LEASE_UNTIL('$12')}
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
  if (row === undefined) throw new Error('a payment that was locked is not there');
  if (step !== 'captured') return sagaFrom(row);
  // What is answered now is what every retry gets, whatever is refunded by then.
  const answer = answerToStore(paymentFrom(row));
  await sql.query('UPDATE payments SET first_answer_json = $2 WHERE payment_id = $1', [paymentId, answer]);
  return sagaFrom({ ...row, first_answer_json: JSON.parse(answer) as unknown });
}

/** When a lease that begins now is over, by the database's clock, which all instances share. */
const LEASE_UNTIL = (parameter: string) =>
  `clock_timestamp() + ${parameter}::integer * interval '1 millisecond'`;
const IS_UNFINISHED = `step NOT IN ('captured', 'failed')`;

/** What payments can be filtered by. */
const PAYMENT_FIELDS: FilterFields = {
  state: { type: 'word', sql: 'state', words: ['PENDING', 'CAPTURED', 'FAILED'] },
  account_id: { type: 'uuid', sql: 'account_id' },
  'amount.minor_units': { type: 'integer', sql: 'amount' },
  'amount.currency_code': { type: 'text', sql: 'currency_code' },
  failure_reason: { type: 'text', sql: 'failure_reason' },
  create_time: { type: 'time', sql: 'create_time' },
  update_time: { type: 'time', sql: 'update_time' },
};

/** What entries can be filtered by. */
const ENTRY_FIELDS: FilterFields = {
  kind: { type: 'word', sql: 'kind', words: ['DEPOSIT', 'CAPTURE', 'REFUND'] },
  'amount.minor_units': { type: 'integer', sql: 'amount' },
  payment_id: { type: 'uuid', sql: 'payment_id' },
  create_time: { type: 'time', sql: 'entries.create_time' },
};

const SELECT_ACCOUNT = `SELECT * FROM accounts WHERE kind = 'USER'`;

interface AccountRow {
  readonly account_id: string;
  readonly user_id: string;
  readonly currency_code: string;
  readonly balance: bigint;
  readonly held: bigint;
  readonly create_time: Date;
}

interface EntryRow {
  readonly entry_id: string;
  readonly sequence: bigint;
  readonly currency_code: string;
  readonly amount: bigint;
  readonly kind: EntryKind;
  readonly payment_id: string | null;
  readonly create_time: Date;
}

interface PaymentRow {
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

function accountFrom(row: AccountRow): Account {
  return {
    accountId: row.account_id,
    userId: row.user_id,
    currencyCode: row.currency_code,
    balance: row.balance,
    held: row.held,
    createTime: row.create_time,
  };
}

function entryFrom(row: EntryRow): LedgerEntry {
  return {
    entryId: row.entry_id,
    amount: { minorUnits: row.amount, currencyCode: row.currency_code },
    kind: row.kind,
    paymentId: row.payment_id ?? undefined,
    createTime: row.create_time,
  };
}

function sagaFrom(row: PaymentRow): Saga {
  return {
    ...paymentFrom(row),
    step: row.step,
    currencyCode: row.currency_code,
    payloadHash: row.payload_hash.toString('hex'),
    worker: row.worker,
    failure: failureFrom(row),
    authoriser: {
      subject: row.user_id,
      clientId: row.client_id,
      sessionId: row.session_id ?? undefined,
      tokenId: row.token_id,
    },
    firstAnswer: firstAnswerFrom(row),
  };
}

/** Undefined before the capture. */
function firstAnswerFrom({ first_answer, first_answer_json }: PaymentRow): Payment | undefined {
  if (first_answer === null && first_answer_json === null) return undefined;
  return storedAnswer(first_answer_json, first_answer) as Payment;
}

function paymentFrom(row: PaymentRow): Payment {
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

function failureFrom(row: PaymentRow): Failure | undefined {
  if (row.failure_reason === null) return undefined;
  return {
    reason: row.failure_reason,
    message: row.failure_message ?? '',
    violations: row.failure_violations ?? [],
    isRetriable: row.retriable,
  };
}

/** A page of rows of which one too many was asked for. */
function cutPage<Row extends { readonly sequence: bigint }>(
  rows: readonly Row[],
  limit: number,
  fingerprint: string,
): { items: readonly Row[]; nextPageToken: string } {
  const items = rows.slice(0, limit);
  const last = items.at(-1);
  const isLast = rows.length <= limit || last === undefined;
  return { items, nextPageToken: isLast ? '' : pageTokenOf([fingerprint, String(last.sequence)]) };
}
