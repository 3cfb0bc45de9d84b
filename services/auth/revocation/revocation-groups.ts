/**
 * Group commit: revocations of single sessions and tokens that arrive while a transaction runs share the next one. The
 * end of the log is one row, so transactions that append to it run one after another, and each waits for the disk.
 */

import type { Clock } from '@portcullis/guard/clock';
import { ServiceError, shareError } from '@portcullis/guard/errors';
import { AuthError } from '../errors.js';
import type { Importance } from '../records/importance.js';
import type { Appended, LogEntry, NewEntry, Receipt, RevocationRows } from '../records/revocations.js';
import type { NewSecurityEvent, SecurityEventRows } from '../records/security-events.js';
import type { LockedSession, SessionEnd, SessionRows } from '../records/sessions.js';
import type { TransactionPlace } from '../transaction.js';
import { enforcedEverywhereBy } from './log.js';
import { rollUp } from './rolled-up-events.js';

/** Maximum number of revocations that one transaction writes, so that it locks the log only for a moment. */
export const GROUP_MEMBERS_MAX = 500;

/** Maximum number of revocations that wait for their group; more fail with RATE_LIMITED. */
export const GROUP_WAITING_MAX = 10_000;

/**
 * Maximum number of transactions that wait for a locked session. They hold connections meanwhile, and the class needs the
 * others: without them, instances could not sync.
 */
export const LOCK_WAITS_MAX = 2;

/** Longest time for which a revocation waits while others have locked its session, in milliseconds. */
export const LOCKED_MS_MAX = 5_000;

/** An entry that was committed, and how long that took. */
export interface Written {
  readonly appended: Appended;
  readonly entry: LogEntry;
  /** Monotonic time at which the commit was confirmed. */
  readonly committedAtMs: number;
  /** From before the log was locked until the commit was confirmed, in milliseconds. */
  readonly elapsedMs: number;
}

/** The receipt of a revocation. */
export function receiptOfWritten({ appended, entry, elapsedMs }: Written): Receipt {
  return { sequence: entry.sequence, enforcedEverywhereBy: enforcedEverywhereBy(appended, elapsedMs) };
}

/** What one revocation writes. */
export interface GroupWrite {
  readonly entry: NewEntry;
  readonly event: NewSecurityEvent;
  /** Why the member's session ends; undefined when it has none. */
  readonly why?: SessionEnd;
}

/** What a revocation writes that auth makes by itself: it has no event. */
type UnrecordedWrite = Omit<GroupWrite, 'event'> & { readonly event?: undefined };

/** One revocation of a group. */
export interface GroupMember {
  /** Whom it is for. Callers take turns when more wait than fit into one group. */
  readonly caller: string;
  /** The session to lock, a UUID in lower case; undefined when the revocation is about a token. */
  readonly sessionId?: string;
  /**
   * Decides what to write once the session is locked; undefined when there is nothing to revoke. A ServiceError that it
   * throws fails this member alone.
   *
   * @param session - undefined when there is no such session, and for a member without one
   */
  readonly decide: (session: LockedSession | undefined) => GroupWrite | UnrecordedWrite | undefined;
}

/** The part of a transaction that a group uses. */
interface GroupTransaction {
  readonly sessions: Pick<SessionRows, 'lockEach' | 'existing' | 'endEach'>;
  readonly revocations: Pick<RevocationRows, 'append'>;
  readonly events: Pick<SecurityEventRows, 'recordAll'>;
}

export interface RevocationGroupsDeps {
  readonly store: {
    transaction<T>(work: (tx: GroupTransaction) => Promise<T>, place?: TransactionPlace): Promise<T>;
  };
  readonly clock: Clock;
  /** Whose connections the transactions use; default: the class of the store. */
  readonly importance?: Importance;
  /** Called with the number of members of each group, before its transaction. */
  readonly onGroup?: ((members: number) => void) | undefined;
  /** Called with each revocation that was refused because too many wait. */
  readonly onGroupRefused?: (() => void) | undefined;
}

/** Writes revocations in groups, one transaction at a time. */
export interface RevocationGroups {
  /**
   * Returns once the revocation is committed; undefined when there was nothing to revoke.
   *
   * @throws ServiceError what the member's `decide` throws; RATE_LIMITED when too many wait; DEPENDENCY_UNAVAILABLE,
   *   after which the entry may or may not be in the log
   */
  write(member: GroupMember): Promise<Written | undefined>;
}

const TOO_MANY_WAIT = shareError(
  new AuthError('RATE_LIMITED', 'too many revocations wait to be written', { retryAfterMs: 500 }),
);

const LOCKED_TOO_LONG = shareError(
  new AuthError('DEPENDENCY_UNAVAILABLE', 'other transactions have locked the session for too long', {
    retryAfterMs: 1000,
  }),
);

/** A member that waits. */
interface Waiting {
  readonly member: GroupMember;
  readonly resolve: (written: Written | undefined) => void;
  readonly reject: (error: unknown) => void;
  /** Monotonic time at which it was found locked first. */
  lockedSinceMs?: number;
}

