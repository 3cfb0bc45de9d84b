/** The reasons that inventory gives, each with its status. */

import { declareErrors } from '@portcullis/guard/errors';
import { COMMON_REASONS } from '../common/errors.js';

/** The errors of inventory. */
export const InventoryError = declareErrors({
  ...COMMON_REASONS,
  INSUFFICIENT_STOCK: 'FAILED_PRECONDITION',
  RESERVATION_LIMIT: 'RESOURCE_EXHAUSTED',
  RESERVATION_EXPIRED: 'FAILED_PRECONDITION',
  RESERVATION_NOT_ACTIVE: 'FAILED_PRECONDITION',
});
