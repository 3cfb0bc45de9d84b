/** Security events in PostgreSQL. */

import { randomUUID } from 'node:crypto';
import { asCaller, type Database, type Sql } from '../../common/database/database.js';
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
import type { PlacedEvent, SecurityStore } from './event-access.js';
import type { EventObserver } from './event-recorder.js';
import {
  EVENT_KEPT_DAYS,
  identifiersOf,
  isRoutine,
  isSecurityEventType,
  REPORT_KEPT_HOURS,
  ROUTINE_EVENT_KEPT_DAYS,
  sanitizeText,
} from './events.js';
import { type EventRow, PlacedSelect, STREAM_TABLES, tablesOf } from './placed-events-store.js';

/** Maximum number of events that get their position in one transaction. */
const PLACED_MAX = 5000;

/**
 * Oldest time at which a report counts, in minutes; a time in the future counts as now. A wrong clock must not move
 * other instances' reports out of the rules' windows.
 */
const REPORT_LATE_MINUTES_MAX = 10;

/** How long ids are kept of events that may be recorded again, in hours. */
const IDS_KEPT_HOURS = 24;

/** Maximum number of ids that one statement deletes. */
const IDS_DELETED_MAX = 10_000;

/**
 * The events' rows inside a transaction.
 *
 * @param afterCommit - registers what to count after the commit
 */
export function createSecurityEventRows(
  sql: Sql,
  afterCommit: (effect: () => void) => void,
  { observer, eventDays }: { readonly observer: EventObserver; readonly eventDays: number },
): SecurityEventRows {
  const recordAll = async (events: readonly NewSecurityEvent[]): Promise<void> => {
    if (events.length === 0) return;
    const outcomes = await record(sql, events, eventDays);
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
      const select = new PlacedSelect([limit]);
      select.where('position >', position);
      const { rows } = await select.run(sql, STREAM_TABLES, 'ASC');
      return partOf(rows, limit);
    },
    setProcessed: async (position) => {
      await sql.query('UPDATE security_stream SET judged = $1', [position]);
    },
  };
}

/**
 * Creates the record in this database.
 *
 * @param eventDays - for how many days events are kept that are not routine
 */
export function createSecurityStore(database: Database, eventDays = EVENT_KEPT_DAYS): SecurityStore {
  const placeAll = async (caller?: string): Promise<bigint> => {
    for (;;) {
      const placed = await database.transaction((sql) => place(sql, 'FOR UPDATE'), { caller });
      if (placed === undefined) throw new TypeError('the order of events has no end');
      if (placed.count < PLACED_MAX) return placed.position;
    }
  };
  return {
    record: (events) => record(database, events, eventDays),
    recordReport: (report, events) =>
      database.transaction((sql) => recordReport(sql, report, events, eventDays)),

    list: async (filter, page, caller) => {
      const { limit, after } = pageOf(page, [cursorPatterns.integer]);
      // Events that were just recorded belong to the first page.
      if (after === undefined) await placeAll(caller);
      const sql = asCaller(database, caller);
      const select = new PlacedSelect([limit + 1]);
      select.matching(filter);
      await select.between(sql, filter);
      await select.orShared(sql, filter);
      if (after !== undefined) select.where('position <', BigInt(after[0] ?? 0));
      const { rows } = await select.run(sql, tablesOf(filter), 'DESC');
      const events = rows.slice(0, limit).flatMap(placedOf);
      const last = rows.length > limit ? rows[limit - 1] : undefined;
      return {
        events: events.map(({ event }) => event),
        nextPageToken: last === undefined ? '' : pageTokenOf([String(last.position)]),
      };
    },

    place: placeAll,

    eventsAfter: async (position, filter, limit, caller) => {
      const sql = asCaller(database, caller);
      const { rows: ends } = await sql.query<{ end: bigint }>('SELECT position AS end FROM security_stream');
      const end = ends[0]?.end ?? position;
      if (end <= position) return { events: [], upTo: position };
      const select = new PlacedSelect([limit]);
      select.matching(filter);
      select.where('position >', position);
      select.where('position <=', end);
      const { rows } = await select.run(sql, tablesOf(filter), 'ASC');
      return {
        events: rows.flatMap(placedOf),
        upTo: rows.length < limit ? end : (rows.at(-1)?.position ?? end),
      };
    },

    itemsBetween: async ({ since, after, upTo, limit }) => {
      const select = new PlacedSelect([limit]);
      select.where('position >', after);
      select.where('position <=', upTo);
      await select.between(database, { beginTime: since });
      const { rows } = await select.run(database, STREAM_TABLES, 'ASC');
      return partOf(rows, limit);
    },

    keepPartitions: async () => {
      const { rows } = await database.query<{ dropped: number }>(
        'SELECT keep_security_partitions() AS dropped',
      );
      await deleteOldIds(database);
      return rows[0]?.dropped ?? 0;
    },
  };
}

