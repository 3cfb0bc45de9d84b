/** Metrics of a guard's decisions and state. Labels are bounded, and none names a caller. */

import { Counter, Histogram, Registry } from 'prom-client';
import type { BrokerState, BrokerUse } from '../revocation/broker-link.js';
import type { EngineState } from '../server/engine-core.js';
import type { GuardState } from '../server/guard.js';
import { LIMIT_NAMES } from '../server/guard-limits.js';
import { type GuardObserver, VERIFY_SECONDS_BUCKETS } from '../server/options.js';
import { registerStateMetrics, type StateMetric } from './state-metrics.js';

/** A guard, or an engine, whose connections have no HTTP/2 streams that it could count. */
interface Guarded {
  state(): GuardState | EngineState;
}

/** The metrics of one guard. */
export interface GuardMetrics {
  /** The guard's observer. */
  readonly observer: GuardObserver;
  /** Where they are registered, with the other metrics of the process. */
  readonly registry: Registry;
  /**
   * Reads the state of a guard, or of an engine, at every scrape.
   *
   * @param more.brokerUses - the process's own connections to the broker, beside those of the guard
   */
  attach(guarded: Guarded, more?: { readonly brokerUses?: (() => readonly BrokerUse[]) | undefined }): void;
}

/**
 * Metrics of a guard.
 *
 * Decisions are counted by method and outcome. The methods are those of the server and the outcomes a closed list, so
 * callers cannot make the number of labels grow.
 */
export function createGuardMetrics(registry: Registry = new Registry()): GuardMetrics {
  return {
    registry,
    observer: createObserver(registry),
    attach: (guard, { brokerUses = () => [] } = {}) =>
      registerStateMetrics(registry, [
        ...stateMetricsOf(guard),
        ...connectionMetrics(guard, () => [...guard.state().broker, ...brokerUses()]),
      ]),
  };
}

function createObserver(registry: Registry): GuardObserver {
  const faults = new Counter({
    name: 'portcullis_invalid_tokens_total',
    help: 'Tokens refused as not valid, by the part that was wrong.',
    labelNames: ['fault'],
    registers: [registry],
  });
  const forgeries = new Counter({
    name: 'portcullis_forged_broadcasts_total',
    help: 'Messages on the broker that the issuer has not signed.',
    registers: [registry],
  });
  const fenced = new Counter({
    name: 'portcullis_fence_refused_total',
    help: 'Transactions of admitted calls that were stopped at a fence, by reason.',
    labelNames: ['reason'],
    registers: [registry],
  });
  const limited = new Counter({
    name: 'portcullis_limited_total',
    help: 'Calls and connections that a limit has refused or ended.',
    labelNames: ['limit'],
    registers: [registry],
  });
  // From 0 on: an increase from nothing to 1 would not be seen.
  for (const limit of LIMIT_NAMES) limited.inc({ limit }, 0);
  const verifying = new Histogram({
    name: 'portcullis_verify_seconds',
    help: 'How long a new token waited for the verdict on its signature.',
    buckets: VERIFY_SECONDS_BUCKETS,
    registers: [registry],
  });
  return {
    decided: createDecisionCounter(registry),
    tokenInvalid: (fault) => faults.inc({ fault }),
    broadcastForged: () => forgeries.inc(),
    fenceRefused: (reason) => fenced.inc({ reason }),
    limited: (limit) => limited.inc({ limit }),
    observed: createObservedCounter(registry),
    verified: (ms) => verifying.observe(ms / 1000),
  };
}

/** What a guard that only observes would refuse. */
function createObservedCounter(registry: Registry): NonNullable<GuardObserver['observed']> {
  const observed = new Counter({
    name: 'portcullis_observed_refusals_total',
    help: 'Calls that mode enforce would have refused or cut, by method and reason.',
    labelNames: ['grpc_method', 'reason'],
    registers: [registry],
  });
  return (path, reason) => observed.inc({ grpc_method: path, reason });
}

