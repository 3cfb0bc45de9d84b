/**
 * The anomaly rules: thresholds in one table, and functions that apply them to the ordered events. The same order gives
 * the same findings, on every replica and in a replay.
 */

import { LRUCache } from 'lru-cache';
import type { AnomalyDetails, AnomalyRule, SecurityEvent, Subject } from '../records/security-events.js';
import type { AdmittedCalls, RefusedCalls, ServiceReport } from '../records/service-reports.js';

/** When a rule fires. */
export interface Threshold {
  /** The rule fires at this count within the window. */
  readonly count: number;
  readonly windowSeconds: number;
  /**
   * After a finding, the rule does not fire again for that subject until the count has stayed below the threshold for
   * this time.
   */
  readonly quietSeconds: number;
}

/** The thresholds of all rules. */
export const THRESHOLDS: Readonly<Record<AnomalyRule, Threshold>> = {
  // Failed logins with one name. Users who have forgotten their password give up earlier.
  'name-guessed': { count: 10, windowSeconds: 300, quietSeconds: 900 },
  // Different names with which logins from one network have failed.
  'names-sprayed': { count: 15, windowSeconds: 300, quietSeconds: 900 },
  // Used refresh tokens of one session that came again. One is enough: only the client or an attacker can have it.
  'refresh-reused': { count: 1, windowSeconds: 60, quietSeconds: 3600 },
  // Networks from which the tokens of one session were used. A phone that changes networks uses two or three.
  'session-in-many-networks': { count: 4, windowSeconds: 60, quietSeconds: 900 },
  // Calls of one session or client that were rejected because the token was revoked. Clients get another token earlier.
  'revoked-token-hammered': { count: 50, windowSeconds: 60, quietSeconds: 900 },
  // Calls from one network that were rejected because the token was invalid.
  'invalid-tokens-hammered': { count: 50, windowSeconds: 60, quietSeconds: 900 },
  // Calls of one principal, if they also exceed `FAR_ABOVE_FACTOR` times its usual rate.
  'far-above-usual': { count: 600, windowSeconds: 60, quietSeconds: 900 },
};

/** The multiple of its usual rate from which on a principal's rate is far above usual. */
export const FAR_ABOVE_FACTOR = 10;

/** How long a principal must be known before its usual rate is used, in seconds. */
export const USUAL_LEARNED_SECONDS = 600;

/** Time constant of the usual rate: after this time it has followed a lasting change by two thirds, in seconds. */
const USUAL_MEMORY_SECONDS = 1800;

/** Maximum number of subjects that one rule remembers; beyond it, the subject without signals for longest is forgotten. */
export const SUBJECTS_PER_RULE_MAX = 50_000;

/** Maximum number of different names or networks that a rule remembers of one subject. */
const MEMBERS_MAX = 64;

/** Resolution of times within a window, in milliseconds. */
const BUCKET_MS = 5000;

/** How far back the rules must read events after a start, in milliseconds. */
export const LOOK_BACK_MS = 3_600_000;

/** Maximum number of pieces of evidence in a finding. */
const EVIDENCE_MAX = 8;

/** The input of the rules, in order. */
export type Observation =
  | { readonly time: Date; readonly event: SecurityEvent }
  | { readonly time: Date; readonly report: ServiceReport };

/** The result of a rule that fired. */
export interface Finding {
  readonly subject: Subject;
  readonly network: string;
  readonly time: Date;
  readonly details: Omit<AnomalyDetails, 'action'>;
}

/** The rules with their memory. */
export interface AnomalyRules {
  /** Processes the next observation, and returns the findings. */
  observe(observation: Observation): readonly Finding[];
}

/** Creates rules with an empty memory. */
export function createAnomalyRules(): AnomalyRules {
  const counters = Object.fromEntries(
    Object.keys(THRESHOLDS).map((rule) => [rule, createCounter(rule as AnomalyRule)]),
  ) as Record<AnomalyRule, Counter>;
  const usual = createUsualRates();

  const signal = (rule: AnomalyRule, at: Signal): Finding[] => {
    const finding = counters[rule].add(at);
    return finding === undefined ? [] : [finding];
  };

  return {
    observe: (observation) => {
      if ('event' in observation) return observeEvent(observation.event, signal);
      return observeReport(observation.report, observation.time, signal, usual);
    },
  };
}

