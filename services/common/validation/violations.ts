/** What is wrong with a request, collected so that the caller learns of every fault at once. */
import { type FieldViolation, GuardError } from '@portcullis/guard/errors';
import { isCurrency, MINOR_UNITS_MAX, type Money } from '../money.js';
import { parseUuid } from './identifiers.js';
import { canonicalRequestId, REQUEST_ID_CHARACTERS_MAX, requestIdFault } from './request-id.js';
import { countCharacters, hasControlCharacters, isStoredFaithfully } from './text.js';

/** Violations reported at most: they travel in trailers, whose size peers limit. */
const VIOLATIONS_MAX = 25;
/** The longest identifier that another service or issuer has made, in UTF-16 units. */
const FOREIGN_ID_LENGTH_MAX = 255;
/** The longest line of text for people, in characters. */
const TEXT_CHARACTERS_MAX = 200;

const SKU = /^[A-Z0-9][A-Z0-9._-]{0,63}$/;

/** Collects violations. Each check names the field as the `.proto` does, such as `lines[2].quantity`. */
export interface Violations {
  /** What was found so far. */
  readonly found: readonly FieldViolation[];
  /** Reports the field unless the condition holds. */
  require(field: string, holds: boolean, description: string): void;
  /** An identifier of this system. @returns its canonical form, or the text as it is when it was reported */
  requireUuid(field: string, id: string): string;
  /** An identifier that another service or issuer has made. */
  requireForeignId(field: string, id: string): void;
  /** The `request_id` of a request that must have one. @returns its canonical form */
  requireRequestId(requestId: string): string;
  /** An item's identifier. */
  requireSku(field: string, sku: string): void;
  /** One line of text for people, not blank. */
  requireText(field: string, text: string): void;
  /** One line of text for people; may be empty. */
  requireOptionalText(field: string, text: string): void;
  /** A currency of ISO 4217. */
  requireCurrency(field: string, code: string): void;
  /** An amount above zero in a currency of ISO 4217. */
  requireAmount(field: string, amount: Money): void;
  /** A whole number within limits, both included. */
  requireRange(field: string, value: bigint, limits: { min: bigint; max: bigint }): void;
  /** @throws ServiceError FIELD_INVALID with everything that was found */
  throwIfAny(): void;
}

/** A collector that has found nothing yet. */
export function createViolations(): Violations {
  const found: FieldViolation[] = [];
  const requireThat: Violations['require'] = (field, holds, description) => {
    if (!holds) found.push({ field, description });
  };
  const requireCurrency: Violations['requireCurrency'] = (field, code) =>
    requireThat(field, isCurrency(code), 'must be a currency code of ISO 4217 in capitals');
  return {
    found,
    require: requireThat,
    requireUuid: (field, id) => {
      const uuid = parseUuid(id);
      requireThat(field, uuid !== undefined, 'must be a UUID');
      return uuid ?? id;
    },
    requireForeignId: (field, id) => {
      const description = `must be 1 to ${FOREIGN_ID_LENGTH_MAX} characters without control characters`;
      requireThat(field, isForeignId(id), description);
    },
    requireRequestId: (requestId) => {
      const isMissing = requestId === '';
      requireThat('request_id', !isMissing, `must have 1 to ${REQUEST_ID_CHARACTERS_MAX} characters`);
      const fault = requestIdFault(requestId);
      requireThat('request_id', fault === undefined, fault ?? '');
      return canonicalRequestId(requestId);
    },
    requireSku: (field, sku) => {
      const description = 'must be 1 to 64 of A-Z, 0-9, ".", "_" and "-", beginning with a letter or digit';
      requireThat(field, SKU.test(sku), description);
    },
    requireText: (field, text) => {
      const description = `must be 1 to ${TEXT_CHARACTERS_MAX} characters, not all blank, without control characters`;
      requireThat(field, isLine(text) && text.trim() !== '', description);
    },
    requireOptionalText: (field, text) => {
      const description = `must be at most ${TEXT_CHARACTERS_MAX} characters without control characters`;
      requireThat(field, isLine(text), description);
    },
    requireCurrency,
    requireAmount: (field, { minorUnits, currencyCode }) => {
      const isPositive = minorUnits > 0n && minorUnits <= MINOR_UNITS_MAX;
      requireThat(`${field}.minor_units`, isPositive, 'must be above zero');
      requireCurrency(`${field}.currency_code`, currencyCode);
    },
    requireRange: (field, value, { min, max }) => {
      const description = `must be ${min.toLocaleString('en')} to ${max.toLocaleString('en')}`;
      requireThat(field, value >= min && value <= max, description);
    },
    throwIfAny: () => throwIfAny(found),
  };
}

function throwIfAny(found: readonly FieldViolation[]): void {
  const [first, ...more] = found;
  if (first === undefined) return;
  const others = more.length === 0 ? '' : ` (and ${more.length} more)`;
  throw new GuardError('FIELD_INVALID', `${first.field} ${first.description}${others}`, {
    violations: found.slice(0, VIOLATIONS_MAX),
  });
}

function isForeignId(id: string): boolean {
  const hasGoodLength = id.length >= 1 && id.length <= FOREIGN_ID_LENGTH_MAX;
  return hasGoodLength && isStoredFaithfully(id) && !hasControlCharacters(id);
}

function isLine(text: string): boolean {
  const hasGoodLength = countCharacters(text, TEXT_CHARACTERS_MAX) <= TEXT_CHARACTERS_MAX;
  return hasGoodLength && isStoredFaithfully(text) && !hasControlCharacters(text);
}
