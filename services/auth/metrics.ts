/** The metrics of auth, beside those of every guarded service: events, refreshes, anomalies, keys, lag. */

import type { Clock } from '@portcullis/guard/clock';
import type { KeyPurpose } from './records/keys.js';
import type { AnomalyRule } from './records/security-events.js';
import { ANOMALY_RULES } from './records/security-events.js';
import { INSTANCE_LIMITS, type InstanceLimit } from './revocation/instance-places.js';
import type { InstanceRecord } from './revocation/instance-records.js';
import type { RevocationStore, TokenLifetime } from './revocation/log-access.js';
import type { EventCounts } from './security/event-recorder.js';
import { SECURITY_EVENT_TYPES } from './security/events.js';
import {
  CALLER_CLASSES,
  type CallerClass,
  type FairQueue,
  QUEUE_LIMITS,
  type QueueLimit,
} from './security/fair-queue.js';
import { REFRESH_OUTCOMES, type RefreshOutcome } from './sessions/refresh.js';

/** A metric in the form in which it is registered. */
interface AuthMetric {
  readonly name: string;
  readonly help: string;
  readonly kind: 'counter' | 'gauge';
  /** Each label has few values: users, names and networks are not among them. */
  readonly labels?: readonly string[];
  read(): Iterable<readonly [value: number, ...labels: readonly string[]]>;
}

/** The sources of the metrics. */
interface AuthMetricsSources {
  readonly clock: Clock;
  readonly events: () => EventCounts;
  readonly reports: () => { readonly recorded: number; readonly forged: number };
  readonly broadcasts: () => { readonly sent: number; readonly dropped: number };
  readonly instances: () => readonly InstanceRecord[];
  readonly queues: Readonly<Record<QueueName, Pick<FairQueue, 'waiting'>>>;
  readonly stored: Pick<StoredFacts, 'signingSince' | 'tokenLifetime' | 'pendingNarrowings'>;
  /** Private keys and secrets that are not encrypted under the current key-encryption key. */
  readonly keysLeft: () => number;
  /** For how many days a key signs. */
  readonly keyRotationDays: number;
}

/** The queues for work that costs much. */
const QUEUES = ['passwords', 'assertions'] as const;

/** One of {@link QUEUES}. */
export type QueueName = (typeof QUEUES)[number];

/** Counters of events as they happen. */
export interface AuthCounts {
  anomalyFound(rule: AnomalyRule): void;
  refreshed(outcome: RefreshOutcome): void;
  /** A sync request was refused because of this limit. */
  instanceRefused(limit: InstanceLimit): void;
  /** Revocations were written together, this many. */
  revocationsGrouped(members: number): void;
  /** A revocation was refused because too many wait to be written. */
  revocationRefused(): void;
  queueRefused(queue: QueueName, importance: CallerClass, limit: QueueLimit): void;
  policyChanged(): void;
  /** A change of the policy revoked the tokens of this many users. */
  policyNarrowed(users: number): void;
  /** The metrics of these counters. */
  metrics(): readonly AuthMetric[];
}

