/**
 * Requests of shoppers and operators with their first responses, so that each can be repeated and compared byte by byte,
 * and the expected sums of all of them.
 */

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client, MethodDefinition, ServiceError } from '@grpc/grpc-js';
import { errorOf } from '@portcullis/guard/client';
import {
  PaymentServiceService as methods,
  PaymentState,
} from '../../proto/gen/payment/v1/payment_service.js';
import { ask, tokenMetadata } from '../../scripts/system/calls.js';
import type { Random } from '../shared/random.js';
import { nowMs } from '../shared/waiting.js';
import { CURRENCY, type Shop, type Shopper } from './shop-environment.js';

const TIMEOUT_MS = 4_000;
const RETRY_MS = 60;
/** Purchases of each shopper that may be refunded later. */
const PURCHASES_REMEMBERED = 30;

/** Reasons after which the outcome is unknown, or the same request may be retried. */
const OPEN_REASONS: ReadonlySet<string> = new Set([
  '',
  'DEPENDENCY_UNAVAILABLE',
  'REQUEST_IN_PROGRESS',
  'REVOCATION_STATE_STALE',
  'RATE_LIMITED',
  'RESERVATION_EXPIRED',
]);

/** The outcome of a request. */
export type Outcome =
  | { readonly kind: 'open' }
  | { readonly kind: 'refused'; readonly reason: string }
  | { readonly kind: 'answered'; readonly bytes: Buffer };

/** A repeatable request. */
export interface Deal {
  readonly name: 'checkout' | 'deposit' | 'refund' | 'cancel';
  readonly shopper: Shopper;
  /** Its expected effects. */
  readonly effect: (bytes: Buffer) => Effect;
  send(): Promise<Outcome>;
  outcome: Outcome;
}

/** Effects of an answered request. */
export interface Effect {
  /** Change of the shopper's balance, in minor units. */
  readonly minorUnits: bigint;
  /** Units that left the stock. */
  readonly sold: readonly { readonly sku: string; readonly quantity: bigint }[];
}

const NOTHING: Effect = { minorUnits: 0n, sold: [] };

/** The items for sale. */
export interface Ware {
  readonly sku: string;
  readonly minorUnits: bigint;
  readonly onHand: bigint;
}

/** Makes requests of every kind. */
export class Trade {
  readonly deals: Deal[] = [];
  readonly #shop: Shop;
  readonly #wares: readonly Ware[];
  readonly #random: Random;
  /** The latest purchases of each account. */
  readonly #purchases = new Map<string, Deal[]>();

  constructor(options: { shop: Shop; wares: readonly Ware[]; random: Random }) {
    this.#shop = options.shop;
    this.#wares = options.wares;
    this.#random = options.random;
  }

