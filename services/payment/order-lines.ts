/** The lines of an order, and their validation. */

import type { Violations } from '../common/validation/violations.js';

/** Maximum number of lines of an order. */
const LINES_MAX = 50;
/** Maximum number of units of one line. */
const QUANTITY_MAX = 1_000_000n;

/** A number of units of one item. */
export interface OrderLine {
  readonly sku: string;
  readonly quantity: bigint;
}

/** Reports the faults of the lines of an order. Too many lines are one fault: there may be a million. */
export function requireLines(violations: Violations, lines: readonly OrderLine[]): void {
  const hasGoodLength = lines.length >= 1 && lines.length <= LINES_MAX;
  violations.require('lines', hasGoodLength, `must be 1 to ${LINES_MAX}`);
  if (!hasGoodLength) return;
  const seen = new Set<string>();
  for (const [index, { sku, quantity }] of lines.entries()) {
    const field = `lines[${index}].sku`;
    if (seen.has(sku)) violations.require(field, false, 'must not be in another line as well');
    else violations.requireSku(field, sku);
    violations.requireRange(`lines[${index}].quantity`, quantity, { min: 1n, max: QUANTITY_MAX });
    seen.add(sku);
  }
}
