/** Payment completes a decided purchase by itself, even after the buyer's token has expired. */

import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { errorOf } from '@portcullis/guard/client';
import { expect } from 'chai';
import { type Failpoint, ORDERS_VARIABLE, type Orders } from '../../proofs/drill/failpoints.js';
import { CURRENCY, openShop, type Shop } from '../../proofs/drill/shop-environment.js';
import { PaymentState } from '../../proto/gen/payment/v1/payment_service.js';
import { ask } from '../../scripts/system/calls.js';
import { rejectionOf } from '../support/outcomes.js';
import { until } from '../support/waiting.js';

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
      customers: 1,
      accessTokenSeconds: TOKEN_SECONDS,
      paymentProgram: (dataDir) => {
        Object.assign(files, { orders: join(dataDir, 'orders.json'), marker: join(dataDir, 'reached') });
        const program = 'proofs/drill/killable-payment';
        return { program, environment: { [ORDERS_VARIABLE]: files.orders } };
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

  it('after the goods left is completed by the next process, although the token has expired', async () => {
    const { payment, inventory } = shop.clients;
    const [customer] = shop.customers;
    if (customer === undefined) throw new Error('there is a customer');
    const { accountId, token } = await shop.admit(customer, BALANCE);
    await order(2, 'hand-out:after');
    const lines = [{ sku: 'LAMP', quantity: 2n }];
    const buying = ask(payment.checkout.bind(payment), { accountId, lines, requestId: 'buy' }, { token });
    expect(errorOf(await rejectionOf(buying)).reason).to.equal('');
    await shop.system.payment.ended();
    expect(existsSync(files.marker)).to.equal(true);
    await order(3, undefined);
    // While no process of payment runs, the token and all tokens derived from it expire.
    await sleep((TOKEN_SECONDS + SKEW_SECONDS) * 1_000 + 500);
    const page = { pageSize: 1, pageToken: '', filter: '' };
    const [one] = inventory;
    const read = ask(one.listItems.bind(one), page, { token });
    expect(errorOf(await rejectionOf(read)).reason).to.equal('TOKEN_EXPIRED');
    await shop.system.payment.restart();

    const later = { token: await shop.logIn(customer) };
    const stateOf = async () => {
      const { payments } = await ask(payment.listPayments.bind(payment), page, later);
      return payments[0]?.state;
    };
    await until(async () => (await stateOf()) !== PaymentState.PAYMENT_STATE_PENDING);
    expect(await stateOf()).to.equal(PaymentState.PAYMENT_STATE_CAPTURED);
    const { account } = await ask(payment.getAccount.bind(payment), { accountId }, later);
    expect(account?.balance).to.deep.equal({ minorUnits: BALANCE - 2n * PRICE, currencyCode: CURRENCY });
    expect(account?.held?.minorUnits).to.equal(0n);
    const { item } = await ask(one.getItem.bind(one), { sku: 'LAMP' }, later);
    expect(item).to.include({ onHand: 8n, reserved: 0n });
    const readings = await shop.invariants.read();
    expect(readings.filter(({ breaches }) => breaches > 0)).to.deep.equal([]);
  });
});
