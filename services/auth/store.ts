/** The transactions of auth in PostgreSQL: every kind of row behind one handle. */

import type { Database, Sql } from '../common/database/database.js';
import { forgetRequests, oncePerRequest } from '../common/database/requests.js';
import { createUserRows } from './accounts/store.js';
import { createClientRows } from './clients/store.js';
import { createKeyRows } from './keys/store.js';
import type { LogBatch } from './records/revocations.js';
import { createRevocationRows } from './revocation/store.js';
import type { EventObserver } from './security/event-recorder.js';
import { createSecurityEventRows, createSecurityStreamRows } from './security/store.js';
import { createLoginNetworkRows, dropOldAttempts } from './security/throttle-store.js';
import { createSessionRows } from './sessions/store.js';
import type { AuthStore, AuthTransaction } from './transaction.js';

/** Most rows of one kind that one cleaning drops. */
export const CLEANING_ROWS_MAX = 1000;

/** What {@link createAuthStore} needs. */
export interface AuthStoreDeps {
  readonly database: Database;
  /** Called after the commit with what was written to the revocation log. */
  readonly onRevoked: (batch: LogBatch) => void;
  /** Counts the security events that transactions record; nobody when absent. */
  readonly events?: EventObserver;
}

/** Auth's transactions. What they write to the revocation log is handed on after the commit: nobody can forget to. */
export function createAuthStore({
  database,
  onRevoked,
  events = { recorded: () => undefined, lost: () => undefined },
}: AuthStoreDeps): AuthStore {
  return {
    reads: { users: createUserRows(database) },
    transaction: async (work) => {
      let effects: (() => void)[] = [];
      const result = await database.transaction((sql) => {
        // A transaction that is repeated begins anew: what the lost attempt registered never happened.
        effects = [];
        return work(createTransaction(sql, (effect) => effects.push(effect), { onRevoked, events }));
      });
      for (const effect of effects) effect();
      return result;
    },
  };
}

/** Drops what nobody will ask about any more: old sessions, expired assertions, old counts, answers to old requests. */
export async function clean(database: Database): Promise<void> {
  let dropped: number;
  do {
    // To the last one: clients that ask a lot must not leave more behind than is cleaned.
    dropped = await database.transaction((sql) =>
      createClientRows(sql).dropExpiredAssertions(CLEANING_ROWS_MAX),
    );
  } while (dropped === CLEANING_ROWS_MAX);
  await database.transaction(async (sql) => {
    await createSessionRows(sql).dropOld(CLEANING_ROWS_MAX);
    await dropOldAttempts(sql, CLEANING_ROWS_MAX);
    await forgetRequests(sql);
  });
}

function createTransaction(
  sql: Sql,
  afterCommit: (effect: () => void) => void,
  { onRevoked, events }: Required<Pick<AuthStoreDeps, 'onRevoked' | 'events'>>,
): AuthTransaction {
  return {
    users: createUserRows(sql),
    sessions: createSessionRows(sql),
    clients: createClientRows(sql),
    keys: createKeyRows(sql),
    tokens: {
      anyRevoked: async (tokenIds) => {
        const keys = tokenIds.map((tokenId) => Buffer.from(tokenId.replaceAll('-', ''), 'hex'));
        const { rowCount } = await sql.query(
          "SELECT FROM revocation_entries WHERE kind = 'TOKEN' AND issuer = '' AND key = ANY($1::bytea[]) LIMIT 1",
          [keys],
        );
        return rowCount > 0;
      },
      foreignRevoked: async ({ issuer, tokenId, sessionId, subject, issuedAtSeconds }) => {
        const { rowCount } = await sql.query(
          `SELECT FROM revocation_entries
           WHERE issuer = $1 AND (kind = 'TOKEN' AND key = $2 OR kind = 'SESSION' AND key = $3
             OR kind = 'USER' AND key = $4 AND cut_off_time >= to_timestamp($5::float8)) LIMIT 1`,
          [
            issuer,
            Buffer.from(tokenId, 'utf8'),
            sessionId === undefined ? null : Buffer.from(sessionId, 'utf8'),
            Buffer.from(subject, 'utf8'),
            issuedAtSeconds,
          ],
        );
        return rowCount > 0;
      },
    },
    revocations: createRevocationRows(sql, (batch) => afterCommit(() => onRevoked(batch))),
    loginNetworks: createLoginNetworkRows(sql),
    events: createSecurityEventRows(sql, afterCommit, events),
    eventStream: createSecurityStreamRows(sql),
    databaseTime: async () => {
      const { rows } = await sql.query<{ now: Date }>('SELECT clock_timestamp() AS now');
      const [row] = rows;
      if (row === undefined) throw new TypeError('the database did not tell the time');
      return row.now;
    },
    afterCommit,
    once: (request, work) => oncePerRequest(sql, request, work),
  };
}
