/** Metrics of a database: whether it answers, connections in use, what waits, and what was rejected. */

import { registerStateMetrics, type StateMetric } from '@portcullis/guard/metrics';
import type { Registry } from 'prom-client';
import type { Database, LaneStatus } from '../database/database.js';

/** Registers the metrics; the database is read at every scrape. */
export function registerDatabaseMetrics(
  registry: Registry,
  { lanes, missing }: Pick<Database, 'lanes' | 'missing'>,
): void {
  const gauge = (name: string, help: string, read: (lane: LaneStatus) => number): StateMetric => ({
    kind: 'gauge',
    name,
    help,
    labels: ['lane'],
    read: () => lanes().map((lane) => [read(lane), lane.importance] as const),
  });
  registerStateMetrics(registry, [
    {
      kind: 'gauge',
      name: 'database_reachable',
      help: 'Whether the database answers and is migrated.',
      read: () => [[Number(missing() === '')]],
    },
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
