/** Payment compared with a simple model, for any sequence of operations, crashes and faults. */

import { randomUUID } from 'node:crypto';
import { ServiceError } from '@portcullis/guard/errors';
import { expect } from 'chai';
import fc from 'fast-check';
import type { Checkout } from '../../../services/payment/checkout.js';
import { PaymentError } from '../../../services/payment/errors.js';
import type { Payment } from '../../../services/payment/payments.js';
import { codeOf } from '../../support/outcomes.js';
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
import { type Trouble, Warehouse, type WarehouseMethod } from './warehouse.js';

const PRICE = 100n;
const UNITS = 12n;
const euros = (minorUnits: bigint) => ({ minorUnits, currencyCode: 'EUR' });
const RUNS = 40;

/** The expected state of one purchase. */
interface Purchase {
  readonly requestId: string;
  readonly quantity: bigint;
  /** `open` until a response or a restart settles it. */
  state: 'captured' | 'refused' | 'cancelled' | 'open';
  refunded: bigint;
  paymentId: string;
}

/** The expected state of the service. */
interface Model {
  deposited: bigint;
  readonly purchases: Purchase[];
}

interface Real {
  readonly instance: Instance;
  readonly subject: string;
  readonly accountId: string;
  readonly warehouse: Warehouse;
  /** The checkout of the serving process; replaced when the process crashes. */
  checkout: Checkout;
}

const TIMES = { attempts: 1, leaseMs: 40 };

const paid = ({ purchases }: Model) =>
  purchases.reduce((sum, { state, quantity, refunded }) => {
    return state === 'captured' ? sum + quantity * PRICE - refunded : sum;
  }, 0n);
const sold = ({ purchases }: Model) =>
  purchases.reduce((sum, { state, quantity }) => (state === 'captured' ? sum + quantity : sum), 0n);
const isOpen = ({ purchases }: Readonly<Model>) => purchases.some(({ state }) => state === 'open');

/** Compares the service with the model, as far as no purchase is open. */
async function agree(model: Model, { instance, accountId, warehouse }: Real): Promise<void> {
  expect(await breachesIn(instance)).to.deep.equal([]);
  if (isOpen(model)) return;
  const { balance, held } = await instance.accounts.get(accountId, olga);
  const { onHand, reserved } = warehouse.item('LAMP');
  const expected = { balance: model.deposited - paid(model), held: 0n, onHand: UNITS - sold(model) };
  expect({ balance, held, onHand }).to.deep.equal(expected);
  // Reservations whose response was lost expire by themselves.
  expect(reserved <= UNITS).to.equal(true);
}

type Command = fc.AsyncCommand<Model, Real>;

