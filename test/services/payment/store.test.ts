/** Claims on payments: one worker at a time, and steps only in order. */
import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import type { NewPayment, Saga, Step } from '../../../services/payment/saga.js';
import { codeOf } from '../../support/outcomes.js';
import { accountWith, callerOf, type Instance, openFreshInstance } from './instance.js';

const LONG_MS = 60_000;

describe('the store of payment', () => {
  let instance: Instance;

  before(async () => {
    instance = await openFreshInstance();
  });
  after(() => instance.close());

  async function begin(leaseMs = LONG_MS): Promise<Saga> {
    const caller = callerOf(randomUUID());
    const { accountId } = await accountWith(instance, caller.subject, 1_000n);
    const payment: NewPayment = {
      accountId,
      lines: [{ sku: 'LAMP', quantity: 1n }],
      requestId: 'buy',
      payloadHash: '00',
      worker: randomUUID(),
      caller,
    };
    const begun = await instance.store.begin(payment, leaseMs);
    if (begun?.isNew !== true) throw new Error('a new payment was expected');
    return begun.saga;
  }

  it('begins one payment for a request that is received many times concurrently', async () => {
    const caller = callerOf(randomUUID());
    const { accountId } = await accountWith(instance, caller.subject, 0n);
    // With all connections open beforehand, the transactions run concurrently.
    await Promise.all(Array.from({ length: 10 }, () => instance.database.query('SELECT pg_sleep(0.1)')));
    for (let round = 0; round < 5; round++) {
      const begun = await Promise.all(
        Array.from({ length: 10 }, () =>
          instance.store.begin(
            {
              accountId,
              lines: [{ sku: 'LAMP', quantity: 1n }],
              requestId: `round ${round}`,
              payloadHash: '00',
              worker: randomUUID(),
              caller,
            },
            LONG_MS,
          ),
        ),
      );
      expect(begun.filter((one) => one?.isNew === true)).to.have.lengthOf(1);
      expect(new Set(begun.map((one) => one?.saga.paymentId)).size).to.equal(1);
    }
  });

  const advance = (saga: Saga, from: readonly Step[], step: Step) =>
    instance.store.advance(saga, from, LONG_MS, async () => ({ step, reservationId: 'r', amount: 1n }));

  it('grants no second claim on a payment while the first lasts', async () => {
    const { paymentId } = await begin();
    expect(await instance.store.claim(paymentId, randomUUID(), LONG_MS)).to.equal(undefined);
    const abandoned = await instance.store.claimAbandoned(100, LONG_MS);
    expect(abandoned.map((saga) => saga.paymentId)).to.not.include(paymentId);
  });

  it('grants an expired claim to exactly one of many workers', async () => {
    const { paymentId } = await begin(0);
    const claims = Array.from({ length: 10 }, () => instance.store.claim(paymentId, randomUUID(), LONG_MS));
    expect((await Promise.all(claims)).filter((claim) => claim !== undefined)).to.have.lengthOf(1);
  });

  it('grants each abandoned payment to one of two instances', async () => {
    const ids = await Promise.all(Array.from({ length: 6 }, async () => (await begin(0)).paymentId));
    const halves = await Promise.all([1, 2].map(() => instance.store.claimAbandoned(100, LONG_MS)));
    const claimed = halves.flat().map(({ paymentId }) => paymentId);
    expect(claimed.filter((id) => ids.includes(id)).sort()).to.deep.equal([...ids].sort());
  });

  it('rejects a step of a worker whose claim another worker has taken over', async () => {
    const first = await begin(0);
    const second = await instance.store.claim(first.paymentId, randomUUID(), LONG_MS);
    if (second === undefined) throw new Error('the claim was over');
    expect(await codeOf(advance(first, ['reserving'], 'reserved'))).to.equal('REQUEST_IN_PROGRESS');
    await instance.store.releaseClaim(first);
    expect(await instance.store.claim(first.paymentId, randomUUID(), LONG_MS)).to.equal(undefined);
    expect((await advance(second, ['reserving'], 'reserved')).step).to.equal('reserved');
  });

  it('rejects a step out of order', async () => {
    const saga = await begin();
    expect(await codeOf(advance(saga, ['reserved', 'held'], 'held'))).to.equal('REQUEST_IN_PROGRESS');
    const reserved = await advance(saga, ['reserving'], 'reserved');
    expect(await codeOf(advance(reserved, ['reserving'], 'reserved'))).to.equal('REQUEST_IN_PROGRESS');
  });

  it('renews the claim with each step', async () => {
    const saga = await begin(0);
    await advance(saga, ['reserving'], 'reserved');
    expect(await instance.store.claim(saga.paymentId, randomUUID(), LONG_MS)).to.equal(undefined);
  });

  it('returns an abandoned payment at committing with the authorisation that decided it', async () => {
    const saga = await begin();
    const { clientId, sessionId, tokenId } = callerOf(saga.userId);
    const held = await instance.store.advance(saga, ['reserving'], LONG_MS, async (books) => {
      await books.hold(saga.paymentId, saga.accountId, 1n);
      return { step: 'held', reservationId: 'r', amount: 1n };
    });
    const allowedBy = { subject: saga.userId, clientId, sessionId, tokenId };
    await instance.store.advance(held, ['held'], 0, async () => ({ step: 'committing', allowedBy }));
    const claimed = await instance.store.claimAbandoned(100, LONG_MS);
    const found = claimed.find(({ paymentId }) => paymentId === saga.paymentId);
    expect(found?.authoriser).to.deep.equal(allowedBy);
  });

  it('records whose authorisation decided a payment, and when', async () => {
    const saga = await begin();
    const decider = { subject: saga.userId, clientId: 'app', sessionId: undefined, tokenId: randomUUID() };
    await instance.store.advance(saga, ['reserving'], LONG_MS, async (books) => {
      await books.hold(saga.paymentId, saga.accountId, 1n);
      return { step: 'committing', reservationId: 'r', amount: 1n, allowedBy: decider };
    });
    const { rows } = await instance.database.query<Record<string, unknown>>(
      'SELECT client_id, session_id, token_id, allowed_time FROM payments WHERE payment_id = $1',
      [saga.paymentId],
    );
    expect(rows[0]).to.deep.include({ client_id: 'app', session_id: null, token_id: decider.tokenId });
    expect(rows[0]?.['allowed_time']).to.be.instanceOf(Date);
  });
});