/** Creates the groups of one process. The first member starts at once; there is no delay to gather more. */
export function createRevocationGroups(deps: RevocationGroupsDeps): RevocationGroups {
  const turns = createTurns();
  const locked = createTurns();
  let isRunning = false;
  let lockWaits = 0;

  const refuse = ({ reject }: Waiting): void => {
    deps.onGroupRefused?.();
    reject(TOO_MANY_WAIT);
  };
  const add = (waiting: Waiting): void => {
    turns.add(waiting);
    // Every error goes to the members.
    if (!isRunning) void run();
  };
  const run = async (): Promise<void> => {
    isRunning = true;
    while (turns.size() > 0) {
      const group = turns.take(GROUP_MEMBERS_MAX);
      deps.onGroup?.(group.length);
      for (const waiting of await writeGroup(deps, group)) wait(waiting);
    }
    isRunning = false;
  };
  /** Another transaction has locked the session. Waiting for it must not hold up the next group. */
  const wait = (waiting: Waiting): void => {
    const nowMs = deps.clock.monotonicMs();
    waiting.lockedSinceMs ??= nowMs;
    if (nowMs - waiting.lockedSinceMs > LOCKED_MS_MAX) {
      waiting.reject(LOCKED_TOO_LONG);
      return;
    }
    locked.add(waiting);
    if (lockWaits < LOCK_WAITS_MAX) void waitForLocks();
  };
  const waitForLocks = async (): Promise<void> => {
    lockWaits += 1;
    for (let [next] = locked.take(1); next !== undefined; [next] = locked.take(1)) {
      await writeAlone(deps, next.member).then(next.resolve, next.reject);
      // One transaction often locks many sessions, which are free together: the others try again in one group.
      for (const waiting of locked.take(Number.POSITIVE_INFINITY)) add(waiting);
    }
    lockWaits -= 1;
  };

  return {
    write: (member) =>
      new Promise((resolve, reject) => {
        const waiting: Waiting = { member, resolve, reject };
        if (turns.size() + locked.size() >= GROUP_WAITING_MAX) {
          const displaced = turns.makeRoomFor(member.caller);
          refuse(displaced ?? waiting);
          if (displaced === undefined) return;
        }
        add(waiting);
      }),
  };
}

/** The waiting members; callers take turns. */
function createTurns() {
  const byCaller = new Map<string, Waiting[]>();
  let size = 0;
  return {
    size: () => size,
    add: (waiting: Waiting): void => {
      const { caller } = waiting.member;
      const own = byCaller.get(caller);
      if (own === undefined) byCaller.set(caller, [waiting]);
      else own.push(waiting);
      size += 1;
    },
    /**
     * Makes room for a member: the caller with most members loses its last one, unless the newcomer has as many. So one
     * caller that fills the queue refuses only itself.
     *
     * @returns the one that gave way
     */
    makeRoomFor: (caller: string): Waiting | undefined => {
      let most: Waiting[] = [];
      for (const own of byCaller.values()) if (own.length > most.length) most = own;
      if (most.length <= (byCaller.get(caller)?.length ?? 0) + 1) return undefined;
      size -= 1;
      return most.pop();
    },
    /** Removes at most `limit` members, one of each caller after another. */
    take: (limit: number): Waiting[] => {
      const taken: Waiting[] = [];
      for (let round = 0; taken.length < limit && size > taken.length; round++) {
        for (const own of byCaller.values()) {
          const next = own[round];
          if (next === undefined) continue;
          taken.push(next);
          if (taken.length === limit) break;
        }
      }
      const isTaken = new Set(taken);
      for (const [caller, own] of byCaller) {
        const left = own.filter((waiting) => !isTaken.has(waiting));
        if (left.length === own.length) continue;
        // Deleted and added, so that the next group begins with the callers that had the fewest turns.
        byCaller.delete(caller);
        if (left.length > 0) byCaller.set(caller, left);
      }
      size -= taken.length;
      return taken;
    },
  };
}

/** Writes a group and answers its members. Never throws. @returns those whose sessions another transaction has locked */
async function writeGroup(
  deps: RevocationGroupsDeps,
  group: readonly Waiting[],
): Promise<readonly Waiting[]> {
  const members = group.map(({ member }) => member);
  try {
    const outcomes = await commitGroup(deps, members);
    return group.filter((waiting, index) => {
      const outcome = outcomes[index] ?? NOTHING;
      if (outcome.kind !== 'locked') settle(waiting, outcome);
      return outcome.kind === 'locked';
    });
  } catch (error) {
    // The database is away or full, or the commit is in doubt: all members share that.
    if (error instanceof ServiceError) {
      for (const { reject } of group) reject(error);
      return [];
    }
    // A member that the database rejects must fail alone. One after another, as the group used one connection.
    for (const { member, resolve, reject } of group) {
      await writeAlone(deps, member).then(resolve, reject);
    }
    return [];
  }
}

