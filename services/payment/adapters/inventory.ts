/** Inventory over gRPC: on behalf of the user of a call, and in the service's own name. */

import type { ChannelCredentials, Deadline, ServiceError as GrpcError, Interceptor } from '@grpc/grpc-js';
import { connectivityState, Metadata } from '@grpc/grpc-js';
import { type ServiceError, signalOf } from '@portcullis/guard';
import {
  authenticate,
  channelOptionsFor,
  type Exchange,
  errorOf,
  type Plaintext,
  type TokenSource,
} from '@portcullis/guard/client';
import type { Clock } from '@portcullis/guard/clock';
import {
  InventoryServiceClient,
  type Reservation as ReservationMessage,
  ReservationState as StateMessage,
} from '../../../proto/gen/inventory/v1/inventory_service.js';
import { PaymentError, type PaymentErrorCode } from '../errors.js';
import type { Inventory, Reservation, ReservationState, Settlement } from '../inventory-port.js';

/** The deadline of one call to inventory, in milliseconds. */
export const INVENTORY_TIMEOUT_MS = 3_000;

/** The call being served, as far as acting for its user needs it. */
export interface ServedCall {
  readonly metadata: Metadata;
  getDeadline(): Deadline;
}

/** Connections to inventory. */
export interface InventoryConnection {
  /** Inventory on behalf of the user of a call, until the call ends. */
  forCall(call: ServedCall): Inventory;
  readonly settlement: Settlement;
  close(): void;
}

interface InventoryConnectionOptions {
  /** The instances; calls rotate among the reachable ones. */
  readonly addresses: readonly string[];
  readonly credentials: ChannelCredentials;
  /** To which addresses tokens of users may be sent without TLS. */
  readonly plaintext?: Plaintext;
  /** Exchanges the user's token for a narrower one; the token of the call itself is never forwarded. */
  readonly exchange: Exchange;
  /** Tokens of the service itself, which end reservations that it made for users. */
  readonly own: TokenSource;
  /** Of all calls, before what authenticates. Default: none. */
  readonly interceptors?: readonly Interceptor[];
  readonly clock: Clock;
}

/**
 * Creates clients for the instances of inventory. They connect with the first call.
 *
 * @throws TypeError when tokens of users would leave this machine in plaintext
 */
export function connectInventory(options: InventoryConnectionOptions): InventoryConnection {
  const { addresses, credentials, plaintext, exchange, own, interceptors = [], clock } = options;
  const clients = addresses.map(
    (address) =>
      new InventoryServiceClient(
        address,
        credentials,
        channelOptionsFor({ address, credentials, plaintext }),
      ),
  );
  const nextClient = createRotation(clients);

  async function send(
    invoke: Invoke,
    source: TokenSource,
    bound: { signal?: AbortSignal; deadlineMs?: number; metadata?: Metadata } = {},
  ): Promise<Reservation> {
    const { signal, deadlineMs = Number.POSITIVE_INFINITY, metadata = new Metadata() } = bound;
    const deadline = Math.min(clock.wallMs() + INVENTORY_TIMEOUT_MS, deadlineMs);
    const all = [...interceptors, authenticate(source)];
    const settings = { metadata, options: { deadline, interceptors: all }, signal };
    const response = await invokeUnary(nextClient(), invoke, settings);
    return reservationOf(response.reservation);
  }

  return {
    forCall: (call) => ({
      reserve: ({ lines, timeToLiveSeconds, requestId }) => {
        const source = exchange.forCall(call, { audience: 'inventory', scopes: ['inventory.reserve'] });
        const timeToLive = { seconds: BigInt(timeToLiveSeconds), nanos: 0 };
        const request = { lines: lines.map((line) => ({ ...line })), timeToLive, requestId };
        return send((client, ...rest) => client.reserveStock(request, ...rest), source, {
          signal: signalOf(call),
          deadlineMs: millisecondsOf(call.getDeadline()),
          metadata: traceMetadataOf(call),
        });
      },
    }),
    settlement: {
      settle: ({ reservationId, outcome, authoriser, requestId }) => {
        const { subject, clientId, sessionId = '', tokenId } = authoriser;
        const request = {
          reservationId,
          outcome: OUTCOMES[outcome],
          authoriser: { userId: subject, clientId, sessionId, tokenId },
          requestId,
        };
        return send((client, ...rest) => client.settleReservation(request, ...rest), own);
      },
    },
    close: () => {
      for (const client of clients) client.close();
    },
  };
}

