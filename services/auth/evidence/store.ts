/** Receipts in PostgreSQL. */

import type { Database, Sql } from '../../common/database/database.js';
import { cursorPatterns, pageOf, pageTokenOf } from '../../common/validation/paging.js';
import { enforcementBoundMs } from '../revocation/log.js';
import type { InstanceEvidence, ReceiptedRevocation } from './receipt.js';
import type { Evidence, ReceiptStore } from './receipts.js';

/** Maximum number of revocations whose receipts one transaction closes. */
const ROUND_MAX = 1000;

/** Maximum number of instances in a receipt. */
const INSTANCES_MAX = 10_000;

/** Maximum number of rounds that one statement deletes. */
const ROUNDS_DELETED_MAX = 1000;

/** Longest commit that the bound of a receipt allows for, in milliseconds. */
const COMMIT_MS_MAX = 1000;

/** How long after the bound a receipt is closed, in milliseconds: replicas share what instances have stated within a second. */
const SHARED_WITHIN_MS = 2000;

/** Creates the store. @param keptDays - how long receipts are kept */
export function createReceiptStore(database: Database, keptDays: number): ReceiptStore {
  return {
    closeRound: () => database.transaction((sql) => closeRound(sql, keptDays)),

    find: async (epoch, sequence) => {
      const { rows } = await database.query<ClosedRow>(
        `SELECT revocation, close_time, instances FROM receipts JOIN receipt_rounds USING (round_id)
         WHERE epoch = coalesce($1, (SELECT epoch FROM log_state)) AND seq = $2`,
        [epoch ?? null, inRange(sequence)],
      );
      const [row] = rows;
      if (row === undefined) return undefined;
      return { revocation: row.revocation, round: { closeTime: row.close_time, instances: row.instances } };
    },

    readOpen: (epoch, sequence) => database.transaction((sql) => readOpen(sql, epoch, sequence)),

    list: async (request) => {
      const { limit, after } = pageOf(request, [cursorPatterns.integer, cursorPatterns.integer]);
      const { rows } = await database.query<ListedRow>(
        `SELECT epoch, seq, revocation, ${MICROSECONDS} AS microseconds FROM receipts
         WHERE $1::bigint IS NULL OR (revoke_time, seq) < (to_timestamp($1 / 1000000.0), $2)
         ORDER BY revoke_time DESC, seq DESC LIMIT $3`,
        [after?.[0] ?? null, after?.[1] ?? null, limit + 1],
      );
      const page = rows.slice(0, limit);
      const last = rows.length > limit ? page.at(-1) : undefined;
      return {
        receipts: page.map(({ epoch, seq, revocation }) => ({ epoch, sequence: seq, revocation })),
        nextPageToken: last === undefined ? '' : pageTokenOf([String(last.microseconds), String(last.seq)]),
      };
    },

    keys: async () => {
      const { rows } = await database.query<{ kid: string; algorithm: string; public_jwk: string }>(
        `SELECT kid, algorithm, public_jwk FROM signing_keys WHERE purpose = 'receipt' ORDER BY create_time DESC, kid`,
      );
      return rows.map(({ kid, algorithm, public_jwk: jwk }) => ({ kid, algorithm, jwk }));
    },

    deleteOld: async () => {
      const { rowCount } = await database.query(
        `DELETE FROM receipt_rounds WHERE round_id IN (
           SELECT round_id FROM receipt_rounds WHERE keep_until < (SELECT clock_timestamp())
           ORDER BY keep_until LIMIT $1 FOR UPDATE SKIP LOCKED)`,
        [ROUNDS_DELETED_MAX],
      );
      return rowCount;
    },
  };
}

const MICROSECONDS = '(extract(epoch FROM revoke_time) * 1000000)::bigint';
const SEQUENCE_MAX = 2n ** 63n - 1n;

/** A sequence of the protocol can be larger than one of the database, which then has no such entry. */
function inRange(sequence: bigint): bigint {
  return sequence > SEQUENCE_MAX ? 0n : sequence;
}

interface ClosedRow {
  readonly revocation: ReceiptedRevocation;
  readonly close_time: Date;
  readonly instances: readonly InstanceEvidence[];
}

interface ListedRow {
  readonly epoch: Buffer;
  readonly seq: bigint;
  readonly revocation: ReceiptedRevocation;
  readonly microseconds: bigint;
}

interface Bound {
  readonly epoch: Buffer;
  readonly closed: bigint;
  readonly present: Buffer;
  readonly lease_ms: number;
  readonly older_leases_end_by: Date;
}

