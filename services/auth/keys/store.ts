/** Signing keys in PostgreSQL. Callers see only keys of the present epoch of the revocation log, except in lists. */

import type { Sql } from '../../common/database/database.js';
import { cursorPatterns, pageOf, pageTokenOf } from '../../common/validation/paging.js';
import type {
  KeyPurpose,
  KeyRecord,
  KeyRow,
  KeyRows,
  KeyState,
  PublishedKeys,
  RotationOutlook,
  SealedRow,
} from '../records/keys.js';
import { publish } from './published-keys.js';

interface SigningKeyRow {
  readonly kid: string;
  readonly purpose: KeyPurpose;
  readonly algorithm: string;
  readonly state: KeyState;
  readonly public_jwk: string;
  readonly sealed_private_key: Buffer;
}

const KEY_COLUMNS = 'kid, purpose, algorithm, state, public_jwk, sealed_private_key';
const OF_THIS_EPOCH = 'epoch = (SELECT epoch FROM log_state)';

/** The advisory lock held while keys are created, so that replicas create one set. */
const MAKING_LOCK = '7305489217362';

/** How long a routine rotation waits for transactions that sign, in milliseconds; after that it fails and runs later. */
const ROUTINE_LOCK_MS_MAX = 500;

/** The keys' rows inside a transaction. */
export function createKeyRows(sql: Sql): KeyRows {
  return {
    epoch: async () => {
      const { rows } = await sql.query<{ epoch: Buffer }>('SELECT epoch FROM log_state');
      const [row] = rows;
      if (row === undefined) throw new Error('the revocation log has no state');
      return row.epoch;
    },

    lockCreation: async () => {
      // This wait cannot deadlock: a transaction that creates keys holds no other lock.
      await sql.query("SELECT set_config('lock_timeout', '10s', true)");
      await sql.query('SELECT pg_advisory_xact_lock($1)', [MAKING_LOCK]);
    },

    live: () => readLiveKeys(sql),

    insert: async ({ kid, purpose, algorithm, state, jwk, sealedPrivateKey }) => {
      await sql.query(
        `INSERT INTO signing_keys (kid, purpose, algorithm, epoch, state, sign_time, public_jwk, sealed_private_key)
         SELECT $1, $2, $3, epoch, $4, CASE $4 WHEN 'signing' THEN clock_timestamp() END, $5, $6 FROM log_state`,
        [kid, purpose, algorithm, state, jwk, sealedPrivateKey],
      );
    },

    lockSigning: async (purpose) => {
      const { rows } = await sql.query<SigningKeyRow>(
        `SELECT ${KEY_COLUMNS} FROM signing_keys
         WHERE ${OF_THIS_EPOCH} AND purpose = $1 AND state = 'signing' FOR SHARE`,
        [purpose],
      );
      return rows[0] && keyOf(rows[0]);
    },

    retire: async (kid) => {
      await lockAgainstMinting(sql);
      const { rows } = await sql.query<{ purpose: KeyPurpose; state: KeyState }>(
        `UPDATE signing_keys k SET ${RETIRED}
         FROM (SELECT kid, state FROM signing_keys WHERE ${OF_THIS_EPOCH} AND kid = $1) before
         WHERE k.kid = before.kid RETURNING k.purpose, before.state`,
        [kid],
      );
      return rows[0];
    },

    retireAll: async () => {
      await lockAgainstMinting(sql);
      await sql.query(
        `UPDATE signing_keys k SET ${RETIRED}
         WHERE ${OF_THIS_EPOCH} AND state <> 'retired'`,
      );
    },

    promoteNext: async (purpose) => {
      await sql.query(
        `UPDATE signing_keys SET state = 'signing', sign_time = clock_timestamp()
         WHERE ${OF_THIS_EPOCH} AND purpose = $1 AND state = 'next'`,
        [purpose],
      );
    },

    lockLive: async (kid) => {
      const { rowCount } = await sql.query(
        `SELECT FROM signing_keys WHERE ${OF_THIS_EPOCH} AND kid = $1 AND state <> 'retired' FOR SHARE`,
        [kid],
      );
      return rowCount > 0;
    },

    sealed: async () => {
      const { rows } = await sql.query<SigningKeyRow>(
        `SELECT ${KEY_COLUMNS} FROM signing_keys WHERE sealed_private_key IS NOT NULL ORDER BY kid`,
      );
      return rows.map(keyOf);
    },

    reseal: (row, to) => reseal(sql, row, to),

    secrets: async () => {
      const { rows } = await sql.query<{ purpose: string; sealed_secret: Buffer }>(
        'SELECT purpose, sealed_secret FROM stored_secrets',
      );
      return new Map(rows.map(({ purpose, sealed_secret }) => [purpose, sealed_secret]));
    },

    putSecret: async (purpose, sealed) => {
      await sql.query(
        `INSERT INTO stored_secrets (purpose, sealed_secret) VALUES ($1, $2)
         ON CONFLICT (purpose) DO UPDATE SET sealed_secret = excluded.sealed_secret`,
        [purpose, sealed],
      );
    },

    markPublished: async () => {
      await sql.query('UPDATE signing_keys SET publish_time = clock_timestamp() WHERE publish_time IS NULL');
    },

    rotationOutlook: (purpose) => readOutlook(sql, purpose),

    stopSigning: async (purpose) => {
      await lockForRoutine(sql);
      await sql.query(
        `UPDATE signing_keys SET state = 'verify-only', stop_time = clock_timestamp()
         WHERE ${OF_THIS_EPOCH} AND purpose = $1 AND state = 'signing'`,
        [purpose],
      );
    },

    retireStopped: async (afterSeconds) => {
      const { rows } = await sql.query<{ kid: string }>(
        `UPDATE signing_keys k SET ${RETIRED}
         WHERE state = 'verify-only' AND stop_time < clock_timestamp() - make_interval(secs => $1) RETURNING kid`,
        [afterSeconds],
      );
      return rows.map(({ kid }) => kid);
    },

    record: async (kid) => {
      const { rows } = await sql.query<RecordRow>(
        `SELECT ${RECORD_COLUMNS} FROM signing_keys WHERE kid = $1`,
        [kid],
      );
      return rows[0] && recordOf(rows[0]);
    },

    list: async (request) => {
      const { limit, after } = pageOf(request, [cursorPatterns.integer, cursorPatterns.text]);
      const { rows } = await sql.query<RecordRow & { microseconds: bigint }>(
        `SELECT ${RECORD_COLUMNS}, ${MICROSECONDS} AS microseconds FROM signing_keys
         WHERE $1::bigint IS NULL OR (${MICROSECONDS}, kid) < ($1, $2)
         ORDER BY create_time DESC, kid DESC LIMIT $3`,
        [after?.[0] ?? null, after?.[1] ?? null, limit + 1],
      );
      const page = rows.slice(0, limit);
      const last = rows.length > limit ? page.at(-1) : undefined;
      return {
        keys: page.map(recordOf),
        nextPageToken: last ? pageTokenOf([String(last.microseconds), last.kid]) : '',
      };
    },
  };
}

