/** Metrics that are read from the state of a part at every scrape. */

import { Counter, Gauge, type Registry } from 'prom-client';

/** One metric of a part. */
export interface StateMetric {
  /** Without the prefix `portcullis_`. */
  readonly name: string;
  /** What it means, in one sentence. */
  readonly help: string;
  readonly kind: 'counter' | 'gauge';
  /** Names of the labels; their values must be few. */
  readonly labels?: readonly string[];
  /** The current values, each with the values of its labels in their order. */
  read(): Iterable<readonly [value: number, ...labels: readonly string[]]>;
}

/** Registers metrics whose values are read at every scrape, under names that begin with `portcullis_`. */
export function registerStateMetrics(registry: Registry, metrics: readonly StateMetric[]): void {
  for (const { name, help, kind, labels = [], read } of metrics) {
    const options = { name: `portcullis_${name}`, help, labelNames: [...labels], registers: [registry] };
    const labelled = (values: readonly string[]): Record<string, string> =>
      Object.fromEntries(labels.map((label, index) => [label, values[index] ?? '']));
    if (kind === 'gauge') {
      const gauge: Gauge<string> = new Gauge({
        ...options,
        collect: () => {
          gauge.reset();
          for (const [value, ...values] of read()) gauge.set(labelled(values), value);
        },
      });
    } else {
      const counter: Counter<string> = new Counter({
        ...options,
        collect: () => {
          counter.reset();
          for (const [value, ...values] of read()) counter.inc(labelled(values), value);
        },
      });
    }
  }
}