export function createAuthCounts(): AuthCounts {
  const anomalies = new Map<AnomalyRule, number>(ANOMALY_RULES.map((rule) => [rule, 0]));
  const refused = new Map<InstanceLimit, number>(INSTANCE_LIMITS.map((limit) => [limit, 0]));
  const refreshes = new Map<RefreshOutcome, number>(REFRESH_OUTCOMES.map((outcome) => [outcome, 0]));
  const queueRefusals = new Map<string, number>(
    QUEUES.flatMap((queue) =>
      CALLER_CLASSES.flatMap((importance) =>
        QUEUE_LIMITS.map((limit) => [JSON.stringify([queue, importance, limit]), 0] as const),
      ),
    ),
  );
  const groups = { transactions: 0, members: 0, refused: 0 };
  const policy = { changes: 0, narrowedUsers: 0 };
  return {
    policyChanged: () => {
      policy.changes += 1;
    },
    policyNarrowed: (users) => {
      policy.narrowedUsers += users;
    },
    revocationsGrouped: (members) => {
      groups.transactions += 1;
      groups.members += members;
    },
    revocationRefused: () => {
      groups.refused += 1;
    },
    anomalyFound: (rule) => void anomalies.set(rule, (anomalies.get(rule) ?? 0) + 1),
    refreshed: (outcome) => void refreshes.set(outcome, (refreshes.get(outcome) ?? 0) + 1),
    queueRefused: (queue, importance, limit) => {
      const labels = JSON.stringify([queue, importance, limit]);
      queueRefusals.set(labels, (queueRefusals.get(labels) ?? 0) + 1);
    },
    instanceRefused: (limit) => void refused.set(limit, (refused.get(limit) ?? 0) + 1),
    metrics: () => [
      {
        name: 'queue_refused_total',
        help: 'Callers that were refused because too much work waits, by queue, class of the caller and limit.',
        kind: 'counter',
        labels: ['queue', 'importance', 'limit'],
        read: () =>
          [...queueRefusals].map(([labels, count]) => [count, ...(JSON.parse(labels) as string[])] as const),
      },
      {
        name: 'instances_refused_total',
        help: 'Syncs that were refused because too many instances follow the log, by limit.',
        kind: 'counter',
        labels: ['limit'],
        read: () => [...refused].map(([limit, count]) => [count, limit]),
      },
      {
        name: 'revocation_groups_total',
        help: 'Transactions that wrote revocations of sessions and tokens together.',
        kind: 'counter',
        read: () => [[groups.transactions]],
      },
      {
        name: 'revocation_group_members_total',
        help: 'Revocations of sessions and tokens that were written by such transactions.',
        kind: 'counter',
        read: () => [[groups.members]],
      },
      {
        name: 'revocations_refused_total',
        help: 'Revocations of sessions and tokens that were refused because too many wait to be written.',
        kind: 'counter',
        read: () => [[groups.refused]],
      },
      {
        name: 'policy_changes_total',
        help: 'Changes of the policy that this process has committed.',
        kind: 'counter',
        read: () => [[policy.changes]],
      },
      {
        name: 'policy_narrowed_users_total',
        help: 'Users whose tokens were revoked because a change of the policy took a scope from them.',
        kind: 'counter',
        read: () => [[policy.narrowedUsers]],
      },
      {
        name: 'anomalies_total',
        help: 'Anomalies that this process has found, by rule.',
        kind: 'counter',
        labels: ['rule'],
        read: () => [...anomalies].map(([rule, count]) => [count, rule]),
      },
      {
        name: 'refreshes_total',
        help: 'Refreshes, by outcome.',
        kind: 'counter',
        labels: ['outcome'],
        read: () => [...refreshes].map(([outcome, count]) => [count, outcome]),
      },
    ],
  };
}

/** All metrics of auth. */
export function authMetrics(
  counts: Pick<AuthCounts, 'metrics'>,
  sources: AuthMetricsSources,
): readonly AuthMetric[] {
  return [
    ...securityEventMetrics(sources),
    ...brokerMetrics(sources),
    ...counts.metrics(),
    queueMetric(sources),
    signingAgeMetric(sources),
    {
      name: 'key_rotation_seconds',
      help: 'How long a signing key signs before the next one takes its place, as configured.',
      kind: 'gauge',
      read: () => [[sources.keyRotationDays * DAY_SECONDS]],
    },
    narrowingMetric(sources),
    {
      name: 'keys_under_other_key_encryption_key',
      help: 'Private keys and secrets in the database that are not encrypted under the current key-encryption key.',
      kind: 'gauge',
      read: () => [[sources.keysLeft()]],
    },
    ...revocationMetrics(sources),
  ];
}

function securityEventMetrics({ events }: AuthMetricsSources): AuthMetric[] {
  return [
    {
      name: 'security_events_total',
      help: 'Security events that this process has recorded, by type.',
      kind: 'counter',
      labels: ['type'],
      read: () => SECURITY_EVENT_TYPES.map((type) => [events().recorded.get(type) ?? 0, type]),
    },
    counterOf(
      'security_events_lost_total',
      'Security events that could not be recorded.',
      () => events().lost,
    ),
    {
      name: 'security_events_waiting',
      help: 'Security events that wait to be recorded.',
      kind: 'gauge',
      read: () => [[events().waiting]],
    },
  ];
}

function brokerMetrics({ reports, broadcasts }: AuthMetricsSources): AuthMetric[] {
  return [
    counterOf('service_reports_total', 'Accepted reports of services.', () => reports().recorded),
    counterOf(
      'service_reports_forged_total',
      'Messages that were not valid reports, or not signed by the client that they name.',
      () => reports().forged,
    ),
    counterOf('broadcasts_total', 'Broadcasts of revocations handed to the broker.', () => broadcasts().sent),
    counterOf(
      'broadcast_entries_dropped_total',
      'Revocations that were not broadcast; instances receive them with their next sync.',
      () => broadcasts().dropped,
    ),
  ];
}

function queueMetric({ queues }: AuthMetricsSources): AuthMetric {
  return {
    name: 'queue_waiting',
    help: 'Callers that wait, by queue and class of the caller.',
    kind: 'gauge',
    labels: ['queue', 'importance'],
    read: () =>
      QUEUES.flatMap((queue) =>
        CALLER_CLASSES.map((importance) => [queues[queue].waiting(importance), queue, importance] as const),
      ),
  };
}