  /** A purchase of one or two items, sometimes beyond any balance. */
  checkout(shopper: Shopper): Deal {
    const wares = this.#random.shuffle(this.#wares).slice(0, this.#random.integer(1, 2));
    const isTooMuch = this.#random.next() < 0.15;
    const lines = wares.map(({ sku }) => ({
      sku,
      quantity: isTooMuch ? 900n : BigInt(this.#random.integer(1, 3)),
    }));
    return this.buy(shopper, lines);
  }

  /** A purchase of the given items. */
  buy(shopper: Shopper, lines: { sku: string; quantity: bigint }[]): Deal {
    const request = { accountId: shopper.accountId, lines, requestId: randomUUID() };
    const deal = this.#add('checkout', shopper, methods.checkout, request, shopper.token, ({ payment }) => ({
      minorUnits: -(payment?.amount?.minorUnits ?? 0n),
      sold: lines,
    }));
    const purchases = this.#purchases.get(shopper.accountId) ?? [];
    this.#purchases.set(shopper.accountId, [...purchases.slice(-PURCHASES_REMEMBERED), deal]);
    return deal;
  }

  /** A deposit by an operator. */
  deposit(shopper: Shopper, minorUnits: bigint): Deal {
    const { accountId } = shopper;
    const request = { accountId, amount: money(minorUnits), requestId: randomUUID() };
    const effect = () => ({ minorUnits, sold: [] });
    return this.#add('deposit', shopper, methods.deposit, request, this.#shop.operator, effect);
  }

  /** A partial refund by an operator; undefined when there is no answered purchase. */
  refund(shopper: Shopper): Deal | undefined {
    const bought = this.#purchases.get(shopper.accountId) ?? [];
    if (bought.length === 0) return undefined;
    const { outcome } = this.#random.pick(bought);
    if (outcome.kind !== 'answered') return undefined;
    const { payment } = methods.checkout.responseDeserialize(outcome.bytes);
    const minorUnits = BigInt(this.#random.integer(1, 120));
    const { paymentId = '' } = payment ?? {};
    const request = { paymentId, amount: money(minorUnits), reason: 'drill', requestId: randomUUID() };
    const effect = () => ({ minorUnits, sold: [] });
    return this.#add('refund', shopper, methods.refundPayment, request, this.#shop.operator, effect);
  }

  /** A cancellation of a pending purchase; undefined when there is none. */
  async cancel(shopper: Shopper): Promise<Deal | undefined> {
    const { payment } = this.#shop.clients;
    const page = { pageSize: 1, pageToken: '', filter: 'state = PENDING' };
    const options = { token: shopper.token, timeoutMs: TIMEOUT_MS };
    const listed = await ask(payment.listPayments.bind(payment), page, options).catch(() => undefined);
    const pending = listed?.payments.find(({ state }) => state === PaymentState.PAYMENT_STATE_PENDING);
    if (pending === undefined) return undefined;
    const request = { paymentId: pending.paymentId, requestId: randomUUID() };
    return this.#add('cancel', shopper, methods.cancelPayment, request, shopper.token, () => NOTHING);
  }

  #add<Request, Response>(
    name: Deal['name'],
    shopper: Shopper,
    method: MethodDefinition<Request, Response>,
    request: Request,
    token: string,
    effectOf: (response: Response) => Effect,
  ): Deal {
    const { payment } = this.#shop.clients;
    const deal: Deal = {
      name,
      shopper,
      effect: (bytes) => effectOf(method.responseDeserialize(bytes)),
      send: () => sendOnce(payment, method, request, token),
      outcome: { kind: 'open' },
    };
    this.deals.push(deal);
    return deal;
  }
}

/** Sends a request until its outcome is definite or the time limit is reached. */
export async function insist(deal: Deal, untilMs: number): Promise<void> {
  if (deal.outcome.kind === 'open') deal.outcome = await askUntil(deal.send, untilMs);
}

/** The form of a response that two responses to the same request must share. */
export function isSame(one: Outcome, other: Outcome): boolean {
  if (one.kind === 'answered') return other.kind === 'answered' && one.bytes.equals(other.bytes);
  return one.kind === 'refused' && other.kind === 'refused' && one.reason === other.reason;
}

function money(minorUnits: bigint) {
  return { minorUnits, currencyCode: CURRENCY };
}

/** Retries until the outcome is definite or the time limit is reached. */
export async function askUntil(ask: () => Promise<Outcome>, untilMs: number): Promise<Outcome> {
  let outcome: Outcome = { kind: 'open' };
  while (outcome.kind === 'open' && nowMs() < untilMs) {
    outcome = await ask();
    if (outcome.kind === 'open') await sleep(RETRY_MS);
  }
  return outcome;
}

/** Sends a request once, and stores its response unchanged. */
export function sendOnce<Request, Response>(
  client: Client,
  method: MethodDefinition<Request, Response>,
  request: Request,
  token: string,
): Promise<Outcome> {
  return new Promise((resolve) => {
    client.makeUnaryRequest(
      method.path,
      method.requestSerialize,
      (bytes: Buffer) => bytes,
      request,
      tokenMetadata({ token }),
      { deadline: Date.now() + TIMEOUT_MS },
      (error: ServiceError | null, bytes) => {
        if (error === null && bytes !== undefined) return resolve({ kind: 'answered', bytes });
        const { reason } = errorOf(error);
        resolve(OPEN_REASONS.has(reason) ? { kind: 'open' } : { kind: 'refused', reason });
      },
    );
  });
}