/** Counts in plain maps, and copies them into the metric at a scrape, because this runs in every call. */
function createDecisionCounter(registry: Registry): NonNullable<GuardObserver['decided']> {
  const decided = new Map<string, Map<string, number>>();
  const decisions: Counter<string> = new Counter({
    name: 'portcullis_decisions_total',
    help: 'Calls decided: admitted, refused or cut, by method and reason.',
    labelNames: ['grpc_method', 'outcome'],
    registers: [registry],
    collect: () => {
      decisions.reset();
      for (const [grpc_method, outcomes] of decided) {
        for (const [outcome, count] of outcomes) decisions.inc({ grpc_method, outcome }, count);
      }
    },
  });
  return (path, outcome) => {
    let outcomes = decided.get(path);
    if (outcomes === undefined) {
      outcomes = new Map();
      decided.set(path, outcomes);
    }
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  };
}

function stateMetricsOf(guard: Guarded): StateMetric[] {
  const metric = (
    kind: StateMetric['kind'],
    name: string,
    help: string,
    read: () => number,
  ): StateMetric => ({
    kind,
    name,
    help,
    read: () => [[read()]],
  });
  return [
    metric(
      'gauge',
      'revocation_lease_seconds',
      'For how long the revocation list may still be trusted.',
      () => Math.max(0, guard.state().leaseMs / 1000),
    ),
    metric('gauge', 'revocation_current', 'Whether the revocation list may be trusted.', () =>
      Number(guard.state().current),
    ),
    metric('gauge', 'revocation_entries', 'Entries in the revocation list.', () => guard.state().entries),
    metric(
      'gauge',
      'revocation_entries_max',
      'Entries at which the list is full and the process stops serving.',
      () => guard.state().entriesMax,
    ),
    metric(
      'gauge',
      'revocation_applied_sequence',
      'Every entry of the log up to this one is in the list.',
      () => Number(guard.state().applied),
    ),
    metric(
      'gauge',
      'verified_tokens',
      'Tokens whose verification is remembered.',
      () => guard.state().tokens,
    ),
    metric('gauge', 'connections', 'Open connections of gRPC.', () => guard.state().connections),
    metric(
      'gauge',
      'public_calls',
      'Calls without a token in progress, from networks without a valid token.',
      () => guard.state().publicCalls,
    ),
    metric(
      'gauge',
      'new_streams',
      'Open HTTP/2 streams on connections that have shown no valid token.',
      () => streamsOf(guard).newStreams,
    ),
    metric(
      'gauge',
      'waiting_streams',
      'HTTP/2 streams whose calls have not begun, because too many arrived at once.',
      () => streamsOf(guard).waitingStreams,
    ),
    metric(
      'gauge',
      'bytes_in_flight',
      'Bytes of requests that have not reached their handlers.',
      () => guard.state().bytesInFlight,
    ),
    metric(
      'gauge',
      'reports_waiting',
      'Reports to the issuer that are not acknowledged yet.',
      () => guard.state().reports.waiting,
    ),
    metric(
      'counter',
      'reports_sent_total',
      'Reports that the issuer has acknowledged.',
      () => guard.state().reports.sent,
    ),
    metric(
      'counter',
      'reports_lost_total',
      'Reports that could not be kept until the issuer acknowledged them.',
      () => guard.state().reports.lost,
    ),
  ];
}

const BROKER_STATES = [
  'connecting',
  'connected',
  'unreachable',
  'refused',
  'tls',
  'credentials',
] as const satisfies readonly BrokerState[];

/** What the guard is connected to: the broker, and the issuer. */
function connectionMetrics(guarded: Guarded, broker: () => readonly BrokerUse[]): StateMetric[] {
  return [
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
      help: 'Whether the latest sync of revocations with the issuer succeeded.',
      read: () => [[Number(guarded.state().lastSyncSucceeded)]],
    },
  ];
}

function streamsOf(guarded: Guarded): Pick<GuardState, 'newStreams' | 'waitingStreams'> {
  const state = guarded.state();
  return 'newStreams' in state ? state : { newStreams: 0, waitingStreams: 0 };
}
