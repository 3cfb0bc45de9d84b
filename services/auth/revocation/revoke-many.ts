/** Revocations of many targets at once: those that a request lists, or all sessions that match a filter. */

import { invalidField, ServiceError } from '@portcullis/guard/errors';
import type { MatchedSession, SessionFilter } from '../records/sessions.js';
import type { InstanceReceipt, Wait } from './enforcement-watch.js';
import type { FenceReceipt } from './fence-watch.js';
import { receiptOfWritten, type Written } from './revocation-groups.js';
import {
  checkRequest,
  type RevokeDeps,
  type RevokeReceipt,
  waitUntilEnforced,
  writeRevocation,
} from './revoke.js';
import {
  type CheckedTarget,
  checkTarget,
  isTargetKnown,
  isTokenTarget,
  type Target,
} from './revoke-targets.js';

/** Maximum number of targets in one request. */
const TARGETS_MAX = 1000;

/** How many targets are checked at once: a refresh token needs the database. */
const CHECKS_AT_ONCE = 16;

/** How many matching sessions end at once. */
const SESSIONS_AT_ONCE = 500;

/** How many matching sessions a dry run lists. */
const SESSIONS_LISTED_MAX = 100;

/** What is asked of many revocations at once. */
interface ManyRequest {
  readonly reason: string;
  readonly actor: string;
  readonly wait?: Wait;
  /** The fences to wait for, with FENCED. */
  readonly fences?: readonly string[];
  /** Ends the wait, and the search for further sessions. */
  readonly signal?: AbortSignal;
}

/** The receipt of all revocations that succeeded. */
interface ManyReceipt {
  /** Position of the last entry; 0 when there is none. */
  readonly sequence: bigint;
  /** The latest of all; undefined when nothing was revoked. */
  readonly enforcedEverywhereBy: Date | undefined;
  readonly instances: readonly InstanceReceipt[];
  readonly fences: readonly FenceReceipt[];
}

/** The result of one target. */
export type TargetResult = Pick<RevokeReceipt, 'sequence' | 'targetKnown'> | { readonly error: ServiceError };

/** What is known when the call returns. */
export interface RevokeManyReceipt extends ManyReceipt {
  /** One for each target, in their order. */
  readonly results: readonly TargetResult[];
}

/** What has become of the sessions that match a filter. */
export interface RevokedSessions extends ManyReceipt {
  readonly sessionCount: number;
}

/**
 * Revokes many targets. Those that fail do not affect the others.
 *
 * @throws ServiceError FIELD_INVALID for a bad reason, and for no or too many targets; RATE_LIMITED when too many calls
 *   wait. Then nothing was revoked.
 */
export async function revokeMany(
  deps: RevokeDeps,
  request: ManyRequest & { readonly targets: readonly Target[] },
): Promise<RevokeManyReceipt> {
  const { targets } = request;
  checkRequest(deps, request);
  if (targets.length === 0 || targets.length > TARGETS_MAX) {
    throw invalidField('targets', `must hold 1 to ${TARGETS_MAX} targets`);
  }
  const checked = await checkTargets(deps, targets);
  const outcomes = await writeTargets(deps, checked, request);
  const results = outcomes.map((outcome, index): TargetResult => {
    if (outcome instanceof ServiceError) return { error: outcome };
    const target = targets[index];
    return {
      sequence: outcome.entry.sequence,
      targetKnown: target !== undefined && isTargetKnown(target),
    };
  });
  const written = outcomes.filter((outcome): outcome is Written => !(outcome instanceof ServiceError));
  return { results, ...(await receiptOfAll(deps, written, request)) };
}

/**
 * Ends all open sessions that match a filter, a few hundred at a time.
 *
 * @throws ServiceError FIELD_INVALID; RATE_LIMITED; DEPENDENCY_UNAVAILABLE, after which some of the sessions have ended
 */
export async function revokeSessions(
  deps: RevokeDeps,
  request: ManyRequest & { readonly filter: SessionFilter },
): Promise<RevokedSessions> {
  checkRequest(deps, request);
  checkFilter(request.filter);
  const all: Written[] = [];
  let after: string | undefined;
  while (request.signal?.aborted !== true) {
    const page = { after, limit: SESSIONS_AT_ONCE };
    const matched = await deps.store.transaction((tx) => tx.sessions.match(request.filter, page));
    const targets = matched.map(({ sessionId }) => ({ kind: 'session', sessionId }) as const);
    const outcomes = await writeTargets(deps, await checkTargets(deps, targets), request);
    for (const outcome of outcomes) {
      if (!(outcome instanceof ServiceError)) all.push(outcome);
      // A session that was deleted meanwhile has long ended.
      else if (outcome.code !== 'NOT_FOUND') throw outcome;
    }
    after = matched.at(-1)?.sessionId;
    if (matched.length < SESSIONS_AT_ONCE) break;
  }
  return { sessionCount: all.length, ...(await receiptOfAll(deps, all, request)) };
}

