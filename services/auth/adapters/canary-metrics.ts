/** The metrics of the canary: how long instances take to enforce a revocation. */

import type { Clock } from '@portcullis/guard/clock';
import { registerStateMetrics } from '@portcullis/guard/metrics';
import type { ServiceResources } from '../../common/host/run-service.js';
import { registerHistogram } from '../../common/metrics/histogram.js';
import { CANARY_OUTCOMES, type CanaryObserver } from '../revocation/canary.js';

/** The bounds of the buckets, in seconds. The objective of docs/operating/prometheus is one of them: 0.25. */
const BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60];

/** Maximum number of services with a label value of their own; the names come from registered clients. */
const SERVICES_MAX = 50;

/** Registers the metrics. @returns what receives the measurements */
export function registerCanaryMetrics(
  registry: ServiceResources['registry'],
  { intervalSeconds, clock }: { readonly intervalSeconds: number; readonly clock: Clock },
): CanaryObserver {
  const observe = registerHistogram(registry, {
    name: 'canary_seconds',
    help: 'From before the revocation of a canary token until auth knew that an instance of the service enforces it.',
    label: 'service',
    buckets: BUCKETS,
  });
  // Both from 0 on: an increase from nothing to 1 would not be seen.
  const unconfirmed = new Map<string, number>();
  const runs = new Map<string, number>(CANARY_OUTCOMES.map((outcome) => [outcome, 0]));
  // A process that has measured nothing yet has had the time since its start.
  let completedMs = clock.wallMs();
  registerStateMetrics(registry, [
    {
      name: 'canary_unconfirmed_total',
      help: 'Instances with a lease that have not confirmed the revocation of a canary token within the bound.',
      kind: 'counter',
      labels: ['service'],
      read: () => [...unconfirmed].map(([service, count]) => [count, service]),
    },
    {
      name: 'canary_runs_total',
      help: 'Canary tokens that this process has issued and revoked, by outcome.',
      kind: 'counter',
      labels: ['outcome'],
      read: () => [...runs].map(([outcome, count]) => [count, outcome]),
    },
    {
      name: 'canary_interval_seconds',
      help: 'Time between two measurements with canary tokens, as configured; 0 when there are none.',
      kind: 'gauge',
      read: () => [[intervalSeconds]],
    },
    {
      name: 'canary_completed_timestamp_seconds',
      help: 'When this process last completed a measurement, or started; 0 when there are none.',
      kind: 'gauge',
      read: () => [[intervalSeconds === 0 ? 0 : completedMs / 1000]],
    },
  ]);
  const add = (service: string, count: number): string => {
    const name = unconfirmed.has(service) || unconfirmed.size < SERVICES_MAX ? service : 'other';
    unconfirmed.set(name, (unconfirmed.get(name) ?? 0) + count);
    return name;
  };
  return {
    confirmed: (service, seconds) => observe(add(service, 0), seconds),
    unconfirmed: (service) => void add(service, 1),
    ran: (outcome) => {
      runs.set(outcome, (runs.get(outcome) ?? 0) + 1);
      if (outcome === 'completed') completedMs = clock.wallMs();
    },
  };
}
