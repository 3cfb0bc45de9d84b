/** A purchase that was decided is finished by payment itself, when the buyer's token has long expired. */

import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { errorOf } from '../../interceptors/client.js';
import { PaymentState } from '../../proto/gen/payment/v1/payment_service.js';
import { type Failpoint, ORDERS_VARIABLE, type Orders } from '../../scripts/drill/failpoints.js';
import { CURRENCY, openShop, type Shop, type Shopper } from '../../scripts/drill/shop.js';
import { ask } from '../../scripts/system/calls.js';
import { rejectionOf } from '../support/rejection.js';

const TOKEN_SECONDS = 10;
const SKEW_SECONDS = 5;
const PRICE = 300n;
const BALANCE = 1_000n;

describe('a checkout whose process was killed', function () {
  this.timeout(120_000);
  const files = { orders: '', marker: '' };
  let shop: Shop;

  before(async () => {
    shop = await openShop({
      customers: 2,
      accessTokenSeconds: TOKEN_SECONDS,
      paymentProgram: (dataDir) => {
        Object.assign(files, { orders: join(dataDir, 'orders.json'), marker: join(dataDir, 'reached') });
        const script = join('scripts', 'drill', 'mortal-payment.ts');
        return { script, environment: { [ORDERS_VARIABLE]: files.orders } };
      },
      prepare: () => order(1, undefined),
      signal: new AbortController().signal,
      onProgress: () => {},
    });
    await shop.stockUp('LAMP', PRICE, 10n);
  });
  after(() => shop?.stop());

  async function order(number: number, failpoint: Failpoint | undefined): Promise<void> {
    const orders: Orders = { number, failpoint, skip: 0, victim: 'self', marker: files.marker };
    await writeFile(files.orders, JSON.stringify(orders));
  }

  it('after the goods were handed out, or before, is finished or undone after the token has expired', async () => {
    const { payment, inventory } = shop.clients;
    const dead = shop.system.payment;
    const customers: Shopper[] = [];
    for (const customer of shop.customers) customers.push(await shop.admit(customer, BALANCE));
    for (const [index, failpoint] of (['hand-out:after', 'held:after'] as const).entries()) {
      const shopper = customers[index];
      if (shopper === undefined) throw new Error('there are two customers');
      const { accountId } = shopper;
      const token = await shop.logIn(shopper);
      await order(2 + 2 * index, failpoint);
      const lines = [{ sku: 'LAMP', quantity: 2n }];
      const buying = ask(payment.checkout.bind(payment), { accountId, lines, requestId: 'buy' }, { token });
      expect(errorOf(await rejectionOf(buying)).reason).to.equal('');
      await dead.ended();
      expect(existsSync(files.marker)).to.equal(true);
      await order(3 + 2 * index, undefined);
      // While no process of payment is there, the token runs out, and so does everything made from it.
      await sleep((TOKEN_SECONDS + SKEW_SECONDS) * 1_000 + 500);
      const page = { pageSize: 1, pageToken: '', filter: '' };
      const read = ask(inventory[0].listItems.bind(inventory[0]), page, { token });
      expect(errorOf(await rejectionOf(read)).reason).to.equal('TOKEN_EXPIRED');
      await dead.restart();
    }

    const [decided, undecided] = customers;
    if (decided === undefined || undecided === undefined) throw new Error('there are two customers');
    const stateOf = async (shopper: typeof decided) => {
      const token = await shop.logIn(shopper);
      const page = { pageSize: 1, pageToken: '', filter: 'state != PENDING' };
      const { payments } = await ask(payment.listPayments.bind(payment), page, { token });
      const { account } = await ask(
        payment.getAccount.bind(payment),
        { accountId: shopper.accountId },
        { token },
      );
      return { state: payments[0]?.state, balance: account?.balance, held: account?.held?.minorUnits };
    };
    const money = (minorUnits: bigint) => ({ minorUnits, currencyCode: CURRENCY });
    await until(async () => (await stateOf(decided)).state !== undefined);
    expect(await stateOf(decided)).to.deep.equal({
      ...{ state: PaymentState.PAYMENT_STATE_CAPTURED, balance: money(BALANCE - 2n * PRICE), held: 0n },
    });
    await until(async () => (await stateOf(undecided)).state !== undefined);
    expect(await stateOf(undecided)).to.deep.equal({
      ...{ state: PaymentState.PAYMENT_STATE_FAILED, balance: money(BALANCE), held: 0n },
    });
    const token = await shop.logIn(shop.system.users.olga);
    const [one] = inventory;
    const { item } = await ask(one.getItem.bind(one), { sku: 'LAMP' }, { token });
    expect(item).to.include({ onHand: 8n, reserved: 0n });
    const readings = await shop.invariants.read();
    expect(readings.filter(({ breaches }) => breaches > 0)).to.deep.equal([]);
  });
});

async function until(holds: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 200; tries++) {
    if (await holds()) return;
    await sleep(50);
  }
  throw new Error('what was waited for did not happen');
}
