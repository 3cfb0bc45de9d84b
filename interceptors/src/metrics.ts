/** The door for metrics of prom-client. */

export { type CallMetricsOptions, createCallMetrics, type EndedCall } from './metrics/call-metrics.js';
export { createGuardMetrics, type GuardMetrics } from './metrics/guard-metrics.js';
export { registerStateMetrics, type StateMetric } from './metrics/state-metrics.js';
