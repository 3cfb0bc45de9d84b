/** Inventory by gRPC: on behalf of the user whose call is served, and in the service's own name. */

import type { ChannelCredentials, Deadline, ServiceError as GrpcError } from '@grpc/grpc-js';
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
import type { Inventory, Reservation, ReservationState, Settlement } from '../inventory.js';

/** How long one call to inventory may take. */
export const INVENTORY_TIMEOUT_MS = 3_000;

/** The call being served, as far as acting for its user needs it. */
export interface ServedCall {
  readonly metadata: Metadata;
  getDeadline(): Deadline;
}

/** Inventory, reachable on behalf of users and in the service's own name. */
export interface InventoryConnection {
  /** Inventory for the user of a call, as long as that lasts. */
  forCall(call: ServedCall): Inventory;
  readonly settlement: Settlement;
  close(): void;
}

/** What {@link connectInventory} needs. */
export interface InventoryConnectionOptions {
  /** The instances; calls take turns among those that answer. */
  readonly addresses: readonly string[];
  readonly credentials: ChannelCredentials;
  /** Where users' tokens may travel without TLS. */
  readonly plaintext?: Plaintext;
  /** Trades the user's token for a narrower one: the one that came with the call goes nowhere else. */
  readonly exchange: Exchange;
  /** Tokens of the service's own, with which it ends reservations that it has made for users. */
  readonly own: TokenSource;
  readonly clock: Clock;
}

/**
 * Connects to the instances of inventory when the first call is made.
 *
 * @throws TypeError when users' tokens would leave this machine in plaintext
 */
export function connectInventory(options: InventoryConnectionOptions): InventoryConnection {
  const { addresses, credentials, plaintext, exchange, own, clock } = options;
  const clients = addresses.map(
    (address) =>
      new InventoryServiceClient(
        address,
        credentials,
        channelOptionsFor({ address, credentials, plaintext }),
      ),
  );
  const nextClient = createRotation(clients);

  async function ask(
    invoke: Invoke,
    source: TokenSource,
    bound: { signal?: AbortSignal; deadlineMs?: number; metadata?: Metadata } = {},
  ): Promise<Reservation> {
    const { signal, deadlineMs = Number.POSITIVE_INFINITY, metadata = new Metadata() } = bound;
    const deadline = Math.min(clock.wallMs() + INVENTORY_TIMEOUT_MS, deadlineMs);
    const settings = { metadata, options: { deadline, interceptors: [authenticate(source)] }, signal };
    const response = await invokeUnary(nextClient(), invoke, settings);
    return reservationOf(response.reservation);
  }

  return {
    forCall: (call) => ({
      reserve: ({ lines, timeToLiveSeconds, requestId }) => {
        const source = exchange.forCall(call, { audience: 'inventory', scopes: ['inventory.reserve'] });
        const timeToLive = { seconds: BigInt(timeToLiveSeconds), nanos: 0 };
        const request = { lines: lines.map((line) => ({ ...line })), timeToLive, requestId };
        return ask((client, ...rest) => client.reserveStock(request, ...rest), source, {
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
        return ask((client, ...rest) => client.settleReservation(request, ...rest), own);
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

type Answer = { readonly reservation: ReservationMessage | undefined };
type CallSettings = { readonly deadline: number; readonly interceptors: ReturnType<typeof authenticate>[] };
type Invoke = (
  client: InventoryServiceClient,
  metadata: Metadata,
  options: CallSettings,
  callback: (error: GrpcError | null, response: Answer) => void,
) => { cancel(): void };

function invokeUnary(
  client: InventoryServiceClient,
  invoke: Invoke,
  settings: { metadata: Metadata; options: CallSettings; signal: AbortSignal | undefined },
): Promise<Answer> {
  const { metadata, options, signal } = settings;
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(unanswered('the call that asked has ended', signal.reason));
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

/** What inventory says about the order, and the buyer may hear. */
const ANSWERS = [
  'FIELD_INVALID',
  'NOT_FOUND',
  'INSUFFICIENT_STOCK',
] as const satisfies readonly PaymentErrorCode[];

/**
 * Whatever is no answer leaves open what has happened: a call that was cut, because the token was revoked meanwhile
 * say, may have had its effect. Nor would the reason be the caller's business when it is this service's own token
 * that was refused.
 */
function serviceErrorOf(error: GrpcError): ServiceError {
  const { reason, message, violations, retryAfterMs } = errorOf(error);
  const answer = ANSWERS.find((known) => known === reason);
  if (answer !== undefined) return new PaymentError(answer, message, { cause: error, violations });
  return unanswered('inventory does not answer', error, retryAfterMs);
}

function unanswered(message: string, cause: unknown, retryAfterMs?: number): ServiceError {
  const retry = retryAfterMs === undefined ? {} : { retryAfterMs };
  return new PaymentError('DEPENDENCY_UNAVAILABLE', message, { cause, ...retry });
}

/** Takes turns among the instances, and leaves out those that could not be reached last. */
function createRotation(clients: readonly InventoryServiceClient[]): () => InventoryServiceClient {
  let turn = 0;
  return () => {
    turn = (turn + 1) % clients.length;
    const inTurn = [...clients.slice(turn), ...clients.slice(0, turn)];
    const chosen = inTurn.find(isReachable) ?? inTurn[0];
    if (chosen === undefined) throw new TypeError('there is no address of inventory');
    return chosen;
  };
}

function isReachable(client: InventoryServiceClient): boolean {
  // Asking connects again, so an instance that came back is found.
  return client.getChannel().getConnectivityState(true) !== connectivityState.TRANSIENT_FAILURE;
}

/** The caller's trace goes on; nothing else of its metadata does. */
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
  if (message === undefined) throw unanswered('inventory answered without a reservation', undefined);
  const { reservationId, lines } = message;
  const priced = lines.map(({ sku, quantity, unitPrice }) => {
    if (unitPrice === undefined) throw unanswered('inventory answered without a price', undefined);
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
      throw unanswered('inventory answered with an unknown state', undefined);
  }
}
