/** The contract of payment's ports to inventory, run against inventory itself and against the fake of payment's tests. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import type { Inventory, Reservation, Settlement } from '../../../services/payment/inventory-port.js';
import { codeOf } from '../../support/outcomes.js';
import { openInventoryPorts } from './inventory-ports.js';
import { Warehouse } from './warehouse.js';

/** An implementation of the ports, with what the contract needs to set up and observe it. */
interface Subject {
  inventoryOf(userId: string): Inventory;
  readonly settlement: Settlement;
  /** Creates an item with a price of 2.50 EUR. */
  stockUp(sku: string, onHand: bigint): Promise<void>;
  stockOf(sku: string): Promise<{ onHand: bigint; reserved: bigint }>;
  /** Makes a reservation due. */
  runOut(reservationId: string): Promise<void>;
  close(): Promise<void>;
}

const PRICE = { minorUnits: 250n, currencyCode: 'EUR' };

function openFake(): Promise<Subject> {
  const warehouse = new Warehouse();
  return Promise.resolve({
    inventoryOf: (userId) => warehouse.for(userId),
    settlement: Warehouse.settlement,
    stockUp: async (sku, onHand) => warehouse.stock(sku, PRICE, onHand),
    stockOf: async (sku) => {
      const { onHand, reserved } = warehouse.item(sku);
      return { onHand, reserved };
    },
    runOut: async (reservationId) => warehouse.runOut(reservationId),
    close: async () => {},
  });
}

