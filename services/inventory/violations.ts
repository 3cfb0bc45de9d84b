/** What is wrong with a request, collected so that its caller learns of everything at once. */

import type { FieldViolation } from '@portcullis/guard/errors';
import { InventoryError } from './errors.js';
import type { Money } from './stock.js';

/** Violations reported at most: they travel in trailers, whose size peers limit. */
export const VIOLATIONS_MAX = 25;
/** The longest request id, in characters. */
export const REQUEST_ID_LENGTH_MAX = 255;
/** The longest identifier of somebody else's, in UTF-16 units. */
export const ID_LENGTH_MAX = 255;
/** The longest name or reason, in characters. */
export const TEXT_LENGTH_MAX = 200;

const SKU = /^[A-Z0-9][A-Z0-9._-]{0,63}$/;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const CURRENCY = /^[A-Z]{3}$/;
const CURRENCIES: ReadonlySet<string> = new Set(Intl.supportedValuesOf('currency'));
const INT64_MAX = 2n ** 63n - 1n;

/** Collects violations; the checks report `field` as the `.proto` names it. */
export class Violations {
  readonly #found: FieldViolation[] = [];

  /** Reports the field unless the condition holds. */
  require(holds: boolean, field: string, description: string): void {
    if (!holds) this.#found.push({ field, description });
  }

  /** An item's identifier. */
  requireSku(sku: string, field: string): void {
    const description = 'must be 1 to 64 of A-Z, 0-9, ".", "_" and "-", beginning with a letter or digit';
    this.require(SKU.test(sku), field, description);
  }

  /** The identifier of a reservation, in either case. */
  requireUuid(id: string, field: string): void {
    this.require(UUID.test(id), field, 'must be a UUID');
  }

  /** What makes a retry the same request. */
  requireRequestId(requestId: string): void {
    const length = characters(requestId, REQUEST_ID_LENGTH_MAX);
    const holds = length >= 1 && length <= REQUEST_ID_LENGTH_MAX && isFaithful(requestId);
    const description = `must be 1 to ${REQUEST_ID_LENGTH_MAX} characters of valid UTF-8 without NUL`;
    this.require(holds, 'request_id', description);
  }

  /** An identifier that another service has given out. */
  requireId(id: string, field: string): void {
    const holds = id.length >= 1 && id.length <= ID_LENGTH_MAX && isFaithful(id) && !/\p{Cc}/u.test(id);
    this.require(holds, field, `must be 1 to ${ID_LENGTH_MAX} characters without control characters`);
  }

  /** One line of text for people. */
  requireText(text: string, field: string): void {
    const length = characters(text, TEXT_LENGTH_MAX);
    const holds =
      text.trim() !== '' && length <= TEXT_LENGTH_MAX && isFaithful(text) && !/\p{Cc}/u.test(text);
    const description = `must be 1 to ${TEXT_LENGTH_MAX} characters, not all blank, without control characters`;
    this.require(holds, field, description);
  }

  /** A price: above zero, in a currency of ISO 4217. Answers it, good or not. */
  requirePrice(price: Money | undefined, field: string): Money {
    const { minorUnits = 0n, currencyCode = '' } = price ?? {};
    const positive = minorUnits > 0n && minorUnits <= INT64_MAX;
    this.require(positive, `${field}.minor_units`, 'must be above zero');
    const known = CURRENCY.test(currencyCode) && CURRENCIES.has(currencyCode);
    this.require(known, `${field}.currency_code`, 'must be a three-letter code of ISO 4217 in capitals');
    return { minorUnits, currencyCode };
  }

  /** A whole number within limits, both included. */
  requireRange(value: bigint, limits: { min: bigint; max: bigint }, field: string): void {
    const { min, max } = limits;
    const description = `must be ${min.toLocaleString('en')} to ${max.toLocaleString('en')}`;
    this.require(value >= min && value <= max, field, description);
  }

  /** Throws FIELD_INVALID with everything that was found. */
  throwIfAny(): void {
    const [first, ...more] = this.#found;
    if (first === undefined) return;
    const others = more.length === 0 ? '' : ` (and ${more.length} more)`;
    throw new InventoryError('FIELD_INVALID', `${first.field} ${first.description}${others}`, {
      violations: this.#found.slice(0, VIOLATIONS_MAX),
    });
  }
}

/**
 * Whether the text is stored as it was sent. Protobuf turns invalid UTF-8 into U+FFFD, so two
 * different byte strings would be taken for one; PostgreSQL stores no NUL.
 */
function isFaithful(text: string): boolean {
  return !text.includes('\uFFFD') && !text.includes('\0') && text.isWellFormed();
}

/** Characters as people count them, without walking through a megabyte to say that it is too long. */
function characters(text: string, max: number): number {
  return text.length > 2 * max ? text.length : [...text].length;
}