/** One thing that a rule counts. */
interface Signal {
  readonly key: string;
  readonly subject: Subject;
  readonly network: string;
  readonly timeMs: number;
  readonly weight: number;
  /** For rules that count distinct members: the name or network that counts once. */
  readonly member?: string;
  /** Text for the reader of the finding. */
  readonly evidence: string;
  /** A further condition for the rule to fire. */
  readonly isMore?: (counted: number) => boolean;
}

type SignalTo = (rule: AnomalyRule, signal: Signal) => Finding[];

function observeEvent(event: SecurityEvent, signal: SignalTo): readonly Finding[] {
  const { subject, network, time } = event;
  const at = { network, timeMs: time.getTime(), weight: 1 };
  switch (event.type) {
    case 'login-failed': {
      const who = subject.userId ?? subject.nameHash ?? '';
      const from = network === '' ? 'an unknown network' : network;
      return [
        ...signal('name-guessed', { ...at, key: who, subject, evidence: `from ${from}` }),
        ...(network === ''
          ? []
          : signal('names-sprayed', {
              ...at,
              key: network,
              subject: { network },
              member: who,
              evidence: who,
            })),
      ];
    }
    case 'refresh-token-reused': {
      const key = subject.sessionId ?? '';
      return signal('refresh-reused', { ...at, key, subject, evidence: `from ${network}` });
    }
    default:
      return [];
  }
}

function observeReport(
  report: ServiceReport,
  time: Date,
  signal: SignalTo,
  usual: UsualRates,
): readonly Finding[] {
  const timeMs = time.getTime();
  return [
    ...report.refused.flatMap((refused) => observeRefused(report, refused, timeMs, signal)),
    ...report.admitted.flatMap((admitted) => observeAdmitted(report, admitted, timeMs, signal, usual)),
  ];
}

function observeRefused(
  { service }: ServiceReport,
  { reason, network, caller, calls }: RefusedCalls,
  timeMs: number,
  signal: SignalTo,
): readonly Finding[] {
  const at = { network, timeMs, weight: calls, evidence: `${calls} at ${service}` };
  if (reason === 'TOKEN_INVALID') {
    return signal('invalid-tokens-hammered', { ...at, key: network, subject: { network } });
  }
  if (reason !== 'TOKEN_REVOKED' || caller === undefined) return [];
  return signal('revoked-token-hammered', {
    ...at,
    key: `${caller.issuer} ${caller.subject} ${caller.sessionId}`,
    subject: subjectOf(caller),
  });
}

function observeAdmitted(
  { service }: ServiceReport,
  { caller, calls, networks }: AdmittedCalls,
  timeMs: number,
  signal: SignalTo,
  usual: UsualRates,
): readonly Finding[] {
  const { issuer, subject, clientId, sessionId, delegated } = caller;
  const principal = `${issuer} ${subject} ${clientId}`;
  const rate = usual.add(principal, timeMs, calls);
  const [network = ''] = networks;
  const inNetworks =
    // A service that acts for a user calls from its own network.
    sessionId === '' || delegated
      ? []
      : networks.flatMap((member) =>
          signal('session-in-many-networks', {
            ...{ key: sessionId, subject: subjectOf(caller), network: member, timeMs, weight: 1, member },
            evidence: member,
          }),
        );
  const farAbove = signal('far-above-usual', {
    ...{ key: principal, subject: subjectOf(caller), network, timeMs, weight: calls },
    evidence: `${calls} at ${service}`,
    isMore: (counted) => rate !== undefined && counted > FAR_ABOVE_FACTOR * rate,
  });
  return [...inNetworks, ...farAbove];
}

function subjectOf({ issuer, subject, clientId, sessionId }: AdmittedCalls['caller']): Subject {
  // Subjects of this issuer carry no issuer.
  const foreign = issuer === '' ? {} : { issuer };
  if (subject === clientId && sessionId === '') return { ...foreign, clientId };
  return { ...foreign, userId: subject, ...(sessionId === '' ? {} : { sessionId }) };
}

interface Counter {
  add(signal: Signal): Finding | undefined;
}

/** The memory of a rule for one subject. */
interface Memory {
  /** Counts by bucket of time. */
  buckets: { startMs: number; count: number }[];
  /** The last time of each member. */
  readonly members: Map<string, number>;
  readonly evidence: Set<string>;
  /** The time of the last signal. */
  lastMs: number;
  /** The last time at which the count reached the threshold. */
  unusualMs: number;
}