async function closeRound(sql: Sql, keptDays: number): Promise<number> {
  const { rows: locked } = await sql.query<Bound>(
    `SELECT coalesce(receipt_state.epoch, log_state.epoch) AS epoch, receipt_state.seq AS closed,
            log_state.epoch AS present, greatest(lease_ms, older_lease_ms) AS lease_ms, older_leases_end_by
     FROM receipt_state, log_state FOR UPDATE OF receipt_state SKIP LOCKED`,
  );
  const [bound] = locked;
  if (bound === undefined) return 0;
  const boundMs = enforcementBoundMs(bound.lease_ms) + COMMIT_MS_MAX;
  const due = await readRevocations(sql, bound, {
    where: `entry.seq > $2 AND coalesce(revoke_time, '-infinity') < clock_timestamp() - make_interval(secs => $3 / 1000.0)
            AND $4 < clock_timestamp()`,
    values: [bound.closed, boundMs + SHARED_WITHIN_MS, bound.older_leases_end_by],
  });
  if (due.length === 0) {
    // The epoch is over, and so is every bound of it once nothing of it is due.
    if (!bound.present.equals(bound.epoch) && !(await hasOpen(sql, bound)))
      await setClosed(sql, bound.present, 0n);
    return 0;
  }
  const [first, last] = [due[0], due.at(-1)];
  if (first === undefined || last === undefined) return 0;
  const round = await readRound(sql, bound.epoch, {
    first: BigInt(first.sequence),
    last: BigInt(last.sequence),
    since: first.revoke_time,
  });
  await sql.query(
    `WITH round AS (
       INSERT INTO receipt_rounds (close_time, instances, keep_until)
       VALUES ($1, $2, clock_timestamp() + make_interval(days => $3)) RETURNING round_id
     )
     INSERT INTO receipts (epoch, seq, round_id, revoke_time, revocation)
     SELECT $4, (entry->>'sequence')::bigint, round_id, (entry->>'revoke_time')::timestamptz, entry
     FROM round, jsonb_array_elements($5::jsonb) AS entry ON CONFLICT DO NOTHING`,
    [round.closeTime, JSON.stringify(round.instances), keptDays, bound.epoch, JSON.stringify(due)],
  );
  await setClosed(sql, bound.epoch, BigInt(last.sequence));
  return due.length;
}

async function hasOpen(sql: Sql, { epoch, closed }: Bound): Promise<boolean> {
  const { rowCount } = await sql.query(
    `SELECT FROM revocation_entries
     WHERE epoch = $1 AND seq > $2 AND NOT canary AND keep_until > clock_timestamp() LIMIT 1`,
    [epoch, closed],
  );
  return rowCount > 0;
}

async function setClosed(sql: Sql, epoch: Buffer, sequence: bigint): Promise<void> {
  await sql.query('UPDATE receipt_state SET epoch = $1, seq = $2', [epoch, sequence]);
}

interface EntryRow {
  readonly seq: bigint;
  readonly kind: string;
  readonly issuer: string;
  readonly claim: string;
  readonly target: string;
  readonly user_id: string | null;
  readonly username: string | null;
  readonly revoke_time: Date | null;
  readonly keep_until: Date;
  readonly reason: string;
  readonly actor: string;
  readonly actor_name: string | null;
  readonly network: string;
  readonly request_id: string;
  readonly event_id: string | null;
}

/** The revocations of an epoch that meet a condition, with the names of users, in log order; those of canary tokens are none. */
async function readRevocations(
  sql: Sql,
  {
    epoch,
    lease_ms: leaseMs,
    older_leases_end_by: olderLeasesEndBy,
  }: Pick<Bound, 'epoch' | 'lease_ms' | 'older_leases_end_by'>,
  { where, values }: { readonly where: string; readonly values: readonly unknown[] },
): Promise<readonly ReceiptedRevocation[]> {
  const { rows } = await sql.query<EntryRow>(
    `WITH entry AS MATERIALIZED (
       SELECT *, CASE WHEN issuer = '' AND kind IN ('TOKEN', 'SESSION') THEN encode(key, 'hex')::uuid::text
                      ELSE convert_from(key, 'UTF8') END AS target
       FROM revocation_entries AS entry WHERE epoch = $1 AND NOT canary AND ${where} ORDER BY seq LIMIT ${ROUND_MAX}
     )
     SELECT entry.seq, kind, issuer, claim, target, concerned.user_id, concerned.username, revoke_time, keep_until,
            reason, actor, actors.username AS actor_name, entry.network, request_id, event_id
     FROM entry
     LEFT JOIN sessions ON kind = 'SESSION' AND issuer = '' AND sessions.session_id::text = target
     LEFT JOIN users AS concerned ON issuer = ''
       AND concerned.user_id::text = CASE kind WHEN 'USER' THEN target WHEN 'SESSION' THEN sessions.user_id::text END
     LEFT JOIN users AS actors ON actors.user_id::text = actor
     ORDER BY entry.seq`,
    [epoch, ...values],
  );
  return rows.map((row) => {
    // Entries of versions that did not record the time are from before this version, and long enforced.
    const revokeTime = row.revoke_time ?? new Date(0);
    const boundMs = Math.max(
      revokeTime.getTime() + COMMIT_MS_MAX + enforcementBoundMs(leaseMs),
      olderLeasesEndBy.getTime(),
    );
    return {
      epoch: epoch.toString('base64url'),
      sequence: String(row.seq),
      kind: row.kind,
      target: row.target,
      ...(row.user_id !== null && { user: { id: row.user_id, name: row.username ?? '' } }),
      ...(row.issuer !== '' && { issuer: row.issuer }),
      ...(row.claim !== '' && { claim: row.claim }),
      revoke_time: revokeTime.toISOString(),
      enforced_everywhere_by: new Date(boundMs).toISOString(),
      actor: row.actor,
      ...(row.actor_name !== null && { actor_name: row.actor_name }),
      network: row.network,
      reason: row.reason,
      ...(row.request_id !== '' && { request_id: row.request_id }),
      ...(row.event_id !== null && { event_id: row.event_id }),
    };
  });
}

