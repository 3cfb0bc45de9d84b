/** Calls to inventory over real sockets, on behalf of the user whose call is served. */

import {
  type Deadline,
  credentials as grpcCredentials,
  Metadata,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
} from '@grpc/grpc-js';
import { unary } from '@portcullis/guard';
import { systemClock } from '@portcullis/guard/clock';
import { attachState } from '@portcullis/guard/internal';
import { expect } from 'chai';
import {
  InventoryServiceService,
  type Reservation,
  ReservationState,
} from '../../../../proto/gen/inventory/v1/inventory_service.js';
import {
  connectInventory,
  INVENTORY_TIMEOUT_MS,
  type InventoryConnection,
  type ServedCall,
} from '../../../../services/payment/adapters/inventory.js';
import { PaymentError } from '../../../../services/payment/errors.js';
import { serviceErrorOf } from '../../../support/outcomes.js';

type Handle = (call: ServerUnaryCall<unknown, unknown>) => Promise<void> | void;

const RESERVATION: Reservation = {
  reservationId: 'r-1',
  state: ReservationState.RESERVATION_STATE_ACTIVE,
  lines: [{ sku: 'LAMP', quantity: 2n, unitPrice: { minorUnits: 250n, currencyCode: 'EUR' } }],
  createTime: new Date(0),
  expireTime: new Date(0),
};
const ORDER = { lines: [{ sku: 'LAMP', quantity: 2n }], timeToLiveSeconds: 60, requestId: 'p:reserve' };

const AUTHORISER = { subject: 'alice', clientId: 'direct', sessionId: undefined, tokenId: 't-1' };
const SENT_AUTHORISER = { userId: 'alice', clientId: 'direct', sessionId: '', tokenId: 't-1' };
const SETTLING = {
  reservationId: 'r-1',
  outcome: 'COMMITTED',
  authoriser: AUTHORISER,
  requestId: 'p:commit',
} as const;

/** An inventory server whose responses a test decides. */
class Peer {
  handle: Handle = () => {};
  answer: Reservation | undefined = RESERVATION;
  readonly calls: { path: string; request: unknown; metadata: Metadata }[] = [];
  readonly #server = new Server();
  address = '';

  async start(address = '127.0.0.1:0'): Promise<this> {
    const handler = (path: string) =>
      unary<unknown, { reservation: Reservation | undefined }>(async (request, call) => {
        this.calls.push({ path, request, metadata: call.metadata });
        await this.handle(call);
        return { reservation: this.answer };
      });
    const { reserveStock, settleReservation } = InventoryServiceService;
    this.#server.addService(
      { reserveStock, settleReservation },
      { reserveStock: handler('reserve'), settleReservation: handler('settle') },
    );
    const port = await new Promise<number>((resolve, reject) => {
      this.#server.bindAsync(address, ServerCredentials.createInsecure(), (error, bound) =>
        error === null ? resolve(bound) : reject(error),
      );
    });
    this.address = `127.0.0.1:${port}`;
    return this;
  }

  stop(): void {
    this.#server.forceShutdown();
  }
}

