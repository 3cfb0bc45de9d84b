/** Lets the rules for anomalies judge the order of events, once for all replicas, and acts where it is told to. */

import { ServiceError } from '@portcullis/guard/errors';
import { parseUuid } from '../../common/validation/identifiers.js';
import type { AnomalyDetails, AnomalyRule } from '../records/security-events.js';
import { sessionRevocation } from '../revocation/log.js';
import type { AuthStore, AuthTransaction } from '../transaction.js';
import { createAnomalyRules, type Finding, LOOK_BACK_MS } from './anomaly-rules.js';
import type { SecurityStore } from './event-access.js';

/** How often new events are judged, in milliseconds. */
export const JUDGING_INTERVAL_MS = 250;

/** Most events that one transaction judges. */
export const JUDGED_MAX = 1000;

/** The rules whose findings name a session that can be revoked. */
export const REVOKING_RULES = ['session-in-many-networks', 'far-above-usual'] as const;

/** Who revokes when a rule does. */
export const RULES_ACTOR = 'anomaly-rules';

/** What watches for anomalies. */
export interface AnomalyWatch {
  /** Judges what is new, unless another replica is doing so; answers how many findings were recorded. */
  judge(): Promise<number>;
}

/** What {@link createAnomalyWatch} needs. */
export interface AnomalyWatchDeps {
  readonly store: AuthStore;
  readonly events: Pick<SecurityStore, 'itemsBetween'>;
  /** The rules whose findings revoke the session that they name. */
  readonly revoking: readonly AnomalyRule[];
  readonly onFinding?: (finding: Finding, action: AnomalyDetails['action']) => void;
}

/**
 * Makes the watch of one replica. Every replica has rules of its own, which follow the one order of events; whichever
 * holds the lock on its end speaks for all, in the transaction that notes how far the order was judged. So each
 * finding is recorded once, however many replicas there are and whichever dies.
 */
export function createAnomalyWatch(deps: AnomalyWatchDeps): AnomalyWatch {
  const { store, events, revoking, onFinding } = deps;
  let rules = createAnomalyRules();
  /** What the rules have observed; undefined while they know nothing. */
  let observed: bigint | undefined;

  /** Lets the rules observe what other replicas, or this one before it was started, have judged. */
  const catchUp = async (judged: bigint, now: Date): Promise<void> => {
    const since = new Date(now.getTime() - LOOK_BACK_MS);
    for (let after = observed ?? 0n; after < judged; ) {
      const { items, upTo } = await events.itemsBetween({ since, after, upTo: judged, limit: JUDGED_MAX });
      for (const item of items) rules.observe(item);
      after = upTo ?? judged;
    }
    observed = judged;
  };

  const judgeSome = async (): Promise<{ found: readonly Found[]; isMore: boolean }> => {
    const state = await store.transaction(async (tx) => {
      const end = await tx.eventStream.place(false);
      return end && { ...end, now: await tx.databaseTime() };
    });
    if (state === undefined || state.position === state.judged) return NOTHING;
    // Outside of the transaction, which must not last: whoever starts has an hour to read.
    await catchUp(state.judged, state.now);
    return await store
      .transaction(async (tx) => {
        const end = await tx.eventStream.place(false);
        if (end === undefined || end.judged !== observed) return NOTHING;
        const { items, upTo = end.position } = await tx.eventStream.after(end.judged, JUDGED_MAX);
        const found: Found[] = [];
        // If the transaction fails, the rules have observed what was not judged: they begin anew.
        observed = undefined;
        for (const finding of items.flatMap((item) => rules.observe(item))) {
          found.push({ finding, action: await record(tx, finding, revoking) });
        }
        await tx.eventStream.setJudged(upTo);
        return { found, isMore: upTo < end.position, upTo };
      })
      .then((outcome) => {
        if ('upTo' in outcome) observed = outcome.upTo;
        return outcome;
      });
  };

  return {
    judge: async () => {
      let count = 0;
      try {
        for (;;) {
          const { found, isMore } = await judgeSome();
          count += found.length;
          for (const { finding, action } of found) onFinding?.(finding, action);
          if (!isMore) return count;
        }
      } catch (error) {
        // The database tells of itself when it is away.
        if (error instanceof ServiceError && error.code === 'DEPENDENCY_UNAVAILABLE') return count;
        throw error;
      } finally {
        if (observed === undefined) rules = createAnomalyRules();
      }
    },
  };
}

interface Found {
  readonly finding: Finding;
  readonly action: AnomalyDetails['action'];
}

const NOTHING = { found: [], isMore: false } as const;

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
  // Whoever refreshes with an old token ends the session at once.
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
