/** What operators ask of the log, in PostgreSQL. */

import type { DatabaseLane, Sql } from '../../common/database/database.js';
import { cursorPatterns, pageOf, pageTokenOf } from '../../common/validation/paging.js';
import { AuthError } from '../errors.js';
import type { EntryKind } from '../records/revocations.js';
import { descriptionOf, type StoredDescription } from './instance-store.js';
import type { ListedRevocation, RevocationAtInstance, RevocationRecords } from './listed-revocations.js';
import { KEEP_SECONDS_MAX, keysOf } from './log.js';

/** Maximum number of instances that one answer lists: as many as one replica of auth serves. */
const INSTANCES_LISTED_MAX = 10_000;

/** Creates the records over auth's database. */
export function createRevocationRecords(database: DatabaseLane): RevocationRecords {
  return {
    list: async (request) => {
      const { limit, after } = pageOf(request, [cursorPatterns.integer]);
      const { rows } = await database.query<EntryRow>(
        `SELECT ${COLUMNS} FROM revocation_entries AS entry JOIN log_state USING (epoch)
         WHERE NOT canary AND ($1::bigint IS NULL OR entry.seq < $1) AND ($2::bytea[] IS NULL OR key = ANY($2))
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
      const revocation = revocationOf(row);
      return { revocation, instances: await instancesWith(database, revocation) };
    },
  };
}

const SEQUENCE_MAX = 2n ** 63n - 1n;

const COLUMNS =
  'entry.seq, kind, key, issuer, claim, min_generation, revoke_time, keep_until, reason, actor, event_id, network, request_id';

interface EntryRow {
  readonly seq: bigint;
  readonly kind: EntryKind;
  readonly key: Buffer;
  readonly issuer: string;
  readonly claim: string;
  readonly min_generation: bigint;
  readonly revoke_time: Date | null;
  readonly keep_until: Date;
  readonly reason: string;
  readonly actor: string;
  readonly event_id: string | null;
  readonly network: string;
  readonly request_id: string;
}

function revocationOf(row: EntryRow): ListedRevocation {
  const isUuid = row.issuer === '' && (row.kind === 'TOKEN' || row.kind === 'SESSION');
  return {
    sequence: row.seq,
    kind: row.kind,
    target: isUuid ? uuidOf(row.key) : row.key.toString('utf8'),
    issuer: row.issuer,
    claim: row.claim,
    minGeneration: row.min_generation,
    revokeTime: row.revoke_time ?? undefined,
    keepUntil: row.keep_until,
    reason: row.reason,
    actor: row.actor,
    eventId: row.event_id ?? '',
    network: row.network,
    requestId: row.request_id,
  };
}

function uuidOf(bytes: Buffer): string {
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

interface InstanceRow {
  readonly service: string;
  readonly instance: Buffer;
  readonly known_time: Date | null;
  readonly enforced: boolean;
  readonly has_lease: boolean | null;
  readonly lease_end_time: Date | null;
  readonly age_ms: number | null;
  readonly description: StoredDescription | null;
  readonly leaving: boolean | null;
}

/**
 * The instances that may have admitted calls after the revocation, with the first time at which auth knew that they had
 * the entry. `applied` of a present record counts only where the log has the entry that the instance named at that
 * place: a restored database may have another one there. The history was compared when it was written.
 */
async function instancesWith(
  sql: Sql,
  { sequence, revokeTime, keepUntil }: Pick<ListedRevocation, 'sequence' | 'revokeTime' | 'keepUntil'>,
): Promise<readonly RevocationAtInstance[]> {
  const { rows } = await sql.query<InstanceRow>(
    `WITH present AS MATERIALIZED (
       SELECT service, instance, max(sync_time) AS sync_time, max(lease_end_time) AS lease_end_time,
              (array_agg(description ORDER BY sync_time DESC))[1] AS description,
              (array_agg(leaving ORDER BY sync_time DESC))[1] AS leaving,
              bool_or(instances.epoch = log_state.epoch AND applied >= $1 AND EXISTS (
                SELECT FROM revocation_entries AS entry
                WHERE entry.epoch = instances.epoch AND entry.seq = instances.applied
                  AND position(entry.entry_id IN instances.seen) > 0)) AS enforced
       FROM instances, log_state GROUP BY service, instance
     ), every AS (
       SELECT service, instance FROM present WHERE greatest(sync_time, lease_end_time) >= $2
       UNION
       SELECT service, instance FROM instance_names
       WHERE EXISTS (SELECT FROM instance_positions AS known
                     WHERE known.follower = instance_names.follower AND known_time >= $2)
     )
     SELECT service, instance, known_time, coalesce(enforced, false) AS enforced, lease_end_time,
            lease_end_time > clock_timestamp() AS has_lease, description, leaving,
            extract(epoch FROM clock_timestamp() - sync_time)::float8 * 1000 AS age_ms
     FROM every LEFT JOIN present USING (service, instance), log_state, LATERAL (
       SELECT min(known_time) AS known_time FROM (
         (SELECT known_time FROM instance_positions
          WHERE follower = follower_id(service, instance, epoch) AND up_to AND sequence >= $1
          ORDER BY sequence LIMIT 1)
         UNION ALL
         (SELECT known_time FROM instance_positions
          WHERE follower = follower_id(service, instance, epoch) AND sequence = $1)
       ) AS times
     ) AS history
     ORDER BY service, instance LIMIT $3`,
    [sequence, revokeTime ?? new Date(keepUntil.getTime() - KEEP_SECONDS_MAX * 1000), INSTANCES_LISTED_MAX],
  );
  return rows.map((row) => {
    const isEnforced = row.known_time !== null || row.enforced;
    return {
      service: row.service,
      instance: row.instance,
      state: isEnforced ? 'ENFORCED' : row.has_lease === true ? 'PENDING' : 'UNKNOWN',
      enforcedTime: row.known_time ?? undefined,
      leaseEndTime: row.lease_end_time ?? undefined,
      lastSyncAgeMs: row.age_ms === null ? undefined : Math.max(0, row.age_ms),
      description: descriptionOf(row.description),
      left: row.leaving === true,
    };
  });
}
