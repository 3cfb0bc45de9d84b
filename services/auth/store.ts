/** The transactions of auth in PostgreSQL. */

import { asCaller, type Database, type Sql } from '../common/database/database.js';
import { forgetRequests, oncePerRequest } from '../common/database/requests.js';
import { createPasswordResetRows, deleteExpiredResets } from './accounts/password-reset-store.js';
import { createUserRows } from './accounts/store.js';
import { createClientRows } from './clients/store.js';
import { createKeyRows } from './keys/store.js';
import { createNarrowingRows } from './policy/narrowing-store.js';
import { createPolicyRows, type PolicyCache, readPolicy } from './policy/store.js';
import type { Importance } from './records/importance.js';
import type { LogBatch } from './records/revocations.js';
import { createRevocationRows } from './revocation/store.js';
import type { EventObserver } from './security/event-recorder.js';
import { EVENT_KEPT_DAYS } from './security/events.js';
import { createSecurityEventRows, createSecurityStreamRows } from './security/store.js';
import { createLoginNetworkRows, dropOldAttempts } from './security/throttle-store.js';
import { createSessionRows } from './sessions/store.js';
import { createTokenRows } from './tokens/store.js';
import type { AuthStore, AuthTransaction, ReadPlace } from './transaction.js';

/** Maximum number of rows that one statement deletes. */
const DELETED_ROWS_MAX = 1000;

interface AuthStoreDeps {
  readonly database: Database;
  /** The class of transactions that name none; `known` by default. */
  readonly importance?: Importance;
  /** Called after the commit with the entries that the transaction appended to the revocation log. */
  readonly onRevoked: (batch: LogBatch) => void;
  /** Counts the security events that transactions record. */
  readonly events?: EventObserver;
  /** For how many days security events are kept that are not routine. */
  readonly eventDays?: number;
}

/** Auth's transactions. Every entry of the revocation log is passed on after the commit. */
export function createAuthStore({
  database,
  importance = 'known',
  onRevoked,
  events = { recorded: () => undefined, lost: () => undefined },
  eventDays = EVENT_KEPT_DAYS,
}: AuthStoreDeps): AuthStore {
  const readImportance = importance === 'promise' ? 'promise' : 'unknown';
  const policyCache: PolicyCache = { policy: undefined };
  const lane = database.lane(readImportance);
  const laneOf = (place: ReadPlace = {}): Sql =>
    asCaller(database.lane(place.importance ?? readImportance), place.caller);
  return {
    reads: {
      users: {
        credentialsByName: (username, place) => createUserRows(laneOf(place)).credentialsByName(username),
      },
      clients: {
        find: (clientId, place) => createClientRows(laneOf(place)).find(clientId),
      },
      passwordResets: createPasswordResetRows(lane),
      policy: { current: (place) => readPolicy(laneOf(place), policyCache) },
      sessions: {
        findRefreshToken: (hash, caller) => createSessionRows(asCaller(lane, caller)).findRefreshToken(hash),
      },
    },
    transaction: async (work, place = {}) => {
      let effects: (() => void)[] = [];
      const result = await database.lane(place.importance ?? importance).transaction((sql) => {
        // A retry starts over: the effects of the failed attempt must not run.
        effects = [];
        return work(
          createTransaction(sql, (effect) => effects.push(effect), {
            onRevoked,
            events,
            eventDays,
            policyCache,
          }),
        );
      }, place);
      for (const effect of effects) effect();
      return result;
    },
  };
}

/** Deletes old sessions, expired assertions and reset tokens, old attempt counters and stored responses to old requests. */
export async function deleteExpired(database: Database): Promise<void> {
  let deleted: number;
  do {
    // Until none is left: otherwise clients that authenticate often would add more than a round deletes.
    deleted = await database.transaction((sql) =>
      createClientRows(sql).deleteExpiredAssertions(DELETED_ROWS_MAX),
    );
  } while (deleted === DELETED_ROWS_MAX);
  await database.transaction(async (sql) => {
    await createSessionRows(sql).deleteOld(DELETED_ROWS_MAX);
    await deleteExpiredResets(sql, DELETED_ROWS_MAX);
    await dropOldAttempts(sql, DELETED_ROWS_MAX);
    await forgetRequests(sql);
  });
}

function createTransaction(
  sql: Sql,
  afterCommit: (effect: () => void) => void,
  {
    onRevoked,
    events,
    eventDays,
    policyCache,
  }: Required<Pick<AuthStoreDeps, 'onRevoked' | 'events' | 'eventDays'>> & {
    readonly policyCache: PolicyCache;
  },
): AuthTransaction {
  return {
    users: createUserRows(sql),
    passwordResets: createPasswordResetRows(sql),
    sessions: createSessionRows(sql),
    clients: createClientRows(sql),
    policy: createPolicyRows(sql, policyCache),
    narrowings: createNarrowingRows(sql),
    keys: createKeyRows(sql),
    tokens: createTokenRows(sql),
    revocations: createRevocationRows(sql, (batch) => afterCommit(() => onRevoked(batch))),
    loginNetworks: createLoginNetworkRows(sql),
    events: createSecurityEventRows(sql, afterCommit, { observer: events, eventDays }),
    eventStream: createSecurityStreamRows(sql),
    databaseTime: () => readDatabaseTime(sql),
    afterCommit,
    once: (request, work) => oncePerRequest(sql, request, work),
  };
}

async function readDatabaseTime(sql: Sql): Promise<Date> {
  const { rows } = await sql.query<{ now: Date }>('SELECT clock_timestamp() AS now');
  const [row] = rows;
  if (row === undefined) throw new TypeError('expected the database time, got no row');
  return row.now;
}