function signingAgeMetric({ clock, stored }: AuthMetricsSources): AuthMetric {
  return {
    name: 'key_signing_age_seconds',
    help: 'Time since the present signing key began to sign, by purpose.',
    kind: 'gauge',
    labels: ['purpose'],
    read: () =>
      [...stored.signingSince()].map(([purpose, since]) => [
        Math.max(0, (clock.wallMs() - since.getTime()) / 1000),
        purpose,
      ]),
  };
}

function narrowingMetric({ stored }: AuthMetricsSources): AuthMetric {
  return {
    name: 'policy_narrowings_pending',
    help: 'Changes of the policy whose revocations are not all committed, at all replicas, as read once a minute.',
    kind: 'gauge',
    read: () => {
      const pending = stored.pendingNarrowings();
      return pending === undefined ? [] : [[pending]];
    },
  };
}

function revocationMetrics({ instances, stored }: AuthMetricsSources): AuthMetric[] {
  return [
    {
      name: 'access_token_seconds',
      help: 'The lifetime of access tokens that are minted now, at every replica.',
      kind: 'gauge',
      read: () => lifetimeOf(stored, ({ tokenSeconds }) => tokenSeconds),
    },
    {
      name: 'revocation_kept_seconds',
      help: 'How long an entry about tokens of this issuer is kept that is written now.',
      kind: 'gauge',
      read: () => lifetimeOf(stored, ({ keptSeconds }) => keptSeconds),
    },
    {
      name: 'revocation_head_sequence',
      help: 'The last entry of the revocation log that this process has sent to an instance.',
      kind: 'gauge',
      read: () => [[Number(headOf(instances()))]],
    },
    {
      name: 'revocation_lag_entries',
      help: 'The largest number of entries that an instance of the service lacks, of those that sync with this process.',
      kind: 'gauge',
      labels: ['service'],
      read: () => lagOf(instances()),
    },
  ];
}

/** What the database says, as read at the last refresh: metrics are read without waiting. */
export interface StoredFacts {
  /** When the present signing keys began to sign. */
  signingSince(): ReadonlyMap<KeyPurpose, Date>;
  /** Undefined before the first refresh. */
  tokenLifetime(): TokenLifetime | undefined;
  /** The changes of the policy whose revocations are not all committed; undefined before the first refresh. */
  pendingNarrowings(): number | undefined;
  refresh(): Promise<void>;
}

export function createStoredFacts(sources: {
  readonly keyLife: { signingSince(): Promise<ReadonlyMap<KeyPurpose, Date>> };
  readonly revocationLog: Pick<RevocationStore, 'tokenLifetime'>;
  readonly narrowings: { pending(): Promise<number> };
}): StoredFacts {
  let signingSince: ReadonlyMap<KeyPurpose, Date> = new Map();
  let tokenLifetime: TokenLifetime | undefined;
  let pendingNarrowings: number | undefined;
  return {
    signingSince: () => signingSince,
    tokenLifetime: () => tokenLifetime,
    pendingNarrowings: () => pendingNarrowings,
    refresh: async () => {
      signingSince = await sources.keyLife.signingSince();
      tokenLifetime = await sources.revocationLog.tokenLifetime();
      pendingNarrowings = await sources.narrowings.pending();
    },
  };
}

function counterOf(name: string, help: string, read: () => number): AuthMetric {
  return { name, help, kind: 'counter', read: () => [[read()]] };
}

function lifetimeOf(
  stored: Pick<StoredFacts, 'tokenLifetime'>,
  pick: (lifetime: TokenLifetime) => number,
): [number][] {
  const lifetime = stored.tokenLifetime();
  return lifetime === undefined ? [] : [[pick(lifetime)]];
}

function headOf(instances: readonly InstanceRecord[]): bigint {
  let head = 0n;
  for (const { answeredHead } of instances) if (answeredHead > head) head = answeredHead;
  return head;
}

const DAY_SECONDS = 86_400;

/** Maximum number of services with a label value of their own; the names come from registered clients. */
const SERVICES_MAX = 50;

function lagOf(instances: readonly InstanceRecord[]): [number, string][] {
  const head = headOf(instances);
  const lag = new Map<string, number>();
  for (const { service, applied, epoch, leaseEndMs, requestedAtMs } of instances) {
    // An instance whose lease has expired has stopped, or rejects all calls.
    if (leaseEndMs < requestedAtMs || epoch.length === 0) continue;
    const name = lag.has(service) || lag.size < SERVICES_MAX ? service : 'other';
    lag.set(name, Math.max(lag.get(name) ?? 0, Number(head > applied ? head - applied : 0n)));
  }
  return [...lag].map(([service, entries]) => [entries, service]);
}
