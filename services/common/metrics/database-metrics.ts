/** Metrics of the lanes of a database: connections in use, what waits, and what was rejected. */

import { registerStateMetrics, type StateMetric } from '@portcullis/guard/metrics';
import type { Registry } from 'prom-client';
import type { LaneStatus } from '../database/database.js';

/** Registers the metrics; `lanes` is read at every scrape. */
export function registerDatabaseMetrics(registry: Registry, lanes: () => readonly LaneStatus[]): void {
  const gauge = (name: string, help: string, read: (lane: LaneStatus) => number): StateMetric => ({
    kind: 'gauge',
    name,
    help,
    labels: ['lane'],
    read: () => lanes().map((lane) => [read(lane), lane.importance] as const),
  });
  registerStateMetrics(registry, [
    gauge('database_connections_max', 'Connections that a lane may use.', ({ connections }) => connections),
    gauge('database_connections_in_use', 'Connections of a lane that are in use.', ({ inUse }) => inUse),
    gauge('database_waiting', 'Requests that wait for a connection of a lane.', ({ waiting }) => waiting),
    {
      kind: 'counter',
      name: 'database_rejected_total',
      help: 'Requests rejected because the queue of a lane or of a row was full, or the wait took too long.',
      labels: ['lane', 'limit'],
      read: () =>
        lanes().flatMap(({ importance, rejected }) =>
          [...rejected].map(([limit, count]) => [count, importance, limit] as const),
        ),
    },
  ]);
}
