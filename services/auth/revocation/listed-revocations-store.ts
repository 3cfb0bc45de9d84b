/** What operators ask of the log, in PostgreSQL. */

import type { DatabaseLane, Sql } from '../../common/database/database.js';
import { cursorPatterns, pageOf, pageTokenOf } from '../../common/validation/paging.js';
import { AuthError } from '../errors.js';
import type { EntryKind } from '../records/revocations.js';
import { INSTANCE_KEPT_SECONDS } from './instance-records.js';
import type { ListedRevocation, RevocationAtInstance, RevocationRecords } from './listed-revocations.js';
import { keysOf } from './log.js';

/** Most instances that one answer lists. */
const INSTANCES_LISTED_MAX = 1000;

/** Creates the records over auth's database. */
export function createRevocationRecords(database: DatabaseLane): RevocationRecords {
  return {
    list: async (request) => {
      const { limit, after } = pageOf(request, [cursorPatterns.integer]);
      const { rows } = await database.query<EntryRow>(
        `SELECT ${COLUMNS} FROM revocation_entries AS entry JOIN log_state USING (epoch)
         WHERE ($1::bigint IS NULL OR entry.seq < $1) AND ($2::bytea[] IS NULL OR key = ANY($2))
           AND ($3::text IS NULL OR actor = $3) AND ($5::uuid IS NULL OR event_id = $5)
         ORDER BY entry.seq DESC LIMIT $4`,
        [
          after?.[0] ?? null,
          request.target === '' ? null : keysOf(request.target),
          request.actor === '' ? null : request.actor,
          limit + 1,
          request.eventId === '' ? null : request.eventId,
        ],
      );
      const page = rows.slice(0, limit);
      const last = rows.length > limit ? page.at(-1) : undefined;
      return {
        revocations: page.map(revocationOf),
        nextPageToken: last === undefined ? '' : pageTokenOf([String(last.seq)]),
      };
    },
    get: async (sequence) => {
      const { rows } = await database.query<EntryRow>(
        `SELECT ${COLUMNS} FROM revocation_entries AS entry JOIN log_state USING (epoch) WHERE entry.seq = $1`,
        // A sequence of the protocol can be larger than one of the database, which then has no such entry.
        [sequence > SEQUENCE_MAX ? 0n : sequence],
      );
      const [row] = rows;
      if (row === undefined) throw new AuthError('NOT_FOUND', 'there is no such revocation in the log');
      return { revocation: revocationOf(row), instances: await instancesWith(database, sequence) };
    },
  };
}

const SEQUENCE_MAX = 2n ** 63n - 1n;

const COLUMNS =
  'entry.seq, kind, key, issuer, min_generation, revoke_time, keep_until, reason, actor, event_id';

interface EntryRow {
  readonly seq: bigint;
  readonly kind: EntryKind;
  readonly key: Buffer;
  readonly issuer: string;
  readonly min_generation: bigint;
  readonly revoke_time: Date | null;
  readonly keep_until: Date;
  readonly reason: string;
  readonly actor: string;
  readonly event_id: string | null;
}

function revocationOf(row: EntryRow): ListedRevocation {
  const isUuid = row.issuer === '' && (row.kind === 'TOKEN' || row.kind === 'SESSION');
  return {
    sequence: row.seq,
    kind: row.kind,
    target: isUuid ? uuidOf(row.key) : row.key.toString('utf8'),
    issuer: row.issuer,
    minGeneration: row.min_generation,
    revokeTime: row.revoke_time ?? undefined,
    keepUntil: row.keep_until,
    reason: row.reason,
    actor: row.actor,
    eventId: row.event_id ?? '',
  };
}

function uuidOf(bytes: Buffer): string {
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

interface InstanceRow {
  readonly service: string;
  readonly instance: Buffer;
  readonly enforced: boolean;
  readonly has_lease: boolean;
  readonly age_ms: number;
}

/**
 * `applied` counts only where the log has the entry that the instance named at that place: a restored database may have
 * another one there.
 */
async function instancesWith(sql: Sql, sequence: bigint): Promise<readonly RevocationAtInstance[]> {
  const { rows } = await sql.query<InstanceRow>(
    `SELECT DISTINCT ON (service, instance) service, instance, lease_end_time > clock_timestamp() AS has_lease,
            extract(epoch FROM clock_timestamp() - sync_time)::float8 * 1000 AS age_ms,
            instances.epoch = log_state.epoch AND applied >= $1 AND EXISTS (
              SELECT FROM revocation_entries AS entry
              WHERE entry.epoch = instances.epoch AND entry.seq = instances.applied
                AND position(entry.entry_id IN instances.seen) > 0
            ) AS enforced
     FROM instances, log_state
     WHERE sync_time > clock_timestamp() - make_interval(secs => $2)
     ORDER BY service, instance, sync_time DESC LIMIT $3`,
    [sequence, INSTANCE_KEPT_SECONDS, INSTANCES_LISTED_MAX],
  );
  return rows.map(({ service, instance, enforced, has_lease: hasLease, age_ms: ageMs }) => ({
    service,
    instance,
    state: enforced ? 'ENFORCED' : hasLease ? 'PENDING' : 'UNKNOWN',
    lastSyncAgeMs: Math.max(0, ageMs),
  }));
}
