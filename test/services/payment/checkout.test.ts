/** Checkout: responses to the buyer; never a charge without goods, never goods without a charge. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { MINOR_UNITS_MAX } from '../../../services/common/money.js';
import type { Checkout } from '../../../services/payment/checkout.js';
import { PaymentError } from '../../../services/payment/errors.js';
import type { Inventory, Settlement } from '../../../services/payment/inventory-port.js';
import type { Buyer, CheckoutStore } from '../../../services/payment/saga.js';
import { codeOf, serviceErrorOf, violatedFieldsOf } from '../../support/outcomes.js';
import {
  accountWith,
  breachesIn,
  buyerOf,
  callerOf,
  checkoutOver,
  type Instance,
  olga,
  openFreshInstance,
} from './instance.js';
import { failing, type Moment, Warehouse, type WarehouseMethod } from './warehouse.js';

const PRICE = 250n;
const euros = (minorUnits: bigint) => ({ minorUnits, currencyCode: 'EUR' });
const lines = (quantity: bigint) => [{ sku: 'LAMP', quantity }];

/** One buyer with an account of 1,000 and a warehouse of its own. */
interface Scene {
  readonly buyer: Buyer;
  readonly accountId: string;
  readonly warehouse: Warehouse;
}

describe('checkout', () => {
  let instance: Instance;

  before(async () => {
    instance = await openFreshInstance();
  });
  after(() => instance.close());
  afterEach('the books are right', async () => {
    expect(await breachesIn(instance)).to.deep.equal([]);
  });

  async function scene(balance = 1_000n): Promise<Scene> {
    const subject = randomUUID();
    const warehouse = new Warehouse();
    warehouse.stock('LAMP', euros(PRICE));
    const { accountId } = await accountWith(instance, subject, balance);
    return { buyer: buyerOf(subject, warehouse.for(subject)), accountId, warehouse };
  }

  async function standing({ accountId, buyer, warehouse }: Scene) {
    const { balance, held } = await instance.accounts.get(accountId, olga);
    const { payments } = await instance.payments.list({ pageSize: 0, pageToken: '', filter: '' }, buyer);
    const { sold, reserved } = warehouse.item('LAMP');
    const states = payments.map(({ state, failureReason }) => failureReason ?? state);
    return { balance, held, sold, reserved, states };
  }

  const buy = (
    { accountId, buyer }: Scene,
    { requestId = randomUUID() as string, quantity = 2n, checkout = instance.checkout } = {},
  ) => checkout.checkout({ accountId, lines: lines(quantity), requestId }, buyer);

  describe('when all goes well', () => {
    it('captures the money and commits the reservation', async () => {
      const scenery = await scene();
      const payment = await buy(scenery);
      expect(payment).to.deep.include({ state: 'CAPTURED', amount: euros(500n), lines: lines(2n) });
      expect(await standing(scenery)).to.deep.equal({
        balance: 500n,
        held: 0n,
        sold: 2n,
        reserved: 0n,
        states: ['CAPTURED'],
      });
      expect(scenery.warehouse.asked).to.deep.equal(['reserve', 'commit']);
    });

    it('writes the capture into the ledger with its payment', async () => {
      const scenery = await scene();
      const { paymentId } = await buy(scenery);
      const page = { accountId: scenery.accountId, pageSize: 1, pageToken: '', filter: '' };
      const { entries } = await instance.accounts.listEntries(page, scenery.buyer);
      expect(entries[0]).to.deep.include({ kind: 'CAPTURE', amount: euros(-500n), paymentId });
    });

    it('charges the price of the reservation, even if the price has changed', async () => {
      const scenery = await scene();
      scenery.warehouse.trouble = (method) => {
        if (method === 'commit') scenery.warehouse.item('LAMP').price = euros(1n);
      };
      expect((await buy(scenery)).amount).to.deep.equal(euros(500n));
      expect(scenery.warehouse.item('LAMP').price).to.deep.equal(euros(1n));
    });

    it('accepts an order for the whole balance', async () => {
      const scenery = await scene(500n);
      await buy(scenery);
      expect((await standing(scenery)).balance).to.equal(0n);
    });
  });

  describe('with an order that cannot be carried out', () => {
    it('reports all invalid fields together, and does not call inventory', async () => {
      const { buyer, warehouse } = await scene();
      const bad = [
        { sku: 'LAMP', quantity: 0n },
        { sku: 'LAMP', quantity: 1_000_001n },
        { sku: 'l\0mp', quantity: -(2n ** 63n) },
      ];
      const order = { accountId: 'mine', lines: bad, requestId: 'x'.repeat(256) };
      expect(await violatedFieldsOf(instance.checkout.checkout(order, buyer))).to.deep.equal([
        'account_id',
        'lines[0].quantity',
        'lines[1].quantity',
        'lines[1].sku',
        'lines[2].quantity',
        'lines[2].sku',
        'request_id',
      ]);
      expect(warehouse.asked).to.deep.equal([]);
    });

    it('rejects an order without lines or with more than fifty', async () => {
      const { buyer, accountId } = await scene();
      for (const count of [0, 51]) {
        const many = Array.from({ length: count }, (_, index) => ({ sku: `S${index}`, quantity: 1n }));
        const order = { accountId, lines: many, requestId: 'many' };
        expect(await violatedFieldsOf(instance.checkout.checkout(order, buyer))).to.deep.equal(['lines']);
      }
    });

    it('rejects payment from another user’s account, even for an operator', async () => {
      const { accountId, warehouse } = await scene();
      for (const caller of [callerOf('thief'), olga]) {
        const thief = { ...caller, inventory: warehouse.for(caller.subject) };
        const order = { accountId, lines: lines(1n), requestId: 'theft' };
        expect(await codeOf(instance.checkout.checkout(order, thief))).to.equal('NOT_FOUND');
      }
      expect(warehouse.asked).to.deep.equal([]);
    });

    const refusals: readonly [string, (scenery: Scene) => Promise<unknown>, string][] = [
      ['an unknown item', (s) => orderOf(s, [{ sku: 'GHOST', quantity: 1n }]), 'NOT_FOUND'],
      ['more than the stock', (s) => buy(s, { quantity: 1_001n }), 'INSUFFICIENT_STOCK'],
      ['more than the balance', (s) => buy(s, { quantity: 5n }), 'INSUFFICIENT_FUNDS'],
    ];
    for (const [what, order, code] of refusals) {
      it(`rejects ${what}, and keeps neither goods nor money`, async () => {
        const scenery = await scene();
        expect(await codeOf(order(scenery))).to.equal(code);
        expect(await standing(scenery)).to.deep.equal({
          balance: 1_000n,
          held: 0n,
          sold: 0n,
          reserved: 0n,
          states: [code],
        });
      });
    }

    it('rejects goods priced in another currency, and releases them', async () => {
      const scenery = await scene();
      scenery.warehouse.stock('IMPORT', { minorUnits: 1n, currencyCode: 'USD' });
      const mixed = [
        { sku: 'LAMP', quantity: 1n },
        { sku: 'IMPORT', quantity: 1n },
      ];
      expect(await violatedFieldsOf(orderOf(scenery, mixed))).to.deep.equal(['lines[1].sku']);
      expect(await standing(scenery)).to.deep.include({
        balance: 1_000n,
        reserved: 0n,
        states: ['FIELD_INVALID'],
      });
      expect(scenery.warehouse.count('RELEASED')).to.equal(1);
    });

    it('rejects a sum that exceeds an int64, and releases the goods', async () => {
      const scenery = await scene();
      scenery.warehouse.stock('PALACE', euros(MINOR_UNITS_MAX), 5n);
      expect(await violatedFieldsOf(orderOf(scenery, [{ sku: 'PALACE', quantity: 2n }]))).to.deep.equal([
        'lines',
      ]);
      expect(scenery.warehouse.count('RELEASED')).to.equal(1);
    });

    function orderOf({ accountId, buyer }: Scene, order: { sku: string; quantity: bigint }[]) {
      return instance.checkout.checkout({ accountId, lines: order, requestId: randomUUID() }, buyer);
    }
  });

  describe('when a request is retried', () => {
    it('returns the same captured payment, and charges once', async () => {
      const scenery = await scene();
      const first = await buy(scenery, { requestId: 'same' });
      expect(await buy(scenery, { requestId: 'same' })).to.deep.equal(first);
      expect(await standing(scenery)).to.deep.include({ balance: 500n, sold: 2n, states: ['CAPTURED'] });
    });

    it('charges once when the account’s id comes in capitals the second time', async () => {
      const scenery = await scene();
      const first = await buy(scenery, { requestId: 'same' });
      const shouted = { ...scenery, accountId: scenery.accountId.toUpperCase() };
      const again = await buy(shouted, { requestId: 'same' });
      expect(again).to.deep.equal(first);
    });

    it('charges once when it is sent at the same moment with its UUID in upper and in lower case', async () => {
      const scenery = await scene();
      const requestId = randomUUID();
      const sent = Array.from({ length: 10 }, (_, index) =>
        buy(scenery, { requestId: index % 2 === 0 ? requestId : requestId.toUpperCase() }),
      );
      await Promise.allSettled(sent);
      expect(await standing(scenery)).to.deep.include({ balance: 500n, sold: 2n, states: ['CAPTURED'] });
    });

    it('stores a UUID in upper case when it was sent so, because instances of the previous version look for that', async () => {
      const scenery = await scene();
      const requestId = randomUUID().toUpperCase();
      const { paymentId } = await buy(scenery, { requestId });
      const stored = 'SELECT FROM payments WHERE payment_id = $1 AND request_id = $2';
      expect((await instance.database.query(stored, [paymentId, requestId])).rowCount).to.equal(1);
      expect((await buy(scenery, { requestId: requestId.toLowerCase() })).paymentId).to.equal(paymentId);
    });

    it('charges once when its UUID was stored in mixed case, as earlier versions stored what was sent', async () => {
      const scenery = await scene();
      const { paymentId } = await buy(scenery, { requestId: randomUUID() });
      const requestId = 'Aa1b2c3d-0000-4000-8000-00000000abCD';
      await instance.database.query('UPDATE payments SET request_id = $1 WHERE payment_id = $2', [
        requestId,
        paymentId,
      ]);
      expect((await buy(scenery, { requestId })).paymentId).to.equal(paymentId);
      expect(await standing(scenery)).to.deep.include({ balance: 500n, sold: 2n, states: ['CAPTURED'] });
    });

    it('returns the same error when the order itself was the cause', async () => {
      const scenery = await scene(1n);
      const first = await serviceErrorOf(buy(scenery, { requestId: 'same' }));
      await instance.accounts.deposit(
        { accountId: scenery.accountId, amount: euros(1_000n), requestId: randomUUID() },
        olga,
      );
      const again = await serviceErrorOf(buy(scenery, { requestId: 'same' }));
      expect(again).to.deep.include({ code: first.code, message: first.message });
      expect((await standing(scenery)).states).to.deep.equal(['INSUFFICIENT_FUNDS']);
    });

    it('rejects another payload with a used request_id, whether the first request succeeded or failed', async () => {
      for (const trouble of [() => {}, failing('reserve', 'before')]) {
        const scenery = await scene();
        scenery.warehouse.trouble = trouble;
        await buy(scenery, { requestId: 'same' }).catch(() => undefined);
        const other = buy(scenery, { requestId: 'same', quantity: 1n });
        expect(await codeOf(other)).to.equal('REQUEST_ID_REUSED');
      }
    });

    it('keeps the requests of two users apart', async () => {
      const [one, two] = [await scene(), await scene()];
      const payments = [await buy(one, { requestId: 'same' }), await buy(two, { requestId: 'same' })];
      expect(new Set(payments.map(({ paymentId }) => paymentId)).size).to.equal(2);
    });

    it('fails with REQUEST_IN_PROGRESS while the first request runs, and charges once', async () => {
      const scenery = await scene();
      const sent = Array.from({ length: 10 }, () => buy(scenery, { requestId: 'same' }));
      const codes = await Promise.all(sent.map((one) => one.then(() => 'OK').catch((error) => error.code)));
      expect(codes).to.include('OK');
      expect(codes.filter((code) => code !== 'OK' && code !== 'REQUEST_IN_PROGRESS')).to.deep.equal([]);
      expect(await standing(scenery)).to.deep.include({ balance: 500n, sold: 2n, states: ['CAPTURED'] });
    });

    it('carries out a request that had failed because inventory was unavailable', async () => {
      const scenery = await scene();
      scenery.warehouse.trouble = failing('reserve', 'before', { times: 3 });
      expect(await codeOf(buy(scenery, { requestId: 'same' }))).to.equal('DEPENDENCY_UNAVAILABLE');
      expect((await buy(scenery, { requestId: 'same' })).state).to.equal('CAPTURED');
      expect(await standing(scenery)).to.deep.include({
        balance: 500n,
        sold: 2n,
        states: ['CAPTURED', 'DEPENDENCY_UNAVAILABLE'],
      });
    });
  });

  describe('when inventory does not answer', () => {
    const moments: readonly [WarehouseMethod, Moment][] = [
      ['reserve', 'before'],
      ['reserve', 'after'],
      ['commit', 'before'],
      ['commit', 'after'],
    ];
    for (const [method, moment] of moments) {
      it(`retries a ${method} that was lost ${moment} its effect, and buys once`, async () => {
        const scenery = await scene();
        scenery.warehouse.trouble = failing(method, moment, { times: 2 });
        expect((await buy(scenery)).state).to.equal('CAPTURED');
        expect(await standing(scenery)).to.deep.equal({
          balance: 500n,
          held: 0n,
          sold: 2n,
          reserved: 0n,
          states: ['CAPTURED'],
        });
      });
    }

    it('charges nothing when the reservation gets no response', async () => {
      const scenery = await scene();
      scenery.warehouse.trouble = failing('reserve', 'after');
      expect(await codeOf(buy(scenery))).to.equal('DEPENDENCY_UNAVAILABLE');
      expect(await standing(scenery)).to.deep.include({ balance: 1_000n, held: 0n, sold: 0n });
      scenery.warehouse.aheadMs = 61_000;
      expect(scenery.warehouse.count('EXPIRED')).to.equal(1);
    });

    for (const moment of ['before', 'after'] as const) {
      it(`keeps the hold while the outcome of the commit is unknown (lost ${moment} its effect)`, async () => {
        const scenery = await scene();
        scenery.warehouse.trouble = failing('commit', moment);
        expect(await codeOf(buy(scenery, { requestId: 'open' }))).to.equal('DEPENDENCY_UNAVAILABLE');
        expect(await standing(scenery)).to.deep.include({ balance: 1_000n, held: 500n, states: ['PENDING'] });

        scenery.warehouse.trouble = () => {};
        expect((await buy(scenery, { requestId: 'open' })).state).to.equal('CAPTURED');
        expect(await standing(scenery)).to.deep.include({ balance: 500n, held: 0n, sold: 2n });
      });

      it(`settles the payment later without the caller, with the recorded authorisation (lost ${moment} its effect)`, async () => {
        const scenery = await scene();
        scenery.warehouse.trouble = failing('commit', moment);
        await buy(scenery).catch(() => undefined);
        scenery.warehouse.trouble = () => {};
        expect(await instance.checkout.resumeAbandoned()).to.equal(1);
        expect(await standing(scenery)).to.deep.include({ balance: 500n, held: 0n, sold: 2n });
      });
    }

    it('releases the hold when the reservation expired before the commit', async () => {
      const scenery = await scene();
      scenery.warehouse.trouble = (method) => {
        if (method === 'commit') scenery.warehouse.aheadMs = 61_000;
      };
      expect(await codeOf(buy(scenery))).to.equal('RESERVATION_EXPIRED');
      expect(await standing(scenery)).to.deep.include({ balance: 1_000n, held: 0n, sold: 0n, reserved: 0n });
    });

    it('charges for goods that left when the response and the request id of the commit were lost', async () => {
      const scenery = await scene();
      const forgetful: Settlement = {
        settle: async (request) => {
          await Warehouse.settlement.settle({ ...request, requestId: randomUUID() });
          return await Warehouse.settlement.settle(request);
        },
      };
      const checkout = checkoutOver(instance.store, {}, forgetful);
      expect((await buy(scenery, { checkout })).state).to.equal('CAPTURED');
      expect(await standing(scenery)).to.deep.include({ balance: 500n, sold: 2n });
    });

    it('keeps the hold when inventory does not know the reservation, as that proves nothing', async () => {
      const scenery = await scene();
      const confused: Settlement = {
        settle: async () => {
          throw new PaymentError('NOT_FOUND', 'there is no such reservation');
        },
      };
      const requestId = randomUUID();
      const checkout = checkoutOver(instance.store, {}, confused);
      expect(await codeOf(buy(scenery, { requestId, checkout }))).to.equal('DEPENDENCY_UNAVAILABLE');
      expect(await standing(scenery)).to.deep.include({ balance: 1_000n, held: 500n, states: ['PENDING'] });
      expect((await buy(scenery, { requestId })).state).to.equal('CAPTURED');
    });

    it('lets the reservation expire when it cannot be released', async () => {
      const scenery = await scene(1n);
      scenery.warehouse.trouble = failing('release', 'before');
      expect(await codeOf(buy(scenery))).to.equal('INSUFFICIENT_FUNDS');
      expect(await standing(scenery)).to.deep.include({ balance: 1n, held: 0n, reserved: 2n });
      scenery.warehouse.aheadMs = 61_000;
      expect(scenery.warehouse.count('EXPIRED')).to.equal(1);
    });
  });

  describe('when the buyer is revoked or disconnects', () => {
    /** Revokes or disconnects the buyer as soon as inventory has reserved. */
    function strike(scenery: Scene, kind: 'revoked' | 'gone'): Scene {
      const gone = new AbortController();
      let revoked = false;
      scenery.warehouse.trouble = (method, moment) => {
        if (method !== 'reserve' || moment !== 'after') return;
        gone.abort();
        revoked = kind === 'revoked';
      };
      const stillAllowed = () => {
        if (revoked) throw new PaymentError('TOKEN_REVOKED', 'the token was revoked');
        return 1_000;
      };
      return { ...scenery, buyer: { ...scenery.buyer, signal: gone.signal, stillAllowed } };
    }

    it('moves no money of a buyer who is revoked during the checkout, and releases the goods', async () => {
      const scenery = strike(await scene(), 'revoked');
      expect(await codeOf(buy(scenery))).to.equal('TOKEN_REVOKED');
      expect(await standing(scenery)).to.deep.equal({
        balance: 1_000n,
        held: 0n,
        sold: 0n,
        reserved: 0n,
        states: ['TOKEN_REVOKED'],
      });
      expect(scenery.warehouse.asked).to.not.include('commit');
    });

    it('moves no money of a buyer who disconnects, and releases the goods', async () => {
      const scenery = strike(await scene(), 'gone');
      await buy(scenery).catch(() => undefined);
      expect(await standing(scenery)).to.deep.equal({
        balance: 1_000n,
        held: 0n,
        sold: 0n,
        reserved: 0n,
        states: ['CANCELLED'],
      });
    });

    it('checks that the buyer is still allowed after the reservation and before the goods leave', async () => {
      const scenery = await scene();
      const seen: object[] = [];
      const stillAllowed = () => {
        seen.push([...scenery.warehouse.asked]);
        return 1_000;
      };
      await buy({ ...scenery, buyer: { ...scenery.buyer, stillAllowed } });
      expect(seen).to.not.deep.equal([]);
      for (const asked of seen) expect(asked).to.deep.equal(['reserve']);
    });

    it('completes once the goods have left, even if the buyer is revoked at that moment', async () => {
      const scenery = await scene();
      const stillAllowed = () => {
        if (!scenery.warehouse.asked.includes('commit')) return 1_000;
        throw new PaymentError('TOKEN_REVOKED', 'the token was revoked');
      };
      const payment = await buy({ ...scenery, buyer: { ...scenery.buyer, stillAllowed } });
      expect(payment.state).to.equal('CAPTURED');
      expect(await standing(scenery)).to.deep.include({ balance: 500n, sold: 2n });
    });
  });

  describe('when the process dies', () => {
    /** Runs one checkout in a process that dies at the given moment; returns whether it got that far. */
    async function dieAt(scenery: Scene, moment: number, requestId: string): Promise<boolean> {
      let passed = 0;
      let died: () => void = () => {};
      const death = new Promise<'died'>((resolve) => {
        died = () => resolve('died');
      });
      const pass = async (): Promise<void> => {
        if (passed++ < moment) return;
        died();
        await new Promise(() => {});
      };
      const mortal = <T>(work: () => Promise<T>): Promise<T> =>
        pass()
          .then(work)
          .then((result) => pass().then(() => result));
      const checkout = mortalCheckout(mortal);
      const inventory = mortalInventory(scenery.buyer.inventory, mortal);
      const running = buy({ ...scenery, buyer: { ...scenery.buyer, inventory } }, { requestId, checkout });
      return (await Promise.race([running, death])) === 'died';
    }

    type Mortal = <T>(work: () => Promise<T>) => Promise<T>;

    function mortalCheckout(mortal: Mortal): Checkout {
      const { store } = instance;
      const settlement: Settlement = {
        settle: (request) => mortal(() => Warehouse.settlement.settle(request)),
      };
      const dying: CheckoutStore = {
        ...store,
        begin: (...rest) => mortal(() => store.begin(...rest)),
        advance: (...rest) => mortal(() => store.advance(...rest)),
      };
      return checkoutOver(dying, { leaseMs: 50 }, settlement);
    }

    function mortalInventory(inventory: Inventory, mortal: Mortal): Inventory {
      return { reserve: (request) => mortal(() => inventory.reserve(request)) };
    }

    async function everyDeath(balance: bigint, visit: (scenery: Scene, requestId: string) => Promise<void>) {
      for (let moment = 0; ; moment++) {
        const scenery = await scene(balance);
        const requestId = randomUUID();
        const died = await dieAt(scenery, moment, requestId).catch(() => false);
        if (!died) return moment;
        expect(await breachesIn(instance)).to.deep.equal([]);
        await new Promise((resolve) => setTimeout(resolve, 60));
        await visit(scenery, requestId);
        expect(await breachesIn(instance)).to.deep.equal([]);
      }
    }

    it('completes the purchase when the buyer retries, wherever the process died', async () => {
      const deaths = await everyDeath(1_000n, async (scenery, requestId) => {
        const payment = await buy(scenery, { requestId });
        expect(payment.state).to.equal('CAPTURED');
        expect(await standing(scenery)).to.deep.include({ balance: 500n, held: 0n, sold: 2n, reserved: 0n });
      });
      expect(deaths).to.equal(14);
    });

    it('completes decided payments and undoes the others without a retry, and accepts the request again later', async () => {
      await everyDeath(1_000n, async (scenery, requestId) => {
        await instance.checkout.resumeAbandoned();
        const { balance, held, sold, states } = await standing(scenery);
        expect(states).to.not.include('PENDING');
        expect({ balance, held }).to.deep.equal({ balance: 1_000n - sold * PRICE, held: 0n });
        expect((await buy(scenery, { requestId })).state).to.equal('CAPTURED');
        expect(await standing(scenery)).to.deep.include({ balance: 500n, held: 0n, sold: 2n });
      });
    });

    it('charges nothing for a purchase that fails, wherever the process died', async () => {
      await everyDeath(100n, async (scenery, requestId) => {
        await instance.checkout.resumeAbandoned();
        await buy(scenery, { requestId }).catch(() => undefined);
        scenery.warehouse.aheadMs = 61_000;
        expect(scenery.warehouse.count('ACTIVE')).to.equal(0);
        expect(await standing(scenery)).to.deep.include({ balance: 100n, held: 0n, sold: 0n, reserved: 0n });
      });
    });

    it('stops a slow process whose payment another process has taken over', async () => {
      const scenery = await scene();
      let wake: () => void = () => {};
      const asleep = new Promise<void>((resolve) => {
        wake = resolve;
      });
      scenery.warehouse.trouble = (method, moment) =>
        method === 'reserve' && moment === 'after' ? asleep : undefined;
      const checkout = checkoutOver(instance.store, { leaseMs: 30 });
      const slow = serviceErrorOf(buy(scenery, { requestId: 'slow', checkout }));
      await new Promise((resolve) => setTimeout(resolve, 100));
      expect(await instance.checkout.resumeAbandoned()).to.equal(1);
      wake();
      // The slow process returns the outcome that the other one recorded; the same request may be retried.
      expect((await slow).code).to.equal('DEPENDENCY_UNAVAILABLE');
      expect(await standing(scenery)).to.deep.include({ balance: 1_000n, held: 0n, states: ['INTERRUPTED'] });
    });
  });

  describe('the payments of a buyer', () => {
    it('are listed newest first, page by page', async () => {
      const scenery = await scene(10_000n);
      const bought: string[] = [];
      for (let count = 0; count < 3; count++) bought.unshift((await buy(scenery)).paymentId);
      const first = await instance.payments.list({ pageSize: 2, pageToken: '', filter: '' }, scenery.buyer);
      const rest = await instance.payments.list(
        { pageSize: 2, pageToken: first.nextPageToken, filter: '' },
        scenery.buyer,
      );
      const listed = [...first.payments, ...rest.payments].map(({ paymentId }) => paymentId);
      expect(listed).to.deep.equal(bought);
      expect(rest.nextPageToken).to.equal('');
    });

    it('are returned to their owner and to operators; for others they fail like missing ones', async () => {
      const scenery = await scene();
      const payment = await buy(scenery);
      expect(await instance.payments.get(payment.paymentId, scenery.buyer)).to.deep.equal(payment);
      expect(await instance.payments.get(payment.paymentId, olga)).to.deep.equal(payment);
      const foreign = await serviceErrorOf(instance.payments.get(payment.paymentId, callerOf('stranger')));
      const missing = await serviceErrorOf(instance.payments.get(randomUUID(), callerOf('stranger')));
      expect(foreign).to.deep.include({ code: 'NOT_FOUND', message: missing.message });
    });
  });
});