interface RoundRow {
  readonly close_time: Date;
  readonly instances: readonly InstanceEvidence[] | null;
}

/**
 * What is known of every instance that had one of the entries, or may have admitted calls after the first of them. A place
 * of a present record counts only where the log has the entry that the instance named there.
 */
async function readRound(
  sql: Sql,
  epoch: Buffer,
  { first, last, since }: { readonly first: bigint; readonly last: bigint; readonly since: string },
): Promise<{ readonly closeTime: Date; readonly instances: readonly InstanceEvidence[] }> {
  const { rows } = await sql.query<RoundRow>(
    `WITH present AS MATERIALIZED (
       SELECT service, instance, max(sync_time) AS sync_time, max(lease_end_time) AS lease_end_time,
              (array_agg(description ORDER BY sync_time DESC))[1] AS description,
              (array_agg(leaving ORDER BY sync_time DESC))[1] AS leaving,
              max(applied) FILTER (WHERE instances.epoch = $1 AND EXISTS (
                SELECT FROM revocation_entries AS entry
                WHERE entry.epoch = instances.epoch AND entry.seq = instances.applied
                  AND position(entry.entry_id IN instances.seen) > 0)) AS applied
       FROM instances GROUP BY service, instance
     ), every AS (
       SELECT service, instance FROM present WHERE greatest(sync_time, lease_end_time) >= $4
       UNION
       SELECT service, instance FROM instance_names
       WHERE EXISTS (SELECT FROM instance_positions AS known
                     WHERE known.follower = instance_names.follower AND known_time >= $4)
     ), found AS (
       SELECT service, instance, sync_time, lease_end_time, description, leaving, applied,
              (SELECT coalesce(jsonb_agg(jsonb_build_object(
                        'sequence', sequence::text, 'up_to', up_to, 'known_time', ${iso('known_time')}) ORDER BY sequence), '[]')
               FROM instance_positions
               WHERE follower = follower_id(service, instance, $1) AND sequence >= $2
                 AND (sequence <= $3 OR up_to AND sequence = (
                   SELECT min(sequence) FROM instance_positions
                   WHERE follower = follower_id(service, instance, $1) AND up_to AND sequence >= $3))) AS positions
       FROM every LEFT JOIN present USING (service, instance)
       ORDER BY service, instance LIMIT ${INSTANCES_MAX}
     )
     SELECT clock_timestamp() AS close_time, jsonb_agg(jsonb_build_object(
              'service', service, 'instance', encode(instance, 'hex'),
              'host', coalesce(description->>'host', ''), 'version', coalesce(description->>'version', ''),
              'left', coalesce(leaving, false),
              'sync_time', ${iso('sync_time')}, 'lease_end_time', ${iso('lease_end_time')},
              'positions', positions || CASE WHEN applied >= $2 THEN jsonb_build_array(jsonb_build_object(
                'sequence', applied::text, 'up_to', true, 'known_time', ${iso('sync_time')})) ELSE '[]' END)
              ORDER BY service, instance) AS instances
     FROM found`,
    [epoch, first, last, since],
  );
  const [row] = rows;
  if (row === undefined) throw new TypeError('expected the evidence, got no row');
  return { closeTime: row.close_time, instances: row.instances ?? [] };
}

/** A time as ISO 8601 in UTC, with milliseconds; null stays null. */
function iso(time: string): string {
  return `to_char(${time} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`;
}

async function readOpen(
  sql: Sql,
  epoch: Buffer | undefined,
  sequence: bigint,
): Promise<Evidence | undefined> {
  const { rows } = await sql.query<Omit<Bound, 'closed' | 'present'>>(
    'SELECT coalesce($1, epoch) AS epoch, greatest(lease_ms, older_lease_ms) AS lease_ms, older_leases_end_by FROM log_state',
    [epoch ?? null],
  );
  const [bound] = rows;
  if (bound === undefined) return undefined;
  const [revocation] = await readRevocations(sql, bound, {
    where: 'entry.seq = $2',
    values: [inRange(sequence)],
  });
  if (revocation === undefined) return undefined;
  const place = BigInt(revocation.sequence);
  const round = await readRound(sql, bound.epoch, {
    first: place,
    last: place,
    since: revocation.revoke_time,
  });
  return { revocation, round };
}