async function reseal(sql: Sql, row: SealedRow, to: Buffer): Promise<boolean> {
  if ('purpose' in row) {
    const { rowCount } = await sql.query(
      'UPDATE stored_secrets SET sealed_secret = $3 WHERE purpose = $1 AND sealed_secret = $2',
      [row.purpose, row.sealed, to],
    );
    return rowCount > 0;
  }
  await lockForRoutine(sql);
  const { rowCount } = await sql.query(
    'UPDATE signing_keys SET sealed_private_key = $3 WHERE kid = $1 AND sealed_private_key = $2',
    [row.kid, row.sealed, to],
  );
  return rowCount > 0;
}

/** The lock of work that can wait: transactions that sign queue behind it, so it must give up before they do. */
async function lockForRoutine(sql: Sql): Promise<void> {
  await sql.query("SELECT set_config('lock_timeout', $1, true)", [`${ROUTINE_LOCK_MS_MAX}ms`]);
  await lockAgainstMinting(sql);
}

/** The changes of a key that is retired; a key that was retired before keeps its times. */
const RETIRED = `state = 'retired', sealed_private_key = NULL,
  stop_time = CASE k.state WHEN 'signing' THEN clock_timestamp() ELSE k.stop_time END,
  retire_time = coalesce(k.retire_time, clock_timestamp())`;

