/** The main job, against real processes: login, reservation, purchase, revocation. */

import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { expect } from 'chai';
import pg from 'pg';
import { ReservationState } from '../../proto/gen/inventory/v1/inventory_service.js';
import { PaymentState } from '../../proto/gen/payment/v1/payment_service.js';
import { RevokeWait } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { ask, tokenMetadata } from '../../scripts/system/calls.js';
import type { System } from '../../scripts/system/system.js';
import { endOf, outcomeOf } from '../support/outcomes.js';
import type { SystemClients } from '../support/system.js';
import { clientsOf, sharedSystem } from '../support/system.js';

const START_TIMEOUT_MS = 120_000;
const SKU = 'LAMP-01';
/** Far longer than a broadcast takes, even on a busy machine. */
const BROADCAST_MS_MAX = 5_000;
const PAGE = { pageSize: 10, pageToken: '', filter: '' };

describe('the main job', () => {
  let system: System;
  let clients: SystemClients;

  before(async function () {
    this.timeout(START_TIMEOUT_MS);
    system = await sharedSystem();
    clients = clientsOf(system);
  });

  after(() => clients?.close());

  it('reserves for the caller: no other customer can read or end the reservation', async () => {
    const [one, two] = clients.inventory;
    const alice = (await clients.logIn('alice')).accessToken;
    const bob = (await clients.logIn('bob')).accessToken;
    const lines = [{ sku: SKU, quantity: 3n }];
    const request = { lines, timeToLive: undefined, requestId: randomUUID() };
    const { reservation } = await ask(one.reserveStock.bind(one), request, { token: alice });
    const reservationId = reservation?.reservationId ?? '';
    expect(reservation?.state).to.equal(ReservationState.RESERVATION_STATE_ACTIVE);
    expect(await outcomeOf(ask(two.getReservation.bind(two), { reservationId }, { token: bob }))).to.equal(
      'NOT_FOUND NOT_FOUND',
    );
    const release = { reservationId, requestId: randomUUID() };
    expect(await outcomeOf(ask(two.releaseReservation.bind(two), release, { token: bob }))).to.equal(
      'NOT_FOUND NOT_FOUND',
    );
    const released = await ask(two.releaseReservation.bind(two), release, { token: alice });
    expect(released.reservation?.state).to.equal(ReservationState.RESERVATION_STATE_RELEASED);
  });

  it('writes the ledger with a database role that cannot change its entries', async () => {
    const client = new pg.Client({ connectionString: system.databases.payment });
    await client.connect();
    try {
      const { rows } = await client.query<{ usename: string; may: boolean }>(
        `SELECT DISTINCT usename, has_table_privilege(usename, 'entries', 'UPDATE, DELETE, TRUNCATE') AS may
           FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'portcullis'`,
      );
      expect(rows).to.deep.equal([{ usename: 'portcullis_payment', may: false }]);
    } finally {
      await client.end();
    }
  });

  it('moves stock and money together, once for each request id', async () => {
    const { payment } = clients;
    const token = (await clients.logIn('alice')).accessToken;
    const accountId = system.accounts?.alice ?? '';
    const before = await picture(accountId, token);
    const request = { accountId, lines: [{ sku: SKU, quantity: 2n }], requestId: randomUUID() };
    const first = await ask(payment.checkout.bind(payment), request, { token });
    const again = await ask(payment.checkout.bind(payment), request, { token });
    expect(first.payment?.state).to.equal(PaymentState.PAYMENT_STATE_CAPTURED);
    expect(again.payment).to.deep.equal(first.payment);
    const after = await picture(accountId, token);
    expect(after.onHand).to.equal(before.onHand - 2n);
    expect(after.reserved).to.equal(before.reserved);
    expect(after.balance).to.equal(before.balance - 2n * before.price);
    const { entries } = await ask(payment.listEntries.bind(payment), { accountId, ...PAGE }, { token });
    expect(entries.filter(({ paymentId }) => paymentId === first.payment?.paymentId)).to.have.length(1);
  });

  it('captures no money without goods, and commits no goods without money', async () => {
    const { payment } = clients;
    const token = (await clients.logIn('bob')).accessToken;
    const accountId = system.accounts?.bob ?? '';
    const before = await picture(accountId, token);
    const buy = (quantity: bigint): Promise<unknown> =>
      ask(
        payment.checkout.bind(payment),
        { accountId, lines: [{ sku: SKU, quantity }], requestId: randomUUID() },
        { token },
      );
    expect(await outcomeOf(buy(100_000n))).to.equal('FAILED_PRECONDITION INSUFFICIENT_STOCK');
    expect(await outcomeOf(buy(20n))).to.equal('FAILED_PRECONDITION INSUFFICIENT_FUNDS');
    expect(await picture(accountId, token)).to.deep.equal(before);
  });

  it('ends live streams and rejects the next call on every instance once a session is revoked', async () => {
    const { accessToken: token, refreshToken, session } = await clients.logIn('alice');
    const olga = (await clients.logIn('olga')).accessToken;
    const bob = (await clients.logIn('bob')).accessToken;
    const streams = clients.inventory.map((client) =>
      client.watchStock({ skus: [SKU], resumeToken: '' }, tokenMetadata({ token })),
    );
    await Promise.all(streams.map((stream) => once(stream, 'data')));
    const bobs = clients.inventory[0].watchStock(
      { skus: [SKU], resumeToken: '' },
      tokenMetadata({ token: bob }),
    );
    await once(bobs, 'data');
    const ends = streams.map(endOf);
    await admittedEverywhere(token);

    await revokeSession(session?.sessionId ?? '', olga);
    const began = performance.now();
    for (const end of ends) expect(await end).to.equal('UNAUTHENTICATED TOKEN_REVOKED');
    while ((await outcomesEverywhere(token)).includes('OK')) {
      expect(performance.now() - began).to.be.below(BROADCAST_MS_MAX);
    }
    expect(performance.now() - began).to.be.below(BROADCAST_MS_MAX);
    for (let round = 0; round < 5; round += 1) {
      expect(new Set(await outcomesEverywhere(token))).to.deep.equal(
        new Set(['UNAUTHENTICATED TOKEN_REVOKED']),
      );
    }

    const refresh = { refreshToken, requestId: randomUUID() };
    expect(await outcomeOf(ask(clients.auth.refresh.bind(clients.auth), refresh))).to.equal(
      'UNAUTHENTICATED REFRESH_INVALID',
    );
    await admittedEverywhere(bob);
    const change = once(bobs, 'data');
    await reserveOne((await clients.logIn('alice')).accessToken);
    await change;
    bobs.on('error', () => undefined);
    bobs.cancel();
  });

  it('rejects a checkout after the session is revoked, and moves nothing', async () => {
    const { accessToken: token, session } = await clients.logIn('alice');
    const olga = (await clients.logIn('olga')).accessToken;
    const accountId = system.accounts?.alice ?? '';
    const buy = (): Promise<unknown> =>
      ask(
        clients.payment.checkout.bind(clients.payment),
        { accountId, lines: [{ sku: SKU, quantity: 1n }], requestId: randomUUID() },
        { token },
      );
    await buy();
    const before = await picture(accountId, (await clients.logIn('alice')).accessToken);
    await revokeSession(session?.sessionId ?? '', olga);
    const began = performance.now();
    while ((await outcomesEverywhere(token)).includes('OK')) {
      expect(performance.now() - began).to.be.below(BROADCAST_MS_MAX);
    }
    expect(await outcomeOf(buy())).to.equal('UNAUTHENTICATED TOKEN_REVOKED');
    expect(await picture(accountId, (await clients.logIn('alice')).accessToken)).to.deep.equal(before);
  });

  it('rejects a caller without the right scope as PERMISSION_DENIED', async () => {
    const token = (await clients.logIn('alice')).accessToken;
    const [one] = clients.inventory;
    const adjust = { sku: SKU, delta: 1n, reason: 'test', requestId: randomUUID() };
    expect(await outcomeOf(ask(one.adjustStock.bind(one), adjust, { token }))).to.equal(
      'PERMISSION_DENIED SCOPE_MISSING',
    );
    expect(await outcomeOf(ask(one.adjustStock.bind(one), adjust))).to.equal('UNAUTHENTICATED TOKEN_MISSING');
  });

  async function picture(accountId: string, token: string) {
    const [one] = clients.inventory;
    const { item } = await ask(one.getItem.bind(one), { sku: SKU }, { token });
    const { account } = await ask(clients.payment.getAccount.bind(clients.payment), { accountId }, { token });
    if (item?.unitPrice === undefined || account?.balance === undefined)
      throw new Error('nothing to compare');
    const { onHand, reserved, unitPrice } = item;
    return {
      onHand,
      reserved,
      price: unitPrice.minorUnits,
      balance: account.balance.minorUnits,
      held: account.held?.minorUnits ?? 0n,
    };
  }

  async function reserveOne(token: string): Promise<void> {
    const [one] = clients.inventory;
    const request = { lines: [{ sku: SKU, quantity: 1n }], timeToLive: undefined, requestId: randomUUID() };
    const { reservation } = await ask(one.reserveStock.bind(one), request, { token });
    const release = { reservationId: reservation?.reservationId ?? '', requestId: randomUUID() };
    await ask(one.releaseReservation.bind(one), release, { token });
  }

  async function revokeSession(sessionId: string, token: string): Promise<void> {
    const request = {
      target: { $case: 'sessionId' as const, value: sessionId },
      reason: 'test',
      wait: RevokeWait.REVOKE_WAIT_NONE,
      targets: [],
      dryRun: false,
      fences: [],
    };
    await ask(clients.revocation.revoke.bind(clients.revocation), request, { token });
  }

  async function outcomesEverywhere(token: string): Promise<string[]> {
    const { inventory, payment, auth } = clients;
    return await Promise.all([
      ...inventory.map((client) => outcomeOf(ask(client.listItems.bind(client), PAGE, { token }))),
      outcomeOf(ask(payment.listPayments.bind(payment), PAGE, { token })),
      outcomeOf(ask(auth.listSessions.bind(auth), PAGE, { token })),
    ]);
  }

  async function admittedEverywhere(token: string): Promise<void> {
    expect(new Set(await outcomesEverywhere(token))).to.deep.equal(new Set(['OK']));
  }
});
