/** The reasons that a gate gives itself, beside those of the guard. */

import { declareErrors } from '@portcullis/guard';

/** The error class of the gate. */
export const GateError = declareErrors({
  UPSTREAM_EXPOSED: 'UNAVAILABLE',
});