const MICROSECONDS = '(extract(epoch FROM create_time) * 1000000)::bigint';

const RECORD_COLUMNS =
  'kid, purpose, algorithm, state, create_time, publish_time, sign_time, stop_time, retire_time';

interface RecordRow {
  readonly kid: string;
  readonly purpose: KeyPurpose;
  readonly algorithm: string;
  readonly state: KeyState;
  readonly create_time: Date;
  readonly publish_time: Date | null;
  readonly sign_time: Date | null;
  readonly stop_time: Date | null;
  readonly retire_time: Date | null;
}

function recordOf(row: RecordRow): KeyRecord {
  return {
    kid: row.kid,
    purpose: row.purpose,
    algorithm: row.algorithm,
    state: row.state,
    createTime: row.create_time,
    publishTime: row.publish_time ?? undefined,
    signTime: row.sign_time ?? undefined,
    stopTime: row.stop_time ?? undefined,
    retireTime: row.retire_time ?? undefined,
  };
}

interface OutlookRow {
  readonly now: Date;
  readonly signing_kid: string | null;
  readonly sign_time: Date | null;
  readonly next_kid: string | null;
  readonly publish_time: Date | null;
  readonly live: bigint;
  readonly lease_ms: number;
  readonly older_leases_end_by: Date;
}

async function readOutlook(sql: Sql, purpose: KeyPurpose): Promise<RotationOutlook> {
  const { rows } = await sql.query<OutlookRow>(
    `SELECT clock_timestamp() AS now, signing.kid AS signing_kid,
            coalesce(signing.sign_time, signing.create_time) AS sign_time,
            next.kid AS next_kid, next.publish_time, older_leases_end_by,
            greatest(lease_ms, older_lease_ms) AS lease_ms,
            (SELECT count(*) FROM signing_keys k
             WHERE k.epoch = log_state.epoch AND k.purpose = $1 AND k.state <> 'retired') AS live
     FROM log_state
     LEFT JOIN signing_keys signing
       ON signing.epoch = log_state.epoch AND signing.purpose = $1 AND signing.state = 'signing'
     LEFT JOIN signing_keys next
       ON next.epoch = log_state.epoch AND next.purpose = $1 AND next.state = 'next'`,
    [purpose],
  );
  const [row] = rows;
  if (row === undefined) throw new Error('the revocation log has no state');
  return {
    now: row.now,
    signing:
      row.signing_kid === null || row.sign_time === null
        ? undefined
        : { kid: row.signing_kid, signTime: row.sign_time },
    next:
      row.next_kid === null ? undefined : { kid: row.next_kid, publishTime: row.publish_time ?? undefined },
    live: Number(row.live),
    leaseMs: row.lease_ms,
    olderLeasesEndBy: row.older_leases_end_by,
  };
}

/**
 * Waits for all transactions that share a key, and makes later ones wait. A lock on the key's row would not do. Under
 * load the row is always shared, and a writer would wait forever; and a transaction that waited to share the row would
 * find the retired key instead of the one that signs by then. The lock on the table has a queue, and a statement reads no
 * row before it has the lock.
 */
async function lockAgainstMinting(sql: Sql): Promise<void> {
  await sql.query('LOCK TABLE signing_keys IN EXCLUSIVE MODE');
}

/** The published keys, as this transaction sees them. */
export async function readPublishedKeys(sql: Sql): Promise<PublishedKeys> {
  return publish(await readLiveKeys(sql));
}

async function readLiveKeys(sql: Sql): Promise<KeyRow[]> {
  const { rows } = await sql.query<SigningKeyRow>(
    `SELECT ${KEY_COLUMNS} FROM signing_keys WHERE ${OF_THIS_EPOCH} AND state <> 'retired' ORDER BY kid`,
  );
  return rows.map(keyOf);
}

function keyOf(row: SigningKeyRow): KeyRow {
  return {
    kid: row.kid,
    purpose: row.purpose,
    algorithm: row.algorithm,
    state: row.state,
    jwk: row.public_jwk,
    sealedPrivateKey: row.sealed_private_key,
  };
}
