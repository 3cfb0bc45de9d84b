/** Security events in PostgreSQL. */

import { randomUUID } from 'node:crypto';
import { asCaller, type Database, type Sql } from '../../common/database/database.js';
import { parseUuid } from '../../common/validation/identifiers.js';
import { cursorPatterns, pageOf, pageTokenOf } from '../../common/validation/paging.js';
import type {
  NewSecurityEvent,
  SecurityEvent,
  SecurityEventRows,
  SecurityStreamRows,
  StreamItem,
  StreamPart,
} from '../records/security-events.js';
import type { ServiceReport } from '../records/service-reports.js';
import type { EventFilter, PlacedEvent, SecurityStore } from './event-access.js';
import type { EventObserver } from './event-recorder.js';
import { identifiersOf, isSecurityEventType, keptDaysOf, REPORT_KEPT_HOURS, sanitizeText } from './events.js';

/** Maximum number of events that get their position in one transaction. */
const PLACED_MAX = 5000;

/**
 * Oldest time at which a report counts, in minutes; a time in the future counts as now. A wrong clock must not move
 * other instances' reports out of the rules' windows.
 */
const REPORT_LATE_MINUTES_MAX = 10;

/** The type of reports among the events; only the rules read them. */
const REPORT_TYPE = 'service-report';

/**
 * The events' rows inside a transaction.
 *
 * @param afterCommit - registers what to count after the commit
 */
export function createSecurityEventRows(
  sql: Sql,
  afterCommit: (effect: () => void) => void,
  observer: EventObserver,
): SecurityEventRows {
  const recordAll = async (events: readonly NewSecurityEvent[]): Promise<void> => {
    if (events.length === 0) return;
    const outcomes = await record(sql, events);
    afterCommit(() => {
      for (const [index, { type }] of events.entries()) {
        if (outcomes[index] === true) observer.recorded(type);
        else observer.lost(1);
      }
    });
  };
  return { record: (event) => recordAll([event]), recordAll };
}

/** The order of events inside a transaction. */
export function createSecurityStreamRows(sql: Sql): SecurityStreamRows {
  return {
    place: (wait) => place(sql, wait ? 'FOR UPDATE' : 'FOR UPDATE SKIP LOCKED'),
    after: async (position, limit) => {
      const { rows } = await sql.query<EventRow>(
        `SELECT ${COLUMNS} FROM security_events WHERE position > $1 ORDER BY position LIMIT $2`,
        [position, limit],
      );
      return partOf(rows, limit);
    },
    setProcessed: async (position) => {
      await sql.query('UPDATE security_stream SET judged = $1', [position]);
    },
  };
}

/** Creates the record in this database. */
export function createSecurityStore(database: Database): SecurityStore {
  const placeAll = async (caller?: string): Promise<bigint> => {
    for (;;) {
      const placed = await database.transaction((sql) => place(sql, 'FOR UPDATE'), { caller });
      if (placed === undefined) throw new TypeError('the order of events has no end');
      if (placed.count < PLACED_MAX) return placed.position;
    }
  };
  return {
    record: (events) => record(database, events),

    recordReport: (report, events) =>
      database.transaction(async (sql) => {
        const { rowCount } = await sql.query(
          `INSERT INTO security_events
             (event_id, type, event_time, subject, subjects, actor, reason, network, source, details, keep_until)
           VALUES ($1, '${REPORT_TYPE}',
                   greatest(least($2, clock_timestamp()), clock_timestamp() - make_interval(mins => $6)),
                   '{}', '{}', $3, '', '', $3, $4, clock_timestamp() + make_interval(hours => $5))
           ON CONFLICT (event_id) DO NOTHING`,
          [
            report.reportId,
            report.endTime,
            report.source,
            JSON.stringify(report),
            REPORT_KEPT_HOURS,
            REPORT_LATE_MINUTES_MAX,
          ],
        );
        if (rowCount === 0) return false;
        if (events.length > 0 && (await record(sql, events)).includes(false)) {
          throw new Error('events of a report could not be recorded');
        }
        return true;
      }),

    list: async (filter, page, caller) => {
      const { limit, after } = pageOf(page, [cursorPatterns.integer]);
      // Events that were just recorded belong to the first page.
      if (after === undefined) await placeAll(caller);
      const { rows } = await asCaller(database, caller).query<EventRow>(
        `SELECT ${COLUMNS} FROM security_events
         WHERE ${MATCHES} AND ($5::bigint IS NULL OR position < $5) AND position IS NOT NULL
         ORDER BY position DESC LIMIT $6`,
        [...parametersOf(filter), after?.[0] ?? null, limit + 1],
      );
      const events = rows.slice(0, limit).flatMap(placedOf);
      const last = rows.length > limit ? rows[limit - 1] : undefined;
      return {
        events: events.map(({ event }) => event),
        nextPageToken: last === undefined ? '' : pageTokenOf([String(last.position)]),
      };
    },

    place: placeAll,

    eventsAfter: async (position, filter, limit, caller) => {
      const { rows } = await asCaller(database, caller).query<EventRow & { readonly end: bigint }>(
        `WITH stream AS MATERIALIZED (SELECT position AS end FROM security_stream)
         SELECT ${COLUMNS}, stream.end FROM stream LEFT JOIN LATERAL (
           SELECT * FROM security_events
           WHERE ${MATCHES} AND position > $5 AND position <= stream.end ORDER BY position LIMIT $6
         ) AS found ON true ORDER BY position`,
        [...parametersOf(filter), position, limit],
      );
      const found = rows.filter(({ event_id }) => event_id !== null);
      const upTo = found.length < limit ? rows[0]?.end : found.at(-1)?.position;
      return { events: found.flatMap(placedOf), upTo: upTo ?? position };
    },

    itemsBetween: async ({ since, after, upTo, limit }) => {
      const { rows } = await database.query<EventRow>(
        `SELECT ${COLUMNS} FROM security_events
         WHERE position > $1 AND position <= $2 AND event_time >= $3 ORDER BY position LIMIT $4`,
        [after, upTo, since, limit],
      );
      return partOf(rows, limit);
    },

    dropExpired: async (limit) => {
      const { rowCount } = await database.query(
        `DELETE FROM security_events WHERE event_id IN (
           SELECT event_id FROM security_events WHERE keep_until < (SELECT clock_timestamp())
           ORDER BY keep_until LIMIT $1 FOR UPDATE SKIP LOCKED)`,
        [limit],
      );
      return rowCount;
    },
  };
}

