/** The records of instances that replicas of auth share, in PostgreSQL. */

import { ID_BYTES } from '@portcullis/guard/limits';
import type { DatabaseLane } from '../../common/database/database.js';
import { cursorPatterns, pageOf, pageTokenOf } from '../../common/validation/paging.js';
import {
  HISTORY_KEPT_SECONDS,
  INSTANCE_KEPT_SECONDS,
  type InstanceStore,
  type SharedRecord,
} from './instance-records.js';
import type { InstanceDescription } from './log.js';

/** Maximum number of instances that the check of a revocation by claim returns. */
const UNREADY_LISTED_MAX = 20;

/** Maximum number of positions that one statement deletes. */
const POSITIONS_DELETED_MAX = 10_000;

interface SharedRow {
  readonly service: string;
  readonly instance: Buffer;
  readonly epoch: Buffer;
  readonly applied: bigint;
  readonly seen: Buffer;
  readonly age_ms: number;
  readonly lease_left_ms: number;
}

const AGES = `extract(epoch FROM clock_timestamp() - sync_time)::float8 * 1000 AS age_ms,
  extract(epoch FROM lease_end_time - clock_timestamp())::float8 * 1000 AS lease_left_ms`;

/** The cursor of a list of instances: service, and instance id in hexadecimal. */
const CURSOR = [cursorPatterns.text, /^[0-9a-f]{32}$/];