/** A call as a guarded handler receives it. */
function servedCall(options: { signal?: AbortSignal; deadline?: Deadline } = {}): ServedCall {
  const { signal = new AbortController().signal, deadline = Number.POSITIVE_INFINITY } = options;
  const metadata = new Metadata();
  metadata.set('authorization', 'Bearer what-came-with-the-call');
  metadata.set('traceparent', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01');
  metadata.set('x-else', 'not for others');
  const unauthenticated = { principal: undefined, bearer: undefined, certificateThumbprint: undefined };
  const state = { path: '/', ...unauthenticated, signal };
  attachState(metadata, {
    ...state,
    stillAllowed: () => 1_000,
    passFence: () => Promise.resolve(1000),
    reportFailure: () => {},
  });
  return { metadata, getDeadline: () => deadline };
}

describe('inventory as payment calls it', () => {
  const wanted: { audience: string; scopes: readonly string[] }[] = [];
  let peers: Peer[];
  let connection: InventoryConnection;

  beforeEach(async () => {
    wanted.length = 0;
    peers = [await new Peer().start(), await new Peer().start()];
    connection = connectInventory({
      addresses: peers.map(({ address }) => address),
      credentials: grpcCredentials.createInsecure(),
      exchange: {
        forCall: (_call, what) => {
          wanted.push(what);
          return { get: async () => 'exchanged', reject: () => {} };
        },
        close: () => {},
      },
      own: { get: async () => 'own', reject: () => {} },
      clock: systemClock,
    });
  });
  afterEach(() => {
    connection.close();
    for (const peer of peers) peer.stop();
  });

  const calls = () => peers.flatMap((peer) => peer.calls);
  const eachPeer = (change: (peer: Peer) => void) => peers.forEach(change);

  it('sends the exchanged token instead of the caller’s, and only the trace of the call', async () => {
    await connection.forCall(servedCall()).reserve(ORDER);
    expect(wanted).to.deep.equal([{ audience: 'inventory', scopes: ['inventory.reserve'] }]);
    const [sent] = calls();
    expect(sent?.metadata.get('authorization')).to.deep.equal(['Bearer exchanged']);
    expect(sent?.metadata.get('traceparent')).to.have.lengthOf(1);
    expect(sent?.metadata.get('x-else')).to.deep.equal([]);
  });

  it('sends each request with its request id, and converts the responses', async () => {
    const inventory = connection.forCall(servedCall());
    const { reservationId, state, lines } = await inventory.reserve(ORDER);
    expect({ reservationId, state, lines }).to.deep.equal({
      reservationId: 'r-1',
      state: 'ACTIVE',
      lines: RESERVATION.lines,
    });
    const states = [
      ['COMMITTED', ReservationState.RESERVATION_STATE_COMMITTED],
      ['RELEASED', ReservationState.RESERVATION_STATE_RELEASED],
      ['EXPIRED', ReservationState.RESERVATION_STATE_EXPIRED],
    ] as const;
    for (const [ours, theirs] of states) {
      eachPeer((peer) => {
        peer.answer = { ...RESERVATION, state: theirs };
      });
      expect((await connection.settlement.settle(SETTLING)).state).to.equal(ours);
    }
    await connection.settlement.settle({ ...SETTLING, outcome: 'RELEASED', requestId: 'p:release' });
    const requests = calls().map(({ path, request }) => ({ path, ...Object(request) }));
    const settling = { path: 'settle', reservationId: 'r-1', authoriser: SENT_AUTHORISER };
    expect(requests).to.deep.include({
      ...settling,
      outcome: ReservationState.RESERVATION_STATE_COMMITTED,
      requestId: 'p:commit',
    });
    expect(requests).to.deep.include({
      ...settling,
      outcome: ReservationState.RESERVATION_STATE_RELEASED,
      requestId: 'p:release',
    });
    expect(requests).to.deep.include({
      path: 'reserve',
      lines: ORDER.lines,
      timeToLive: { seconds: 60n, nanos: 0 },
      requestId: 'p:reserve',
    });
  });

  it('alternates between the instances, and avoids one that has stopped', async () => {
    for (let count = 0; count < 4; count++) await connection.settlement.settle(SETTLING);
    expect(peers.map((peer) => peer.calls.length)).to.deep.equal([2, 2]);

    peers[0]?.stop();
    let failures = 0;
    for (let count = 0; count < 6; count++) {
      await connection.settlement.settle(SETTLING).catch(() => failures++);
    }
    expect(failures).to.be.at.most(1);
  });

  for (const code of ['NOT_FOUND', 'INSUFFICIENT_STOCK'] as const) {
    it(`returns ${code} of inventory unchanged`, async () => {
      eachPeer((peer) => {
        peer.handle = () => {
          throw new PaymentError(code, 'because');
        };
      });
      const error = await serviceErrorOf(connection.forCall(servedCall()).reserve(ORDER));
      expect(error).to.deep.include({ code, message: 'because' });
    });
  }

  it('returns FIELD_INVALID of inventory with its fields', async () => {
    const violations = [{ field: 'lines[0].sku', description: 'must be an item' }];
    eachPeer((peer) => {
      peer.handle = () => {
        throw new PaymentError('FIELD_INVALID', 'bad', { violations });
      };
    });
    const error = await serviceErrorOf(connection.forCall(servedCall()).reserve(ORDER));
    expect(error.code).to.equal('FIELD_INVALID');
    expect(error.violations.map(({ field }) => field)).to.deep.equal(['lines[0].sku']);
  });

  for (const [what, thrown] of [
    ['an unknown fault', new Error('a bug')],
    ['a revoked token', new PaymentError('TOKEN_REVOKED', 'revoked')],
    ['a token without the scope', new PaymentError('SCOPE_MISSING', 'no')],
    ['a request that still runs', new PaymentError('REQUEST_IN_PROGRESS', 'wait')],
  ] as const) {
    it(`fails with DEPENDENCY_UNAVAILABLE for ${what}, which leaves the outcome unknown`, async () => {
      eachPeer((peer) => {
        peer.handle = () => {
          throw thrown;
        };
      });
      const error = await serviceErrorOf(connection.settlement.settle(SETTLING));
      expect(error.code).to.equal('DEPENDENCY_UNAVAILABLE');
    });
  }

  it('fails with DEPENDENCY_UNAVAILABLE when no instance is reachable', async () => {
    eachPeer((peer) => peer.stop());
    const error = await serviceErrorOf(connection.forCall(servedCall()).reserve(ORDER));
    expect(error.code).to.equal('DEPENDENCY_UNAVAILABLE');
  });

  it('fails with DEPENDENCY_UNAVAILABLE for a response without a price', async () => {
    eachPeer((peer) => {
      peer.answer = { ...RESERVATION, lines: [{ sku: 'LAMP', quantity: 1n, unitPrice: undefined }] };
    });
    const error = await serviceErrorOf(connection.forCall(servedCall()).reserve(ORDER));
    expect(error.code).to.equal('DEPENDENCY_UNAVAILABLE');
  });

  it('ends a reservation call at the deadline of the caller', async () => {
    eachPeer((peer) => {
      peer.handle = () => new Promise(() => {});
    });
    const startedMs = performance.now();
    const call = servedCall({ deadline: new Date(Date.now() + 150) });
    expect((await serviceErrorOf(connection.forCall(call).reserve(ORDER))).code).to.equal(
      'DEPENDENCY_UNAVAILABLE',
    );
    expect(performance.now() - startedMs).to.be.below(INVENTORY_TIMEOUT_MS);
  });

  it('stops reserving when the call ends, and still settles with its own token', async () => {
    const ending = new AbortController();
    eachPeer((peer) => {
      peer.handle = (call) => {
        const isReserve = call.getPath().endsWith('ReserveStock');
        return isReserve ? new Promise(() => ending.abort()) : undefined;
      };
    });
    const inventory = connection.forCall(
      servedCall({ signal: ending.signal, deadline: new Date(Date.now() + 60) }),
    );
    expect((await serviceErrorOf(inventory.reserve(ORDER))).code).to.equal('DEPENDENCY_UNAVAILABLE');
    expect((await serviceErrorOf(inventory.reserve(ORDER))).code).to.equal('DEPENDENCY_UNAVAILABLE');
    expect(calls().filter(({ path }) => path === 'reserve')).to.have.lengthOf(1);
    await connection.settlement.settle(SETTLING);
    const settled = calls().filter(({ path }) => path === 'settle');
    expect(settled.map(({ metadata }) => metadata.get('authorization'))).to.deep.equal([['Bearer own']]);
  });
});
