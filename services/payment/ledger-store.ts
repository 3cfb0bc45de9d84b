/** Accounts, holds and transfers in SQL. The schema enforces the invariants of the ledger; see the migrations. */

import { randomUUID } from 'node:crypto';
import { IDLE_IN_TRANSACTION_TIMEOUT_MS, type Sql } from '../common/database/database.js';
import type { Permit } from './caller.js';
import type { Account, LedgerTransaction, Transfer } from './ledger.js';

/** Writes to the ledger inside the transaction of `sql`. */
export function createLedgerTransaction(sql: Sql): LedgerTransaction {
  return {
    openAccount: (userId, currencyCode) => insertAccount(sql, userId, currencyCode),
    lockAccount: async (accountId) => {
      // FOR UPDATE would also block payments that begin, because their foreign key locks the account's key.
      const select = `${SELECT_ACCOUNT} AND account_id = $1 FOR NO KEY UPDATE`;
      const { rows } = await sql.query<AccountRow>(select, [accountId]);
      return rows[0] && accountOf(rows[0]);
    },
    post: (transfer) => insertTransfer(sql, transfer),
    hold: async (paymentId, accountId, minorUnits) => {
      const insert = 'INSERT INTO holds (payment_id, account_id, amount) VALUES ($1, $2, $3)';
      await sql.query(insert, [paymentId, accountId, minorUnits]);
    },
    releaseHold: async (paymentId) => {
      await sql.query('DELETE FROM holds WHERE payment_id = $1', [paymentId]);
    },
  };
}

async function insertAccount(sql: Sql, userId: string, currencyCode: string): Promise<Account | undefined> {
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
  return accountOf(rows[0]);
}

async function insertTransfer(sql: Sql, transfer: Transfer): Promise<void> {
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
    if (rowCount !== 1) throw new Error(`a transfer names an account that does not exist (${column})`);
  }
}

/**
 * Checks as the last step before COMMIT that the caller is still allowed, behind the fence. The server ends the transaction
 * if this process then freezes for longer than the check is valid.
 */
export async function confirmPermit(sql: Sql, permit: Permit): Promise<void> {
  // Sent together, so that the fence costs no round trip.
  const [, limitMs] = await Promise.all([permit.passFence(sql.query), limitIdleTime(sql, permit)]);
  let validForMs = limitMs;
  while (permit.stillAllowed() < validForMs) validForMs = await limitIdleTime(sql, permit);
}

/** @returns the limit: half of the time that is left, so that COMMIT has as much again to arrive */
async function limitIdleTime(sql: Sql, permit: Permit): Promise<number> {
  const limitMs = Math.max(
    1,
    Math.min(IDLE_IN_TRANSACTION_TIMEOUT_MS, Math.floor(permit.stillAllowed() / 2)),
  );
  await sql.query("SELECT set_config('idle_in_transaction_session_timeout', $1, true)", [String(limitMs)]);
  return limitMs;
}

/** Selects accounts of users; a condition is added with AND. */
export const SELECT_ACCOUNT = `SELECT * FROM accounts WHERE kind = 'USER'`;

/** A row of `accounts` that belongs to a user. */
export interface AccountRow {
  readonly account_id: string;
  readonly user_id: string;
  readonly currency_code: string;
  readonly balance: bigint;
  readonly held: bigint;
  readonly create_time: Date;
}

/** Maps a row of `accounts`. */
export function accountOf(row: AccountRow): Account {
  return {
    accountId: row.account_id,
    userId: row.user_id,
    currencyCode: row.currency_code,
    balance: row.balance,
    held: row.held,
    createTime: row.create_time,
  };
}