async function recordReport(
  sql: Sql,
  report: ServiceReport,
  events: readonly NewSecurityEvent[],
  eventDays: number,
): Promise<boolean> {
  const { rowCount } = await sql.query(
    `WITH fresh AS (
       INSERT INTO security_event_ids (event_id) VALUES ($1) ON CONFLICT DO NOTHING RETURNING event_id
     )
     INSERT INTO security_events_unplaced
       (event_id, life, type, event_time, subject, subjects, actor, reason, network, source, details, keep_until)
     SELECT event_id, 'report', 'service-report',
            greatest(least($2, clock_timestamp()), clock_timestamp() - make_interval(mins => $6)),
            '{}', '{}', $3, '', '', $3, $4, clock_timestamp() + make_interval(hours => $5)
     FROM fresh`,
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
  if (events.length > 0 && (await record(sql, events, eventDays)).includes(false)) {
    throw new Error('events of a report could not be recorded');
  }
  return true;
}

/** Deletes ids that no process sends again: one that still retries has waited for the database for as long. */
async function deleteOldIds(database: Database): Promise<void> {
  for (let deleted = IDS_DELETED_MAX; deleted === IDS_DELETED_MAX; ) {
    ({ rowCount: deleted } = await database.query(
      `DELETE FROM security_event_ids WHERE event_id IN (
         SELECT event_id FROM security_event_ids
         WHERE record_time < (SELECT clock_timestamp()) - make_interval(hours => $1)
         ORDER BY record_time LIMIT $2 FOR UPDATE SKIP LOCKED)`,
      [IDS_KEPT_HOURS, IDS_DELETED_MAX],
    ));
  }
}

/** Records events with one statement, and returns for each whether it was recorded. */
async function record(sql: Sql, events: readonly NewSecurityEvent[], eventDays: number): Promise<boolean[]> {
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
    details: event.requestId ? { ...event.details, requestId: event.requestId } : event.details,
    days: isRoutine(event.type) ? ROUTINE_EVENT_KEPT_DAYS : eventDays,
    routine: isRoutine(event.type),
    // An event without an id of its own is part of a transaction that commits once.
    repeatable: event.eventId !== undefined,
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
  const locked = await sql.query<{ processed: bigint }>(
    `SELECT judged AS processed FROM security_stream ${locking}`,
  );
  const [end] = locked.rows;
  if (end === undefined) return undefined;
  // A separate statement, because it must see what was committed before the lock was granted.
  const placed = await sql.query<{ count: bigint }>('SELECT place_security_events($1) AS count', [
    PLACED_MAX,
  ]);
  // And another one, because it must see what that one has written.
  const { rows } = await sql.query<{ position: bigint }>('SELECT position FROM security_stream');
  return {
    position: rows[0]?.position ?? 0n,
    processed: end.processed,
    count: Number(placed.rows[0]?.count ?? 0n),
  };
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
  if (row.table === 'security_reports') return [{ ...place, report: reportOf(row.details) }];
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
