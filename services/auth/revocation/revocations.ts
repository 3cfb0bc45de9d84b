/** The operations on the revocation log: revoke, answer the instances that follow it, drop what has expired. */

import type { Timers } from '@portcullis/guard/clock';
import { ServiceError } from '@portcullis/guard/errors';
import type { EpochStanding, LogEntry, LostEpoch } from '../records/revocations.js';
import type { SessionFilter } from '../records/sessions.js';
import type { Fences } from './fences.js';
import type { Instances } from './instances.js';
import {
  checkInstance,
  checkQuestion,
  entriesNeededAfter,
  indexAfter,
  type LogReading,
  newlyLost,
  otherEpochs,
  type PullPart,
  partsOf,
  rangesToCompare,
  type SyncPosition,
  type SyncResult,
  sequencesToCompare,
  syncResultFor,
} from './log.js';
import type { LogReader, RevocationStore } from './log-access.js';
import { LogTail } from './log-tail.js';
import { createRevocationGroups, type RevocationGroups } from './revocation-groups.js';
import { checkOnly, type RevokeDeps, type RevokeReceipt, type RevokeRequest, revoke } from './revoke.js';
import { type RevokedSessions, type RevokeManyReceipt, revokeMany, revokeSessions } from './revoke-many.js';
import { createSessionSearch, type MatchedSessions, type SearchCaller } from './session-search.js';
import { createSharedReads, READ_BLOCKING_MS_MAX, type SharedReads } from './shared-reads.js';
import { createTurns, PULL_LIMITS } from './turns.js';

/** Maximum number of entries that one transaction drops, so that it locks the log only for a moment. */
const PURGE_ENTRIES_MAX = 1000;

/**
 * Shortest time between two reads for sync requests, in milliseconds: a read costs more than an answer, and many instances
 * share it. A broadcast does not wait for it, nor does the acknowledgement in a request.
 */
const HEAD_READ_INTERVAL_MS = 10;

/** Shortest time between two reads of the whole list, in milliseconds: all Pulls that wait share the next one. */
const LIVE_READ_INTERVAL_MS = 100;

const NEVER_ABORTED = new AbortController().signal;

/** The collaborators of the operations. */
export interface RevocationDeps extends Omit<RevokeDeps, 'groups'> {
  readonly log: RevocationStore;
  readonly timers?: Timers;
  readonly instances: Pick<Instances, 'requested' | 'answered' | 'waits' | 'wait' | 'unready'>;
  readonly fences: Pick<Fences, 'reported' | 'waits' | 'wait'>;
  /** Called when an instance has seen entries that the log does not have: transactions were lost. */
  readonly onLogChanged: (question: SyncPosition) => void;
  /** What writes revocations of sessions and tokens; by default groups of its own. */
  readonly groups?: RevocationGroups;
}

/** The operations on the revocation log. */
export interface Revocations {
  /** See {@link revoke}. */
  revoke(request: RevokeRequest): Promise<RevokeReceipt>;
  /** See {@link checkOnly}. */
  checkOnly(request: Parameters<typeof checkOnly>[1]): Promise<void>;
  /** See {@link revokeMany}. */
  revokeMany(request: Parameters<typeof revokeMany>[1]): Promise<RevokeManyReceipt>;
  /** See {@link revokeSessions}. */
  revokeSessions(request: Parameters<typeof revokeSessions>[1]): Promise<RevokedSessions>;
  /**
   * What {@link revokeSessions} would hit: how many sessions, and the first of them.
   *
   * @throws ServiceError FIELD_INVALID; RATE_LIMITED; DEPENDENCY_UNAVAILABLE; the reason of the signal
   */
  countSessions(filter: SessionFilter, caller: SearchCaller): Promise<MatchedSessions>;
  /**
   * Answers a sync request from a read of the log that began after the request arrived.
   *
   * @throws ServiceError LOG_CHANGED, FIELD_INVALID, RATE_LIMITED, DEPENDENCY_UNAVAILABLE
   */
  sync(question: SyncPosition): Promise<SyncResult>;
  /**
   * Returns the live list in parts, the end last, when it is the turn of the service. Callers share the parts.
   *
   * @throws ServiceError FIELD_INVALID, RATE_LIMITED, DEPENDENCY_UNAVAILABLE; the reason of the signal
   */
  pull(request: { service: string; instance: Buffer }, signal?: AbortSignal): AsyncIterable<PullPart>;
  /** Drops all expired entries and returns how many. */
  purge(): Promise<number>;
}

/** The shared reads and writes of one process. */
interface Shared {
  readonly heads: SharedReads<SyncPosition, LogReading>;
  readonly live: SharedReads<undefined, readonly PullPart[]>;
  readonly losses: SharedReads<LostEpoch, undefined>;
}

