/** Metrics of what a service is connected to: the broker, auth, and its database. */

import type { BrokerState, BrokerUse } from '@portcullis/guard';
import { registerStateMetrics } from '@portcullis/guard/metrics';
import type { Registry } from 'prom-client';

const BROKER_STATES = [
  'connecting',
  'connected',
  'unreachable',
  'refused',
  'tls',
  'credentials',
] as const satisfies readonly BrokerState[];

/** What is read at every scrape. */
interface ConnectionSources {
  /** One for each connection to the broker. */
  readonly broker: () => readonly BrokerUse[];
  readonly lastSyncSucceeded: () => boolean;
  readonly databaseAnswers: () => boolean;
}

/** Registers the metrics. */
export function registerConnectionMetrics(
  registry: Registry,
  { broker, lastSyncSucceeded, databaseAnswers }: ConnectionSources,
): void {
  registerStateMetrics(registry, [
    {
      kind: 'gauge',
      name: 'broker_connected',
      help: 'Whether a connection to the broker is open.',
      labels: ['use'],
      read: () => broker().map(({ use, state }) => [Number(state === 'connected'), use]),
    },
    {
      kind: 'gauge',
      name: 'broker_state',
      help: '1 for the state of a connection to the broker, 0 for the others.',
      labels: ['use', 'reason'],
      read: () =>
        broker().flatMap(({ use, state }) =>
          BROKER_STATES.map((one) => [Number(one === state), use, one] as const),
        ),
    },
    {
      kind: 'gauge',
      name: 'last_sync_succeeded',
      help: 'Whether the latest sync of revocations with auth succeeded.',
      read: () => [[Number(lastSyncSucceeded())]],
    },
    {
      kind: 'gauge',
      name: 'database_reachable',
      help: 'Whether the database answers and is migrated.',
      read: () => [[Number(databaseAnswers())]],
    },
  ]);
}
