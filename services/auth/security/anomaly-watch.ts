/** Applies the anomaly rules to the ordered events, once for all replicas, and revokes sessions where configured. */

import { ServiceError } from '@portcullis/guard/errors';
import { parseUuid } from '../../common/validation/identifiers.js';
import type { AnomalyDetails, AnomalyRule } from '../records/security-events.js';
import { sessionRevocation } from '../revocation/log.js';
import type { AuthStore, AuthTransaction } from '../transaction.js';
import { type AnomalyRules, createAnomalyRules, type Finding, LOOK_BACK_MS } from './anomaly-rules.js';
import type { SecurityStore } from './event-access.js';

/** How often the rules read new events, in milliseconds. */
export const PROCESSING_INTERVAL_MS = 250;

/** Maximum number of events that the rules process in one transaction. */
const EVENTS_PROCESSED_MAX = 1000;

/** The rules whose findings name a session that can be revoked. */
export const REVOKING_RULES = ['session-in-many-networks', 'far-above-usual'] as const;

/** The actor of revocations by rules. */
const RULES_ACTOR = 'anomaly-rules';

/** Watches for anomalies. */
export interface AnomalyWatch {
  /**
   * Applies the rules to new events, unless another replica is doing so, and returns how many findings were recorded.
   */
  process(): Promise<number>;
}

export interface AnomalyWatchDeps {
  readonly store: AuthStore;
  readonly events: Pick<SecurityStore, 'itemsBetween'>;
  /** The rules whose findings revoke the session that they name. */
  readonly revoking: readonly AnomalyRule[];
  readonly onFinding?: (finding: Finding, action: AnomalyDetails['action']) => void;
}

/** The rules of one replica, and how far they came. */
interface RulesState {
  rules: AnomalyRules;
  /** The last position that the rules have observed; undefined while their memory is empty. */
  observed: bigint | undefined;
}

/**
 * Creates the watch of one replica. Every replica has its own rules, which follow the one order of events. The replica
 * that holds the lock on the end of the order records findings, in the transaction that stores how far the rules came.
 * So each finding is recorded once, whichever replica stops.
 */
export function createAnomalyWatch(deps: AnomalyWatchDeps): AnomalyWatch {
  const state: RulesState = { rules: createAnomalyRules(), observed: undefined };
  return {
    process: async () => {
      let count = 0;
      try {
        for (;;) {
          const { found, isMore } = await processPart(deps, state);
          count += found.length;
          for (const { finding, action } of found) deps.onFinding?.(finding, action);
          if (!isMore) return count;
        }
      } catch (error) {
        // The database layer reports an unreachable database.
        if (error instanceof ServiceError && error.code === 'DEPENDENCY_UNAVAILABLE') return count;
        throw error;
      } finally {
        if (state.observed === undefined) state.rules = createAnomalyRules();
      }
    },
  };
}

async function processPart(deps: AnomalyWatchDeps, state: RulesState): Promise<Part> {
  const { store } = deps;
  const end = await store.transaction(async (tx) => {
    const placed = await tx.eventStream.place(false);
    return placed && { ...placed, now: await tx.databaseTime() };
  });
  if (end === undefined || end.position === end.processed) return NOTHING;
  // Outside the transaction, which must be short: a new replica reads one hour of events.
  await catchUp(deps, state, end);
  const part = await store.transaction((tx) => processInTransaction(tx, deps, state));
  if (part.upTo !== undefined) state.observed = part.upTo;
  return part;
}

/** Feeds the rules what other replicas, or this one before its start, have processed. */
async function catchUp(
  { events }: AnomalyWatchDeps,
  state: RulesState,
  { processed, now }: { readonly processed: bigint; readonly now: Date },
): Promise<void> {
  const since = new Date(now.getTime() - LOOK_BACK_MS);
  for (let after = state.observed ?? 0n; after < processed; ) {
    const range = { since, after, upTo: processed, limit: EVENTS_PROCESSED_MAX };
    const { items, upTo } = await events.itemsBetween(range);
    for (const item of items) state.rules.observe(item);
    after = upTo ?? processed;
  }
  state.observed = processed;
}

async function processInTransaction(
  tx: AuthTransaction,
  { revoking }: AnomalyWatchDeps,
  state: RulesState,
): Promise<Part> {
  const end = await tx.eventStream.place(false);
  if (end === undefined || end.processed !== state.observed) return NOTHING;
  const { items, upTo = end.position } = await tx.eventStream.after(end.processed, EVENTS_PROCESSED_MAX);
  const found: Found[] = [];
  // If the transaction fails, the rules have observed events that were not processed, so they start again empty.
  state.observed = undefined;
  for (const finding of items.flatMap((item) => state.rules.observe(item))) {
    found.push({ finding, action: await record(tx, finding, revoking) });
  }
  await tx.eventStream.setProcessed(upTo);
  return { found, isMore: upTo < end.position, upTo };
}

/** What one transaction found. */
interface Part {
  readonly found: readonly Found[];
  readonly isMore: boolean;
  /** The position up to which the rules came; undefined when another replica was processing. */
  readonly upTo?: bigint;
}

interface Found {
  readonly finding: Finding;
  readonly action: AnomalyDetails['action'];
}

const NOTHING: Part = { found: [], isMore: false };

async function record(
  tx: AuthTransaction,
  { subject, network, time, details }: Finding,
  revoking: readonly AnomalyRule[],
): Promise<AnomalyDetails['action']> {
  const { rule } = details;
  const { sessionId } = subject;
  const isOurs =
    sessionId !== undefined && parseUuid(sessionId) !== undefined && subject.issuer === undefined;
  const revokes = revoking.includes(rule) && isOurs && (await tx.sessions.end(sessionId, 'REVOKED'));
  // The refresh with a used token has ended the session already.
  const action = revokes || rule === 'refresh-reused' ? 'session revoked' : 'none';
  await tx.events.record({
    type: 'anomaly-detected',
    subject,
    actor: RULES_ACTOR,
    reason: rule,
    network,
    time,
    details: { ...details, action },
  });
  if (!revokes) return action;
  const by = { reason: `anomaly: ${rule}`, actor: RULES_ACTOR };
  const about = { subject, network, details: { initiator: 'system' } } as const;
  await tx.events.record({ ...by, ...about, type: 'session-revoked' });
  await tx.revocations.append([{ ...sessionRevocation(sessionId), ...by }]);
  return action;
}
