/** The lines of an order, and how they are checked. */
import type { Violations } from '../common/validation/violations.js';

/** Lines of an order at most. */
const LINES_MAX = 50;
/** Units of one line at most. */
const QUANTITY_MAX = 1_000_000n;

/** Some units of one item. */
export interface OrderLine {
  readonly sku: string;
  readonly quantity: bigint;
}

/** Reports what is wrong with the lines of an order; too many lines are not looked at one by one. */
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