/** Records events with one statement, and returns for each whether it was recorded. */
async function record(sql: Sql, events: readonly NewSecurityEvent[]): Promise<boolean[]> {
  const values = events.map((event) => ({
    eventId: event.eventId ?? randomUUID(),
    type: event.type,
    time: event.time?.toISOString() ?? null,
    subject: event.subject,
    subjects: identifiersOf(event.subject),
    actor: sanitizeText(event.actor),
    reason: sanitizeText(event.reason),
    network: event.network,
    source: event.source ?? 'auth',
    details: event.details,
    days: keptDaysOf(event.type),
  }));
  const { rows } = await sql.query<{ recorded: boolean[] }>(
    'SELECT record_security_events($1::jsonb) AS recorded',
    [JSON.stringify(values)],
  );
  return rows[0]?.recorded ?? [];
}

async function place(
  sql: Sql,
  locking: 'FOR UPDATE' | 'FOR UPDATE SKIP LOCKED',
): Promise<{ position: bigint; processed: bigint; count: number } | undefined> {
  const locked = await sql.query<{ position: bigint; processed: bigint }>(
    `SELECT position, judged AS processed FROM security_stream ${locking}`,
  );
  const [end] = locked.rows;
  if (end === undefined) return undefined;
  // A separate statement, because it must see what was committed before the lock was granted.
  const placed = await sql.query<{ count: bigint }>(
    `WITH fresh AS (
       SELECT event_id, row_number() OVER (ORDER BY event_time, event_id) AS n FROM (
         SELECT event_id, event_time FROM security_events WHERE position IS NULL
         ORDER BY event_time, event_id LIMIT $2
       ) AS unplaced
     ), placed AS (
       UPDATE security_events SET position = $1 + n FROM fresh WHERE security_events.event_id = fresh.event_id
       RETURNING 1
     ) SELECT count(*) FROM placed`,
    [end.position, PLACED_MAX],
  );
  const count = placed.rows[0]?.count ?? 0n;
  const position = end.position + count;
  if (count > 0n) await sql.query('UPDATE security_stream SET position = $1', [position]);
  return { position, processed: end.processed, count: Number(count) };
}

const COLUMNS = 'event_id, position, type, event_time, subject, actor, reason, network, source, details';

/** For {@link parametersOf}: $1 to $4. */
const MATCHES = `type <> '${REPORT_TYPE}' AND ($1::text[] IS NULL OR type = ANY($1))
  AND ($2::text[] IS NULL OR subjects && $2)
  AND ($3::timestamptz IS NULL OR event_time >= $3) AND ($4::timestamptz IS NULL OR event_time < $4)`;

function parametersOf({ types, subject, beginTime, endTime }: EventFilter): readonly unknown[] {
  return [
    types ?? null,
    subject === undefined ? null : spellingsOf(subject),
    beginTime ?? null,
    endTime ?? null,
  ];
}

/** Identifiers of this system are recorded in lower case, those of other issuers as they are. */
function spellingsOf(subject: string): readonly string[] {
  return [...new Set([subject, parseUuid(subject) ?? subject])];
}

interface EventRow {
  readonly event_id: string;
  readonly position: bigint;
  readonly type: string;
  readonly event_time: Date;
  readonly subject: SecurityEvent['subject'];
  readonly actor: string;
  readonly reason: string;
  readonly network: string;
  readonly source: string;
  readonly details: object;
}

function eventOf(row: EventRow): SecurityEvent | undefined {
  // A later version may have recorded types that this version does not know.
  if (!isSecurityEventType(row.type)) return undefined;
  const { type, subject, actor, reason, network, source, details } = row;
  const event = {
    eventId: row.event_id,
    type,
    time: row.event_time,
    subject,
    actor,
    reason,
    network,
    source,
  };
  return { ...event, details } as SecurityEvent;
}

function placedOf(row: EventRow): PlacedEvent[] {
  const event = eventOf(row);
  return event === undefined ? [] : [{ position: row.position, event }];
}

function partOf(rows: readonly EventRow[], limit: number): StreamPart {
  return { items: rows.flatMap(itemOf), upTo: rows.length < limit ? undefined : rows.at(-1)?.position };
}

function itemOf(row: EventRow): StreamItem[] {
  const place = { position: row.position, time: row.event_time };
  if (row.type === REPORT_TYPE) return [{ ...place, report: reportOf(row.details) }];
  const event = eventOf(row);
  return event === undefined ? [] : [{ ...place, event }];
}

function reportOf(details: object): ServiceReport {
  const stored = details as Omit<ServiceReport, 'beginTime' | 'endTime'> & {
    beginTime: string;
    endTime: string;
  };
  return { ...stored, beginTime: new Date(stored.beginTime), endTime: new Date(stored.endTime) };
}
