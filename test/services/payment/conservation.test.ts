/** Money is conserved at every moment, whatever runs at the same time and whatever fails. */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import fc from 'fast-check';
import { ServiceError } from '../../../interceptors/errors.js';
import { type FreshDatabase, freshDatabase } from '../../support/postgres.js';
import {
  accountWith,
  breachesIn,
  buyerOf,
  checkoutOver,
  type Instance,
  olga,
  openInstance,
} from './instance.js';
import { Warehouse, type WarehouseMethod } from './warehouse.js';

const PRICE = 100n;
const euros = (minorUnits: bigint) => ({ minorUnits, currencyCode: 'EUR' });
const METHODS: readonly WarehouseMethod[] = ['reserve', 'commit', 'release'];

interface Totals {
  readonly owned: bigint;
  readonly held: bigint;
  readonly deposited: bigint;
  readonly sales: bigint;
}

describe('money of payment', () => {
  let fresh: FreshDatabase;
  let instance: Instance;

  beforeEach(async () => {
    fresh = await freshDatabase();
    instance = await openInstance(fresh.url);
  });
  afterEach(async () => {
    await instance.close();
    await fresh.drop();
  });

  /** What all accounts come to, read in one snapshot. */
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
      throw new ServiceError('DEPENDENCY_UNAVAILABLE', `lost ${moment} the effect`);
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

  it('follows a simple model through any sequence of operations and troubles', async () => {
    const trouble = fc.constantFrom('none', 'lost', 'unanswered', 'revoked');
    const step = fc.oneof(
      fc.record({ kind: fc.constant('deposit' as const), minorUnits: fc.bigInt({ min: 1n, max: 500n }) }),
      fc.record({
        kind: fc.constant('checkout' as const),
        quantity: fc.bigInt({ min: 1n, max: 4n }),
        trouble,
        at: fc.nat(METHODS.length - 1),
        requestId: fc.constantFrom('a', 'b', 'c', 'd'),
      }),
      fc.record({ kind: fc.constant('resume' as const) }),
      fc.record({ kind: fc.constant('restart' as const) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 12 }), async (steps) => {
        const subject = randomUUID();
        const warehouse = new Warehouse();
        warehouse.stock('LAMP', euros(PRICE), 20n);
        const { accountId } = await accountWith(instance, subject, 0n);
        const times = { attempts: 1, leaseMs: 60_000 };
        let checkout = checkoutOver(instance.store, times);
        let deposited = 0n;

        for (const step of steps) {
          warehouse.trouble = () => {};
          if (step.kind === 'deposit') {
            const request = { accountId, amount: euros(step.minorUnits), requestId: randomUUID() };
            await instance.accounts.deposit(request, olga);
            deposited += step.minorUnits;
          } else if (step.kind === 'resume') {
            await checkout.resumeAbandoned();
          } else if (step.kind === 'restart') {
            checkout = checkoutOver(instance.store, times);
          } else {
            const { quantity, requestId, trouble: kind, at } = step;
            const revoked = kind === 'revoked';
            warehouse.trouble = (method, moment) => {
              if (method !== METHODS[at]) return;
              if ((kind === 'lost' && moment === 'before') || (kind === 'unanswered' && moment === 'after')) {
                throw new ServiceError('DEPENDENCY_UNAVAILABLE', 'no answer');
              }
            };
            const stillAllowed = () => {
              if (revoked) throw new ServiceError('TOKEN_REVOKED', 'the token was revoked');
              return 1_000;
            };
            const buyer = buyerOf(subject, warehouse.for(subject), { stillAllowed });
            const lines = [{ sku: 'LAMP', quantity }];
            await checkout.checkout({ accountId, lines, requestId }, buyer).catch(expectServiceError);
          }
          const { balance, held } = await instance.accounts.get(accountId, olga);
          expect(balance >= held && held >= 0n).to.equal(true);
          await expectRight();
        }

        // The buyer comes back and asks again for what is still open; then goods and money must agree.
        warehouse.trouble = () => {};
        const buyer = buyerOf(subject, warehouse.for(subject));
        const { payments } = await instance.payments.list(
          { pageSize: 200, pageToken: '', filter: '' },
          buyer,
        );
        for (const { state, paymentId, lines } of payments) {
          if (state !== 'PENDING') continue;
          const { rows } = await instance.database.query<{ request_id: string }>(
            'SELECT request_id FROM payments WHERE payment_id = $1',
            [paymentId],
          );
          const { request_id: requestId = '' } = rows[0] ?? {};
          await checkout.checkout({ accountId, lines, requestId }, buyer).catch(expectServiceError);
        }
        const { balance, held } = await instance.accounts.get(accountId, olga);
        const { sold } = warehouse.item('LAMP');
        expect({ balance, held }).to.deep.equal({ balance: deposited - sold * PRICE, held: 0n });
      }),
      { numRuns: 25 },
    );
  });
});

function expectServiceError(error: unknown): void {
  if (!(error instanceof ServiceError)) throw error;
}
