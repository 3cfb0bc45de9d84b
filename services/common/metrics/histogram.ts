/** Histograms of durations, for the adapters of services. */

import { Histogram, type Registry } from 'prom-client';

/** Registers a histogram under a name that begins with `portcullis_`. @returns what adds a duration, in seconds */
export function registerHistogram<Label extends string>(
  registry: Registry,
  options: {
    /** Without the prefix. */
    readonly name: string;
    readonly help: string;
    /** Its label, whose values must be few. */
    readonly label: Label;
    /** Upper bounds, in seconds. */
    readonly buckets: readonly number[];
  },
): (value: string, seconds: number) => void {
  const { name, help, label, buckets } = options;
  const histogram = new Histogram<string>({
    name: `portcullis_${name}`,
    help,
    labelNames: [label],
    buckets: [...buckets],
    registers: [registry],
  });
  return (value, seconds) => histogram.observe({ [label]: value }, seconds);
}
