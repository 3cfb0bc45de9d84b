/** The ledger's constraints in PostgreSQL, which hold for every role. */
import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import pg from 'pg';
import {
  type Database,
  type DatabaseOptions,
  openDatabase,
  violatedConstraint,
} from '../../../services/common/database/database.js';
import { createAccounts } from '../../../services/payment/accounts.js';
import { createStore } from '../../../services/payment/store.js';
import { codeOf, rejectionOf } from '../../support/outcomes.js';
import { freshDatabase } from '../../support/postgres.js';
import {
  accountWith,
  breachesIn,
  buyerOf,
  type FreshInstance,
  type Instance,
  olga,
  openFreshInstance,
  openInstance,
  silentLog,
} from './instance.js';
import { failing, Warehouse } from './warehouse.js';

describe('the ledger of payment', () => {
  let instance: FreshInstance;
  let account: string;

  before(async () => {
    instance = await openFreshInstance();
    ({ accountId: account } = await accountWith(instance, 'owner', 1_000n));
    await leaveHold(instance, account);
  });
  after(() => instance.close());
  afterEach('the books are right', async () => {
    expect(await breachesIn(instance)).to.deep.equal([]);
  });

  const run = (statement: string, values: readonly unknown[] = []) =>
    instance.database.query(statement, values);
  const refusalOf = async (statement: string) => (await rejectionOf(run(statement))).message;

  describe('against statements of the owner of its tables', () => {
    for (const statement of [
      'UPDATE entries SET amount = amount + 1',
      'DELETE FROM entries',
      'TRUNCATE entries CASCADE',
      `UPDATE transfers SET actor_id = 'somebody else'`,
      'DELETE FROM transfers',
      'TRUNCATE transfers CASCADE',
      'DELETE FROM accounts',
      'TRUNCATE accounts CASCADE',
      'DELETE FROM payments',
      'TRUNCATE payments CASCADE',
      'UPDATE holds SET amount = amount + 1',
      'TRUNCATE holds',
    ]) {
      it(`rejects ${statement}`, async () => {
        expect(await refusalOf(statement)).to.match(/is refused|accounts change through/);
      });
    }

    for (const statement of [
      'UPDATE accounts SET balance = balance + 1',
      'UPDATE accounts SET held = 0, balance = 0',
      `UPDATE accounts SET user_id = 'thief'`,
      `INSERT INTO accounts (kind, user_id, currency_code, balance, held) VALUES ('USER', 'rich', 'EUR', 5, 0)`,
    ]) {
      it(`rejects ${statement}`, async () => {
        expect(await refusalOf(statement)).to.match(/accounts change through|an account opens empty/);
      });
    }
  });

  describe('under the role of the service', () => {
    const login = `test_${randomUUID().replaceAll('-', '')}`;
    let serviceOptions: DatabaseOptions;
    let service: Database;

    before(async () => {
      const password = randomUUID();
      await run(`CREATE ROLE ${login} LOGIN PASSWORD '${password}' IN ROLE portcullis_payment`);
      const url = new URL(instance.url);
      url.username = login;
      url.password = password;
      const migrations = new URL('../../../services/payment/migrations/', import.meta.url);
      serviceOptions = { url: url.href, migrationUrl: instance.url, migrations, log: silentLog };
      service = openDatabase(serviceOptions);
      await service.ready(new AbortController().signal);
    });
    after(async () => {
      await service.close();
      await run(`DROP ROLE ${login}`);
    });

    for (const statement of [
      'UPDATE entries SET amount = 1',
      'DELETE FROM entries',
      'TRUNCATE entries',
      `UPDATE transfers SET actor_id = 'somebody else'`,
      'DELETE FROM transfers',
      'DELETE FROM payments',
      'DELETE FROM accounts',
      'UPDATE holds SET amount = 1',
      'DELETE FROM requests',
      `UPDATE requests SET answer = ''`,
      `UPDATE accounts SET user_id = 'thief'`,
      'ALTER TABLE entries DISABLE TRIGGER ALL',
      'DROP TRIGGER entries_append_only ON entries',
      'SET session_replication_role = replica',
      'CREATE TABLE other (id int)',
      'DELETE FROM schema_migrations',
    ]) {
      it(`denies ${statement}`, async () => {
        expect((await rejectionOf(service.query(statement))).message).to.match(
          /permission denied|must be owner/,
        );
      });
    }

    it('opens a database that another process has migrated, without knowing the owner’s URL', async () => {
      const { migrationUrl: _, ...alone } = serviceOptions;
      const database = openDatabase(alone);
      await database.ready(new AbortController().signal);
      expect((await createStore(database).findAccount(account, 'alice'))?.accountId).to.equal(account);
      await database.close();
    });

    it('cannot change a balance, although it may update the column', async () => {
      const refusal = await rejectionOf(service.query('UPDATE accounts SET balance = balance + 1'));
      expect(refusal.message).to.contain('accounts change through entries and holds alone');
    });

    it('can carry out the operations of the service', async () => {
      const store = createStore(service);
      expect(await store.mayRewriteLedger()).to.equal(false);
      expect(await createStore(instance.database).mayRewriteLedger()).to.equal(true);
      const books = { ...instance, store, accounts: createAccounts({ store }) };
      const { accountId } = await accountWith(books, randomUUID(), 1_000n);
      expect((await books.accounts.get(accountId, olga)).balance).to.equal(1_000n);
    });
  });

  describe('with transfers that do not balance', () => {
    const transfer = (amounts: readonly bigint[]) =>
      instance.database.transaction(async (sql) => {
        const transferId = randomUUID();
        await sql.query(`INSERT INTO transfers (transfer_id, kind, actor_id) VALUES ($1, 'DEPOSIT', 'x')`, [
          transferId,
        ]);
        for (const amount of amounts) {
          await sql.query(
            `INSERT INTO entries (transfer_id, account_id, currency_code, amount) VALUES ($1, $2, 'EUR', $3)`,
            [transferId, account, amount],
          );
        }
      });

    for (const amounts of [[], [5n], [5n, -4n], [5n, 5n, -9n]]) {
      it(`rejects a transfer of [${amounts.join(', ')}]`, async () => {
        expect((await rejectionOf(transfer(amounts))).message).to.match(/does not balance/);
      });
    }

    it('rejects entries of two currencies that sum to zero only together', async () => {
      const { accountId } = await accountWith(instance, 'owner', 100n, 'USD');
      const mixed = instance.database.transaction(async (sql) => {
        const transferId = randomUUID();
        await sql.query(`INSERT INTO transfers (transfer_id, kind, actor_id) VALUES ($1, 'DEPOSIT', 'x')`, [
          transferId,
        ]);
        await sql.query(
          `INSERT INTO entries (transfer_id, account_id, currency_code, amount)
             VALUES ($1, $2, 'EUR', 5), ($1, $3, 'USD', -5)`,
          [transferId, account, accountId],
        );
      });
      expect((await rejectionOf(mixed)).message).to.match(/does not balance/);
    });

    it('rejects another entry in an old transfer', async () => {
      const lengthening = run(
        `INSERT INTO entries (transfer_id, account_id, currency_code, amount)
           SELECT transfer_id, account_id, currency_code, 1 FROM entries WHERE account_id = $1 LIMIT 1`,
        [account],
      );
      expect((await rejectionOf(lengthening)).message).to.match(/does not balance/);
    });

    it('rejects an entry in another currency than its account’s', async () => {
      const foreign = run(
        `INSERT INTO entries (transfer_id, account_id, currency_code, amount)
           SELECT transfer_id, account_id, 'USD', 1 FROM entries WHERE account_id = $1 LIMIT 1`,
        [account],
      );
      expect(violatedConstraint(await rejectionOf(foreign))).to.match(/fkey/);
    });
  });

  it('rejects a second capture of one payment', async () => {
    const twice = instance.database.transaction(async (sql) => {
      const insert = `INSERT INTO transfers (kind, payment_id, actor_id)
        SELECT 'CAPTURE', payment_id, 'x' FROM payments`;
      await sql.query(insert);
      await sql.query(insert);
    });
    expect(violatedConstraint(await rejectionOf(twice))).to.equal('transfers_one_capture_per_payment');
  });

  it('rejects entries that make a balance negative', async () => {
    const overdraw = instance.database.transaction(async (sql) => {
      const { rows } = await sql.query<{ transfer_id: string }>(
        `INSERT INTO transfers (kind, actor_id) VALUES ('DEPOSIT', 'x') RETURNING transfer_id`,
      );
      await sql.query(
        `INSERT INTO entries (transfer_id, account_id, currency_code, amount) VALUES ($1, $2, 'EUR', -1000)`,
        [rows[0]?.transfer_id, account],
      );
    });
    expect(violatedConstraint(await rejectionOf(overdraw))).to.equal('accounts_never_negative');
  });

  it('reports each violated invariant to an operator', async () => {
    const broken = await freshDatabase();
    const victim = await openInstance(broken.url);
    const superuser = new pg.Client({ connectionString: broken.url });
    await superuser.connect();
    try {
      await accountWith(victim, 'victim', 10n);
      expect(await breachesIn(victim)).to.deep.equal([]);
      // A manual repair would disable the triggers, too.
      await superuser.query('SET session_replication_role = replica');
      await superuser.query(`UPDATE accounts SET balance = 11 WHERE kind = 'USER'`);
      expect(await breachesIn(victim)).to.deep.equal([
        { invariant: 'a balance is the sum of its entries', breaches: 1n },
      ]);
      await superuser.query('UPDATE entries SET amount = 11 WHERE amount > 0');
      const found = await breachesIn(victim);
      expect(found).to.deep.include({ invariant: 'all entries of a currency sum to zero', breaches: 1n });
      expect(found).to.have.lengthOf(2);
    } finally {
      await superuser.end();
      await victim.close();
      await broken.drop();
    }
  });

  it('fails with DEPENDENCY_UNAVAILABLE before its database is ready', async () => {
    const migrations = new URL('../../../services/payment/migrations/', import.meta.url);
    const database = openDatabase({ url: instance.url, migrations, log: silentLog });
    const refusal = await rejectionOf(createStore(database).findAccount(account, 'alice'));
    expect(refusal).to.include({ code: 'DEPENDENCY_UNAVAILABLE' });
    await database.close();
  });
});

/** Leaves a purchase whose outcome is unknown: a payment with a hold. */
async function leaveHold({ checkout }: Instance, accountId: string): Promise<void> {
  const warehouse = new Warehouse();
  warehouse.stock('LAMP', { minorUnits: 10n, currencyCode: 'EUR' });
  warehouse.trouble = failing('commit', 'before');
  const order = { accountId, lines: [{ sku: 'LAMP', quantity: 1n }], requestId: 'buy' };
  const buying = checkout.checkout(order, buyerOf('owner', warehouse.for('owner')));
  if ((await codeOf(buying)) !== 'DEPENDENCY_UNAVAILABLE') throw new Error('the purchase should be open');
}
