/** Metrics of a gate: those of its engine, under the names that guards have, and those of the relay. */

import type { GuardObserver } from '@portcullis/guard';
import type { Engine } from '@portcullis/guard/engine';
import { createGuardMetrics, registerStateMetrics } from '@portcullis/guard/metrics';
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import { RELAY_EVENTS } from './relay/observer.js';

/** The metrics of one process of a gate. */
export interface GateMetrics {
  readonly registry: Registry;
  readonly observer: GuardObserver;
  /** Reads the engine's state at every scrape. */
  attach(engine: Engine): void;
  /** Something has happened to a connection of the relay. */
  relayEvent(event: string): void;
  /** Whether the upstream can be called around the gate. */
  exposed(isExposed: boolean): void;
  /** Reads at every scrape whether the upstream is healthy. */
  upstreamUp(read: () => boolean): void;
}

/** Gauges of several processes whose sum says nothing, and which value of them does. */
const AGGREGATORS: Readonly<Record<string, 'min' | 'max'>> = {
  portcullis_revocation_lease_seconds: 'min',
  portcullis_revocation_current: 'min',
  portcullis_revocation_entries: 'max',
  portcullis_revocation_entries_max: 'min',
  portcullis_revocation_applied_sequence: 'min',
  portcullis_broker_connected: 'min',
  portcullis_broker_state: 'max',
  portcullis_last_sync_succeeded: 'min',
  portcullis_gate_upstream_up: 'min',
  portcullis_gate_upstream_exposed: 'max',
};

/** Creates the metrics, in a registry of their own. */
export function createGateMetrics(): GateMetrics {
  const { registry, observer, attach } = createGuardMetrics(new Registry());
  collectDefaultMetrics({ register: registry });
  const events = new Counter({
    name: 'portcullis_gate_events_total',
    help: 'What has happened to connections and calls of the relay, by kind.',
    labelNames: ['event'],
    registers: [registry],
  });
  // From 0 on: an increase from nothing to 1 would not be seen.
  for (const event of RELAY_EVENTS) events.inc({ event }, 0);
  const exposed = new Gauge({
    name: 'portcullis_gate_upstream_exposed',
    help: 'Whether the upstream can be called around the gate.',
    registers: [registry],
  });
  return {
    registry,
    observer,
    attach: (engine) => {
      attach(engine);
      for (const [name, aggregator] of Object.entries(AGGREGATORS)) {
        const metric = registry.getSingleMetric(name);
        if (metric !== undefined) Object.assign(metric, { aggregator });
      }
    },
    relayEvent: (event) => events.inc({ event }),
    exposed: (isExposed) => exposed.set(Number(isExposed)),
    upstreamUp: (read) =>
      registerStateMetrics(registry, [
        {
          kind: 'gauge',
          name: 'gate_upstream_up',
          help: 'Whether the upstream is reachable, and serving if it says so.',
          read: () => [[Number(read())]],
        },
      ]),
  };
}
