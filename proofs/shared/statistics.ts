/** Quantiles, quartiles and sums of measured values. */

/** Median and quartiles of some values. */
export interface Spread {
  readonly median: number;
  /** The first quartile. */
  readonly lower: number;
  /** The third quartile. */
  readonly upper: number;
}

/** The percentiles that the proofs report. */
export interface Percentiles {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

/** The quantile of a share in [0, 1], interpolated between neighbours; NaN without values. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const at = share * (sorted.length - 1);
  const below = sorted[Math.floor(at)] ?? Number.NaN;
  const above = sorted[Math.ceil(at)] ?? Number.NaN;
  return below + (above - below) * (at - Math.floor(at));
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

export function spreadOf(values: readonly number[]): Spread {
  return { median: median(values), lower: quantile(values, 0.25), upper: quantile(values, 0.75) };
}

/** p50, p99 and maximum, each a measured value, rounded to so many decimals; 0 without values. */
export function percentilesOf(values: readonly number[], decimals: number): Percentiles {
  const sorted = Float64Array.from(values).sort();
  const at = (share: number): number =>
    roundTo(sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0, decimals);
  return { p50: at(0.5), p99: at(0.99), max: at(1) };
}

/** Adds up one number of each item. */
export function sumOf<T>(items: Iterable<T>, value: (item: T) => number): number {
  let sum = 0;
  for (const item of items) sum += value(item);
  return sum;
}

export function roundTo(value: number, decimals: number): number {
  return Math.round(value * 10 ** decimals) / 10 ** decimals;
}
