/** Accounts and their entries in SQL, as their owners read them. */

import { asCaller, type DatabaseLane, type Sql } from '../common/database/database.js';
import { oncePerRequest } from '../common/database/requests.js';
import { type FilterFields, filterOf } from '../common/validation/filter.js';
import { cursorPatterns, cutPage, type PageRequest, pageOf } from '../common/validation/paging.js';
import type { AccountStore } from './accounts.js';
import type { EntryKind, LedgerEntry } from './ledger.js';
import {
  type AccountRow,
  accountOf,
  confirmPermit,
  createLedgerTransaction,
  SELECT_ACCOUNT,
} from './ledger-store.js';

/** Creates the store of accounts. */
export function createAccountStore(database: DatabaseLane): AccountStore {
  return {
    changeAccountsOnce: ({ contends, ...request }, permit, work) =>
      database.transaction(
        async (sql) => {
          const response = await oncePerRequest(sql, request, () => work(createLedgerTransaction(sql)));
          await confirmPermit(sql, permit);
          return response;
        },
        { contends: [contends], caller: request.subject },
      ),
    findAccount: async (accountId, caller) => {
      const select = `${SELECT_ACCOUNT} AND account_id = $1`;
      const { rows } = await database.query<AccountRow>(select, [accountId], { caller });
      return rows[0] && accountOf(rows[0]);
    },
    listEntries: (accountId, page, caller) => selectEntries(asCaller(database, caller), accountId, page),
  };
}

async function selectEntries(
  sql: Sql,
  accountId: string,
  page: PageRequest,
): Promise<{ entries: readonly LedgerEntry[]; nextPageToken: string }> {
  const { condition, values, fingerprint, pattern } = filterOf(page.filter, ENTRY_FIELDS, 4);
  const { limit, after } = pageOf(page, [pattern, cursorPatterns.integer]);
  const { rows } = await sql.query<EntryRow>(
    `SELECT entry_id, entries.sequence, currency_code, amount, kind, payment_id, entries.create_time
           FROM entries JOIN transfers USING (transfer_id)
           WHERE account_id = $1 AND ($2::bigint IS NULL OR entries.sequence < $2)${condition}
           ORDER BY entries.sequence DESC LIMIT $3`,
    [accountId, after?.[1] ?? null, limit + 1, ...values],
    { isOneOff: values.length > 0 },
  );
  const { items, nextPageToken } = cutPage(rows, limit, ({ sequence }) => [fingerprint, String(sequence)]);
  return { entries: items.map(entryOf), nextPageToken };
}

/** The fields of an entry that a filter may name. */
const ENTRY_FIELDS: FilterFields = {
  kind: { type: 'word', sql: 'kind', words: ['DEPOSIT', 'CAPTURE', 'REFUND'] },
  'amount.minor_units': { type: 'integer', sql: 'amount' },
  payment_id: { type: 'uuid', sql: 'payment_id' },
  create_time: { type: 'time', sql: 'entries.create_time' },
};

interface EntryRow {
  readonly entry_id: string;
  readonly sequence: bigint;
  readonly currency_code: string;
  readonly amount: bigint;
  readonly kind: EntryKind;
  readonly payment_id: string | null;
  readonly create_time: Date;
}

function entryOf(row: EntryRow): LedgerEntry {
  return {
    entryId: row.entry_id,
    amount: { minorUnits: row.amount, currencyCode: row.currency_code },
    kind: row.kind,
    paymentId: row.payment_id ?? undefined,
    createTime: row.create_time,
  };
}