class Deposit implements Command {
  readonly #minorUnits: bigint;
  constructor(minorUnits: bigint) {
    this.#minorUnits = minorUnits;
  }
  check = () => true;
  async run(model: Model, real: Real) {
    const request = { accountId: real.accountId, amount: euros(this.#minorUnits), requestId: randomUUID() };
    const first = await real.instance.accounts.deposit(request, olga);
    expect(await real.instance.accounts.deposit(request, olga)).to.deep.equal(first);
    model.deposited += this.#minorUnits;
    await agree(model, real);
  }
  toString = () => `deposit ${this.#minorUnits}`;
}

/** A new purchase, with or without a fault. */
class Buy implements Command {
  readonly #quantity: bigint;
  readonly #trouble: 'none' | 'lost' | 'unanswered' | 'revoked';
  readonly #at: WarehouseMethod;
  constructor(quantity: bigint, trouble: Buy['trouble'], at: WarehouseMethod) {
    this.#quantity = quantity;
    this.#trouble = trouble;
    this.#at = at;
  }
  get trouble() {
    return this.#trouble;
  }
  check = (model: Readonly<Model>) => !isOpen(model);
  async run(model: Model, real: Real) {
    const requestId = randomUUID();
    const purchase: Purchase = {
      requestId,
      quantity: this.#quantity,
      state: 'open',
      refunded: 0n,
      paymentId: '',
    };
    const money = model.deposited - paid(model);
    // Reservations whose response was lost reduce the free units, too.
    const isAffordable = this.#quantity * PRICE <= money && this.#quantity <= free(real);
    real.warehouse.trouble = this.#troubleIn();
    const outcome = await ask(real, purchase, this.#trouble === 'revoked');
    real.warehouse.trouble = () => {};
    model.purchases.push(purchase);
    purchase.state = outcome === 'captured' ? 'captured' : outcome === 'refused' ? 'refused' : 'open';
    purchase.paymentId = (await latest(real))?.paymentId ?? '';
    if (this.#trouble === 'none') expect(outcome).to.equal(isAffordable ? 'captured' : 'refused');
    if (this.#trouble === 'revoked') expect(outcome).to.not.equal('captured');
    await agree(model, real);
  }
  #troubleIn(): Trouble {
    return (method, moment) => {
      if (method !== this.#at) return;
      const isStruck =
        (this.#trouble === 'lost' && moment === 'before') ||
        (this.#trouble === 'unanswered' && moment === 'after');
      if (isStruck) throw new PaymentError('DEPENDENCY_UNAVAILABLE', 'no answer');
    };
  }
  toString = () => `buy ${this.#quantity}, ${this.#trouble} at ${this.#at}`;
}

/** The process crashes, and the next one ends every open purchase without its buyer. */
class Restart implements Command {
  check = () => true;
  async run(model: Model, real: Real) {
    real.checkout = checkoutOver(real.instance.store, TIMES);
    await new Promise((resolve) => setTimeout(resolve, TIMES.leaseMs + 10));
    while ((await real.checkout.resumeAbandoned()) > 0);
    for (const purchase of model.purchases) {
      if (purchase.state !== 'open') continue;
      const { state } = await real.instance.payments.get(purchase.paymentId, olga);
      expect(state).to.not.equal('PENDING');
      purchase.state = state === 'CAPTURED' ? 'captured' : 'refused';
    }
    await agree(model, real);
  }
  toString = () => 'restart';
}

/** The buyer retries an earlier purchase and receives the same response. */
class Repeat implements Command {
  readonly #index: number;
  constructor(index: number) {
    this.#index = index;
  }
  check = ({ purchases }: Readonly<Model>) => purchases.some(({ state }) => state === 'captured');
  async run(model: Model, real: Real) {
    const bought = model.purchases.filter(({ state }) => state === 'captured');
    const purchase = bought[this.#index % bought.length];
    if (purchase === undefined) return;
    const answer = await buy(real, purchase);
    expect(answer).to.deep.include({ state: 'CAPTURED', refunded: euros(0n) });
    await agree(model, real);
  }
  toString = () => `repeat ${this.#index}`;
}

class Refund implements Command {
  readonly #index: number;
  readonly #minorUnits: bigint;
  constructor(index: number, minorUnits: bigint) {
    this.#index = index;
    this.#minorUnits = minorUnits;
  }
  check = ({ purchases }: Readonly<Model>) => purchases.some(({ state }) => state !== 'open');
  async run(model: Model, real: Real) {
    const ended = model.purchases.filter(({ state, paymentId }) => state !== 'open' && paymentId !== '');
    const purchase = ended[this.#index % ended.length];
    if (purchase === undefined) return;
    const { paymentId, quantity, state } = purchase;
    const amount = euros(this.#minorUnits);
    const request = { paymentId, amount, reason: '', requestId: randomUUID() };
    const refunding = real.instance.reversals.refund(request, olga);
    if (state !== 'captured') {
      expect(await codeOf(refunding)).to.equal('PAYMENT_NOT_CAPTURED');
    } else if (purchase.refunded + this.#minorUnits > quantity * PRICE) {
      expect(await codeOf(refunding)).to.equal('REFUND_EXCEEDS_PAYMENT');
    } else {
      purchase.refunded += this.#minorUnits;
      expect((await refunding).refunded).to.deep.equal(euros(purchase.refunded));
    }
    await agree(model, real);
  }
  toString = () => `refund ${this.#index} ${this.#minorUnits}`;
}

class Cancel implements Command {
  readonly #index: number;
  constructor(index: number) {
    this.#index = index;
  }
  check = ({ purchases }: Readonly<Model>) => purchases.length > 0;
  async run(model: Model, real: Real) {
    const purchase = model.purchases[this.#index % model.purchases.length];
    if (purchase === undefined || purchase.paymentId === '') return;
    const { instance, subject } = real;
    const request = { paymentId: purchase.paymentId, requestId: randomUUID() };
    const cancelling = instance.reversals.cancel(request, callerOf(subject));
    if (purchase.state === 'captured') {
      expect(await codeOf(cancelling)).to.equal('PAYMENT_NOT_CANCELLABLE');
    } else if (purchase.state === 'open') {
      // A payment in the step `committing` cannot be cancelled; an earlier one or a failed one ends as FAILED.
      const outcome = await cancelling.then(
        ({ state }) => state,
        (error: ServiceError) => error.code,
      );
      expect(outcome).to.be.oneOf(['FAILED', 'PAYMENT_NOT_CANCELLABLE']);
      if (outcome === 'FAILED') purchase.state = 'cancelled';
    } else {
      expect((await cancelling).state).to.equal('FAILED');
    }
    await agree(model, real);
  }
  toString = () => `cancel ${this.#index}`;
}

function free({ warehouse }: Real): bigint {
  warehouse.count('ACTIVE');
  const { onHand, reserved } = warehouse.item('LAMP');
  return onHand - reserved;
}

function buy(real: Real, { requestId, quantity }: Purchase, isRevoked = false): Promise<Payment> {
  const { accountId, subject, warehouse } = real;
  const stillAllowed = () => {
    if (isRevoked) throw new PaymentError('TOKEN_REVOKED', 'the token was revoked');
    return 1_000;
  };
  const buyer = buyerOf(subject, warehouse.for(subject), { stillAllowed });
  return real.checkout.checkout({ accountId, lines: [{ sku: 'LAMP', quantity }], requestId }, buyer);
}

/** The outcome for the buyer; `open` when the response leaves it unknown. */
async function ask(
  real: Real,
  purchase: Purchase,
  isRevoked: boolean,
): Promise<'captured' | 'refused' | 'open'> {
  return await buy(real, purchase, isRevoked).then(
    () => 'captured' as const,
    (error: unknown) => {
      if (!(error instanceof ServiceError)) throw error;
      const isOrder = ['INSUFFICIENT_STOCK', 'INSUFFICIENT_FUNDS', 'TOKEN_REVOKED'].includes(error.code);
      return isOrder ? ('refused' as const) : ('open' as const);
    },
  );
}

async function latest({ instance, subject }: Real): Promise<Payment | undefined> {
  const page = { pageSize: 1, pageToken: '', filter: '' };
  return (await instance.payments.list(page, callerOf(subject))).payments[0];
}

describe('payment compared with a model', () => {
  let instance: Instance;

  before(async () => {
    instance = await openFreshInstance();
  });
  after(() => instance.close());

  it('does what the model predicts, in any order, despite crashes and lost responses', async function () {
    this.timeout(120_000);
    const index = fc.nat(9);
    const commands = [
      fc.bigInt({ min: 1n, max: 600n }).map((minorUnits) => new Deposit(minorUnits)),
      fc
        .tuple(
          fc.bigInt({ min: 1n, max: 4n }),
          fc.constantFrom('none', 'none', 'lost', 'unanswered', 'revoked'),
          fc.constantFrom('reserve', 'commit', 'release'),
        )
        .map(([quantity, trouble, at]) => new Buy(quantity, trouble, at)),
      fc.constant(new Restart()),
      index.map((at) => new Repeat(at)),
      fc
        .tuple(index, fc.bigInt({ min: 1n, max: 250n }))
        .map(([at, minorUnits]) => new Refund(at, minorUnits)),
      index.map((at) => new Cancel(at)),
    ];
    const holds = fc.asyncProperty(fc.commands(commands, { maxCommands: 20 }), async (sequence) => {
      const subject = randomUUID();
      const warehouse = new Warehouse();
      warehouse.stock('LAMP', euros(PRICE), UNITS);
      const { accountId } = await accountWith(instance, subject, 0n);
      const real: Real = {
        instance,
        subject,
        accountId,
        warehouse,
        checkout: checkoutOver(instance.store, TIMES),
      };
      const model: Model = { deposited: 0n, purchases: [] };
      await fc.asyncModelRun(() => ({ model, real }), sequence);
      await new Restart().run(model, real);
    });
    await fc.assert(holds, { numRuns: RUNS });
  });
});
