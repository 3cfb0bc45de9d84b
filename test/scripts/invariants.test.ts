/** `npm run invariants` on a running system, and on databases that violate invariants. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import pg from 'pg';
import type { InvariantReading } from '../../scripts/system/invariants.js';
import { openInstance as openInventory, stockUp } from '../services/inventory/instance.js';
import { accountWith, openInstance as openPayment } from '../services/payment/instance.js';
import { type FreshDatabase, freshDatabase } from '../support/postgres.js';
import { type Ended, runProgram } from '../support/programs.js';
import { sharedSystem } from '../support/system.js';

function run(env: Readonly<Record<string, string>>, ...flags: readonly string[]): Promise<Ended> {
  return runProgram(['scripts/invariants', ...flags], { env });
}

describe('npm run invariants', function () {
  this.timeout(90_000);

  it('finds the running system by its data folder, and reports that every invariant holds', async () => {
    const { dataDir } = await sharedSystem();
    const { code, output } = await run({ PORTCULLIS_DATA_DIR: dataDir });
    expect(output).to.contain('All invariants hold.').and.not.contain('✗');
    expect(output.match(/✓ (inventory|payment|both) /g)).to.have.length.above(14);
    expect(code).to.equal(0);
  });

  it('fails with a clear message when there is no system', async () => {
    const nowhere = await run({ PORTCULLIS_DATA_DIR: '/nonexistent' });
    expect(nowhere).to.include({ code: 1, output: 'No system was ever started on /nonexistent.\n' });
    const half = await run({ PAYMENT_DATABASE_URL: 'postgresql://127.0.0.1:1/x' });
    expect(half.code).to.equal(1);
    expect(half.output).to.contain('belong together');
    const away = 'postgresql://127.0.0.1:1/x';
    const dead = await run({ PAYMENT_DATABASE_URL: away, INVENTORY_DATABASE_URL: away });
    expect(dead.code).to.equal(1);
    expect(dead.output).to.contain('cannot be reached');
  });

  describe('on private databases', () => {
    let databases: readonly [FreshDatabase, FreshDatabase];

    beforeEach(async () => {
      databases = [await freshDatabase(), await freshDatabase()];
    });
    afterEach(async () => {
      for (const database of databases) await database.drop();
    });

    async function tamper({ url }: FreshDatabase, ...statements: readonly string[]): Promise<void> {
      const superuser = new pg.Client({ connectionString: url });
      await superuser.connect();
      await superuser.query('SET session_replication_role = replica');
      for (const statement of statements) await superuser.query(statement);
      await superuser.end();
    }

    async function broken(): Promise<{
      code: number | null;
      found: Pick<InvariantReading, 'about' | 'breaches'>[];
    }> {
      const [inventory, payment] = databases;
      const environment = { INVENTORY_DATABASE_URL: inventory.url, PAYMENT_DATABASE_URL: payment.url };
      const { code, stdout } = await run(environment, '--json');
      const readings = JSON.parse(stdout) as InvariantReading[];
      const found = readings.filter(({ breaches }) => breaches > 0);
      for (const { example } of found) expect(example).to.be.a('string');
      return { code, found: found.map(({ about, breaches }) => ({ about, breaches })) };
    }

    it('exits 1 and names violations in the stock, in the ledger, and between them', async () => {
      const [inventory, payment] = databases;
      const stock = await openInventory(inventory.url);
      const { sku } = await stockUp(stock, 10n);
      const books = await openPayment(payment.url);
      const { accountId } = await accountWith(books, 'alice', 1_000n);
      expect(await broken()).to.deep.equal({ code: 0, found: [] });

      await tamper(inventory, 'UPDATE items SET reserved = 3');
      const inStock = await broken();
      expect(inStock.code).to.equal(1);
      expect(inStock.found).to.deep.equal([
        { about: 'inventory', breaches: 1 },
        { about: 'inventory', breaches: 1 },
      ]);
      await tamper(inventory, 'UPDATE items SET reserved = 0');

      await tamper(payment, 'UPDATE accounts SET balance = 999 WHERE balance = 1000');
      expect((await broken()).found).to.deep.equal([{ about: 'payment', breaches: 1 }]);
      await tamper(payment, 'UPDATE accounts SET balance = 1000 WHERE balance = 999');

      // A captured payment with a consistent ledger, for goods that were not handed out.
      const [paymentId, transferId] = [randomUUID(), randomUUID()];
      await tamper(
        payment,
        `INSERT INTO payments (payment_id, user_id, account_id, currency_code, request_id, payload_hash, lines, step,
             amount, reservation_id, client_id, token_id, allowed_time, worker, lease_until)
           VALUES ('${paymentId}', 'alice', '${accountId}', 'EUR', 'r', '', '[]', 'captured', 10, '${randomUUID()}',
             'direct', 't', now(), gen_random_uuid(), now())`,
        `INSERT INTO transfers (transfer_id, kind, payment_id, actor_id)
           VALUES ('${transferId}', 'CAPTURE', '${paymentId}', 'alice')`,
        `INSERT INTO entries (transfer_id, account_id, currency_code, amount)
           SELECT '${transferId}', account_id, 'EUR', CASE kind WHEN 'USER' THEN -10 ELSE 10 END
             FROM accounts WHERE kind IN ('USER', 'SALES')`,
        `UPDATE accounts SET balance = 990 WHERE kind = 'USER'`,
      );
      expect((await broken()).found).to.deep.equal([{ about: 'both', breaches: 1 }]);

      // Goods that were handed out through payment without a charge.
      const reservationId = randomUUID();
      await tamper(
        inventory,
        `INSERT INTO reservations (reservation_id, owner, state, create_time, expire_time, end_time, acting_client)
           VALUES ('${reservationId}', 'alice', 'COMMITTED', now(), now() + interval '1 minute', now(), 'payment')`,
        `INSERT INTO reservation_lines VALUES ('${reservationId}', 1, '${sku}', 2, 250, 'EUR')`,
        `INSERT INTO stock_changes (change_id, sku, kind, on_hand_delta, reserved_delta, on_hand, reserved, reason, actor,
             reservation_id, change_time)
           SELECT nextval('stock_change_ids'), '${sku}', 'RESERVED', 0, 2, 10, 2, '', 'alice', '${reservationId}', now()`,
        `INSERT INTO stock_changes (change_id, sku, kind, on_hand_delta, reserved_delta, on_hand, reserved, reason, actor,
             reservation_id, change_time, acting_client, authorising_token)
           SELECT nextval('stock_change_ids'), '${sku}', 'COMMITTED', -2, -2, 8, 0, '', 'alice', '${reservationId}', now(),
             'payment', 't'`,
        'UPDATE items SET on_hand = 8, change_id = (SELECT max(change_id) FROM stock_changes)',
      );
      expect((await broken()).found).to.deep.equal([
        { about: 'both', breaches: 1 },
        { about: 'both', breaches: 1 },
      ]);
      await books.close();
      await stock.close();
    });
  });
});