for (const [name, open] of [
  ['inventory itself, over gRPC', () => openInventoryPorts(PRICE)],
  ['the fake', openFake],
] as const) {
  describe(`the ports of payment to inventory: ${name}`, () => {
    let subject: Subject;
    let sku: string;
    let user: string;

    before(async () => {
      subject = await open();
    });
    after(() => subject.close());
    beforeEach(async () => {
      sku = `T-${randomUUID().toUpperCase()}`;
      user = randomUUID();
      await subject.stockUp(sku, 5n);
    });

    function reserve(quantity: bigint, change: { requestId?: string; sku?: string; userId?: string } = {}) {
      const { requestId = randomUUID(), userId = user } = change;
      const lines = [{ sku: change.sku ?? sku, quantity }];
      return subject.inventoryOf(userId).reserve({ lines, timeToLiveSeconds: 60, requestId });
    }
    function settle(
      { reservationId }: Pick<Reservation, 'reservationId'>,
      outcome: 'COMMITTED' | 'RELEASED',
      change: { requestId?: string; userId?: string } = {},
    ) {
      const { requestId = randomUUID(), userId = user } = change;
      const authoriser = {
        subject: userId,
        clientId: 'direct',
        sessionId: undefined,
        tokenId: randomUUID(),
      };
      return subject.settlement.settle({ reservationId, outcome, authoriser, requestId });
    }

    it('reserves units at the present price', async () => {
      const reservation = await reserve(2n);
      expect(reservation.state).to.equal('ACTIVE');
      expect(reservation.lines).to.deep.equal([{ sku, quantity: 2n, unitPrice: PRICE }]);
      expect(await subject.stockOf(sku)).to.deep.equal({ onHand: 5n, reserved: 2n });
    });

    it('reserves all lines or none', async () => {
      const other = `T-${randomUUID().toUpperCase()}`;
      await subject.stockUp(other, 1n);
      const lines = [
        { sku, quantity: 5n },
        { sku: other, quantity: 2n },
      ];
      const request = { lines, timeToLiveSeconds: 60, requestId: randomUUID() };
      expect(await codeOf(subject.inventoryOf(user).reserve(request))).to.equal('INSUFFICIENT_STOCK');
      expect(await subject.stockOf(sku)).to.deep.equal({ onHand: 5n, reserved: 0n });
    });

    it('answers NOT_FOUND for an unknown item', async () => {
      expect(await codeOf(reserve(1n, { sku: `T-${randomUUID().toUpperCase()}` }))).to.equal('NOT_FOUND');
    });

    it('answers FIELD_INVALID for an invalid sku, a quantity of 0, no lines, and an item in two lines', async () => {
      expect(await codeOf(reserve(1n, { sku: 'not a sku' }))).to.equal('FIELD_INVALID');
      expect(await codeOf(reserve(0n))).to.equal('FIELD_INVALID');
      const line = { sku, quantity: 1n };
      for (const lines of [[], [line, line]]) {
        const request = { lines, timeToLiveSeconds: 60, requestId: randomUUID() };
        expect(await codeOf(subject.inventoryOf(user).reserve(request))).to.equal('FIELD_INVALID');
      }
    });

    it('returns the first response to a repeated reservation, also after it has ended', async () => {
      const requestId = randomUUID();
      const first = await reserve(2n, { requestId });
      expect(await reserve(2n, { requestId })).to.deep.equal(first);
      await settle(first, 'COMMITTED');
      expect(await reserve(2n, { requestId })).to.deep.equal(first);
      expect(await subject.stockOf(sku)).to.deep.equal({ onHand: 3n, reserved: 0n });
    });

    it('rejects a request id that was used with another order, and keeps those of two users apart', async () => {
      const requestId = randomUUID();
      const first = await reserve(1n, { requestId });
      expect(await codeOf(reserve(2n, { requestId }))).to.equal('DEPENDENCY_UNAVAILABLE');
      const other = await reserve(2n, { requestId, userId: randomUUID() });
      expect(other.reservationId).to.not.equal(first.reservationId);
    });

    it('takes committed units out of the stock', async () => {
      const reservation = await reserve(2n);
      expect((await settle(reservation, 'COMMITTED')).state).to.equal('COMMITTED');
      expect(await subject.stockOf(sku)).to.deep.equal({ onHand: 3n, reserved: 0n });
    });

    it('makes released units available again', async () => {
      const reservation = await reserve(5n);
      expect((await settle(reservation, 'RELEASED')).state).to.equal('RELEASED');
      expect(await subject.stockOf(sku)).to.deep.equal({ onHand: 5n, reserved: 0n });
      expect((await reserve(5n)).state).to.equal('ACTIVE');
    });

    it('leaves a reservation as it ended, and returns its state', async () => {
      const committed = await reserve(1n);
      await settle(committed, 'COMMITTED');
      expect((await settle(committed, 'RELEASED')).state).to.equal('COMMITTED');
      const released = await reserve(1n);
      await settle(released, 'RELEASED');
      expect((await settle(released, 'COMMITTED')).state).to.equal('RELEASED');
      expect(await subject.stockOf(sku)).to.deep.equal({ onHand: 4n, reserved: 0n });
    });

    it('returns the first response to a repeated settlement', async () => {
      const reservation = await reserve(1n);
      const authoriser = { subject: user, clientId: 'direct', sessionId: undefined, tokenId: randomUUID() };
      const { reservationId } = reservation;
      const request = { reservationId, outcome: 'COMMITTED', authoriser, requestId: randomUUID() } as const;
      const first = await subject.settlement.settle(request);
      expect(first.state).to.equal('COMMITTED');
      expect(await subject.settlement.settle(request)).to.deep.equal(first);
      expect(await subject.stockOf(sku)).to.deep.equal({ onHand: 4n, reserved: 0n });
    });

    it('expires a reservation that is due, whatever outcome is asked for', async () => {
      for (const outcome of ['COMMITTED', 'RELEASED'] as const) {
        const reservation = await reserve(2n);
        await subject.runOut(reservation.reservationId);
        expect((await settle(reservation, outcome)).state).to.equal('EXPIRED');
        expect(await subject.stockOf(sku)).to.deep.equal({ onHand: 5n, reserved: 0n });
      }
    });

    it('reserves units of reservations that are due', async () => {
      const first = await reserve(5n);
      await subject.runOut(first.reservationId);
      expect((await reserve(5n)).state).to.equal('ACTIVE');
    });

    it('answers NOT_FOUND for a missing reservation and for another user’s', async () => {
      expect(await codeOf(settle({ reservationId: randomUUID() }, 'RELEASED'))).to.equal('NOT_FOUND');
      const reservation = await reserve(1n);
      const foreign = settle(reservation, 'COMMITTED', { userId: randomUUID() });
      expect(await codeOf(foreign)).to.equal('NOT_FOUND');
      expect(await subject.stockOf(sku)).to.deep.equal({ onHand: 5n, reserved: 1n });
    });
  });
}