/** How many sessions match a filter, and the first of them by id. */
export interface MatchedSessions {
  readonly sessionCount: number;
  readonly sessions: readonly MatchedSession[];
}

/**
 * What {@link revokeSessions} would hit.
 *
 * @throws ServiceError FIELD_INVALID
 */
export async function matchSessions(
  { store }: Pick<RevokeDeps, 'store'>,
  filter: SessionFilter,
): Promise<MatchedSessions> {
  checkFilter(filter);
  return await store.transaction(async (tx) => {
    const [sessionCount, sessions] = await Promise.all([
      tx.sessions.countMatching(filter),
      tx.sessions.match(filter, { after: undefined, limit: SESSIONS_LISTED_MAX }),
    ]);
    return { sessionCount, sessions };
  });
}

/**
 * Checks a filter: an empty one would end every session, which is what OpenEpoch does.
 *
 * @throws ServiceError FIELD_INVALID
 */
function checkFilter(filter: SessionFilter): void {
  if (Object.values(filter).every((condition) => condition === undefined)) {
    throw invalidField('filter', 'must have a condition');
  }
}

async function checkTargets(
  deps: RevokeDeps,
  targets: readonly Target[],
): Promise<readonly (CheckedTarget | ServiceError)[]> {
  const checked: (CheckedTarget | ServiceError)[] = [];
  for (let from = 0; from < targets.length; from += CHECKS_AT_ONCE) {
    const part = targets.slice(from, from + CHECKS_AT_ONCE);
    checked.push(...(await Promise.all(part.map((target) => orFailure(checkTarget(deps, target))))));
  }
  return checked;
}

/** Writes the targets whose check succeeded: tokens and sessions in groups, accounts and keys one after another. */
async function writeTargets(
  deps: RevokeDeps,
  targets: readonly (CheckedTarget | ServiceError)[],
  request: ManyRequest,
): Promise<readonly (Written | ServiceError)[]> {
  // Instances confirm the last entry of all by its place, so only that one asks for an answer at once.
  const writeOne = (target: CheckedTarget, index: number) =>
    orFailure(
      writeRevocation(deps, target, {
        ...request,
        acknowledge: request.wait !== undefined && request.wait !== 'NONE' && index === targets.length - 1,
      }),
    );
  // Awaited together, so that a fault in one of them leaves no other rejection unhandled.
  const grouped = await Promise.all(
    targets.map((target, index) =>
      target instanceof ServiceError || !isTokenTarget(target) ? undefined : writeOne(target, index),
    ),
  );
  const outcomes: (Written | ServiceError)[] = [];
  for (const [index, target] of targets.entries()) {
    if (target instanceof ServiceError) outcomes.push(target);
    else outcomes.push(grouped[index] ?? (await writeOne(target, index)));
  }
  if (targets.some((target) => !(target instanceof ServiceError) && target.kind === 'key'))
    deps.onKeyRevoked();
  return outcomes;
}

/** The failure of one target; other errors are faults of the program and fail the call. */
function orFailure<T>(attempt: Promise<T>): Promise<T | ServiceError> {
  return attempt.catch((error: unknown) => {
    if (error instanceof ServiceError) return error;
    throw error;
  });
}

/**
 * Waits until the last entry is enforced. An instance whose place in the log is at or beyond it has the others, too; that
 * it has the last one alone would not show that.
 */
async function receiptOfAll(
  deps: RevokeDeps,
  written: readonly Written[],
  request: ManyRequest,
): Promise<ManyReceipt> {
  const last = written.toSorted(compareInLog).at(-1);
  if (last === undefined) return { sequence: 0n, enforcedEverywhereBy: undefined, instances: [], fences: [] };
  const { sequence } = last.entry;
  // Not Math.max(...times): a hundred thousand arguments exceed the stack.
  const latestMs = written.reduce(
    (latest, one) => Math.max(latest, receiptOfWritten(one).enforcedEverywhereBy.getTime()),
    0,
  );
  const enforcedEverywhereBy = new Date(latestMs);
  const waitedFor = { ...last, entry: { entryId: NO_ENTRY, sequence } };
  const enforced = await waitUntilEnforced(deps, waitedFor, { ...request, enforcedEverywhereBy });
  return { sequence, enforcedEverywhereBy, ...enforced };
}

/** No acknowledgement names it. */
const NO_ENTRY = Buffer.alloc(0);

/** By the time of the commit, because another epoch may have been opened between two of them. */
function compareInLog(one: Written, other: Written): number {
  return one.committedAtMs - other.committedAtMs || Number(one.entry.sequence - other.entry.sequence);
}
