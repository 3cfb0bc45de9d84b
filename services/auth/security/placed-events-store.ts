/** Reading placed events: the tables that hold them, and the conditions that leave out partitions. */

import type { Sql } from '../../common/database/database.js';
import { parseUuid } from '../../common/validation/identifiers.js';
import type { SecurityEvent } from '../records/security-events.js';
import { keysOf } from '../revocation/log.js';
import type { EventFilter } from './event-access.js';
import { isRoutine } from './events.js';

/** An event as a table holds it. */
export interface EventRow {
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
  readonly table: string;
}

/** The placed events that a filter selects, in the order of their positions. The first parameter is the limit. */
export class PlacedSelect {
  readonly #conditions: string[] = [];
  readonly #parameters: unknown[];
  /** What an event must be about; undefined for any event. */
  #subject: string | undefined;
  /** Which further events are about it, although they do not name it. */
  #shared: string | undefined;

  constructor(parameters: readonly [limit: number]) {
    this.#parameters = [...parameters];
  }

  where(comparison: string, parameter: unknown): void {
    this.#conditions.push(this.#compare(comparison, parameter));
  }

  #compare(comparison: string, parameter: unknown): string {
    this.#parameters.push(parameter);
    return `${comparison} ($${this.#parameters.length})`;
  }

  /** Events of the filter's types and subject that have not expired: a partition is dropped once its last one has. */
  matching({ types, subject }: EventFilter): void {
    this.#conditions.push('keep_until > statement_timestamp()');
    // One type has an index in the order of positions.
    if (types?.length === 1) this.where('type =', types[0]);
    else if (types !== undefined) this.where('type = ANY', types);
    if (subject !== undefined) this.#subject = this.#compare('subjects &&', spellingsOf(subject));
  }

  /** Events of a time. Bounds of their positions, which are times, too, let the database leave out partitions. */
  async between(sql: Sql, { beginTime, endTime }: Pick<EventFilter, 'beginTime' | 'endTime'>): Promise<void> {
    if (beginTime === undefined && endTime === undefined) return;
    const { rows } = await sql.query<{ late_us: bigint; early_us: bigint }>(
      'SELECT late_us, early_us FROM security_stream',
    );
    const { late_us: late, early_us: early } = rows[0] ?? { late_us: 0n, early_us: 0n };
    if (beginTime !== undefined) {
      this.where('event_time >=', beginTime);
      this.where('position >=', positionOf(beginTime) - early);
    }
    if (endTime !== undefined) {
      this.where('event_time <', endTime);
      this.where('position <=', positionOf(endTime) + late);
    }
  }

  /**
   * Includes events that many revocations share, of which one is about the subject: the log has their ids for as long as
   * the tokens live.
   */
  async orShared(sql: Sql, { subject }: EventFilter): Promise<void> {
    if (subject === undefined) return;
    const { rows } = await sql.query<{ ids: string[] | null; first: bigint; last: bigint }>(
      `SELECT array_agg(DISTINCT event_id) AS ids,
              security_position(min(revoke_time) - interval '1 minute') - max(early_us) AS first,
              security_position(max(revoke_time) + interval '1 minute') + max(late_us) AS last
       FROM revocation_entries, security_stream WHERE event_id IS NOT NULL AND key = ANY($1)`,
      [keysOf(subject)],
    );
    const [found] = rows;
    if (found === undefined || found.ids === null) return;
    const { ids, first, last } = found;
    this.#shared = [
      this.#compare('event_id = ANY', ids),
      this.#compare('position >=', first),
      this.#compare('position <=', last),
    ].join(' AND ');
  }

  run(sql: Sql, tables: readonly string[], order: 'ASC' | 'DESC'): Promise<{ rows: EventRow[] }> {
    const subject = this.#subject === undefined ? [] : [this.#subject];
    const parts = tables.map((table) => partFrom(table, [...this.#conditions, ...subject], order));
    const [lasting] = EVENT_TABLES;
    if (this.#shared !== undefined && tables.includes(lasting)) {
      parts.push(partFrom(lasting, [...this.#conditions, this.#shared], order));
    }
    const text =
      parts.length === 1
        ? parts.join('')
        : `${parts.join(' UNION ALL ')} ORDER BY position ${order} LIMIT $1`;
    return sql.query<EventRow>(text, this.#parameters);
  }
}

/** The tables of placed events. Each is ordered by itself, so that partitions beyond the limit are not read. */
const EVENT_TABLES = ['security_events_lasting', 'security_events_routine'] as const;

/** The tables of everything that the rules read. */
export const STREAM_TABLES = [...EVENT_TABLES, 'security_reports'] as const;

export function tablesOf({ types }: EventFilter): readonly string[] {
  if (types === undefined) return EVENT_TABLES;
  const wanted = new Set(types.map((type) => EVENT_TABLES[isRoutine(type) ? 1 : 0]));
  return EVENT_TABLES.filter((table) => wanted.has(table));
}

function partFrom(table: string, conditions: readonly string[], order: 'ASC' | 'DESC'): string {
  const where = conditions.length === 0 ? '' : `WHERE ${conditions.join(' AND ')}`;
  return `(SELECT ${COLUMNS}, '${table}' AS "table" FROM ${table} ${where} ORDER BY position ${order} LIMIT $1)`;
}

/** The position of an event that is placed at this time. */
function positionOf(time: Date): bigint {
  return BigInt(time.getTime()) * 1000n;
}

const COLUMNS = 'event_id, position, type, event_time, subject, actor, reason, network, source, details';

/** Identifiers of this system are recorded in lower case, those of other issuers as they are. */
function spellingsOf(subject: string): readonly string[] {
  return [...new Set([subject, parseUuid(subject) ?? subject])];
}
