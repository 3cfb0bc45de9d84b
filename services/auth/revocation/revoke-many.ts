/** Revocations of many targets at once: those that a request lists, or all sessions that match a filter. */

import { invalidField, ServiceError } from '@portcullis/guard/errors';
import type { SessionFilter } from '../records/sessions.js';
import type { InstanceReceipt, Wait } from './enforcement-watch.js';
import type { FenceReceipt } from './fence-watch.js';
import type { Instances } from './instances.js';
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
import type { SessionSearch } from './session-search.js';

/** Maximum number of targets in one request. */
const TARGETS_MAX = 1000;

/** How many targets are checked at once: a refresh token needs the database. */
const CHECKS_AT_ONCE = 16;

const NEVER = new AbortController().signal;

/** What is asked of many revocations at once. */
interface ManyRequest {
  readonly reason: string;
  readonly actor: string;
  /** The network of the caller. */
  readonly network?: string;
  readonly wait?: Wait;
  /** The fences to wait for, with FENCED. */
  readonly fences?: readonly string[];
  /** Ends the wait, and the search for further sessions. */
  readonly signal?: AbortSignal;
  /** The token of the caller. What revokes it is written last, because the call ends with it. */
  readonly own?: OwnToken;
}

/** What identifies the token of a caller. */
export interface OwnToken {
  readonly tokenId: string;
  readonly sessionId: string | undefined;
  readonly userId: string;
  readonly clientId: string;
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
 * Ends all open sessions that match a filter, a few hundred at a time; that of the caller last.
 *
 * @throws ServiceError FIELD_INVALID; RATE_LIMITED; DEPENDENCY_UNAVAILABLE, after which some of the sessions have ended; the
 *   reason of the signal
 */
export async function revokeSessions(
  deps: RevokeDeps & { readonly search: SessionSearch },
  request: ManyRequest & { readonly filter: SessionFilter },
): Promise<RevokedSessions> {
  checkRequest(deps, request);
  const { filter, actor, signal = NEVER, own } = request;
  const all: Written[] = [];
  const end = async (sessionIds: readonly string[]): Promise<void> => {
    const targets = sessionIds.map((sessionId) => ({ kind: 'session', sessionId }) as const);
    const outcomes = await writeTargets(deps, await checkTargets(deps, targets), request);
    for (const outcome of outcomes) {
      if (!(outcome instanceof ServiceError)) all.push(outcome);
      // A session that was deleted meanwhile has long ended.
      else if (outcome.code !== 'NOT_FOUND') throw outcome;
    }
  };
  const ownIds: string[] = [];
  for await (const page of deps.search.pages(filter, { actor, signal })) {
    const ids = page.map(({ sessionId }) => sessionId);
    ownIds.push(...ids.filter((sessionId) => sessionId === own?.sessionId));
    await end(ids.filter((sessionId) => sessionId !== own?.sessionId));
  }
  await end(ownIds);
  return { sessionCount: all.length, ...(await receiptOfAll(deps, all, request)) };
}

async function checkTargets(
  deps: RevokeDeps,
  targets: readonly Target[],
): Promise<readonly (CheckedTarget | ServiceError)[]> {
  const checked: (CheckedTarget | ServiceError)[] = [];
  const once = { ...deps, instances: checkedOnce(deps.instances) };
  for (let from = 0; from < targets.length; from += CHECKS_AT_ONCE) {
    const part = targets.slice(from, from + CHECKS_AT_ONCE);
    checked.push(...(await Promise.all(part.map((target) => orFailure(checkTarget(once, target))))));
  }
  return checked;
}

/** Reads the instances once for each claim: that read is of all instances, and many targets may be about one claim. */
function checkedOnce(instances: Pick<Instances, 'unready'>): Pick<Instances, 'unready'> {
  const known = new Map<string, ReturnType<Instances['unready']>>();
  return {
    unready: (claim) => {
      const key = JSON.stringify([claim.issuer, claim.claim]);
      const reading = known.get(key) ?? instances.unready(claim);
      known.set(key, reading);
      return reading;
    },
  };
}

/** Writes the targets whose check succeeded, in the order of {@link stagesOf}. */
async function writeTargets(
  deps: RevokeDeps,
  targets: readonly (CheckedTarget | ServiceError)[],
  request: ManyRequest,
): Promise<readonly (Written | ServiceError)[]> {
  const stages = stagesOf(targets, request.own);
  const last = stages.flat().at(-1);
  const written = new Map<number, Written | ServiceError>();
  const write = async (index: number): Promise<void> => {
    const target = targets[index];
    if (target === undefined || target instanceof ServiceError) return;
    // Instances confirm the last entry of all by its place, so only that one asks for an answer at once.
    const acknowledge = request.wait !== undefined && request.wait !== 'NONE' && index === last;
    written.set(index, await orFailure(writeRevocation(deps, target, { ...request, acknowledge })));
  };
  // Awaited together, so that a fault in one of them leaves no other rejection unhandled.
  for (const stage of stages) await Promise.all(stage.map(write));
  if (targets.some((target) => !(target instanceof ServiceError) && target.kind === 'key'))
    deps.onKeyRevoked();
  return targets.map((target, index) => {
    const outcome = target instanceof ServiceError ? target : written.get(index);
    if (outcome === undefined) throw new TypeError('a target was not written');
    return outcome;
  });
}

/**
 * The indices of the targets that are written together: first tokens and sessions, in groups, then accounts and keys one
 * by one, then in the same way what revokes the token of the caller.
 */
function stagesOf(
  targets: readonly (CheckedTarget | ServiceError)[],
  own: OwnToken | undefined,
): readonly (readonly number[])[] {
  const stages: { grouped: number[]; alone: number[] }[] = [
    { grouped: [], alone: [] },
    { grouped: [], alone: [] },
  ];
  for (const [index, target] of targets.entries()) {
    if (target instanceof ServiceError) continue;
    const stage = stages[isOwn(target, own) ? 1 : 0];
    stage?.[isTokenTarget(target) ? 'grouped' : 'alone'].push(index);
  }
  return stages.flatMap(({ grouped, alone }) => [grouped, ...alone.map((index) => [index])]);
}

/** Whether a target may revoke the token of the caller; the caller does not know which key signed it. */
function isOwn(target: CheckedTarget, own: OwnToken | undefined): boolean {
  switch (target.kind) {
    case 'token':
      return target.tokenId === own?.tokenId;
    case 'session':
      return target.sessionId === own?.sessionId;
    case 'user':
      return target.userId === own?.userId;
    case 'client':
      return target.clientId === own?.clientId;
    case 'key':
      return true;
    case 'foreign':
      return false;
  }
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
  const last = lastInLog(written);
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

/**
 * The last entry in the log. The confirmations of two commits may arrive in another order than the commits, so entries are
 * compared by their sequences; those of different epochs by their times.
 */
function lastInLog(written: readonly Written[]): Written | undefined {
  const latest = lastBy(written, ({ committedAtMs }) => committedAtMs);
  const ofEpoch = written.filter(({ appended }) => latest?.appended.epoch.equals(appended.epoch));
  return lastBy(ofEpoch, ({ entry }) => entry.sequence);
}

function lastBy<T>(items: readonly T[], orderOf: (item: T) => number | bigint): T | undefined {
  return items.reduce<T | undefined>(
    (last, item) => (last === undefined || orderOf(item) > orderOf(last) ? item : last),
    undefined,
  );
}
