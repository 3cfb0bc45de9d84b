/** Inventory itself, on a real database and behind a real guard, as payment's adapter reaches it over gRPC. */

import { randomUUID } from 'node:crypto';
import { credentials, Metadata, Server, ServerCredentials } from '@grpc/grpc-js';
import { createGuard, systemClock } from '@portcullis/guard';
import type { Exchange, TokenSource } from '@portcullis/guard/client';
import { attachState } from '@portcullis/guard/internal';
import { InventoryServiceService, protoMetadata } from '../../../proto/gen/inventory/v1/inventory_service.js';
import type { Money } from '../../../services/common/money.js';
import { createHandlers } from '../../../services/inventory/handlers.js';
import { connectInventory, type ServedCall } from '../../../services/payment/adapters/inventory.js';
import type { Inventory, Settlement } from '../../../services/payment/inventory-port.js';
import { ISSUER, TestIssuer } from '../../support/issuer.js';
import { olga, openFreshInstance } from '../inventory/instance.js';

/** The ports, and access to the stock behind them. */
export interface InventoryPorts {
  inventoryOf(userId: string): Inventory;
  readonly settlement: Settlement;
  stockUp(sku: string, onHand: bigint): Promise<void>;
  stockOf(sku: string): Promise<{ onHand: bigint; reserved: bigint }>;
  runOut(reservationId: string): Promise<void>;
  close(): Promise<void>;
}

/** Opens inventory on a database of its own. Its items cost `unitPrice`. */
export async function openInventoryPorts(unitPrice: Money): Promise<InventoryPorts> {
  const instance = await openFreshInstance();
  const issuer = await TestIssuer.create();
  const guard = await createGuard({
    log: 'silent',
    issuer: ISSUER,
    audience: 'inventory',
    auth: { source: issuer.source },
  });
  const server = new Server({ interceptors: [guard.interceptor] });
  guard.addService(server, InventoryServiceService, protoMetadata, createHandlers(instance));
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  await guard.ready;
  const users = new Map<object, string>();
  const connection = connectInventory({
    addresses: [`127.0.0.1:${port}`],
    credentials: credentials.createInsecure(),
    exchange: createTestExchange(issuer, users),
    own: sourceOf(() => serviceTokenOf(issuer)),
    clock: systemClock,
  });
  return {
    inventoryOf: (userId) => {
      const call = createServedCall();
      users.set(call, userId);
      return connection.forCall(call);
    },
    settlement: connection.settlement,
    stockUp: async (sku, onHand) => {
      await instance.items.create({ sku, name: 'Thing', unitPrice, onHand, requestId: randomUUID() }, olga);
    },
    stockOf: async (sku) => {
      const { onHand, reserved } = await instance.items.get(sku);
      return { onHand, reserved };
    },
    runOut: async (reservationId) => {
      await instance.database.query(
        `UPDATE reservations SET create_time = create_time - interval '2 hours',
                expire_time = clock_timestamp() - interval '1 microsecond' WHERE reservation_id = $1`,
        [reservationId],
      );
    },
    close: async () => {
      connection.close();
      server.forceShutdown();
      await guard.close();
      await instance.close();
    },
  };
}

/** A call of payment, as a guarded handler receives it. */
function createServedCall(): ServedCall {
  const metadata = new Metadata();
  attachState(metadata, {
    path: '/payment.v1.PaymentService/Checkout',
    principal: undefined,
    bearer: undefined,
    signal: new AbortController().signal,
    certificateThumbprint: undefined,
    stillAllowed: () => 1_000,
    passFence: () => Promise.resolve(1000),
    reportFailure: () => {},
  });
  return { metadata, getDeadline: () => Number.POSITIVE_INFINITY };
}

/** Exchanges the token of a call as auth does: for one of the same user, in which payment acts. */
function createTestExchange(issuer: TestIssuer, users: ReadonlyMap<object, string>): Exchange {
  return {
    forCall: (call, { scopes }) =>
      sourceOf(() =>
        issuer.token({
          aud: ['inventory'],
          sub: users.get(call) ?? '',
          client_id: 'payment',
          act: { sub: 'payment' },
          ancestors: [randomUUID()],
          clients: [
            ['direct', 1],
            ['payment', 1],
          ],
          scope: scopes?.join(' '),
        }),
      ),
    close: () => {},
  };
}

function serviceTokenOf(issuer: TestIssuer): Promise<string> {
  return issuer.token({
    aud: ['inventory'],
    sub: 'payment',
    client_id: 'payment',
    clients: [['payment', 1]],
    scope: 'inventory.settle',
    roles: [],
    sid: undefined,
    gen: undefined,
    auth_time: undefined,
    amr: undefined,
  });
}

function sourceOf(get: () => Promise<string>): TokenSource {
  return { get, reject: () => {} };
}
