/** InventoryService over a real socket, behind a real guard: the content of messages, and the identity of callers. */

import { randomUUID } from 'node:crypto';
import {
  credentials,
  Metadata,
  type MethodDefinition,
  Server,
  ServerCredentials,
  status,
} from '@grpc/grpc-js';
import { createGuard, type Guard } from '@portcullis/guard';
import { errorOf } from '@portcullis/guard/client';
import { expect } from 'chai';
import { CompactSign } from 'jose';
import {
  type CreateItemRequest,
  InventoryServiceClient,
  InventoryServiceService as methods,
  protoMetadata,
  ReservationState,
  StockChangeKind,
  type WatchStockResponse,
} from '../../../proto/gen/inventory/v1/inventory_service.js';
import { createHandlers } from '../../../services/inventory/handlers.js';
import { ISSUER, TestIssuer } from '../../support/issuer.js';
import { refusalOf } from '../../support/outcomes.js';
import { type Instance, newSku, openFreshInstance } from './instance.js';

const CUSTOMER_SCOPES = 'inventory.read inventory.reserve';
const OTHER_ISSUER = 'https://other.example';
const OTHER_SECRET = Buffer.alloc(32, 's');
const PRICE = { minorUnits: 9_007_199_254_740_993n, currencyCode: 'EUR' };

