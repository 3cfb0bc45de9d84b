/** The error reasons that all services share. */

import { declareErrors, type Reasons } from '@portcullis/guard/errors';

/** To be spread into a service's own reasons. */
export const COMMON_REASONS = {
  ALREADY_EXISTS: 'ALREADY_EXISTS',
  REQUEST_ID_REUSED: 'FAILED_PRECONDITION',
  REQUEST_IN_PROGRESS: 'ABORTED',
} as const satisfies Reasons;

/** The errors of code that services share. */
export const CommonError = declareErrors(COMMON_REASONS);