/** Writes one member in a transaction of its own, which waits for the session's lock. */
async function writeAlone(deps: RevocationGroupsDeps, member: GroupMember): Promise<Written | undefined> {
  const [outcome = NOTHING] = await commitGroup(deps, [member], {
    contends: member.sessionId === undefined ? [] : [`session ${member.sessionId}`],
    caller: member.caller,
  });
  return await new Promise((resolve, reject) => settle({ resolve, reject }, outcome));
}

function settle({ resolve, reject }: Pick<Waiting, 'resolve' | 'reject'>, outcome: Outcome): void {
  if (outcome.kind === 'written') resolve(outcome.written);
  else if (outcome.kind === 'failed') reject(outcome.error);
  else resolve(undefined);
}

type Outcome =
  | { readonly kind: 'nothing' | 'locked' }
  | { readonly kind: 'written'; readonly written: Written }
  | { readonly kind: 'failed'; readonly error: unknown };

const NOTHING: Outcome = { kind: 'nothing' };

type Decision =
  | Exclude<Outcome, { kind: 'written' }>
  | { readonly kind: 'write'; readonly write: GroupWrite | UnrecordedWrite };

/** @param alone - where a transaction of one member runs; it waits for locks, and a group skips what is locked */
async function commitGroup(
  { store, clock, importance }: RevocationGroupsDeps,
  members: readonly GroupMember[],
  alone?: TransactionPlace,
): Promise<readonly Outcome[]> {
  let startedMs = 0;
  const place = { ...alone, ...(importance !== undefined && { importance }) };
  const { decisions, appended } = await store.transaction(async (tx) => {
    const decisions = await decideAll(tx, members, alone === undefined ? 'skip' : 'wait');
    const writes = decisions.flatMap((decision) => (decision.kind === 'write' ? [decision.write] : []));
    if (writes.length === 0) return { decisions, appended: undefined };
    const { events, entries } = recordsOf(writes);
    startedMs = clock.monotonicMs();
    // The revocation log is locked last, so its statement comes last.
    const [, , appended] = await Promise.all([
      endSessions(tx, members, decisions),
      tx.events.recordAll(events),
      tx.revocations.append(entries),
    ]);
    return { decisions, appended };
  }, place);
  const committedAtMs = clock.monotonicMs();
  let next = 0;
  return decisions.map((decision) => {
    if (decision.kind !== 'write') return decision;
    const entry = appended?.entries[next++];
    if (appended === undefined || entry === undefined) throw new TypeError('the log has written no entry');
    const written = { appended, entry, committedAtMs, elapsedMs: committedAtMs - startedMs };
    return { kind: 'written', written };
  });
}

/** What a group records: its security events, and the entries with the ids of those that they share. */
function recordsOf(writes: readonly (GroupWrite | UnrecordedWrite)[]): {
  readonly events: readonly NewSecurityEvent[];
  readonly entries: readonly NewEntry[];
} {
  const { events, sharedIds } = rollUp(writes.flatMap(({ event }) => event ?? []));
  let next = 0;
  const entries = writes.map(({ entry, event }) =>
    event === undefined ? entry : { ...entry, eventId: sharedIds[next++] },
  );
  return { events, entries };
}

/** Locks the sessions of the members, and decides for each of them in turn. */
async function decideAll(
  tx: GroupTransaction,
  members: readonly GroupMember[],
  busy: 'wait' | 'skip',
): Promise<readonly Decision[]> {
  const wanted = [...new Set(members.flatMap(({ sessionId }) => sessionId ?? []))];
  const locked = wanted.length === 0 ? [] : await tx.sessions.lockEach(wanted, busy);
  const sessions = new Map(locked.map((session) => [session.sessionId, session]));
  const missing = wanted.filter((sessionId) => !sessions.has(sessionId));
  const skips = busy === 'skip' && missing.length > 0;
  const skipped = new Set(skips ? await tx.sessions.existing(missing) : []);
  return members.map(({ sessionId, decide }) => {
    if (sessionId !== undefined && skipped.has(sessionId)) return { kind: 'locked' };
    const session = sessionId === undefined ? undefined : sessions.get(sessionId);
    try {
      const write = decide(session);
      if (write === undefined) return { kind: 'nothing' };
      // A later member of the group finds the session as this one leaves it.
      if (session !== undefined && write.why !== undefined) {
        sessions.set(session.sessionId, { ...session, open: false, ended: true });
      }
      return { kind: 'write', write };
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error;
      return { kind: 'failed', error };
    }
  });
}

async function endSessions(
  tx: GroupTransaction,
  members: readonly GroupMember[],
  decisions: readonly Decision[],
): Promise<void> {
  const endings = new Map<string, SessionEnd>();
  for (const [index, { sessionId }] of members.entries()) {
    const decision = decisions[index];
    if (sessionId === undefined || decision?.kind !== 'write' || decision.write.why === undefined) continue;
    // Of several members about one session, the first ends it.
    if (!endings.has(sessionId)) endings.set(sessionId, decision.write.why);
  }
  if (endings.size === 0) return;
  await tx.sessions.endEach([...endings].map(([sessionId, why]) => ({ sessionId, why })));
}
