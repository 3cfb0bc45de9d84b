/** Payment's migrations run while the previous version writes to the same tables. */
import { randomUUID } from 'node:crypto';
import { cp, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { expect } from 'chai';
import { type Database, LOCK_TIMEOUT_MS, openDatabase } from '../../../services/common/database/database.js';
import { type FreshDatabase, freshDatabase } from '../../support/postgres.js';
import { breachesIn, callerOf, olga, openInstance, silentLog } from './instance.js';

const MIGRATIONS = fileURLToPath(new URL('../../../services/payment/migrations/', import.meta.url));
const WRITERS = 4;

describe('the migrations of payment', () => {
  let folder: string;
  let fresh: FreshDatabase;
  let old: Database;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'portcullis-migrations-'));
    await mkdir(join(folder, 'first'));
    await cp(join(MIGRATIONS, '0001-ledger.sql'), join(folder, 'first', '0001-ledger.sql'));
    fresh = await freshDatabase();
    old = openDatabase({ url: fresh.url, migrations: pathToFileURL(join(folder, 'first')), log: silentLog });
    await old.ready(new AbortController().signal);
  });
  after(async () => {
    await old.close();
    await fresh.drop();
    await rm(folder, { recursive: true });
  });

  /** Makes a purchase of 10 with the statements of the previous version, from its beginning to its capture. */
  async function buyAsBefore(accountId: string, userId: string): Promise<void> {
    const paymentId = randomUUID();
    await old.query(
      `INSERT INTO payments (payment_id, user_id, account_id, currency_code, request_id, payload_hash, lines,
           client_id, token_id, worker, lease_until)
         VALUES ($1, $2, $3, 'EUR', $4, '', '[]', 'direct', 't', gen_random_uuid(), clock_timestamp())`,
      [paymentId, userId, accountId, randomUUID()],
    );
    await old.transaction(async (sql) => {
      await sql.query(
        `UPDATE payments SET step = 'held', amount = 10, reservation_id = 'r' WHERE payment_id = $1`,
        [paymentId],
      );
      await sql.query('INSERT INTO holds (payment_id, account_id, amount) VALUES ($1, $2, 10)', [
        paymentId,
        accountId,
      ]);
    });
    await old.transaction(async (sql) => {
      const transferId = randomUUID();
      await sql.query('DELETE FROM holds WHERE payment_id = $1', [paymentId]);
      await sql.query(
        `INSERT INTO transfers (transfer_id, kind, payment_id, actor_id) VALUES ($1, 'CAPTURE', $2, $3)`,
        [transferId, paymentId, userId],
      );
      for (const [kind, amount] of [
        ['USER', -10n],
        ['SALES', 10n],
      ] as const) {
        await sql.query(
          `INSERT INTO entries (transfer_id, account_id, currency_code, amount)
             SELECT $1, account_id, 'EUR', $2 FROM accounts WHERE kind = $3`,
          [transferId, amount, kind],
        );
      }
      await sql.query(
        `UPDATE payments SET step = 'captured', allowed_time = clock_timestamp() WHERE payment_id = $1`,
        [paymentId],
      );
    });
  }

  it('run without blocking writers of the previous version, and this version reads what those wrote', async () => {
    await old.query(
      `INSERT INTO accounts (kind, currency_code, user_id, balance, held)
         VALUES ('WORLD', 'EUR', NULL, NULL, NULL), ('SALES', 'EUR', NULL, NULL, NULL), ('USER', 'EUR', $1, 0, 0)`,
      ['alice'],
    );
    const { rows } = await old.query<{ account_id: string }>(
      `SELECT account_id FROM accounts WHERE kind = 'USER' AND user_id = $1`,
      ['alice'],
    );
    const accountId = rows[0]?.account_id ?? '';
    await old.transaction(async (sql) => {
      const transferId = randomUUID();
      await sql.query(`INSERT INTO transfers (transfer_id, kind, actor_id) VALUES ($1, 'DEPOSIT', 'olga')`, [
        transferId,
      ]);
      await sql.query(
        `INSERT INTO entries (transfer_id, account_id, currency_code, amount)
           SELECT $1, account_id, 'EUR', CASE kind WHEN 'USER' THEN 1000000 ELSE -1000000 END
             FROM accounts WHERE kind IN ('USER', 'WORLD')`,
        [transferId],
      );
    });
    let isOver = false;
    let bought = 0n;
    let slowestMs = 0;
    const writers = Array.from({ length: WRITERS }, async () => {
      while (!isOver) {
        const startedMs = performance.now();
        await buyAsBefore(accountId, 'alice');
        slowestMs = Math.max(slowestMs, performance.now() - startedMs);
        bought += 1n;
      }
    });
    const count = bought;
    const instance = await openInstance(fresh.url);
    const during = bought;
    isOver = true;
    await Promise.all(writers);

    expect(during > count).to.equal(true);
    expect(slowestMs).to.be.below(LOCK_TIMEOUT_MS);
    expect(await breachesIn(instance)).to.deep.equal([]);
    const account = await instance.accounts.get(accountId, callerOf('alice'));
    expect(account).to.include({ balance: 1_000_000n - bought * 10n, held: 0n });
    const page = { pageSize: 1, pageToken: '', filter: '' };
    const { payments } = await instance.payments.list(page, callerOf('alice'));
    const request = {
      paymentId: payments[0]?.paymentId ?? '',
      amount: undefined,
      reason: '',
      requestId: 'r',
    };
    expect((await instance.reversals.refund(request, olga)).refunded?.minorUnits).to.equal(10n);
    await instance.close();
  });
});
