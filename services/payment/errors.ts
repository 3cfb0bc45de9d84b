/** The reasons that payment gives, each with its status. */

import { type CodeOf, declareErrors } from '@portcullis/guard/errors';
import { COMMON_REASONS } from '../common/errors.js';

/** The errors of payment. INSUFFICIENT_STOCK, RESERVATION_LIMIT and RESERVATION_EXPIRED are passed on from inventory. */
export const PaymentError = declareErrors({
  ...COMMON_REASONS,
  INSUFFICIENT_STOCK: 'FAILED_PRECONDITION',
  RESERVATION_LIMIT: 'RESOURCE_EXHAUSTED',
  INSUFFICIENT_FUNDS: 'FAILED_PRECONDITION',
  RESERVATION_EXPIRED: 'FAILED_PRECONDITION',
  PAYMENT_CANCELLED: 'FAILED_PRECONDITION',
  PAYMENT_NOT_CANCELLABLE: 'FAILED_PRECONDITION',
  PAYMENT_NOT_CAPTURED: 'FAILED_PRECONDITION',
  REFUND_EXCEEDS_PAYMENT: 'FAILED_PRECONDITION',
});

/** A reason that payment gives. */
export type PaymentErrorCode = CodeOf<typeof PaymentError>;