function createCounter(rule: AnomalyRule): Counter {
  const { count: threshold, windowSeconds, quietSeconds } = THRESHOLDS[rule];
  const windowMs = windowSeconds * 1000;
  const memories = new LRUCache<string, Memory>({ max: SUBJECTS_PER_RULE_MAX });
  return {
    add: (signal) => {
      const memory = memories.get(signal.key) ?? newMemory();
      memories.set(signal.key, memory);
      const { timeMs } = signal;
      const nowMs = Math.max(memory.lastMs, timeMs);
      // A late report counts at the time that it covers.
      if (timeMs <= nowMs - windowMs) return undefined;
      memory.lastMs = nowMs;
      const counted =
        signal.member === undefined
          ? countCalls(memory, signal, nowMs - windowMs)
          : countMembers(memory, signal, nowMs - windowMs);
      // Only the latest evidence is kept, because old evidence says nothing about the present window.
      memory.evidence.delete(signal.evidence);
      memory.evidence.add(signal.evidence);
      for (const oldest of memory.evidence) {
        if (memory.evidence.size <= EVIDENCE_MAX) break;
        memory.evidence.delete(oldest);
      }
      if (counted < threshold || !(signal.isMore?.(counted) ?? true)) return undefined;
      const isNew = nowMs - memory.unusualMs >= quietSeconds * 1000;
      memory.unusualMs = nowMs;
      if (!isNew) return undefined;
      return {
        subject: signal.subject,
        network: signal.network,
        time: new Date(timeMs),
        details: { rule, count: counted, threshold, windowSeconds, evidence: [...memory.evidence] },
      };
    },
  };
}

function newMemory(): Memory {
  return {
    buckets: [],
    members: new Map(),
    evidence: new Set(),
    lastMs: Number.NEGATIVE_INFINITY,
    unusualMs: Number.NEGATIVE_INFINITY,
  };
}

function countCalls(memory: Memory, { timeMs, weight }: Signal, afterMs: number): number {
  const startMs = Math.floor(timeMs / BUCKET_MS) * BUCKET_MS;
  memory.buckets = memory.buckets.filter((bucket) => bucket.startMs + BUCKET_MS > afterMs);
  const bucket = memory.buckets.find((one) => one.startMs === startMs);
  if (bucket === undefined) memory.buckets.push({ startMs, count: weight });
  else bucket.count += weight;
  return memory.buckets.reduce((sum, { count }) => sum + count, 0);
}

function countMembers({ members }: Memory, { member = '', timeMs }: Signal, afterMs: number): number {
  for (const [known, seenMs] of members) if (seenMs <= afterMs) members.delete(known);
  if (members.size < MEMBERS_MAX || members.has(member)) {
    members.set(member, Math.max(timeMs, members.get(member) ?? timeMs));
  }
  return members.size;
}

interface UsualRates {
  /** Counts calls, and returns the usual number per window; undefined until it is known. */
  add(principal: string, timeMs: number, calls: number): number | undefined;
}

/** The usual rate of one principal. */
interface Usual {
  readonly sinceMs: number;
  /** The present window; it enters the mean when it has ended. */
  windowStartMs: number;
  windowCalls: number;
  /** The mean number of calls per window, with older windows weighing less. */
  mean: number;
}

function createUsualRates(): UsualRates {
  const { windowSeconds } = THRESHOLDS['far-above-usual'];
  const windowMs = windowSeconds * 1000;
  const keep = Math.exp(-windowSeconds / USUAL_MEMORY_SECONDS);
  const known = new LRUCache<string, Usual>({ max: SUBJECTS_PER_RULE_MAX });
  return {
    add: (principal, timeMs, calls) => {
      const usual = known.get(principal) ?? {
        sinceMs: timeMs,
        windowStartMs: timeMs,
        windowCalls: 0,
        mean: 0,
      };
      known.set(principal, usual);
      const passed = Math.max(0, Math.floor((timeMs - usual.windowStartMs) / windowMs));
      if (passed > 0) {
        const windows = (usual.windowStartMs - usual.sinceMs) / windowMs;
        // The first windows form a plain mean. A weighted mean that starts at zero would make every rate look far above.
        const weight = Math.max(1 - keep, 1 / (windows + 1));
        usual.mean += (usual.windowCalls - usual.mean) * weight;
        usual.mean *= keep ** (passed - 1);
        usual.windowStartMs += passed * windowMs;
        usual.windowCalls = 0;
      }
      usual.windowCalls += calls;
      return timeMs - usual.sinceMs < USUAL_LEARNED_SECONDS * 1000 ? undefined : usual.mean;
    },
  };
}