/** Creates the operations on the revocation log. */
export function createRevocations(deps: RevocationDeps): Revocations {
  const shared = createShared(deps);
  const { groups = createRevocationGroups(deps) } = deps;
  const search = createSessionSearch(deps);
  const turns = createTurns(PULL_LIMITS, deps.timers);
  return {
    revoke: (request) => revoke({ ...deps, groups }, request),
    checkOnly: (request) => checkOnly({ ...deps, groups }, request),
    revokeMany: (request) => revokeMany({ ...deps, groups }, request),
    revokeSessions: (request) => revokeSessions({ ...deps, groups, search }, request),
    countSessions: (filter, caller) => search.count(filter, caller),
    sync: (question) => sync(deps, shared, question),
    pull: async function* (request, signal = NEVER_ABORTED) {
      checkInstance(request);
      const endTurn = await turns.take(request.service, signal);
      try {
        yield* await shared.live.read(undefined);
      } finally {
        endTurn();
      }
    },
    purge: () => purge(deps.log),
  };
}

function createShared({ log, timers }: Pick<RevocationDeps, 'log' | 'timers'>): Shared {
  const tail = new LogTail();
  const readHead = async (questions: readonly SyncPosition[]) => {
    const reading = await readFor(log, tail, questions);
    return () => reading;
  };
  const readLive = async () => {
    const parts = [...partsOf(await log.readLive())];
    return () => parts;
  };
  const noteLost = async (lost: readonly LostEpoch[]) => {
    await log.noteLostEpochs(lost);
    return () => undefined;
  };
  return {
    heads: createSharedReads(readHead, READ_BLOCKING_MS_MAX, timers, HEAD_READ_INTERVAL_MS),
    live: createSharedReads(readLive, READ_BLOCKING_MS_MAX, timers, LIVE_READ_INTERVAL_MS),
    // Shared like reads: a service that invents epochs must not take all connections to the database.
    losses: createSharedReads(noteLost, READ_BLOCKING_MS_MAX, timers),
  };
}

async function sync(deps: RevocationDeps, shared: Shared, question: SyncPosition): Promise<SyncResult> {
  checkQuestion(question);
  const requestedAtMs = deps.clock.monotonicMs();
  deps.instances.requested(question);
  const reading = await shared.heads.read(question);
  let answer: SyncResult;
  try {
    answer = syncResultFor(reading, question);
  } catch (error) {
    if (error instanceof ServiceError && error.code === 'LOG_CHANGED') {
      deps.onLogChanged(question);
      await noteIfLost(shared, reading, question);
    }
    throw error;
  }
  deps.instances.answered(question, requestedAtMs, answer);
  // An instance that must pull may follow another log than this one.
  if (!answer.pull) deps.fences.reported(question.service, question.fences);
  return answer;
}

async function noteIfLost(shared: Shared, reading: LogReading, question: SyncPosition): Promise<void> {
  const lost = newlyLost(reading, question);
  // If the write fails, the instance's next request finds the loss again.
  if (lost !== undefined) await shared.losses.read(lost).catch(() => undefined);
}

async function purge(log: RevocationStore): Promise<number> {
  let total = 0;
  for (;;) {
    const dropped = await log.dropExpired(PURGE_ENTRIES_MAX);
    total += dropped;
    if (dropped < PURGE_ENTRIES_MAX) return total;
  }
}

function readFor(
  log: RevocationStore,
  tail: LogTail,
  questions: readonly SyncPosition[],
): Promise<LogReading> {
  return log.read(async (reader) => {
    const { state } = reader;
    const after = entriesNeededAfter(state, questions);
    const places = sequencesToCompare(state, questions);
    const ranges = rangesToCompare(state, questions);
    const others = otherEpochs(state, questions);
    const [keys, { entries, digests }, known] = await Promise.all([
      reader.publishedKeys(),
      tail.read(reader, { after, ranges }),
      others.length === 0 ? new Map<string, EpochStanding>() : reader.standingOf(others),
    ]);
    const entryIds = await entryIdsAt(reader, entries, places);
    return { state, keys, entries, entryIds, digests, otherEpochs: known };
  });
}

/** The ids of the entries at these places: from the entries of the read, and else from the log. */
async function entryIdsAt(
  reader: LogReader,
  entries: readonly LogEntry[],
  places: readonly bigint[],
): Promise<ReadonlyMap<bigint, Buffer>> {
  const ids = new Map<bigint, Buffer>();
  const others: bigint[] = [];
  for (const place of places) {
    const entry = entries[indexAfter(entries, place) - 1];
    if (entry?.sequence === place) ids.set(place, entry.entryId);
    else others.push(place);
  }
  if (others.length === 0) return ids;
  return new Map([...ids, ...(await reader.entryIdsAt(others))]);
}
