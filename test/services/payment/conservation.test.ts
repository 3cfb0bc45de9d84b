/** Money is conserved at every moment, under concurrent operations and failures. */

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { ServiceError } from '@portcullis/guard/errors';
import { expect } from 'chai';
import { PaymentError } from '../../../services/payment/errors.js';
import { accountWith, breachesIn, buyerOf, type Instance, olga, openFreshInstance } from './instance.js';
import { Warehouse } from './warehouse.js';

const PRICE = 100n;
const euros = (minorUnits: bigint) => ({ minorUnits, currencyCode: 'EUR' });

interface Totals {
  readonly owned: bigint;
  readonly held: bigint;
  readonly deposited: bigint;
  readonly sales: bigint;
}

describe('money of payment', () => {
  let instance: Instance;

  beforeEach(async () => {
    instance = await openFreshInstance();
  });
  afterEach(() => instance.close());

  /** The sums over all accounts, read in one snapshot. */
  async function totals(): Promise<Totals> {
    const { rows } = await instance.database.query<Totals>(
      `SELECT coalesce(sum(balance), 0)::bigint AS owned, coalesce(sum(held), 0)::bigint AS held,
          coalesce((SELECT -sum(amount) FROM entries JOIN accounts USING (account_id) WHERE kind = 'WORLD'), 0)::bigint
            AS deposited,
          coalesce((SELECT sum(amount) FROM entries JOIN accounts USING (account_id) WHERE kind = 'SALES'), 0)::bigint
            AS sales
        FROM accounts WHERE kind = 'USER'`,
    );
    const [row] = rows;
    if (row === undefined) throw new Error('an aggregate has one row');
    return row;
  }

  async function expectRight(): Promise<Totals> {
    expect(await breachesIn(instance)).to.deep.equal([]);
    const now = await totals();
    expect(now.owned + now.sales).to.equal(now.deposited);
    return now;
  }

  it('is conserved under fifty mixed operations at once, at every read of a concurrent checker', async () => {
    const warehouse = new Warehouse();
    warehouse.stock('LAMP', euros(PRICE), 60n);
    let calls = 0;
    // Every seventh request is lost before or after its effect.
    warehouse.trouble = async (_method, moment) => {
      await sleep(1);
      if (++calls % 7 !== 0) return;
      throw new PaymentError('DEPENDENCY_UNAVAILABLE', `lost ${moment} the effect`);
    };
    const users = await Promise.all(
      ['ann', 'ben', 'cid', 'dot', 'eve'].map(async (subject) => {
        const { accountId } = await accountWith(instance, subject, 1_000n);
        return { subject, accountId };
      }),
    );

    let finished = false;
    let checks = 0;
    const checker = (async () => {
      for (; !finished; checks++) await expectRight();
    })();
    const operations = Array.from({ length: 50 }, async (_, index) => {
      const { subject, accountId } = users[index % users.length] ?? { subject: '', accountId: '' };
      for (let round = 0; round < 4; round++) {
        const requestId = randomUUID();
        if (index % 5 === round) {
          await instance.accounts.deposit({ accountId, amount: euros(50n), requestId }, olga);
        } else {
          const lines = [{ sku: 'LAMP', quantity: 1n }];
          const buyer = buyerOf(subject, warehouse.for(subject));
          await instance.checkout.checkout({ accountId, lines, requestId }, buyer).catch(expectServiceError);
        }
      }
    });
    await Promise.all(operations);
    warehouse.trouble = () => {};
    while ((await instance.checkout.resumeAbandoned()) > 0) await expectRight();
    finished = true;
    await checker;

    const { held, sales } = await expectRight();
    expect(checks).to.be.above(5);
    expect(held).to.equal(0n);
    expect(sales).to.equal(warehouse.item('LAMP').sold * PRICE);
    expect(sales > 0n).to.equal(true);
  });

  it('is never spent twice when many checkouts race for the last of it', async () => {
    const warehouse = new Warehouse();
    warehouse.stock('LAMP', euros(PRICE));
    const { accountId } = await accountWith(instance, 'racer', 3n * PRICE);
    const buyer = buyerOf('racer', warehouse.for('racer'));
    const lines = [{ sku: 'LAMP', quantity: 1n }];
    const racing = Array.from({ length: 30 }, () =>
      instance.checkout
        .checkout({ accountId, lines, requestId: randomUUID() }, buyer)
        .then(() => 'CAPTURED')
        .catch((error: ServiceError) => error.code),
    );
    const outcomes = await Promise.all(racing);
    expect(outcomes.filter((outcome) => outcome === 'CAPTURED')).to.have.lengthOf(3);
    expect(outcomes.filter((outcome) => outcome === 'INSUFFICIENT_FUNDS')).to.have.lengthOf(27);
    expect(warehouse.item('LAMP')).to.include({ sold: 3n, reserved: 0n });
    expect(await expectRight()).to.deep.include({ owned: 0n, held: 0n });
  });
});

function expectServiceError(error: unknown): void {
  if (!(error instanceof ServiceError)) throw error;
}
