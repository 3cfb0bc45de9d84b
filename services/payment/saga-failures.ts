/** How a purchase fails: what is stored of the failure, and the error that its caller receives. */

import { type FieldViolation, ServiceError } from '@portcullis/guard/errors';
import { MINOR_UNITS_MAX } from '../common/money.js';
import { PaymentError, type PaymentErrorCode } from './errors.js';
import type { Reservation } from './inventory-port.js';
import type { Buyer, Failure, Saga } from './saga.js';

/** Failures of the order itself: the same request always returns the same error. */
const ORDER_REASONS = [
  'FIELD_INVALID',
  'NOT_FOUND',
  'INSUFFICIENT_STOCK',
  'INSUFFICIENT_FUNDS',
] as const satisfies readonly PaymentErrorCode[];

const PERMANENT_REASONS: ReadonlySet<string> = new Set(ORDER_REASONS);

/** The reasons that a failed payment returns again on each retry. */
const FINAL_REASONS = [
  ...ORDER_REASONS,
  'RESERVATION_LIMIT',
  'RESERVATION_EXPIRED',
  'PAYMENT_CANCELLED',
] as const satisfies readonly PaymentErrorCode[];

/** The buyer's call ended before the goods were handed out. */
export class CheckoutCancelled extends ServiceError<'DEPENDENCY_UNAVAILABLE'> {
  constructor() {
    super(
      'DEPENDENCY_UNAVAILABLE',
      'UNAVAILABLE',
      'the call ended before the purchase was decided; nothing was charged',
    );
    this.name = 'CheckoutCancelled';
  }
}

/** The reservation expired before the goods were handed out. */
export const RESERVATION_EXPIRED: Failure = {
  reason: 'RESERVATION_EXPIRED',
  message: 'the reservation ran out before the goods were handed out; nothing was charged',
  violations: [],
  isRetriable: true,
};

/** The worker of the payment ended before the purchase was decided. */
export const INTERRUPTED: Failure = {
  reason: 'INTERRUPTED',
  message: 'the purchase was interrupted before it was decided; nothing was charged',
  violations: [],
  isRetriable: true,
};

/** What is stored of an error. */
export function failureOf(error: ServiceError): Failure {
  const { code, message, violations } = error;
  const reason = error instanceof CheckoutCancelled ? 'CANCELLED' : code;
  return { reason, message, violations, isRetriable: !PERMANENT_REASONS.has(code) };
}

/** The error that a failed payment returns on each retry. */
export function errorOf({ failure }: Saga): ServiceError {
  if (failure === undefined) throw new TypeError('a payment that failed has a failure');
  const { reason, message, violations } = failure;
  const code = FINAL_REASONS.find((known) => known === reason) ?? 'DEPENDENCY_UNAVAILABLE';
  return new PaymentError(code, message, { violations });
}

/** The first cause of a failure: when a buyer is revoked or leaves, downstream calls fail as unavailable. */
export function rootCauseOf(error: ServiceError, buyer: Buyer): ServiceError {
  if (error.code !== 'DEPENDENCY_UNAVAILABLE') return error;
  try {
    buyer.stillAllowed();
  } catch (refusal) {
    if (refusal instanceof ServiceError) return refusal;
  }
  return buyer.signal.aborted ? new CheckoutCancelled() : error;
}

/** It is not known whether inventory has handed the goods out. */
export function unknownOutcome(cause: unknown): ServiceError {
  const message = 'it is not known yet whether the goods were handed out; ask again with the same request_id';
  return new PaymentError('DEPENDENCY_UNAVAILABLE', message, { cause, retryAfterMs: 1_000 });
}

/** The price of reserved goods in the currency of the account, in minor units; a fault when the account cannot pay it. */
export function priceOf(
  reservation: Reservation,
  currencyCode: string,
): { readonly amount: bigint } | { readonly fault: ServiceError } {
  const violations = reservation.lines.flatMap(({ unitPrice }, index) =>
    unitPrice.currencyCode === currencyCode
      ? []
      : [
          {
            field: `lines[${index}].sku`,
            description: `is priced in ${unitPrice.currencyCode}, the account is in ${currencyCode}`,
          },
        ],
  );
  if (violations.length > 0) return { fault: invalidOrder(violations) };
  const amount = reservation.lines.reduce((sum, line) => sum + line.quantity * line.unitPrice.minorUnits, 0n);
  if (amount <= MINOR_UNITS_MAX) return { amount };
  return {
    fault: invalidOrder([{ field: 'lines', description: 'must not cost more than an int64 of minor units' }]),
  };
}

function invalidOrder(violations: readonly FieldViolation[]): ServiceError {
  const [first] = violations;
  return new PaymentError('FIELD_INVALID', `${first?.field} ${first?.description}`, { violations });
}