describe('inventory handlers', () => {
  let instance: Instance;
  let issuer: TestIssuer;
  let guard: Guard;
  let server: Server;
  let client: InventoryServiceClient;
  let olga: Metadata;
  let alice: Metadata;
  let bob: Metadata;

  before(async () => {
    instance = await openFreshInstance();
    issuer = await TestIssuer.create();
    guard = await createGuard({
      log: 'silent',
      issuer: ISSUER,
      audience: 'inventory',
      auth: { source: issuer.source },
      trustedIssuers: [
        {
          issuer: OTHER_ISSUER,
          keys: { legacySecret: OTHER_SECRET },
          types: ['JWT'],
          scopes: { settle: 'inventory.settle' },
        },
      ],
    });
    server = new Server({ interceptors: [guard.interceptor] });
    guard.addService(server, methods, protoMetadata, createHandlers(instance));
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
        error === null ? resolve(bound) : reject(error),
      );
    });
    client = new InventoryServiceClient(`127.0.0.1:${port}`, credentials.createInsecure());
    await guard.ready;
    [olga, alice, bob] = await Promise.all([
      bearerOf({ scope: `${CUSTOMER_SCOPES} inventory.manage`, roles: ['operator'] }),
      bearerOf({ scope: CUSTOMER_SCOPES }),
      bearerOf({ scope: CUSTOMER_SCOPES }),
    ]);
  });
  after(async () => {
    client.close();
    server.forceShutdown();
    await guard.close();
    await instance.close();
  });

  async function bearerOf(claims: Record<string, unknown>): Promise<Metadata> {
    const metadata = new Metadata();
    metadata.set('authorization', `Bearer ${await issuer.token({ aud: ['inventory'], ...claims })}`);
    return metadata;
  }
  /** Calls a unary method as its generated client would. */
  function ask<Request, Response>(
    method: MethodDefinition<Request, Response>,
    request: Request,
    who: Metadata,
  ): Promise<Response> {
    const { path, requestSerialize, responseDeserialize } = method;
    return new Promise((resolve, reject) => {
      client.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        who,
        (error, response) => {
          if (error === null && response !== undefined) resolve(response);
          else reject(error);
        },
      );
    });
  }

  const createItem = (who: Metadata, change: Partial<CreateItemRequest> = {}) => {
    const item = { sku: newSku(), name: 'Lamp', unitPrice: PRICE, onHand: 10n, requestId: randomUUID() };
    return ask(methods.createItem, { ...item, ...change }, who);
  };
  async function newItem(): Promise<string> {
    return (await createItem(olga)).item?.sku ?? '';
  }
  async function reserve(who: Metadata, sku: string, quantity = 3n) {
    const lines = [{ sku, quantity }];
    const timeToLive = { seconds: 90n, nanos: 500_000_000 };
    const request = { lines, timeToLive, requestId: randomUUID() };
    const { reservation } = await ask(methods.reserveStock, request, who);
    if (reservation === undefined) throw new Error('no reservation came');
    return reservation;
  }
  const getItem = (who: Metadata, sku: string) => ask(methods.getItem, { sku }, who);
  const getReservation = (who: Metadata, reservationId: string) =>
    ask(methods.getReservation, { reservationId }, who);
  const commit = (who: Metadata, reservationId: string) =>
    ask(methods.commitReservation, { reservationId, requestId: randomUUID() }, who);
  const release = (who: Metadata, reservationId: string) =>
    ask(methods.releaseReservation, { reservationId, requestId: randomUUID() }, who);

  it('returns an item with all its fields, a 64-bit price included', async () => {
    const sku = newSku();
    const { item } = await createItem(olga, { sku, name: 'Łampa' });
    expect(item).to.include({ sku, name: 'Łampa', onHand: 10n, reserved: 0n });
    expect(item?.unitPrice).to.deep.equal(PRICE);
    expect(item?.createTime).to.be.instanceOf(Date);
    expect((await getItem(alice, sku)).item).to.deep.equal(item);
  });

  it('lists items in pages', async () => {
    const list = (pageToken: string) => ask(methods.listItems, { pageSize: 1, pageToken, filter: '' }, alice);
    await Promise.all([newItem(), newItem()]);
    const first = await list('');
    const second = await list(first.nextPageToken);
    expect([first.items.length, second.items.length]).to.deep.equal([1, 1]);
    expect((first.items[0]?.sku ?? '') < (second.items[0]?.sku ?? '')).to.equal(true);
  });

  it('reserves stock and commits the reservation', async () => {
    const sku = await newItem();
    const reservation = await reserve(alice, sku);
    expect(reservation.state).to.equal(ReservationState.RESERVATION_STATE_ACTIVE);
    expect(reservation.lines).to.deep.equal([{ sku, quantity: 3n, unitPrice: PRICE }]);
    const { createTime, expireTime } = reservation;
    expect((expireTime?.getTime() ?? 0) - (createTime?.getTime() ?? 0)).to.be.within(90_499, 90_501);
    const committed = (await commit(olga, reservation.reservationId)).reservation;
    expect(committed?.state).to.equal(ReservationState.RESERVATION_STATE_COMMITTED);
    expect((await getItem(alice, sku)).item).to.include({ onHand: 7n, reserved: 0n });
  });

  it('releases a reservation, and returns a due one as expired', async () => {
    const sku = await newItem();
    const [first, second] = [await reserve(alice, sku), await reserve(alice, sku)];
    const released = (await release(alice, first.reservationId)).reservation;
    expect(released?.state).to.equal(ReservationState.RESERVATION_STATE_RELEASED);
    await instance.database.query(
      `UPDATE reservations SET create_time = create_time - interval '1 hour', expire_time = clock_timestamp()
        WHERE reservation_id = $1`,
      [second.reservationId],
    );
    const refusal = await refusalOf(commit(olga, second.reservationId));
    expect(refusal).to.include({ code: status.FAILED_PRECONDITION, reason: 'RESERVATION_EXPIRED' });
    const expired = (await getReservation(alice, second.reservationId)).reservation;
    expect(expired?.state).to.equal(ReservationState.RESERVATION_STATE_EXPIRED);
  });

  it('takes the owner from the token, and returns the same NOT_FOUND to others as for a missing reservation', async () => {
    const { reservationId } = await reserve(alice, await newItem());
    const missing = await refusalOf(getReservation(bob, randomUUID()));
    expect(missing).to.include({ code: status.NOT_FOUND, reason: 'NOT_FOUND' });
    const refusals = [
      refusalOf(getReservation(bob, reservationId)),
      refusalOf(release(bob, reservationId)),
      refusalOf(release(olga, reservationId)),
      refusalOf(commit(olga, randomUUID())),
    ];
    for (const refusal of await Promise.all(refusals)) expect(refusal).to.deep.equal(missing);
    expect((await getReservation(olga, reservationId)).reservation?.reservationId).to.equal(reservationId);
    expect((await getReservation(alice, reservationId)).reservation?.state).to.equal(
      ReservationState.RESERVATION_STATE_ACTIVE,
    );
  });

  it('lets no customer commit a reservation, the own one included, because nothing was paid', async () => {
    const sku = await newItem();
    const { reservationId } = await reserve(alice, sku);
    for (const who of [alice, bob]) {
      const refusal = await refusalOf(commit(who, reservationId));
      expect(refusal).to.include({ code: status.PERMISSION_DENIED, reason: 'SCOPE_MISSING' });
    }
    expect((await getItem(alice, sku)).item).to.include({ onHand: 10n, reserved: 3n });
  });

  it('grants the rights of an operator by scope, and by no role of a token with narrowed scopes', async () => {
    const { reservationId } = await reserve(alice, await newItem());
    for (const roles of [['operator'], ['Operator'], ['admin', 'security'], []]) {
      const who = await bearerOf({ scope: CUSTOMER_SCOPES, roles });
      expect((await refusalOf(getReservation(who, reservationId))).reason).to.equal('NOT_FOUND');
    }
    const manager = await bearerOf({ scope: `${CUSTOMER_SCOPES} inventory.manage`, roles: [] });
    expect((await getReservation(manager, reservationId)).reservation?.reservationId).to.equal(reservationId);
  });

  it('reports every invalid field', async () => {
    const refusal = await refusalOf(
      createItem(olga, { sku: '', unitPrice: undefined, onHand: -(2n ** 63n) }),
    );
    expect(refusal).to.include({ code: status.INVALID_ARGUMENT, reason: 'FIELD_INVALID' });
    expect(refusal.violations.map(({ field }) => field)).to.deep.equal([
      'sku',
      'unit_price.minor_units',
      'unit_price.currency_code',
      'on_hand',
    ]);
  });

  it('settles only for the service that made the reservation, and records the authorising token', async () => {
    const sku = await newItem();
    const sub = randomUUID();
    const throughPayment = await bearerOf({
      scope: CUSTOMER_SCOPES,
      sub,
      client_id: 'payment',
      clients: [
        ['direct', 1],
        ['payment', 1],
      ],
      act: { sub: 'payment' },
      ancestors: [randomUUID()],
    });
    const service = async (name: string, scope = 'inventory.settle') => {
      const none = { sid: undefined, gen: undefined, auth_time: undefined, amr: undefined, roles: [] };
      return await bearerOf({ sub: name, client_id: name, clients: [[name, 1]], scope, ...none });
    };
    const { reservationId } = await reserve(throughPayment, sku);
    const authoriser = { userId: sub, clientId: 'direct', sessionId: '', tokenId: randomUUID() };
    const request = {
      reservationId,
      outcome: ReservationState.RESERVATION_STATE_COMMITTED,
      authoriser,
      requestId: randomUUID(),
    };
    const settle = (who: Metadata, change: { outcome?: ReservationState } = {}) =>
      ask(methods.settleReservation, { ...request, ...change }, who);
    expect((await refusalOf(settle(throughPayment))).reason).to.equal('SCOPE_MISSING');
    const user = await bearerOf({ scope: 'inventory.settle' });
    expect((await refusalOf(settle(user))).reason).to.equal('CALLER_KIND');
    expect((await refusalOf(settle(await service('shop')))).reason).to.equal('NOT_FOUND');
    // Another issuer that may grant the scope has a client of the same name.
    const now = Math.floor(Date.now() / 1000);
    const namesake = new CompactSign(
      Buffer.from(
        JSON.stringify({
          ...{ iss: OTHER_ISSUER, aud: 'inventory', sub: 'payment', client_id: 'payment', scope: 'settle' },
          ...{ iat: now, exp: now + 60, jti: randomUUID() },
        }),
      ),
    ).setProtectedHeader({ alg: 'HS256', typ: 'JWT' });
    const theirs = new Metadata();
    theirs.set('authorization', `Bearer ${await namesake.sign(OTHER_SECRET)}`);
    expect((await refusalOf(settle(theirs))).reason).to.equal('NOT_FOUND');
    const payment = await service('payment');
    const expired = { outcome: ReservationState.RESERVATION_STATE_EXPIRED };
    const faults = await refusalOf(settle(payment, expired));
    expect(faults.violations.map(({ field }) => field)).to.deep.equal(['outcome']);
    const { reservation } = await settle(payment);
    expect(reservation?.state).to.equal(ReservationState.RESERVATION_STATE_COMMITTED);

    const history = { sku, pageSize: 1, pageToken: '', filter: 'kind = COMMITTED' };
    const { changes } = await ask(methods.listStockChanges, history, olga);
    expect(changes[0]).to.deep.include({
      kind: StockChangeKind.STOCK_CHANGE_KIND_COMMITTED,
      onHandDelta: -3n,
      reservedDelta: -3n,
      onHand: 7n,
      reserved: 0n,
      actorId: sub,
      actingClientId: 'payment',
      authorisingTokenId: authoriser.tokenId,
      reservationId,
    });
    expect((await refusalOf(ask(methods.listStockChanges, history, alice))).reason).to.equal('SCOPE_MISSING');
  });

  it('adjusts stock, and rejects an adjustment below zero', async () => {
    const sku = await newItem();
    const adjust = (delta: bigint) =>
      ask(methods.adjustStock, { sku, delta, reason: 'count', requestId: randomUUID() }, olga);
    expect((await adjust(-10n)).item?.onHand).to.equal(0n);
    const refusal = await refusalOf(adjust(-1n));
    expect(refusal).to.include({ code: status.FAILED_PRECONDITION, reason: 'INSUFFICIENT_STOCK' });
  });

  it('streams the snapshot and the changes, and resumes after a resume token', async () => {
    const sku = await newItem();
    const stream = client.watchStock({ skus: [sku], resumeToken: '' }, alice);
    const messages = stream[Symbol.asyncIterator]() as AsyncIterator<WatchStockResponse>;
    const picture = (await messages.next()).value as WatchStockResponse;
    expect(picture).to.include({ sku, onHand: 10n, reserved: 0n });
    expect(picture.changeTime).to.be.instanceOf(Date);
    await reserve(bob, sku, 4n);
    expect((await messages.next()).value).to.include({ sku, onHand: 10n, reserved: 4n });
    stream.on('error', () => {});
    stream.cancel();
    const resumed = client.watchStock({ skus: [sku], resumeToken: picture.resumeToken }, alice);
    const again = resumed[Symbol.asyncIterator]() as AsyncIterator<WatchStockResponse>;
    expect((await again.next()).value).to.include({ sku, onHand: 10n, reserved: 4n });
    resumed.on('error', () => {});
    resumed.cancel();
  });

  it('ends the stream of a revoked session, and rejects its next call', async () => {
    const sid = randomUUID();
    const who = await bearerOf({ scope: CUSTOMER_SCOPES, sid });
    const stream = client.watchStock({ skus: [], resumeToken: '' }, who);
    stream.on('data', () => {});
    const ended = new Promise<Error>((resolve) => stream.on('error', resolve));
    await new Promise((resolve) => stream.once('data', resolve));
    issuer.revokeSession(sid);
    guard.syncNow();
    expect(errorOf(await ended)).to.include({ code: status.UNAUTHENTICATED, reason: 'TOKEN_REVOKED' });
    expect((await refusalOf(getItem(who, 'A'))).reason).to.equal('TOKEN_REVOKED');
  });
});