/** Creates the store of records of instances. */
export function createInstanceStore(database: DatabaseLane): InstanceStore {
  return {
    share: async (replica, records) => {
      if (records.length === 0) return;
      await database.query(
        `WITH heard AS MATERIALIZED (
           SELECT *, clock_timestamp() - make_interval(secs => age_ms / 1000) AS sync_time,
                  follower_id(service, instance, epoch) AS follower
           FROM unnest($2::bytea[], $3::text[], $4::bytea[], $5::bigint[], $6::bytea[], $7::float8[], $8::float8[],
                       $9::boolean[], $10::text[], $11::bytea[], $12::text[], $13::boolean[])
             AS heard (instance, service, epoch, applied, seen, age_ms, lease_left_ms, is_news, kinds, claim_ids,
                       description, leaving)
         ), latest AS (
           INSERT INTO instances (replica, instance, service, epoch, applied, seen, sync_time, lease_end_time, kinds,
                                  claim_ids, description, leaving)
           SELECT $1, instance, service, epoch, applied, seen, sync_time,
                  clock_timestamp() + make_interval(secs => lease_left_ms / 1000),
                  string_to_array(kinds, ' '), claim_ids, nullif(description, '')::jsonb, leaving
           FROM heard
           ON CONFLICT (replica, instance) DO UPDATE SET
             service = excluded.service, epoch = excluded.epoch, applied = excluded.applied, seen = excluded.seen,
             sync_time = excluded.sync_time, lease_end_time = excluded.lease_end_time,
             kinds = excluded.kinds, claim_ids = excluded.claim_ids,
             description = excluded.description, leaving = excluded.leaving
         ), names AS (
           INSERT INTO instance_names (follower, service, instance, begin_time)
           SELECT follower, service, instance, sync_time FROM heard WHERE is_news ORDER BY follower
           ON CONFLICT DO NOTHING
         )
         -- A position counts only with the id of the entry that the log has there: see SharedRecord. The first time stays.
         INSERT INTO instance_positions (follower, sequence, up_to, known_time)
         SELECT follower, entry.seq, entry.seq = applied, sync_time
         FROM heard
           CROSS JOIN LATERAL generate_series(1, octet_length(seen), ${ID_BYTES}) AS start
           CROSS JOIN LATERAL (
             -- The limit keeps the planner from joining all entries of the epoch first.
             SELECT seq, epoch FROM revocation_entries
             WHERE entry_id = substring(seen FROM start FOR ${ID_BYTES}) LIMIT 1
           ) AS entry
         WHERE is_news AND entry.epoch = heard.epoch AND entry.seq >= applied ORDER BY 1, 2, 3
         ON CONFLICT DO NOTHING`,
        [
          replica,
          records.map(({ instance }) => instance),
          records.map(({ service }) => service),
          records.map(({ epoch }) => epoch),
          records.map(({ applied }) => applied),
          records.map(({ seen }) => Buffer.concat(seen)),
          records.map(({ ageMs }) => ageMs),
          // An interval cannot hold minus infinity. An instance without a lease gets one that ended at its request.
          records.map(({ ageMs, leaseLeftMs }) => Math.max(leaseLeftMs, -ageMs)),
          records.map(({ isNews }) => isNews === true),
          records.map(({ abilities }) => (abilities?.kinds ?? []).join(' ')),
          records.map(({ abilities }) => Buffer.concat(abilities?.claimIds ?? [])),
          records.map(({ description }) => (description === undefined ? '' : JSON.stringify(description))),
          records.map(({ leaving }) => leaving === true),
        ],
      );
    },

    readFromOthers: async (replica, withinMs) => {
      const { rows } = await database.query<SharedRow>(
        `SELECT service, instance, epoch, seen, ${AGES},
                CASE WHEN EXISTS (
                  SELECT FROM revocation_entries AS entry
                  WHERE entry.epoch = instances.epoch AND entry.seq = instances.applied
                    AND position(entry.entry_id IN instances.seen) > 0
                ) THEN applied ELSE 0 END AS applied
         FROM instances
         WHERE replica <> $1 AND sync_time > clock_timestamp() - make_interval(secs => $2::float8)`,
        [replica, withinMs / 1000],
      );
      return rows.map(recordOf);
    },

    list: async (request) => {
      const { limit, after } = pageOf(request, CURSOR);
      const { rows } = await database.query<ListedRow>(
        `SELECT DISTINCT ON (service, instance)
                service, instance, applied, description, leaving, ${AGES}, instances.epoch = log_state.epoch AS current, seq AS head
         FROM instances, log_state
         WHERE sync_time > clock_timestamp() - make_interval(secs => $1)
           AND ($2::text IS NULL OR (service, instance) > ($2, decode($3, 'hex')))
         ORDER BY service, instance, sync_time DESC LIMIT $4`,
        [INSTANCE_KEPT_SECONDS, after?.[0] ?? null, after?.[1] ?? null, limit + 1],
      );
      const page = rows.slice(0, limit);
      const last = rows.length > limit ? page.at(-1) : undefined;
      return {
        instances: page.map((row) => ({
          service: row.service,
          instance: row.instance,
          lastSyncAgeMs: Math.max(0, row.age_ms),
          applied: row.applied,
          lag: lagOf(row),
          leaseLeftMs: row.current ? Math.max(0, row.lease_left_ms) : 0,
          currentEpoch: row.current,
          description: descriptionOf(row.description),
          left: row.leaving,
        })),
        nextPageToken: last ? pageTokenOf([last.service, last.instance.toString('hex')]) : '',
      };
    },

    unready: async ({ issuer, claim }) => {
      // A replica of an earlier version stores no abilities. They do not change, so any other replica's record counts.
      const { rows } = await database.query<UnreadyRow>(
        `WITH id AS MATERIALIZED (
           SELECT substring(sha256(convert_to($1, 'UTF8') || '\\x00'::bytea) FOR ${ID_BYTES}) AS trusted,
                  substring(sha256(convert_to($1, 'UTF8') || '\\x00'::bytea || convert_to($2, 'UTF8'))
                            FOR ${ID_BYTES}) AS claim
         ), known AS (
           SELECT service, instance, max(lease_end_time) AS lease_end_time, bool_or('CLAIM' = ANY(kinds)) AS knows_kind,
                  bool_or(position(id.trusted IN claim_ids) > 0) AS trusts,
                  bool_or(position(id.claim IN claim_ids) > 0) AS reads
           FROM instances, id GROUP BY service, instance
         )
         SELECT service, instance, knows_kind FROM known
         WHERE lease_end_time > clock_timestamp() AND (NOT knows_kind OR trusts AND NOT reads)
         ORDER BY service, instance LIMIT $3`,
        [issuer, claim, UNREADY_LISTED_MAX],
      );
      return rows.map(({ service, instance, knows_kind: knowsKind }) => ({ service, instance, knowsKind }));
    },

    deleteSilent: async () => {
      await database.query(
        'DELETE FROM instances WHERE sync_time < clock_timestamp() - make_interval(secs => $1)',
        [HISTORY_KEPT_SECONDS],
      );
      for (let deleted = POSITIONS_DELETED_MAX; deleted === POSITIONS_DELETED_MAX; ) {
        ({ rowCount: deleted } = await database.query(
          `DELETE FROM instance_positions WHERE (follower, sequence, up_to) IN (
             SELECT follower, sequence, up_to FROM instance_positions
             WHERE known_time < (SELECT clock_timestamp()) - make_interval(secs => $1)
             LIMIT $2 FOR UPDATE SKIP LOCKED)`,
          [HISTORY_KEPT_SECONDS, POSITIONS_DELETED_MAX],
        ));
      }
      await database.query(
        `DELETE FROM instance_names WHERE begin_time < clock_timestamp() - make_interval(secs => $1)
           AND NOT EXISTS (SELECT FROM instance_positions AS known WHERE known.follower = instance_names.follower)
           AND NOT EXISTS (SELECT FROM instances WHERE instances.instance = instance_names.instance)`,
        [HISTORY_KEPT_SECONDS],
      );
    },
  };
}

interface UnreadyRow {
  readonly service: string;
  readonly instance: Buffer;
  readonly knows_kind: boolean;
}

interface ListedRow extends Omit<SharedRow, 'epoch' | 'seen'> {
  readonly current: boolean;
  readonly head: bigint;
  readonly description: StoredDescription | null;
  readonly leaving: boolean;
}

/** An instance may have applied more than the head that this statement has read. */
function lagOf({ current, head, applied }: ListedRow): bigint {
  if (!current) return head;
  return head > applied ? head - applied : 0n;
}

/** A description as JSON. */
export interface StoredDescription {
  readonly host: string;
  readonly version: string;
  readonly startTime?: string;
}

/** The description of an instance, as it was stored. */
export function descriptionOf(stored: StoredDescription | null): InstanceDescription | undefined {
  if (stored === null) return undefined;
  const { host, version, startTime } = stored;
  return { host, version, startTime: startTime === undefined ? undefined : new Date(startTime) };
}

function recordOf(row: SharedRow): SharedRecord {
  const seen: Buffer[] = [];
  for (let at = 0; at < row.seen.length; at += ID_BYTES) seen.push(row.seen.subarray(at, at + ID_BYTES));
  const { service, instance, epoch, applied } = row;
  return { service, instance, epoch, applied, seen, ageMs: row.age_ms, leaseLeftMs: row.lease_left_ms };
}
