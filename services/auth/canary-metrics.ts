/** The metrics of the canary: how long instances take to enforce a revocation. */

import type { Clock } from '@portcullis/guard/clock';
import { registerStateMetrics } from '@portcullis/guard/metrics';
import { Counter, Histogram, type Registry } from 'prom-client';
import { CANARY_OUTCOMES, type CanaryObserver } from './revocation/canary.js';

/** The bounds of the buckets, in seconds. The objective of docs/operating/prometheus is one of them: 0.25. */
const BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60];

/** Maximum number of services with a label value of their own; the names come from registered clients. */
const SERVICES_MAX = 50;

/** Registers the metrics. @returns what receives the measurements */
export function registerCanaryMetrics(
  registry: Registry,
  { intervalSeconds, clock }: { readonly intervalSeconds: number; readonly clock: Clock },
): CanaryObserver {
  const latency = new Histogram({
    name: 'portcullis_canary_seconds',
    help: 'From before the revocation of a canary token until auth knew that an instance of the service enforces it.',
    labelNames: ['service'],
    buckets: BUCKETS,
    registers: [registry],
  });
  const unconfirmed = new Counter({
    name: 'portcullis_canary_unconfirmed_total',
    help: 'Instances with a lease that have not confirmed the revocation of a canary token within the bound.',
    labelNames: ['service'],
    registers: [registry],
  });
  const runs = new Counter({
    name: 'portcullis_canary_runs_total',
    help: 'Canary tokens that this process has issued and revoked, by outcome.',
    labelNames: ['outcome'],
    registers: [registry],
  });
  for (const outcome of CANARY_OUTCOMES) runs.inc({ outcome }, 0);
  // A process that has measured nothing yet has had the time since its start.
  let completedMs = clock.wallMs();
  registerStateMetrics(registry, [
    {
      name: 'canary_interval_seconds',
      help: 'Time between two measurements with canary tokens, as configured; 0 when there are none.',
      kind: 'gauge',
      read: () => [[intervalSeconds]],
    },
    {
      name: 'canary_completed_timestamp_seconds',
      help: 'When this process last completed a measurement, or started; no value when there are none.',
      kind: 'gauge',
      read: () => (intervalSeconds === 0 ? [] : [[completedMs / 1000]]),
    },
  ]);
  const seen = new Set<string>();
  const labelOf = (service: string): { service: string } => {
    if (!seen.has(service) && seen.size >= SERVICES_MAX) return { service: 'other' };
    if (!seen.has(service)) {
      seen.add(service);
      // From 0 on: an increase from nothing to 1 would not be seen.
      unconfirmed.inc({ service }, 0);
    }
    return { service };
  };
  return {
    confirmed: (service, seconds) => latency.observe(labelOf(service), seconds),
    unconfirmed: (service) => unconfirmed.inc(labelOf(service)),
    ran: (outcome) => {
      runs.inc({ outcome });
      if (outcome === 'completed') completedMs = clock.wallMs();
    },
  };
}
