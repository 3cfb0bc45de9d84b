/** Checks of request fields that tell of all faults together. */

import type { FieldViolation } from '@portcullis/guard/errors';
import { isCurrency, type Money } from '../common/money.js';
import { PaymentError } from './errors.js';

/** Characters of a `request_id` at most. */
export const REQUEST_ID_CHARACTERS_MAX = 255;
/** Characters of a reason at most. */
export const REASON_CHARACTERS_MAX = 200;
/** Lines of an order at most. */
export const LINES_MAX = 50;
/** Violations reported at most: they travel in trailers, whose size peers limit. */
export const VIOLATIONS_MAX = 25;
/** Units of one line at most. */
export const QUANTITY_MAX = 1_000_000n;

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const SKU = /^[A-Z0-9][A-Z0-9._-]{0,63}$/;

/** Some units of one item. */
export interface OrderLine {
  readonly sku: string;
  readonly quantity: bigint;
}

/** What is wrong with the fields of one request. */
export type Violations = readonly FieldViolation[];

/**
 * Passes when no check found anything.
 *
 * @throws ServiceError FIELD_INVALID with everything that any of them found
 */
export function requireValid(...checks: readonly Violations[]): void {
  const violations = checks.flat();
  if (violations.length === 0) return;
  const [first] = violations;
  const others = violations.length === 1 ? '' : ` (and ${violations.length - 1} more)`;
  throw new PaymentError('FIELD_INVALID', `${first?.field} ${first?.description}${others}`, {
    violations: violations.slice(0, VIOLATIONS_MAX),
  });
}

/** An identifier of ours. */
export function checkId(field: string, id: string): Violations {
  return UUID.test(id) ? [] : [{ field, description: 'must be a UUID' }];
}

/** A key made by the caller. */
export function checkRequestId(requestId: string): Violations {
  const field = 'request_id';
  // A megabyte need not be counted to be too long.
  const length = requestId.length > 2 * REQUEST_ID_CHARACTERS_MAX ? requestId.length : [...requestId].length;
  if (length < 1 || length > REQUEST_ID_CHARACTERS_MAX) {
    return [{ field, description: `must have 1 to ${REQUEST_ID_CHARACTERS_MAX} characters` }];
  }
  // Bytes that are not UTF-8 arrive as U+FFFD, so two different keys could look like one.
  if (/[\0\uFFFD]/.test(requestId) || !requestId.isWellFormed()) {
    return [{ field, description: 'must be UTF-8 without NUL and U+FFFD' }];
  }
  return [];
}

/** A sentence for people; may be empty. */
export function checkReason(field: string, reason: string): Violations {
  const holds = reason.length <= 2 * REASON_CHARACTERS_MAX && [...reason].length <= REASON_CHARACTERS_MAX;
  // Other control characters than those that fields forbid would forge lines where reasons are listed.
  if (holds && !/[\p{Cc}\uFFFD]/u.test(reason) && reason.isWellFormed()) return [];
  const description = `must be at most ${REASON_CHARACTERS_MAX} characters without control characters`;
  return [{ field, description }];
}

/** The code of a currency. */
export function checkCurrency(field: string, code: string): Violations {
  return isCurrency(code) ? [] : [{ field, description: 'must be a currency code of ISO 4217' }];
}

/** An amount above zero of a known currency. */
export function checkAmount(field: string, money: Money | undefined): Violations {
  if (money === undefined) return [{ field, description: 'is required' }];
  const positive = money.minorUnits > 0n;
  return [
    ...(positive ? [] : [{ field: `${field}.minor_units`, description: 'must be above 0' }]),
    ...checkCurrency(`${field}.currency_code`, money.currencyCode),
  ];
}

/** The lines of an order. */
export function checkLines(lines: readonly OrderLine[]): Violations {
  if (lines.length < 1 || lines.length > LINES_MAX) {
    return [{ field: 'lines', description: `must be 1 to ${LINES_MAX}` }];
  }
  const seen = new Set<string>();
  return lines.flatMap((line, index) => {
    const repeated = seen.has(line.sku);
    seen.add(line.sku);
    return [...checkSku(`lines[${index}].sku`, line.sku, repeated), ...checkQuantity(index, line.quantity)];
  });
}

function checkSku(field: string, sku: string, repeated: boolean): Violations {
  if (!SKU.test(sku))
    return [
      {
        field,
        description: 'must be 1 to 64 of A-Z, 0-9, ".", "_" and "-", beginning with a letter or digit',
      },
    ];
  return repeated ? [{ field, description: 'must not be in another line as well' }] : [];
}

function checkQuantity(index: number, quantity: bigint): Violations {
  if (quantity >= 1n && quantity <= QUANTITY_MAX) return [];
  return [{ field: `lines[${index}].quantity`, description: `must be 1 to ${QUANTITY_MAX}` }];
}