const OUTCOMES = {
  COMMITTED: StateMessage.RESERVATION_STATE_COMMITTED,
  RELEASED: StateMessage.RESERVATION_STATE_RELEASED,
} as const;

type Response = { readonly reservation: ReservationMessage | undefined };
type CallSettings = { readonly deadline: number; readonly interceptors: ReturnType<typeof authenticate>[] };
type Invoke = (
  client: InventoryServiceClient,
  metadata: Metadata,
  options: CallSettings,
  callback: (error: GrpcError | null, response: Response) => void,
) => { cancel(): void };

function invokeUnary(
  client: InventoryServiceClient,
  invoke: Invoke,
  settings: { metadata: Metadata; options: CallSettings; signal: AbortSignal | undefined },
): Promise<Response> {
  const { metadata, options, signal } = settings;
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(unavailable('the call that asked has ended', signal.reason));
      return;
    }
    const call = invoke(client, metadata, options, (error, response) => {
      signal?.removeEventListener('abort', cancel);
      if (error === null) resolve(response);
      else reject(serviceErrorOf(error));
    });
    const cancel = () => call.cancel();
    signal?.addEventListener('abort', cancel, { once: true });
  });
}

/** The reasons of inventory about the order, which are passed on to the buyer. */
const ORDER_REASONS = [
  'FIELD_INVALID',
  'NOT_FOUND',
  'INSUFFICIENT_STOCK',
  'RESERVATION_LIMIT',
] as const satisfies readonly PaymentErrorCode[];

/**
 * Any other error leaves the outcome unknown: a call that was cut, for example because the token was revoked, may have
 * had its effect. Its reason is not passed on, because it may be about this service's own token.
 */
function serviceErrorOf(error: GrpcError): ServiceError {
  const { reason, message, violations, retryAfterMs } = errorOf(error);
  const orderReason = ORDER_REASONS.find((known) => known === reason);
  if (orderReason !== undefined) return new PaymentError(orderReason, message, { cause: error, violations });
  return unavailable('inventory does not answer', error, retryAfterMs);
}

function unavailable(message: string, cause: unknown, retryAfterMs?: number): ServiceError {
  const retry = retryAfterMs === undefined ? {} : { retryAfterMs };
  return new PaymentError('DEPENDENCY_UNAVAILABLE', message, { cause, ...retry });
}

/** Rotates among the instances, and skips those whose last connection attempt failed. */
function createRotation(clients: readonly InventoryServiceClient[]): () => InventoryServiceClient {
  let turn = 0;
  return () => {
    turn = (turn + 1) % clients.length;
    const inTurn = [...clients.slice(turn), ...clients.slice(0, turn)];
    const chosen = inTurn.find(isReachable) ?? inTurn[0];
    if (chosen === undefined) throw new TypeError('inventory has no address');
    return chosen;
  };
}

function isReachable(client: InventoryServiceClient): boolean {
  // `true` makes the channel connect again, so that an instance that came back is found.
  return client.getChannel().getConnectivityState(true) !== connectivityState.TRANSIENT_FAILURE;
}

/** Passes on the caller's trace, and nothing else of its metadata. */
function traceMetadataOf(call: ServedCall): Metadata {
  const metadata = new Metadata();
  const [traceparent] = call.metadata.get('traceparent');
  if (typeof traceparent === 'string') metadata.set('traceparent', traceparent);
  return metadata;
}

function millisecondsOf(deadline: Deadline): number {
  return deadline instanceof Date ? deadline.getTime() : deadline;
}

function reservationOf(message: ReservationMessage | undefined): Reservation {
  if (message === undefined) throw unavailable('inventory answered without a reservation', undefined);
  const { reservationId, lines } = message;
  const priced = lines.map(({ sku, quantity, unitPrice }) => {
    if (unitPrice === undefined) throw unavailable('inventory answered without a price', undefined);
    return { sku, quantity, unitPrice };
  });
  return { reservationId, state: stateOf(message), lines: priced };
}

function stateOf({ state }: ReservationMessage): ReservationState {
  switch (state) {
    case StateMessage.RESERVATION_STATE_ACTIVE:
      return 'ACTIVE';
    case StateMessage.RESERVATION_STATE_COMMITTED:
      return 'COMMITTED';
    case StateMessage.RESERVATION_STATE_RELEASED:
      return 'RELEASED';
    case StateMessage.RESERVATION_STATE_EXPIRED:
      return 'EXPIRED';
    default:
      throw unavailable('inventory answered with an unknown state', undefined);
  }
}
