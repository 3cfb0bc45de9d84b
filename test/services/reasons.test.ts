/** The reasons of the three services, as clients branch on them. */

import { statusOf } from '@portcullis/guard';
import { errorOf } from '@portcullis/guard/client';
import { expect } from 'chai';
import { AuthError } from '../../services/auth/errors.js';
import { InventoryError } from '../../services/inventory/errors.js';
import { PaymentError } from '../../services/payment/errors.js';

const ERRORS = [
  new AuthError('LOGIN_FAILED', 'a sentence'),
  new AuthError('REFRESH_INVALID', 'a sentence'),
  new AuthError('RESET_TOKEN_INVALID', 'a sentence'),
  new AuthError('LAST_ADMIN', 'a sentence'),
  new AuthError('USER_DISABLED', 'a sentence'),
  new AuthError('CERTIFICATE_REQUIRED', 'a sentence'),
  new AuthError('CLIENT_AUTHENTICATION_FAILED', 'a sentence'),
  new AuthError('AUDIENCE_NOT_ALLOWED', 'a sentence'),
  new AuthError('LOG_CHANGED', 'a sentence'),
  new AuthError('SUBJECT_TOKEN_INVALID', 'a sentence'),
  new AuthError('LAST_CREDENTIAL', 'a sentence'),
  new AuthError('TOO_MANY_CREDENTIALS', 'a sentence'),
  new AuthError('ETAG_MISMATCH', 'a sentence'),
  new AuthError('ALREADY_EXISTS', 'a sentence'),
  new InventoryError('INSUFFICIENT_STOCK', 'a sentence'),
  new PaymentError('INSUFFICIENT_STOCK', 'a sentence'),
  new InventoryError('RESERVATION_LIMIT', 'a sentence'),
  new PaymentError('RESERVATION_LIMIT', 'a sentence'),
  new PaymentError('INSUFFICIENT_FUNDS', 'a sentence'),
  new InventoryError('RESERVATION_EXPIRED', 'a sentence'),
  new PaymentError('RESERVATION_EXPIRED', 'a sentence'),
  new InventoryError('RESERVATION_NOT_ACTIVE', 'a sentence'),
  new PaymentError('PAYMENT_CANCELLED', 'a sentence'),
  new PaymentError('PAYMENT_NOT_CANCELLABLE', 'a sentence'),
  new PaymentError('PAYMENT_NOT_CAPTURED', 'a sentence'),
  new PaymentError('REFUND_EXCEEDS_PAYMENT', 'a sentence'),
  new PaymentError('REQUEST_ID_REUSED', 'a sentence'),
  new InventoryError('REQUEST_IN_PROGRESS', 'a sentence'),
];

const STATUSES: Readonly<Record<string, number>> = {
  LOGIN_FAILED: 16,
  REFRESH_INVALID: 16,
  RESET_TOKEN_INVALID: 16,
  LAST_ADMIN: 9,
  USER_DISABLED: 9,
  CERTIFICATE_REQUIRED: 16,
  CLIENT_AUTHENTICATION_FAILED: 16,
  AUDIENCE_NOT_ALLOWED: 7,
  LOG_CHANGED: 9,
  SUBJECT_TOKEN_INVALID: 3,
  LAST_CREDENTIAL: 9,
  TOO_MANY_CREDENTIALS: 9,
  ETAG_MISMATCH: 10,
  ALREADY_EXISTS: 6,
  INSUFFICIENT_STOCK: 9,
  RESERVATION_LIMIT: 8,
  INSUFFICIENT_FUNDS: 9,
  RESERVATION_EXPIRED: 9,
  RESERVATION_NOT_ACTIVE: 9,
  PAYMENT_CANCELLED: 9,
  PAYMENT_NOT_CANCELLABLE: 9,
  PAYMENT_NOT_CAPTURED: 9,
  REFUND_EXCEEDS_PAYMENT: 9,
  REQUEST_ID_REUSED: 9,
  REQUEST_IN_PROGRESS: 10,
};

describe('the reasons of the services', () => {
  for (const error of ERRORS) {
    it(`sends ${error.code} with status ${STATUSES[error.code]} and the code as its reason`, () => {
      expect(errorOf(statusOf(error))).to.deep.equal({
        code: STATUSES[error.code],
        reason: error.code,
        message: 'a sentence',
        violations: [],
        retryAfterMs: undefined,
      });
    });
  }
});
