/** Reservations in two instances on a real database: no overselling, exactly one end, access by the owner. */

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { ServiceError } from '@portcullis/guard/errors';
import { expect } from 'chai';
import fc from 'fast-check';
import { payloadOf } from '../../../services/common/validation/request-id.js';
import type { Caller } from '../../../services/inventory/caller.js';
import type { Reservation } from '../../../services/inventory/reservation.js';
import type { SettleReservationRequest } from '../../../services/inventory/reservations.js';
import type { TimeToLive } from '../../../services/inventory/reserve.js';
import type { Item } from '../../../services/inventory/stock.js';
import { codeOf, serviceErrorOf, violatedFieldsOf } from '../../support/outcomes.js';
import {
  alice,
  bob,
  breachesIn,
  type Instance,
  newSku,
  olga,
  openFreshInstance,
  openInstance,
  stockUp,
} from './instance.js';

describe('inventory reservations', () => {
  let one: Instance;
  let other: Instance;
  let url: string;

  before(async () => {
    const fresh = await openFreshInstance();
    one = fresh;
    url = fresh.url;
    other = await openInstance(fresh.url);
  });
  after(async () => {
    await other.close();
    await one.close();
  });

  /** A request to reserve units; each line is `[sku, quantity]`. */
  function order(lines: [string, bigint][], change: { timeToLive?: TimeToLive; requestId?: string } = {}) {
    const all = lines.map(([sku, quantity]) => ({ sku, quantity }));
    return { lines: all, timeToLive: undefined, requestId: randomUUID(), ...change };
  }
  function ending({ reservationId }: Pick<Reservation, 'reservationId'>, requestId: string = randomUUID()) {
    return { reservationId, requestId };
  }
  function reserve(lines: [string, bigint][], caller: Caller = alice): Promise<Reservation> {
    return one.reservations.reserve(order(lines), caller);
  }
  /** Makes a reservation due by the clock of the database. */
  async function runOut({ reservationId }: Reservation): Promise<void> {
    await one.database.query(
      `UPDATE reservations SET create_time = create_time - interval '2 hours',
              expire_time = clock_timestamp() - interval '1 microsecond' WHERE reservation_id = $1`,
      [reservationId],
    );
  }
  async function stockOf(sku: string): Promise<Pick<Item, 'onHand' | 'reserved'>> {
    const { onHand, reserved } = await one.items.get(sku);
    return { onHand, reserved };
  }
  async function historyOf({ reservationId }: Reservation): Promise<string[]> {
    const { rows } = await one.database.query<{ kind: string }>(
      'SELECT kind FROM stock_changes WHERE reservation_id = $1 ORDER BY change_id',
      [reservationId],
    );
    return rows.map(({ kind }) => kind);
  }

  describe('reserveStock()', () => {
    it('reserves units at the current price, in the order of the lines', async () => {
      const [{ sku: a }, { sku: b }] = [
        await stockUp(one, 5n, newSku('B')),
        await stockUp(one, 5n, newSku('A')),
      ];
      const reservation = await reserve([
        [a, 2n],
        [b, 5n],
      ]);
      const unitPrice = { minorUnits: 250n, currencyCode: 'EUR' };
      expect(reservation.lines).to.deep.equal([
        { sku: a, quantity: 2n, unitPrice },
        { sku: b, quantity: 5n, unitPrice },
      ]);
      expect(reservation).to.include({ state: 'ACTIVE', owner: 'alice' });
      expect(reservation.expireTime.getTime() - reservation.createTime.getTime()).to.equal(600_000);
      expect(await stockOf(a)).to.deep.equal({ onHand: 5n, reserved: 2n });
      expect(await stockOf(b)).to.deep.equal({ onHand: 5n, reserved: 5n });
      expect(await other.reservations.get(reservation.reservationId, alice)).to.deep.equal(reservation);
    });

    it('keeps the price of the reservation when the price of the item rises', async () => {
      const { sku } = await stockUp(one, 5n);
      const reservation = await reserve([[sku, 1n]]);
      await one.database.query('UPDATE items SET price_minor = 999 WHERE sku = $1', [sku]);
      const { lines } = await one.reservations.commit(ending(reservation), olga);
      expect(lines[0]?.unitPrice.minorUnits).to.equal(250n);
    });

    it('reserves nothing when one line exceeds the stock', async () => {
      const [{ sku: a }, { sku: b }] = [await stockUp(one, 5n), await stockUp(one, 1n)];
      const error = await serviceErrorOf(
        reserve([
          [a, 5n],
          [b, 2n],
        ]),
      );
      expect(error.code).to.equal('INSUFFICIENT_STOCK');
      expect(error.message).to.equal(`not enough in stock: there are 1 of ${b}`);
      expect(await stockOf(a)).to.deep.equal({ onHand: 5n, reserved: 0n });
    });

    it('reserves nothing when one item is unknown', async () => {
      const { sku } = await stockUp(one, 5n);
      const failing = reserve([
        [sku, 1n],
        [newSku(), 1n],
      ]);
      expect(await codeOf(failing)).to.equal('NOT_FOUND');
      expect(await stockOf(sku)).to.deep.equal({ onHand: 5n, reserved: 0n });
    });

    it('sells 100 units exactly once to 1,000 concurrent buyers of two instances', async () => {
      const { sku } = await stockUp(one, 100n);
      /** Retries as a client does: with this many callers, some find no free database connection in time. */
      const insist = async <T>(work: () => Promise<T>): Promise<T> => {
        for (;;) {
          try {
            return await work();
          } catch (error) {
            if (!(error instanceof ServiceError && error.code === 'DEPENDENCY_UNAVAILABLE')) throw error;
          }
        }
      };
      const outcomes = await Promise.allSettled(
        Array.from({ length: 1_000 }, async (_, index) => {
          const [instance, caller] = [index % 2 === 0 ? one : other, { ...alice, subject: `buyer-${index}` }];
          const request = order([[sku, 1n]]);
          const reservation = await insist(() => instance.reservations.reserve(request, caller));
          const end = ending(reservation);
          return await insist(() => instance.reservations.commit(end, olga));
        }),
      );
      const codes = outcomes.map((outcome) =>
        outcome.status === 'fulfilled' ? 'sold' : outcome.reason.code,
      );
      expect(codes.filter((code) => code === 'sold')).to.have.length(100);
      expect(codes.filter((code) => code === 'INSUFFICIENT_STOCK')).to.have.length(900);
      expect(await stockOf(sku)).to.deep.equal({ onHand: 0n, reserved: 0n });
    });

    it('does not deadlock on lines in opposite orders', async () => {
      const skus = await Promise.all(Array.from({ length: 6 }, async () => (await stockUp(one, 1_000n)).sku));
      const outcomes = await Promise.allSettled(
        Array.from({ length: 60 }, (_, index) => {
          const lines = skus.map((sku): [string, bigint] => [sku, 1n]);
          if (index % 2 === 0) lines.reverse();
          return (index % 3 === 0 ? one : other).reservations.reserve(order(lines), alice);
        }),
      );
      expect(outcomes.filter(({ status }) => status === 'rejected')).to.deep.equal([]);
      for (const sku of skus) expect((await stockOf(sku)).reserved).to.equal(60n);
      const { rows } = await one.database.query<{ deadlocks: bigint }>(
        'SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()',
      );
      expect(rows[0]?.deadlocks).to.equal(0n);
    });

    it('frees the units of expired reservations without waiting for a sweep', async () => {
      const { sku } = await stockUp(one, 3n);
      const held = await reserve([[sku, 3n]], bob);
      expect(await codeOf(reserve([[sku, 1n]]))).to.equal('INSUFFICIENT_STOCK');
      await runOut(held);
      await reserve([[sku, 1n]]);
      expect(await stockOf(sku)).to.deep.equal({ onHand: 3n, reserved: 1n });
      expect(await historyOf(held)).to.deep.equal(['RESERVED', 'EXPIRED']);
    });

    it('returns the first response to a retry, even after the reservation has ended', async () => {
      const { sku } = await stockUp(one, 3n);
      const request = order([[sku, 3n]]);
      const first = await one.reservations.reserve(request, alice);
      await one.reservations.commit(ending(first), olga);
      expect(await other.reservations.reserve(request, alice)).to.deep.equal(first);
      expect(await stockOf(sku)).to.deep.equal({ onHand: 0n, reserved: 0n });
    });

    it('reserves once for a request that two instances receive many times concurrently', async () => {
      const { sku } = await stockUp(one, 100n);
      const request = order([[sku, 1n]]);
      const outcomes = await Promise.allSettled(
        Array.from({ length: 30 }, (_, index) =>
          (index % 2 === 0 ? one : other).reservations.reserve(request, alice),
        ),
      );
      const ids = outcomes.flatMap((outcome) =>
        outcome.status === 'fulfilled' ? [outcome.value.reservationId] : [],
      );
      const codes = outcomes.flatMap((outcome) =>
        outcome.status === 'rejected' ? [outcome.reason.code] : [],
      );
      expect(new Set(ids).size).to.equal(1);
      expect(codes.filter((code) => code !== 'REQUEST_IN_PROGRESS')).to.deep.equal([]);
      expect((await stockOf(sku)).reserved).to.equal(1n);
    });

    it('rejects a request id that was used with other lines or another time to live', async () => {
      const { sku } = await stockUp(one, 100n);
      const request = order([[sku, 1n]]);
      await one.reservations.reserve(request, alice);
      const { requestId } = request;
      for (const changed of [
        order([[sku, 2n]], { requestId }),
        order([[sku, 1n]], { requestId, timeToLive: { seconds: 600n, nanos: 0 } }),
      ]) {
        expect(await codeOf(one.reservations.reserve(changed, alice))).to.equal('REQUEST_ID_REUSED');
      }
      expect((await stockOf(sku)).reserved).to.equal(1n);
    });

    it('treats the same request id of two users as two requests', async () => {
      const { sku } = await stockUp(one, 100n);
      const request = order([[sku, 1n]]);
      const [first, second] = [
        await one.reservations.reserve(request, alice),
        await one.reservations.reserve(request, bob),
      ];
      expect(first.reservationId).not.to.equal(second.reservationId);
      expect(second.owner).to.equal('bob');
    });

    const A = 'A-GOOD-SKU';
    const ttl = (seconds: bigint, nanos = 0) => ({ timeToLive: { seconds, nanos } });
    const many = (count: number) =>
      Array.from({ length: count }, (_, index): [string, bigint] => [`${A}-${index}`, 1n]);
    const bad: [string, ReturnType<typeof order>, string[]][] = [
      ['no line', order([]), ['lines']],
      ['51 lines', order(many(51)), ['lines']],
      ['100,000 lines', order(many(100_000)), ['lines']],
      ['a quantity of 0', order([[A, 0n]]), ['lines[0].quantity']],
      ['a negative quantity', order([[A, -1n]]), ['lines[0].quantity']],
      ['a quantity of 1,000,001', order([[A, 1_000_001n]]), ['lines[0].quantity']],
      ['a quantity of int64 max', order([[A, 2n ** 63n - 1n]]), ['lines[0].quantity']],
      ['a quantity of int64 min', order([[A, -(2n ** 63n)]]), ['lines[0].quantity']],
      [
        'a sku twice',
        order([
          [A, 1n],
          ['B', 1n],
          [A, 1n],
        ]),
        ['lines[2].sku'],
      ],
      ['a bad sku', order([['a', 1n]]), ['lines[0].sku']],
      ['a sku with NUL', order([['A\0', 1n]]), ['lines[0].sku']],
      ['a time to live of 0', order([[A, 1n]], ttl(0n)), ['time_to_live']],
      ['a time to live just below a second', order([[A, 1n]], ttl(0n, 999_999_999)), ['time_to_live']],
      ['a time to live just above an hour', order([[A, 1n]], ttl(3600n, 1)), ['time_to_live']],
      ['a negative time to live', order([[A, 1n]], ttl(-1n)), ['time_to_live']],
      ['a time to live of int64 max', order([[A, 1n]], ttl(2n ** 63n - 1n)), ['time_to_live']],
      ['a time to live with negative nanos', order([[A, 1n]], ttl(2n, -1)), ['time_to_live']],
      ['a time to live with too many nanos', order([[A, 1n]], ttl(2n, 1_000_000_000)), ['time_to_live']],
      ['no request id', order([[A, 1n]], { requestId: '' }), ['request_id']],
      ['a long request id', order([[A, 1n]], { requestId: 'x'.repeat(256) }), ['request_id']],
      [
        'everything wrong at once',
        order(
          [
            ['', 0n],
            ['', 0n],
          ],
          { requestId: '\uFFFD', ...ttl(0n) },
        ),
        [
          'lines[0].quantity',
          'lines[0].sku',
          'lines[1].quantity',
          'lines[1].sku',
          'lines[1].sku',
          'request_id',
          'time_to_live',
        ],
      ],
    ];
    for (const [what, request, fields] of bad) {
      it(`rejects ${what}`, async () => {
        expect(await violatedFieldsOf(one.reservations.reserve(request, alice))).to.deep.equal(fields);
      });
    }

    it('reports a bounded number of violations', async () => {
      const lines = Array.from({ length: 50 }, (): [string, bigint] => ['', 0n]);
      expect(await violatedFieldsOf(one.reservations.reserve(order(lines), alice))).to.have.length(25);
    });

    it('accepts 50 lines of 1,000,000 units for one hour', async () => {
      const skus = await Promise.all(
        Array.from({ length: 50 }, async () => (await stockUp(one, 1_000_000n)).sku),
      );
      const lines = skus.map((sku): [string, bigint] => [sku, 1_000_000n]);
      const reservation = await one.reservations.reserve(order(lines, ttl(3600n)), alice);
      expect(reservation.lines.map(({ sku }) => sku)).to.deep.equal(skus);
      await one.reservations.release(ending(reservation), alice);
    });
  });

  describe('commitReservation() and releaseReservation()', () => {
    it('removes committed units from the stock', async () => {
      const { sku } = await stockUp(one, 5n);
      const reservation = await reserve([[sku, 2n]]);
      const committed = await one.reservations.commit(ending(reservation), olga);
      expect(committed).to.deep.equal({ ...reservation, state: 'COMMITTED' });
      expect(await stockOf(sku)).to.deep.equal({ onHand: 3n, reserved: 0n });
    });

    it('returns released units to the stock', async () => {
      const { sku } = await stockUp(one, 5n);
      const reservation = await reserve([[sku, 2n]]);
      const released = await one.reservations.release(ending(reservation), alice);
      expect(released).to.deep.equal({ ...reservation, state: 'RELEASED' });
      expect(await stockOf(sku)).to.deep.equal({ onHand: 5n, reserved: 0n });
    });

    const enders = { commit: olga, release: alice } as const;
    for (const name of ['commit', 'release'] as const) {
      const ender = enders[name];
      it(`returns the first response to every further ${name}, with the same request id or another`, async () => {
        const { sku } = await stockUp(one, 5n);
        const reservation = await reserve([[sku, 2n]]);
        const request = ending(reservation);
        const first = await one.reservations[name](request, ender);
        const after = await stockOf(sku);
        expect(await other.reservations[name](request, ender)).to.deep.equal(first);
        expect(await one.reservations[name](ending(reservation), ender)).to.deep.equal(first);
        expect(await stockOf(sku)).to.deep.equal(after);
        expect(await historyOf(reservation)).to.have.length(2);
      });

      it(`returns the same error for a reservation out of reach and for a missing one on ${name}`, async () => {
        const { sku } = await stockUp(one, 5n);
        const reservation = await reserve([[sku, 2n]]);
        const foreign = await serviceErrorOf(one.reservations[name](ending(reservation), bob));
        const missing = await serviceErrorOf(
          one.reservations[name](ending({ reservationId: randomUUID() }), bob),
        );
        const outsider = name === 'commit' ? alice : olga;
        const refused = await serviceErrorOf(one.reservations[name](ending(reservation), outsider));
        for (const error of [foreign, missing, refused]) {
          expect([error.code, error.message]).to.deep.equal(['NOT_FOUND', 'there is no such reservation']);
        }
        expect((await one.reservations.get(reservation.reservationId, alice)).state).to.equal('ACTIVE');
      });

      it(`rejects a ${name} of an expired reservation, and frees its units once`, async () => {
        const { sku } = await stockUp(one, 5n);
        const reservation = await reserve([[sku, 2n]]);
        await runOut(reservation);
        for (const instance of [one, other, one]) {
          expect(await codeOf(instance.reservations[name](ending(reservation), ender))).to.equal(
            'RESERVATION_EXPIRED',
          );
        }
        expect(await stockOf(sku)).to.deep.equal({ onHand: 5n, reserved: 0n });
        expect(await historyOf(reservation)).to.deep.equal(['RESERVED', 'EXPIRED']);
      });

      it(`rejects a ${name} with invalid ids, and reports all violations together`, async () => {
        const failing = one.reservations[name](
          { reservationId: "'; DROP TABLE items", requestId: '' },
          ender,
        );
        expect(await violatedFieldsOf(failing)).to.deep.equal(['request_id', 'reservation_id']);
      });
    }

    it('rejects a commit after a release, and a release after a commit', async () => {
      const { sku } = await stockUp(one, 5n);
      const [first, second] = [await reserve([[sku, 1n]]), await reserve([[sku, 1n]])];
      await one.reservations.release(ending(first), alice);
      await one.reservations.commit(ending(second), olga);
      expect(await codeOf(one.reservations.commit(ending(first), olga))).to.equal('RESERVATION_NOT_ACTIVE');
      expect(await codeOf(one.reservations.release(ending(second), alice))).to.equal(
        'RESERVATION_NOT_ACTIVE',
      );
      expect(await stockOf(sku)).to.deep.equal({ onHand: 4n, reserved: 0n });
    });

    it('carries out exactly one of a concurrent commit and release', async () => {
      const { sku } = await stockUp(one, 40n);
      const reservations = await Promise.all(Array.from({ length: 20 }, () => reserve([[sku, 2n]])));
      let sold = 0n;
      for (const reservation of reservations) {
        const [commit, release] = await Promise.allSettled([
          one.reservations.commit(ending(reservation), olga),
          other.reservations.release(ending(reservation), alice),
        ]);
        expect([commit.status, release.status].sort()).to.deep.equal(['fulfilled', 'rejected']);
        if (commit.status === 'fulfilled') sold += 2n;
        expect(await historyOf(reservation)).to.have.length(2);
      }
      expect(await stockOf(sku)).to.deep.equal({ onHand: 40n - sold, reserved: 0n });
    });

    it('rejects a request id that was used for another reservation', async () => {
      const { sku } = await stockUp(one, 5n);
      const [first, second] = [await reserve([[sku, 1n]]), await reserve([[sku, 1n]])];
      const requestId = randomUUID();
      await one.reservations.commit(ending(first, requestId), olga);
      expect(await codeOf(one.reservations.commit(ending(second, requestId), olga))).to.equal(
        'REQUEST_ID_REUSED',
      );
      expect((await stockOf(sku)).reserved).to.equal(1n);
    });

    it('accepts a reservation id in upper case as the same reservation', async () => {
      const { sku } = await stockUp(one, 5n);
      const reservation = await reserve([[sku, 1n]]);
      const requestId = randomUUID();
      const inCapitals = { reservationId: reservation.reservationId.toUpperCase() };
      const first = await one.reservations.commit(ending(inCapitals, requestId), olga);
      expect(await one.reservations.commit(ending(reservation, requestId), olga)).to.deep.equal(first);
    });
  });

  describe('settleReservation()', () => {
    const SERVICE = 'payment';
    /** Alice, whose request the service makes on her behalf. */
    const through: Caller = { ...alice, actingClient: SERVICE };
    const tokenId = randomUUID();
    const authoriser = { userId: alice.subject, clientId: 'direct', sessionId: randomUUID(), tokenId };
    const settle = (
      reservation: Pick<Reservation, 'reservationId'>,
      change: Partial<SettleReservationRequest> = {},
      service = SERVICE,
    ) =>
      other.reservations.settle(
        {
          ...{ ...ending(reservation), outcome: 'COMMITTED', authoriser },
          ...change,
        },
        service,
      );

    it('commits or releases what the service reserved for the user, and records the authorising token', async () => {
      const { sku } = await stockUp(one, 10n);
      expect((await settle(await reserve([[sku, 2n]], through))).state).to.equal('COMMITTED');
      const given = await reserve([[sku, 3n]], through);
      expect((await settle(given, { outcome: 'RELEASED' })).state).to.equal('RELEASED');
      expect(await stockOf(sku)).to.deep.equal({ onHand: 8n, reserved: 0n });
      const { changes } = await one.items.listChanges({ sku, pageSize: 0, pageToken: '', filter: '' });
      expect(changes.map(({ kind, actor }) => [kind, actor])).to.deep.equal([
        ['RELEASED', { subject: 'alice', actingClient: SERVICE, authorisingToken: tokenId }],
        ['RESERVED', { subject: 'alice', actingClient: SERVICE, authorisingToken: undefined }],
        ['COMMITTED', { subject: 'alice', actingClient: SERVICE, authorisingToken: tokenId }],
        ['RESERVED', { subject: 'alice', actingClient: SERVICE, authorisingToken: undefined }],
        ['CREATED', { subject: 'olga', actingClient: undefined, authorisingToken: undefined }],
      ]);
    });

    it('returns the same NOT_FOUND for reservations of the user itself, of other clients or users, and missing ones', async () => {
      const { sku } = await stockUp(one, 10n);
      const own = await reserve([[sku, 1n]]);
      const throughOther = await reserve([[sku, 1n]], { ...alice, actingClient: 'shop' });
      const ofBob = await reserve([[sku, 1n]], { ...bob, actingClient: SERVICE });
      const missing = { reservationId: randomUUID() };
      const refusals = await Promise.all(
        [own, throughOther, ofBob, missing].flatMap((reservation) =>
          (['COMMITTED', 'RELEASED'] as const).map((outcome) =>
            serviceErrorOf(settle(reservation, { outcome })),
          ),
        ),
      );
      expect(new Set(refusals.map(({ code, message }) => `${code} ${message}`)).size).to.equal(1);
      expect(refusals[0]?.code).to.equal('NOT_FOUND');
      const mine = await reserve([[sku, 1n]], through);
      expect(await codeOf(settle(mine, {}, 'shop'))).to.equal('NOT_FOUND');
      expect(await stockOf(sku)).to.deep.equal({ onHand: 10n, reserved: 4n });
    });

    it('leaves an ended reservation unchanged, and returns its state', async () => {
      const { sku } = await stockUp(one, 10n);
      const [committed, released, expired] = await Promise.all(
        [1, 2, 3].map(() => reserve([[sku, 1n]], through)),
      );
      if (!committed || !released || !expired) throw new Error('three were reserved');
      await one.reservations.commit(ending(committed), { ...through, isOperator: true });
      await one.reservations.release(ending(released), through);
      await runOut(expired);
      expect((await settle(committed, { outcome: 'RELEASED' })).state).to.equal('COMMITTED');
      expect((await settle(released)).state).to.equal('RELEASED');
      expect((await settle(expired)).state).to.equal('EXPIRED');
      expect(await historyOf(expired)).to.deep.equal(['RESERVED', 'EXPIRED']);
      expect(await stockOf(sku)).to.deep.equal({ onHand: 9n, reserved: 0n });
    });

    it('settles once for a request that is sent many times concurrently', async () => {
      const { sku } = await stockUp(one, 10n);
      const reservation = await reserve([[sku, 4n]], through);
      const request = { requestId: randomUUID() };
      const sent = await Promise.allSettled(Array.from({ length: 10 }, () => settle(reservation, request)));
      for (const outcome of sent) {
        if (outcome.status === 'rejected') expect(outcome.reason.code).to.equal('REQUEST_IN_PROGRESS');
      }
      expect((await settle(reservation, request)).state).to.equal('COMMITTED');
      expect(await stockOf(sku)).to.deep.equal({ onHand: 6n, reserved: 0n });
      expect(await codeOf(settle(reservation, { ...request, outcome: 'RELEASED' }))).to.equal(
        'REQUEST_ID_REUSED',
      );
    });

    it('lets the user end a reservation of the service only through the service', async () => {
      const { sku } = await stockUp(one, 10n);
      const reservation = await reserve([[sku, 1n]], through);
      for (const caller of [alice, { ...alice, actingClient: 'shop' }]) {
        const operator = { ...caller, isOperator: true };
        expect(await codeOf(one.reservations.commit(ending(reservation), operator))).to.equal('NOT_FOUND');
        expect(await codeOf(one.reservations.release(ending(reservation), caller))).to.equal('NOT_FOUND');
      }
      expect((await one.reservations.get(reservation.reservationId, alice)).state).to.equal('ACTIVE');
      expect((await one.reservations.release(ending(reservation), through)).state).to.equal('RELEASED');
    });

    it('carries out exactly one of the user’s release and the service’s commit', async () => {
      const { sku } = await stockUp(one, 100n);
      for (let round = 0; round < 10; round++) {
        const reservation = await reserve([[sku, 1n]], through);
        const [released, settled] = await Promise.allSettled([
          one.reservations.release(ending(reservation), through),
          settle(reservation),
        ]);
        if (settled.status === 'rejected') throw settled.reason;
        expect(settled.value.state).to.equal(released.status === 'fulfilled' ? 'RELEASED' : 'COMMITTED');
      }
    });

    it('reports all missing fields together', async () => {
      const nothing = settle(
        { reservationId: '' },
        { outcome: undefined, authoriser: undefined, requestId: '' },
      );
      expect(await violatedFieldsOf(nothing)).to.deep.equal([
        'authoriser.token_id',
        'authoriser.user_id',
        'outcome',
        'request_id',
        'reservation_id',
      ]);
    });
  });

  describe('getReservation()', () => {
    it('returns a reservation to its owner and to operators only', async () => {
      const { sku } = await stockUp(one, 5n);
      const reservation = await reserve([[sku, 1n]]);
      const { reservationId } = reservation;
      expect(await one.reservations.get(reservationId, alice)).to.deep.equal(reservation);
      expect(await one.reservations.get(reservationId, olga)).to.deep.equal(reservation);
      const foreign = await serviceErrorOf(one.reservations.get(reservationId, bob));
      const missing = await serviceErrorOf(one.reservations.get(randomUUID(), bob));
      expect([foreign.code, foreign.message]).to.deep.equal([missing.code, missing.message]);
      expect(foreign.code).to.equal('NOT_FOUND');
    });

    it('returns a due reservation as expired, and frees its units', async () => {
      const { sku } = await stockUp(one, 5n);
      const reservation = await reserve([[sku, 1n]]);
      await runOut(reservation);
      expect((await one.reservations.get(reservation.reservationId, alice)).state).to.equal('EXPIRED');
      expect(await stockOf(sku)).to.deep.equal({ onHand: 5n, reserved: 0n });
    });

    it('rejects an id that is not a UUID', async () => {
      expect(await violatedFieldsOf(one.reservations.get('x\0', alice))).to.deep.equal(['reservation_id']);
    });
  });

  describe('sweepReservations()', () => {
    it('expires a reservation when it is due by the clock of the database, not earlier', async () => {
      const { sku } = await stockUp(one, 5n);
      const request = order([[sku, 5n]], { timeToLive: { seconds: 1n, nanos: 0 } });
      const reservation = await one.reservations.reserve(request, alice);
      await one.reservations.sweep();
      expect((await stockOf(sku)).reserved).to.equal(5n);
      await sleep(1_050);
      expect(await other.reservations.sweep()).to.equal(1);
      expect((await stockOf(sku)).reserved).to.equal(0n);
      expect(await historyOf(reservation)).to.deep.equal(['RESERVED', 'EXPIRED']);
    });

    it('expires each of many reservations exactly once while two sweepers and the owners race', async () => {
      const skus = await Promise.all(Array.from({ length: 3 }, async () => (await stockUp(one, 1_000n)).sku));
      const reservations = await Promise.all(
        Array.from({ length: 90 }, (_, index) => {
          const chosen = skus.filter((_sku, bit) => ((index % 7) + 1) & (1 << bit));
          return reserve(chosen.map((sku): [string, bigint] => [sku, 1n]));
        }),
      );
      for (const reservation of reservations) await runOut(reservation);
      const [first, second, ...touched] = await Promise.all([
        one.reservations.sweep(),
        other.reservations.sweep(),
        ...reservations.slice(0, 10).map((it) => codeOf(one.reservations.commit(ending(it), olga))),
        ...reservations.slice(5, 15).map(async (it) => {
          return (await other.reservations.get(it.reservationId, alice)).state;
        }),
      ]);
      expect(new Set(touched)).to.deep.equal(new Set(['RESERVATION_EXPIRED', 'EXPIRED']));
      expect(Number(first) + Number(second)).to.be.at.most(90);
      await one.reservations.sweep();
      for (const sku of skus) expect(await stockOf(sku)).to.deep.equal({ onHand: 1_000n, reserved: 0n });
      for (const reservation of reservations) {
        const { length } = reservation.lines;
        expect(await historyOf(reservation)).to.have.length(2 * length);
      }
    });

    it('skips a reservation that another transaction has locked', async () => {
      const { sku } = await stockUp(one, 5n);
      const reservation = await reserve([[sku, 5n]]);
      await runOut(reservation);
      const swept = await one.database.transaction(async (sql) => {
        await sql.query('SELECT FROM reservations WHERE reservation_id = $1 FOR UPDATE', [
          reservation.reservationId,
        ]);
        return await other.reservations.sweep();
      });
      expect(swept).to.equal(0);
      expect(await other.reservations.sweep()).to.equal(1);
    });
  });

  describe('payloadOf()', () => {
    it('returns equal payloads only for equal requests', () => {
      const line = fc.tuple(fc.string(), fc.bigInt({ min: 0n, max: 9n }));
      const payload = fc.array(line, { maxLength: 3 });
      const isInjective = fc.property(payload, payload, (a, b) => {
        const isSame =
          a.length === b.length && a.every(([sku, count], i) => sku === b[i]?.[0] && count === b[i]?.[1]);
        expect(payloadOf(a) === payloadOf(b)).to.equal(isSame);
      });
      fc.assert(isInjective, { numRuns: 500 });
    });
  });

  describe('limits of one user', () => {
    const limits = { openMax: 3, sharePercent: 25, secondsMax: 120 };
    let limited: Instance;
    let reached: string[];

    before(async () => {
      reached = [];
      limited = await openInstance(url, { limits, onLimit: (limit) => reached.push(limit) });
    });
    beforeEach(() => {
      reached.length = 0;
    });
    after(() => limited.close());

    const newUser = (change: Partial<Caller> = {}): Caller => ({
      ...alice,
      subject: randomUUID(),
      ...change,
    });
    const reserveAs = (caller: Caller, lines: [string, bigint][]) =>
      limited.reservations.reserve(order(lines), caller);

    it('refuses a share of an item beyond the limit, in one reservation or in several', async () => {
      const { sku } = await stockUp(one, 40n);
      const user = newUser();
      const error = await serviceErrorOf(reserveAs(user, [[sku, 11n]]));
      expect([error.code, error.status]).to.deep.equal(['RESERVATION_LIMIT', 'RESOURCE_EXHAUSTED']);
      expect(error.message).to.equal(`a user may reserve at most 10 of ${sku}`);
      await reserveAs(user, [[sku, 6n]]);
      await reserveAs(user, [[sku, 4n]]);
      expect(await codeOf(reserveAs(user, [[sku, 1n]]))).to.equal('RESERVATION_LIMIT');
      expect(reached).to.deep.equal(['share', 'share']);
      await reserveAs(newUser(), [[sku, 10n]]);
      expect((await stockOf(sku)).reserved).to.equal(20n);
    });

    it('lets a user reserve one unit of an item with little stock', async () => {
      const { sku } = await stockUp(one, 2n);
      const user = newUser();
      await reserveAs(user, [[sku, 1n]]);
      expect(await codeOf(reserveAs(user, [[sku, 1n]]))).to.equal('RESERVATION_LIMIT');
    });

    it('refuses more open reservations than the limit until one is released or expires', async () => {
      const { sku } = await stockUp(one, 1_000n);
      const user = newUser();
      const [first, second] = [await reserveAs(user, [[sku, 1n]]), await reserveAs(user, [[sku, 1n]])];
      await reserveAs(user, [[sku, 1n]]);
      const error = await serviceErrorOf(reserveAs(user, [[sku, 1n]]));
      expect(error.code).to.equal('RESERVATION_LIMIT');
      expect(error.message).to.include('3 active reservations');
      expect(reached).to.deep.equal(['open']);
      await limited.reservations.release(ending(first), user);
      await reserveAs(user, [[sku, 1n]]);
      await runOut(second);
      await reserveAs(user, [[sku, 1n]]);
    });

    it('keeps a concurrent flood of one user within the share of an item', async () => {
      const { sku } = await stockUp(one, 40n);
      const user = newUser();
      const generous = await openInstance(url, { limits: { ...limits, openMax: 1_000 } });
      const sent = await Promise.allSettled(
        Array.from({ length: 30 }, () => generous.reservations.reserve(order([[sku, 1n]]), user)),
      );
      await generous.close();
      const codes = sent.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason.code] : []));
      expect(codes).to.deep.equal(Array(20).fill('RESERVATION_LIMIT'));
      expect((await stockOf(sku)).reserved).to.equal(10n);
    });

    it('does not apply the share to a purchase, and counts it among the open reservations', async () => {
      const { sku } = await stockUp(one, 40n);
      const user = newUser();
      const buying = { ...user, actingClient: 'payment' };
      await reserveAs(buying, [[sku, 30n]]);
      await reserveAs(user, [[sku, 10n]]);
      await reserveAs(buying, [[(await stockUp(one, 1n)).sku, 1n]]);
      expect(await codeOf(reserveAs(buying, [[(await stockUp(one, 1n)).sku, 1n]]))).to.equal(
        'RESERVATION_LIMIT',
      );
    });

    it('refuses a longer time to live than configured, and shortens the default to it', async () => {
      const { sku } = await stockUp(one, 40n);
      const tooLong = limited.reservations.reserve(
        order([[sku, 1n]], { timeToLive: { seconds: 121n, nanos: 0 } }),
        newUser(),
      );
      expect(await violatedFieldsOf(tooLong)).to.deep.equal(['time_to_live']);
      const { createTime, expireTime } = await reserveAs(newUser(), [[sku, 1n]]);
      expect(expireTime.getTime() - createTime.getTime()).to.equal(120_000);
    });
  });

  describe('reservations compared with a model', () => {
    /** The expected state of the service. */
    interface Model {
      onHand: bigint;
      readonly open: { readonly reservation: Reservation; readonly quantity: bigint }[];
    }
    interface Real {
      readonly sku: string;
    }
    const held = ({ open }: Model) => open.reduce((sum, { quantity }) => sum + quantity, 0n);

    class Adjust implements fc.AsyncCommand<Model, Real> {
      readonly #delta: bigint;
      constructor(delta: bigint) {
        this.#delta = delta;
      }
      check = () => true;
      async run(model: Model, { sku }: Real) {
        const request = { sku, delta: this.#delta, reason: 'count', requestId: randomUUID() };
        if (this.#delta === 0n) {
          expect(await codeOf(one.items.adjust(request, olga))).to.equal('FIELD_INVALID');
        } else if (model.onHand + this.#delta < held(model)) {
          expect(await codeOf(one.items.adjust(request, olga))).to.equal('INSUFFICIENT_STOCK');
        } else {
          model.onHand += this.#delta;
          expect((await one.items.adjust(request, olga)).onHand).to.equal(model.onHand);
        }
      }
      toString = () => `adjust ${this.#delta}`;
    }

    class Reserve implements fc.AsyncCommand<Model, Real> {
      readonly #quantity: bigint;
      constructor(quantity: bigint) {
        this.#quantity = quantity;
      }
      check = () => true;
      async run(model: Model, { sku }: Real) {
        const quantity = this.#quantity;
        if (held(model) + quantity > model.onHand) {
          expect(await codeOf(reserve([[sku, quantity]]))).to.equal('INSUFFICIENT_STOCK');
        } else {
          model.open.push({ reservation: await reserve([[sku, quantity]]), quantity });
        }
      }
      toString = () => `reserve ${this.#quantity}`;
    }

    class End implements fc.AsyncCommand<Model, Real> {
      readonly #kind: 'commit' | 'release' | 'expire';
      readonly #index: number;
      constructor(kind: 'commit' | 'release' | 'expire', index: number) {
        this.#kind = kind;
        this.#index = index;
      }
      check = ({ open }: Readonly<Model>) => open.length > 0;
      async run(model: Model) {
        const [ended] = model.open.splice(this.#index % model.open.length, 1);
        if (ended === undefined) return;
        const { reservation, quantity } = ended;
        if (this.#kind === 'commit') {
          await other.reservations.commit(ending(reservation), olga);
          model.onHand -= quantity;
        } else if (this.#kind === 'release') {
          await other.reservations.release(ending(reservation), alice);
        } else {
          await runOut(reservation);
          await other.reservations.sweep();
        }
      }
      toString = () => `${this.#kind} ${this.#index}`;
    }

    it('keeps the stock that the model predicts, after any sequence of calls', async () => {
      const commands = [
        fc.bigInt({ min: -8n, max: 8n }).map((delta) => new Adjust(delta)),
        fc.bigInt({ min: 1n, max: 6n }).map((quantity) => new Reserve(quantity)),
        fc
          .tuple(fc.constantFrom('commit', 'release', 'expire'), fc.nat(9))
          .map(([kind, index]) => new End(kind, index)),
      ];
      const holds = fc.asyncProperty(fc.commands(commands, { maxCommands: 25 }), async (sequence) => {
        const { sku } = await stockUp(one, 10n);
        const model: Model = { onHand: 10n, open: [] };
        await fc.asyncModelRun(() => ({ model, real: { sku } }), sequence);
        expect(await stockOf(sku)).to.deep.equal({ onHand: model.onHand, reserved: held(model) });
      });
      await fc.assert(holds, { numRuns: 20 });
    });
  });

  describe('the database after all these tests', () => {
    it('satisfies every invariant', async () => {
      expect(await breachesIn(one)).to.deep.equal([]);
    });
  });
});
