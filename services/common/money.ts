/** Amounts of money: whole minor units of one currency. */

/** An amount in the smallest unit of a currency. */
export interface Money {
  readonly minorUnits: bigint;
  /** ISO 4217. */
  readonly currencyCode: string;
}

/** Maximum of an account, a price or a sum: what an int64 holds. */
export const MINOR_UNITS_MAX = 2n ** 63n - 1n;

const CURRENCIES: ReadonlySet<string> = new Set(Intl.supportedValuesOf('currency'));

/** Whether the code is a currency of ISO 4217, spelt exactly. */
export function isCurrency(code: string): boolean {
  return CURRENCIES.has(code);
}
