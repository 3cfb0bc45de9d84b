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

/** The amount for people, in the currency's major unit with all its decimals, such as `0.50 EUR` or `50 JPY`. */
export function formatMoney({ minorUnits, currencyCode }: Money): string {
  const decimals = decimalsOf(currencyCode);
  const digits = (minorUnits < 0n ? -minorUnits : minorUnits).toString().padStart(decimals + 1, '0');
  const whole = digits.slice(0, digits.length - decimals);
  const fraction = decimals === 0 ? '' : `.${digits.slice(-decimals)}`;
  return `${minorUnits < 0n ? '-' : ''}${whole}${fraction} ${currencyCode}`;
}

/** The number of decimals of a currency (ISO 4217). */
function decimalsOf(currencyCode: string): number {
  const format = new Intl.NumberFormat('en', { style: 'currency', currency: currencyCode });
  return format.resolvedOptions().maximumFractionDigits ?? 2;
}
