/** Cancelling pending payments and refunding captured ones: rights, amounts and ledger entries. */

import { randomUUID } from 'node:crypto';
import { serialize } from 'node:v8';
import type { ServiceError } from '@portcullis/guard/errors';
import { expect } from 'chai';
import { MINOR_UNITS_MAX } from '../../../services/common/money.js';
import { PaymentError } from '../../../services/payment/errors.js';
import type { Payment } from '../../../services/payment/payments.js';
import type { Buyer } from '../../../services/payment/saga.js';
import { codeOf, serviceErrorOf, violatedFieldsOf } from '../../support/outcomes.js';
import {
  accountWith,
  breachesIn,
  buyerOf,
  callerOf,
  type Instance,
  olga,
  openFreshInstance,
} from './instance.js';
import { failing, Warehouse } from './warehouse.js';

const PRICE = 250n;
const euros = (minorUnits: bigint) => ({ minorUnits, currencyCode: 'EUR' });
const ALL = { pageSize: 0, pageToken: '', filter: '' };

describe('reversals of payments', () => {
  let instance: Instance;

  before(async () => {
    instance = await openFreshInstance();
  });
  after(() => instance.close());
  afterEach('the books are right', async () => {
    expect(await breachesIn(instance)).to.deep.equal([]);
  });

  interface Scene {
    readonly buyer: Buyer;
    readonly accountId: string;
    readonly warehouse: Warehouse;
  }

  async function scene(balance = 1_000n): Promise<Scene> {
    const subject = randomUUID();
    const warehouse = new Warehouse();
    warehouse.stock('LAMP', euros(PRICE));
    const { accountId } = await accountWith(instance, subject, balance);
    return { buyer: buyerOf(subject, warehouse.for(subject)), accountId, warehouse };
  }
  const buy = ({ accountId, buyer }: Scene, requestId: string = randomUUID(), quantity = 2n) =>
    instance.checkout.checkout({ accountId, lines: [{ sku: 'LAMP', quantity }], requestId }, buyer);
  async function standing({ accountId, warehouse }: Scene) {
    const { balance, held } = await instance.accounts.get(accountId, olga);
    const { sold, reserved } = warehouse.item('LAMP');
    return { balance, held, sold, reserved };
  }
  const refund = (
    { paymentId }: Pick<Payment, 'paymentId'>,
    change: Partial<{ amount: ReturnType<typeof euros>; reason: string; requestId: string }> = {},
  ) => {
    const request = { paymentId, amount: undefined, reason: '', requestId: randomUUID(), ...change };
    return instance.reversals.refund(request, olga);
  };
  const cancel = (paymentId: string, caller = olga, requestId: string = randomUUID()) =>
    instance.reversals.cancel({ paymentId, requestId }, caller);
  const only = async ({ buyer }: Scene): Promise<Payment> => {
    const { payments } = await instance.payments.list(ALL, buyer);
    if (payments[0] === undefined) throw new Error('a payment was expected');
    return payments[0];
  };

  describe('refund()', () => {
    it('refunds the whole payment when no amount is given', async () => {
      const scenery = await scene();
      const bought = await buy(scenery);
      expect(bought.refunded).to.deep.equal(euros(0n));
      const refunded = await refund(bought, { reason: 'broken on arrival' });
      expect(refunded).to.deep.include({ state: 'CAPTURED', amount: euros(500n), refunded: euros(500n) });
      // A refund does not return the goods to the stock.
      expect(await standing(scenery)).to.deep.equal({ balance: 1_000n, held: 0n, sold: 2n, reserved: 0n });
      const { entries } = await instance.accounts.listEntries(
        { accountId: scenery.accountId, ...ALL, filter: 'kind = REFUND' },
        scenery.buyer,
      );
      expect(entries).to.have.lengthOf(1);
      expect(entries[0]).to.deep.include({ amount: euros(500n), paymentId: bought.paymentId });
    });

    it('refunds parts up to the amount of the payment, and rejects more', async () => {
      const bought = await buy(await scene());
      expect((await refund(bought, { amount: euros(200n) })).refunded).to.deep.equal(euros(200n));
      expect(await codeOf(refund(bought, { amount: euros(301n) }))).to.equal('REFUND_EXCEEDS_PAYMENT');
      await refund(bought, { amount: euros(250n) });
      const error = await serviceErrorOf(refund(bought, { amount: euros(51n) }));
      expect(error.message).to.equal('of this payment, 0.50 EUR can still be refunded');
      expect((await refund(bought, { amount: euros(49n) })).refunded).to.deep.equal(euros(499n));
      expect((await refund(bought)).refunded).to.deep.equal(euros(500n));
      expect(await codeOf(refund(bought))).to.equal('REFUND_EXCEEDS_PAYMENT');
      expect(await codeOf(refund(bought, { amount: euros(1n) }))).to.equal('REFUND_EXCEEDS_PAYMENT');
    });

    it('never refunds more than was captured when twenty operators refund concurrently', async () => {
      const scenery = await scene();
      const bought = await buy(scenery);
      const racing = Array.from({ length: 20 }, () => refund(bought, { amount: euros(60n) }).catch(ignore));
      await Promise.all(racing);
      expect(await standing(scenery)).to.deep.include({ balance: 980n });
    });

    it('refunds once for a request that is sent ten times concurrently, and returns the same response', async () => {
      const scenery = await scene();
      const bought = await buy(scenery);
      const request = { amount: euros(100n), requestId: randomUUID() };
      const sent = Array.from({ length: 10 }, () => refund(bought, request).catch(ignore));
      const first = (await Promise.all(sent)).find((answer) => answer !== undefined);
      await refund(bought, { amount: euros(50n) });
      expect(await refund(bought, request)).to.deep.equal(first);
      expect(await standing(scenery)).to.deep.include({ balance: 650n });
      expect(await codeOf(refund(bought, { ...request, amount: euros(101n) }))).to.equal('REQUEST_ID_REUSED');
      expect(await codeOf(refund(bought, { ...request, reason: 'else' }))).to.equal('REQUEST_ID_REUSED');
    });

    it('rejects the refund of a payment that is not captured', async () => {
      const scenery = await scene();
      scenery.warehouse.trouble = failing('commit', 'before');
      await buy(scenery).catch(ignore);
      expect(await codeOf(refund(await only(scenery)))).to.equal('PAYMENT_NOT_CAPTURED');
      scenery.warehouse.trouble = () => {};
      await instance.checkout.resumeAbandoned();
    });

    it('rejects amounts of 0 and below, other currencies and invalid reasons, and moves no money', async () => {
      const scenery = await scene();
      const bought = await buy(scenery);
      for (const minorUnits of [0n, -1n, -(2n ** 63n)]) {
        expect(await violatedFieldsOf(refund(bought, { amount: euros(minorUnits) }))).to.deep.equal([
          'amount.minor_units',
        ]);
      }
      const dollars = { minorUnits: 1n, currencyCode: 'USD' };
      expect(await violatedFieldsOf(refund(bought, { amount: dollars }))).to.deep.equal([
        'amount.currency_code',
      ]);
      const nothing = { minorUnits: 1n, currencyCode: 'EURO' };
      expect(
        await violatedFieldsOf(refund(bought, { amount: nothing, reason: 'a\nb', requestId: '' })),
      ).to.deep.equal(['amount.currency_code', 'reason', 'request_id']);
      expect(await violatedFieldsOf(refund(bought, { reason: 'x'.repeat(201) }))).to.deep.equal(['reason']);
      expect(await violatedFieldsOf(refund({ paymentId: 'none' }))).to.deep.equal(['payment_id']);
      expect(await codeOf(refund({ paymentId: randomUUID() }))).to.equal('NOT_FOUND');
      expect(await standing(scenery)).to.deep.include({ balance: 500n });
    });

    it('rejects a refund that makes a balance exceed an int64', async () => {
      const scenery = await scene();
      const bought = await buy(scenery);
      const amount = euros(MINOR_UNITS_MAX - 500n);
      const deposit = { accountId: scenery.accountId, amount, requestId: randomUUID() };
      await instance.accounts.deposit(deposit, olga);
      expect(await violatedFieldsOf(refund(bought))).to.deep.equal(['amount.minor_units']);
      expect((await standing(scenery)).balance).to.equal(MINOR_UNITS_MAX);
    });

    it('moves no money when the operator is revoked while the transaction runs', async () => {
      const scenery = await scene();
      const { paymentId } = await buy(scenery);
      const stillAllowed = () => {
        throw new PaymentError('TOKEN_REVOKED', 'the token was revoked');
      };
      const request = { paymentId, amount: undefined, reason: '', requestId: randomUUID() };
      const revoked = callerOf('olga', { isOperator: true, stillAllowed });
      expect(await codeOf(instance.reversals.refund(request, revoked))).to.equal('TOKEN_REVOKED');
      expect(await standing(scenery)).to.deep.include({ balance: 500n });
    });

    it('does not change the response to a retried checkout', async () => {
      const scenery = await scene();
      const first = await buy(scenery, 'the same');
      await refund(first, { amount: euros(100n) });
      expect(await buy(scenery, 'the same')).to.deep.equal(first);
      expect((await instance.payments.get(first.paymentId, olga)).refunded).to.deep.equal(euros(100n));
    });

    it('does not change the response that an earlier version stored in the format of V8', async () => {
      const scenery = await scene();
      const first = await buy(scenery, 'the same');
      await instance.database.query(
        'UPDATE payments SET first_answer = $2, first_answer_json = NULL WHERE payment_id = $1',
        [first.paymentId, serialize(first)],
      );
      await refund(first, { amount: euros(100n) });
      expect(await buy(scenery, 'the same')).to.deep.equal(first);
    });
  });

  describe('cancel()', () => {
    /** Begins a checkout that waits in inventory until `letGo` is called. */
    async function buying(scenery: Scene, at: 'before' | 'after') {
      let letGo: () => void = () => {};
      const waiting = new Promise<void>((resolve) => {
        letGo = resolve;
      });
      const arrived = new Promise<void>((resolve) => {
        scenery.warehouse.trouble = (method, moment) => {
          if (method !== 'reserve' || moment !== at) return undefined;
          resolve();
          return waiting;
        };
      });
      const requestId = randomUUID();
      const answer = codeOf(buy(scenery, requestId));
      await arrived;
      const { paymentId } = await only(scenery);
      return { answer, letGo, paymentId, requestId };
    }

    for (const at of ['before', 'after'] as const) {
      it(`cancels a payment that waits for its reservation (${at} its effect), and releases the goods`, async () => {
        const scenery = await scene();
        const { answer, letGo, paymentId, requestId } = await buying(scenery, at);
        const cancelled = await cancel(paymentId, scenery.buyer);
        expect(cancelled).to.deep.include({ state: 'FAILED', failureReason: 'PAYMENT_CANCELLED' });
        letGo();
        expect(await answer).to.equal('PAYMENT_CANCELLED');
        expect(await standing(scenery)).to.deep.equal({ balance: 1_000n, held: 0n, sold: 0n, reserved: 0n });
        expect(await codeOf(buy(scenery, requestId))).to.equal('PAYMENT_CANCELLED');
        expect((await only(scenery)).state).to.equal('FAILED');
      });
    }

    it('cancels a payment whose money is held, as a dead process leaves it', async () => {
      const scenery = await scene();
      const { paymentId } = await leftHeld(scenery);
      expect(await standing(scenery)).to.deep.include({ held: 500n, reserved: 2n });
      await cancel(paymentId, scenery.buyer);
      expect(await standing(scenery)).to.deep.equal({ balance: 1_000n, held: 0n, sold: 0n, reserved: 0n });
    });

    /** Leaves a payment at the step before the decision. */
    async function leftHeld({ buyer, accountId, warehouse }: Scene): Promise<Payment> {
      const reservation = await warehouse
        .for(buyer.subject)
        .reserve({ lines: [{ sku: 'LAMP', quantity: 2n }], timeToLiveSeconds: 60, requestId: randomUUID() });
      const begun = await instance.store.begin(
        {
          accountId,
          lines: [{ sku: 'LAMP', quantity: 2n }],
          requestId: randomUUID(),
          payloadHash: '00',
          worker: randomUUID(),
          caller: buyer,
        },
        60_000,
      );
      if (begun === undefined) throw new Error('a payment was expected');
      return await instance.store.advance(begun.saga, ['reserving'], 60_000, async (books) => {
        await books.hold(begun.saga.paymentId, accountId, 500n);
        return { step: 'held', reservationId: reservation.reservationId, amount: 500n };
      });
    }

    it('rejects a cancellation once the goods may have left', async () => {
      const scenery = await scene();
      scenery.warehouse.trouble = failing('commit', 'before');
      await buy(scenery).catch(ignore);
      const { paymentId } = await only(scenery);
      expect(await codeOf(cancel(paymentId))).to.equal('PAYMENT_NOT_CANCELLABLE');
      scenery.warehouse.trouble = () => {};
      await instance.checkout.resumeAbandoned();
      expect(await codeOf(cancel(paymentId))).to.equal('PAYMENT_NOT_CANCELLABLE');
      expect(await standing(scenery)).to.deep.include({ balance: 500n, held: 0n, sold: 2n });
    });

    it('returns a payment that has failed already unchanged', async () => {
      const scenery = await scene(1n);
      await buy(scenery).catch(ignore);
      const failed = await only(scenery);
      expect(await cancel(failed.paymentId, scenery.buyer)).to.deep.equal(failed);
    });

    it('returns the same response to a retry, and rejects its request id for another payment', async () => {
      const scenery = await scene();
      const { paymentId } = await leftHeld(scenery);
      const first = await cancel(paymentId, scenery.buyer, 'cancel');
      expect(await cancel(paymentId, scenery.buyer, 'cancel')).to.deep.equal(first);
      const { paymentId: other } = await leftHeld(scenery);
      expect(await codeOf(cancel(other, scenery.buyer, 'cancel'))).to.equal('REQUEST_ID_REUSED');
      await cancel(other, olga);
    });

    it('returns the same error for another user’s payment and for a missing one, and lets operators cancel', async () => {
      const scenery = await scene();
      const { paymentId } = await leftHeld(scenery);
      const stranger = callerOf('stranger');
      const refusals = await Promise.all(
        [paymentId, randomUUID()].map((id) =>
          cancel(id, stranger).catch((error: ServiceError) => error.message),
        ),
      );
      expect(new Set(refusals).size).to.equal(1);
      expect(await codeOf(cancel(paymentId, stranger))).to.equal('NOT_FOUND');
      expect(await standing(scenery)).to.deep.include({ held: 500n });
      expect((await cancel(paymentId)).state).to.equal('FAILED');
    });

    it('cancels the payment when the goods cannot be released, and lets their reservation expire', async () => {
      const scenery = await scene();
      const { paymentId } = await leftHeld(scenery);
      scenery.warehouse.trouble = failing('release', 'before');
      expect((await cancel(paymentId)).state).to.equal('FAILED');
      expect(await standing(scenery)).to.deep.include({ balance: 1_000n, held: 0n });
      scenery.warehouse.aheadMs = 61_000;
      expect(scenery.warehouse.count('ACTIVE')).to.equal(0);
    });

    it('carries out exactly one of a concurrent cancellation and checkout', async () => {
      for (let round = 0; round < 10; round++) {
        const scenery = await scene();
        const requestId = randomUUID();
        const buys = buy(scenery, requestId).then(
          ({ state }) => state,
          (error: ServiceError) => error.code,
        );
        const cancels = (async () => {
          for (;;) {
            const { payments } = await instance.payments.list(ALL, scenery.buyer);
            if (payments[0] === undefined) continue;
            return await cancel(payments[0].paymentId).then(
              ({ state }) => state,
              (error: ServiceError) => error.code,
            );
          }
        })();
        const [bought, cancelled] = await Promise.all([buys, cancels]);
        const { balance, held, sold, reserved } = await standing(scenery);
        const won = bought === 'CAPTURED';
        expect([bought, cancelled]).to.deep.equal(
          won ? ['CAPTURED', 'PAYMENT_NOT_CANCELLABLE'] : ['PAYMENT_CANCELLED', 'FAILED'],
        );
        expect({ balance, held, sold, reserved }).to.deep.equal(
          won
            ? { balance: 500n, held: 0n, sold: 2n, reserved: 0n }
            : { balance: 1_000n, held: 0n, sold: 0n, reserved: 0n },
        );
      }
    });
  });

  describe('lists with filters', () => {
    it('returns the matching payments page by page, and rejects the page token of another filter', async () => {
      const scenery = await scene();
      for (const quantity of [1n, 1n, 9n]) await buy(scenery, randomUUID(), quantity).catch(ignore);
      const list = (filter: string, pageToken = '', pageSize = 1) =>
        instance.payments.list({ pageSize, pageToken, filter }, scenery.buyer);
      const first = await list('state = CAPTURED');
      expect(first.payments).to.have.lengthOf(1);
      const second = await list('state = CAPTURED', first.nextPageToken);
      expect(second.payments).to.have.lengthOf(1);
      expect(second.nextPageToken).to.equal('');
      expect(await violatedFieldsOf(list('state = FAILED', first.nextPageToken))).to.deep.equal([
        'page_token',
      ]);
      const failed = await list('failure_reason = "INSUFFICIENT_FUNDS" AND amount.minor_units > 500', '', 50);
      expect(failed.payments.map(({ amount }) => amount)).to.deep.equal([euros(2_250n)]);
      expect((await list('failure_reason != "INSUFFICIENT_FUNDS"', '', 50)).payments).to.have.lengthOf(2);
      const future = await list('create_time > "2999-01-01T00:00:00Z"', '', 50);
      expect(future.payments).to.deep.equal([]);
      expect(await violatedFieldsOf(list('user_id = "somebody"'))).to.deep.equal(['filter']);
    });

    it('returns the matching entries', async () => {
      const scenery = await scene();
      const bought = await buy(scenery);
      await refund(bought, { amount: euros(5n) });
      const kinds = async (filter: string) => {
        const request = { accountId: scenery.accountId, ...ALL, filter };
        const { entries } = await instance.accounts.listEntries(request, scenery.buyer);
        return entries.map(({ kind }) => kind);
      };
      expect(await kinds('')).to.deep.equal(['REFUND', 'CAPTURE', 'DEPOSIT']);
      expect(await kinds(`payment_id = "${bought.paymentId}"`)).to.deep.equal(['REFUND', 'CAPTURE']);
      expect(await kinds(`payment_id != "${bought.paymentId}"`)).to.deep.equal(['DEPOSIT']);
      expect(await kinds('amount.minor_units < 0')).to.deep.equal(['CAPTURE']);
      expect(await kinds('kind = DEPOSIT AND create_time < "2999-01-01T00:00:00+01:00"')).to.deep.equal([
        'DEPOSIT',
      ]);
    });
  });
});

function ignore(): undefined {}
