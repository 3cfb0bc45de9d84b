/** The revocation log in PostgreSQL. */

import { CLOCK_SKEW_SECONDS, ID_BYTES } from '@portcullis/guard/limits';
import type { DatabaseLane, Sql } from '../../common/database/database.js';
import type { PublishedKeys } from '../records/keys.js';
import type {
  Appended,
  EntryKind,
  EpochStanding,
  LiveSet,
  LogBatch,
  LogEntry,
  LogId,
  LogLock,
  LogState,
  LostEpoch,
  NewEntry,
  OpenedLog,
  PackedIds,
  RevocationRows,
} from '../records/revocations.js';
import {
  createId,
  enforcementBoundMs,
  KEEP_MARGIN_SECONDS,
  KEEP_SECONDS_MAX,
  type TokensEnd,
  tokensEndOf,
} from './log.js';
import { LOST_EPOCHS_MAX, type LogReader, type RevocationStore, type TokenLifetime } from './log-access.js';

/** Longest wait for the log's lock, and longest idle time of a transaction that holds it, in milliseconds. */
export const LOG_LOCK_MS_MAX = 1000;

/** Maximum number of entries of the live set that one statement reads. */
export const LIVE_SLICE_ENTRIES = 50_000n;

/** Length of a sequence as PostgreSQL sends it (int8), in bytes. */
const SEQUENCE_BYTES = 8;

/** How long the row of a reader is kept after its last read, in seconds. */
const READER_KEEP_SECONDS = 3600;

/**
 * The log inside a transaction, which must be read committed.
 *
 * @param onAppended - called with each batch before the commit; it broadcasts the batch after the commit
 */
export function createRevocationRows(sql: Sql, onAppended: (batch: LogBatch) => void): RevocationRows {
  return {
    append: async (entries) => {
      if (entries.length === 0) throw new TypeError('nothing to append');
      const appended = await append(sql, entries);
      onAppended({ epoch: appended.epoch, entries: appended.entries });
      return appended;
    },

    openEpoch: async ({ reason, actor }) => {
      await boundLogLock(sql);
      const opened = await openEpoch(sql, { reason, actor });
      // There is nothing to broadcast yet, but auth's own list can sync at once.
      onAppended({ epoch: opened.epoch, entries: [] });
      return opened;
    },
  };
}

/**
 * The log outside of the transactions that write to it.
 *
 * @param deps.publishedKeys - reads the published keys of the epoch inside the given snapshot
 */
export function createRevocationStore(deps: {
  readonly database: DatabaseLane;
  readonly publishedKeys: (sql: Sql) => Promise<PublishedKeys>;
}): RevocationStore {
  const { database, publishedKeys } = deps;
  // The ids of readers whose last read has ended. A read that hangs keeps its id, and the lock on its row.
  const idleReaders: Buffer[] = [];

  return {
    read: async (work) => {
      const reader = idleReaders.pop() ?? createId();
      try {
        return await database.transaction(
          async (sql) => work(createLogReader(sql, await readState(sql, reader), publishedKeys)),
          { isolation: 'repeatable read' },
        );
      } finally {
        idleReaders.push(reader);
      }
    },

    noteLostEpochs: (lost) => database.transaction((sql) => noteLostEpochs(sql, lost)),

    readLive: () =>
      database.transaction((sql) => readLive(sql), { isolation: 'repeatable read', readOnly: true }),

    dropExpired: (limit) => database.transaction((sql) => dropExpired(sql, limit)),

    setLeaseMs: async (leaseMs) => {
      await database.transaction((sql) => changeLease(sql, leaseMs));
      // Only now can no further read grant the former length, so only now it is known when its last lease ends.
      await database.transaction((sql) => dateOlderLeases(sql));
    },

    setTokenSeconds: async (seconds) => {
      await database.transaction((sql) => changeTokenLifetime(sql, seconds));
      // Only now can no further transaction mint with the former lifetime, so only now it is known when its last token ends.
      await database.transaction((sql) => dateOlderTokens(sql));
    },

    tokenLifetime: () => database.transaction((sql) => readTokenLifetime(sql)),
  };
}

/**
 * Bounds the lock and makes the commit durable, whatever the settings of the server or the session are. A frozen process
 * must not block other revocations, and no commit may be confirmed before it is durable.
 */
async function boundLogLock(sql: Sql): Promise<void> {
  await sql.query(
    `SELECT set_config('lock_timeout', $1, true),
            set_config('idle_in_transaction_session_timeout', $1, true),
            ${DURABLE_COMMIT}`,
    [`${LOG_LOCK_MS_MAX}ms`],
  );
}

/** In a select list: the commit waits until it is on the disks that the server is configured to wait for. */
const DURABLE_COMMIT = `set_config('synchronous_commit',
  CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true)`;

interface LockRow {
  readonly epoch: Buffer;
  readonly lease_ms: number;
  readonly older_leases_end_by: Date;
  readonly locked_time: Date;
}

interface AppendRow extends LockRow {
  readonly epoch_number: bigint;
  readonly before: bigint;
  readonly keep_own: Date;
  readonly keep_any: Date;
  readonly cut_off_time: Date;
}

/**
 * Appends with one statement, so that the end of the log stays locked for one round trip and the commit. Times are read
 * after the lock is granted, because the transaction may have begun long before. `keep_until` follows {@link tokensEndOf},
 * rounded up to the millisecond, the finest unit of the protocol's readers. The lifetime of tokens is that of the locked
 * row: a token that the entry revokes was minted before, so its lifetime had been committed before. The cut-off is not before any time that another issuer's clock,
 * which may differ by the skew, has stamped before the lock.
 *
 * The statement sets the bounds of {@link boundLogLock} first: it finds the row to lock through a join with them.
 */
async function append(sql: Sql, entries: readonly NewEntry[]): Promise<Appended> {
  const ids = entries.map(() => createId());
  const ends = entries.map(tokensEndOf);
  const { rows } = await sql.query<AppendRow>(
    `WITH bound AS MATERIALIZED (
       SELECT set_config('lock_timeout', $10, true) || set_config('idle_in_transaction_session_timeout', $10, true)
              || ${DURABLE_COMMIT} AS settings
     ), locked AS (
       UPDATE log_state SET seq = seq + cardinality($1::bytea[]), entry_id = ($1::bytea[])[cardinality($1::bytea[])],
         fence_wanted = CASE WHEN $15::bigint > 0 THEN seq + $15 ELSE fence_wanted END
       FROM bound WHERE bound.settings <> ''
       RETURNING epoch, epoch_number, seq - cardinality($1::bytea[]) AS before, older_leases_end_by,
                 greatest(lease_ms, older_lease_ms) AS lease_ms, older_tokens_end_by,
                 greatest(token_seconds, older_token_seconds) AS token_seconds, clock_timestamp() AS locked_time
     ), kept AS MATERIALIZED (
       SELECT *, ${roundedUp(OWN_TOKENS_END)} + make_interval(secs => $2) AS keep_own,
              ${roundedUp('locked_time')} + make_interval(secs => $13) AS keep_any,
              to_timestamp(ceil(extract(epoch FROM locked_time) + $8)) AS cut_off_time
       FROM locked
     ), written AS (
       INSERT INTO revocation_entries
         (epoch, seq, entry_id, kind, issuer, claim, key, min_generation, cut_off_time, keep_until, reason, actor, event_id,
          network, request_id, canary)
       SELECT epoch, before + ordinal, entry_id, kind, issuer, claim, key, min_generation,
              CASE WHEN issuer <> '' AND kind IN ('USER', 'CLAIM') THEN cut_off_time END,
              CASE WHEN revokes_any THEN keep_any
                   ELSE coalesce(token_end + make_interval(secs => $2), keep_own) END, reason, actor, event_id,
              network, request_id, canary
       FROM kept, unnest($1::bytea[], $3::text[], $9::text[], $4::bytea[], $5::bigint[], $6::text[], $7::text[],
                         $11::boolean[], $12::timestamptz[], $14::uuid[], $16::text[],
                         $17::text[], $18::text[], $19::boolean[])
         WITH ORDINALITY
         AS entry (entry_id, kind, issuer, key, min_generation, reason, actor, revokes_any, token_end, event_id, claim,
                   network, request_id, canary, ordinal)
     )
     SELECT epoch, epoch_number, before, lease_ms, older_leases_end_by, locked_time, keep_own, keep_any, cut_off_time
     FROM kept`,
    [
      ids,
      KEEP_MARGIN_SECONDS,
      entries.map(({ kind }) => kind),
      entries.map(({ key }) => key),
      entries.map(({ minGeneration }) => minGeneration),
      entries.map(({ reason }) => reason),
      entries.map(({ actor }) => actor),
      CLOCK_SKEW_SECONDS,
      entries.map(({ issuer }) => issuer),
      `${LOG_LOCK_MS_MAX}ms`,
      ends.map((end) => end === 'ANY'),
      ends.map((end) => (end instanceof Date ? end : null)),
      KEEP_SECONDS_MAX,
      entries.map(({ eventId }) => eventId ?? null),
      entries.findLastIndex(({ fence = false }) => fence) + 1,
      entries.map(({ claim = '' }) => claim),
      entries.map(({ network = '' }) => network),
      entries.map(({ requestId = '' }) => requestId),
      entries.map(({ canary = false }) => canary),
    ],
  );
  const row = theOnly(rows);
  return {
    epoch: row.epoch,
    epochNumber: row.epoch_number,
    entries: entries.map(({ kind, issuer, claim, key, minGeneration, acknowledge = false }, index) => ({
      entryId: ids[index] ?? Buffer.alloc(0),
      sequence: row.before + BigInt(index + 1),
      kind,
      issuer,
      claim,
      key,
      minGeneration,
      keepUntil: keepUntilOf(ends[index] ?? 'ANY', row),
      cutOffTime: issuer !== '' && (kind === 'USER' || kind === 'CLAIM') ? row.cut_off_time : undefined,
      acknowledge,
    })),
    ...lockOf(row),
  };
}

/** In a select list over the locked row of the log: when the last token of this issuer expires that is minted by now. */
const OWN_TOKENS_END = 'greatest(locked_time + make_interval(secs => token_seconds), older_tokens_end_by)';

function roundedUp(time: string): string {
  return `date_trunc('milliseconds', ${time}) + interval '1 ms'`;
}

/** As the statement has written it. */
function keepUntilOf(end: TokensEnd, row: AppendRow): Date {
  if (end instanceof Date) return new Date(end.getTime() + KEEP_MARGIN_SECONDS * 1000);
  return end === 'OWN' ? row.keep_own : row.keep_any;
}

/**
 * Replaces the log by a new one. The old entries stay until they expire, and so does the horizon. The new log begins with
 * the old entries about other issuers: their tokens do not end with this issuer's keys, and must stay revoked.
 */
async function openEpoch(
  sql: Sql,
  { reason, actor }: { readonly reason: string; readonly actor: string },
): Promise<OpenedLog> {
  const { rows } = await sql.query<LockRow & { readonly former_epoch: Buffer }>(
    `WITH former AS MATERIALIZED (
       SELECT epoch FROM log_state FOR UPDATE
     ), opened AS (
       UPDATE log_state SET epoch = $1, seq = 0, entry_id = '', fence_wanted = 0,
         epoch_number = greatest(epoch_number + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
       FROM former
       RETURNING log_state.epoch, former.epoch AS former_epoch, older_leases_end_by,
                 greatest(lease_ms, older_lease_ms) AS lease_ms, clock_timestamp() AS locked_time
     ), noted AS (
       INSERT INTO epochs (epoch, open_time, reason, actor) SELECT epoch, locked_time, $2, $3 FROM opened
     )
     SELECT epoch, former_epoch, lease_ms, older_leases_end_by, locked_time FROM opened`,
    [createId(), reason, actor],
  );
  const row = theOnly(rows);
  await sql.query(
    `WITH carried AS (
       INSERT INTO revocation_entries
         (epoch, seq, entry_id, kind, issuer, claim, key, min_generation, cut_off_time, keep_until, reason, actor,
          revoke_time, event_id, network, request_id)
       SELECT $1, row_number() OVER (ORDER BY seq), uuid_send(gen_random_uuid()), kind, issuer, claim, key, min_generation,
              cut_off_time, keep_until, reason, actor, revoke_time, event_id, network, request_id
       FROM revocation_entries WHERE epoch = $2 AND issuer <> '' AND keep_until > (SELECT clock_timestamp())
       RETURNING seq, entry_id
     )
     UPDATE log_state SET seq = last.seq, entry_id = last.entry_id
     FROM (SELECT seq, entry_id FROM carried ORDER BY seq DESC LIMIT 1) AS last`,
    [row.epoch, row.former_epoch],
  );
  return { epoch: row.epoch, ...lockOf(row) };
}

function lockOf(row: LockRow): LogLock {
  return {
    lockedTime: row.locked_time,
    leaseMs: row.lease_ms,
    olderLeasesEndBy: row.older_leases_end_by,
  };
}

interface StateRow {
  readonly epoch: Buffer;
  readonly seq: bigint;
  readonly entry_id: Buffer;
  readonly horizon: Date;
  readonly lease_ms: number;
  readonly epoch_number: bigint;
  readonly fence_wanted: bigint;
}

/** Reads the end of the log and commits a write with it. Each reader has its own row, so the write never waits. */
async function readState(sql: Sql, reader: Buffer): Promise<LogState> {
  const { rows } = await sql.query<StateRow>(
    `WITH mark AS (
       INSERT INTO log_readers (reader, read_time) VALUES ($1, clock_timestamp())
       ON CONFLICT (reader) DO UPDATE SET read_time = excluded.read_time
     )
     SELECT epoch, seq, entry_id, horizon, lease_ms, epoch_number, fence_wanted, ${DURABLE_COMMIT} FROM log_state`,
    [reader],
  );
  const row = theOnly(rows);
  return {
    epoch: row.epoch,
    head: row.seq,
    headEntryId: row.entry_id,
    horizon: row.horizon,
    leaseMs: row.lease_ms,
    epochNumber: row.epoch_number,
    fenceWanted: row.fence_wanted,
  };
}

function createLogReader(
  sql: Sql,
  state: LogState,
  publishedKeys: (sql: Sql) => Promise<PublishedKeys>,
): LogReader {
  return {
    state,
    entriesAfter: async (sequence) => {
      const { rows } = await sql.query<EntryRow>(
        `SELECT ${ENTRY_COLUMNS} FROM revocation_entries WHERE epoch = $1 AND seq > $2 ORDER BY seq`,
        [state.epoch, sequence],
      );
      return rows.map(entryOf);
    },
    idsAfter: async (sequence) => {
      const { rows } = await sql.query<{ sequences: Buffer | null; ids: Buffer | null }>(
        `SELECT string_agg(int8send(seq), '' ORDER BY seq) AS sequences, string_agg(entry_id, '' ORDER BY seq) AS ids
         FROM revocation_entries WHERE epoch = $1 AND seq > $2`,
        [state.epoch, sequence],
      );
      return idsIn(theOnly(rows));
    },
    entryIdsAt: async (sequences) => {
      const { rows } = await sql.query<{ seq: bigint; entry_id: Buffer }>(
        'SELECT seq, entry_id FROM revocation_entries WHERE epoch = $1 AND seq = ANY($2::bigint[])',
        [state.epoch, sequences],
      );
      return new Map(rows.map(({ seq, entry_id }) => [seq, entry_id]));
    },
    standingOf: async (epochs) => {
      const { rows } = await sql.query<{ epoch: Buffer; standing: EpochStanding }>(
        `SELECT epoch, CASE found_under WHEN $2 THEN 'LOST' ELSE 'OVER' END AS standing
         FROM lost_epochs WHERE epoch = ANY($1::bytea[])
         UNION ALL
         SELECT epoch, 'OVER' FROM epochs WHERE epoch = ANY($1::bytea[])`,
        [epochs, state.epoch],
      );
      return new Map(rows.map(({ epoch, standing }) => [epoch.toString('hex'), standing]));
    },
    publishedKeys: () => publishedKeys(sql),
  };
}

/**
 * Runs outside the read that found the epochs, because that read must not wait for locks. An epoch is recorded only if the
 * epoch under which it was found is still the present one: the database may have been restored again meanwhile. Rows are
 * inserted in the order of their ids, so that two such transactions cannot deadlock.
 */
async function noteLostEpochs(sql: Sql, lost: readonly LostEpoch[]): Promise<void> {
  await boundLogLock(sql);
  const ordered = [...new Map(lost.map((one) => [one.epoch.toString('hex'), one])).entries()]
    .sort(([left], [right]) => (left < right ? -1 : 1))
    .map(([, one]) => one)
    .slice(0, LOST_EPOCHS_MAX);
  await sql.query(
    `INSERT INTO lost_epochs (epoch, found_under, find_time)
     SELECT lost.epoch, log_state.epoch, clock_timestamp()
     FROM unnest($1::bytea[], $2::bytea[]) WITH ORDINALITY AS lost (epoch, found_under, ordinal)
       JOIN log_state ON log_state.epoch = lost.found_under
     WHERE NOT EXISTS (SELECT FROM epochs WHERE epochs.epoch = lost.epoch)
     ORDER BY lost.ordinal
     ON CONFLICT (epoch) DO NOTHING`,
    [ordered.map(({ epoch }) => epoch), ordered.map(({ foundUnder }) => foundUnder)],
  );
  await sql.query(
    `DELETE FROM lost_epochs WHERE epoch IN (
       SELECT lost.epoch FROM lost_epochs AS lost JOIN log_state ON log_state.epoch = lost.found_under
       ORDER BY lost.find_time DESC, lost.epoch OFFSET $1)`,
    [LOST_EPOCHS_MAX],
  );
}

/** A row for each id would take five times as long. */
function idsIn({ sequences, ids }: { sequences: Buffer | null; ids: Buffer | null }): LogId[] {
  if (sequences === null || ids === null) return [];
  return Array.from({ length: ids.byteLength / ID_BYTES }, (_, index) => ({
    sequence: sequences.readBigInt64BE(index * SEQUENCE_BYTES),
    entryId: ids.subarray(index * ID_BYTES, (index + 1) * ID_BYTES),
  }));
}

const ENTRY_COLUMNS = 'entry_id, seq, kind, issuer, claim, key, min_generation, keep_until, cut_off_time';

/** Entries that consist of a key of 16 bytes. */
const IS_PACKED = "kind IN ('TOKEN', 'SESSION') AND issuer = ''";

interface EntryRow {
  readonly entry_id: Buffer;
  readonly seq: bigint;
  readonly kind: EntryKind;
  readonly issuer: string;
  readonly claim: string;
  readonly key: Buffer;
  readonly min_generation: bigint;
  readonly keep_until: Date;
  readonly cut_off_time: Date | null;
}

function entryOf(row: EntryRow): LogEntry {
  return {
    entryId: row.entry_id,
    sequence: row.seq,
    kind: row.kind,
    issuer: row.issuer,
    claim: row.claim === '' ? undefined : row.claim,
    key: row.key,
    minGeneration: row.min_generation,
    keepUntil: row.keep_until,
    cutOffTime: row.cut_off_time ?? undefined,
    acknowledge: false,
  };
}

interface PackedRow {
  readonly kind: 'TOKEN' | 'SESSION';
  readonly keep_until: Date;
  readonly ids: Buffer;
}

/**
 * Reads the whole live set into memory: a peer that reads its stream slowly must hold neither a connection nor a snapshot
 * of the database. Reads it in slices, because one statement over millions of entries would take too long.
 */
async function readLive(sql: Sql): Promise<LiveSet> {
  const { rows } = await sql.query<StateRow & { readonly before: bigint | null }>(
    `SELECT epoch, seq, entry_id, horizon, lease_ms,
            (SELECT min(seq) - 1 FROM revocation_entries entry WHERE entry.epoch = log_state.epoch) AS before
     FROM log_state`,
  );
  const { epoch, seq: head, entry_id: headEntryId, before } = theOnly(rows);
  const packed: PackedIds[] = [];
  for (let from = before ?? head; from < head; from += LIVE_SLICE_ENTRIES) {
    packed.push(...(await readPacked(sql, epoch, from)));
  }
  const others = await sql.query<EntryRow>(
    `SELECT ${ENTRY_COLUMNS} FROM revocation_entries
     WHERE epoch = $1 AND NOT (${IS_PACKED}) ORDER BY seq`,
    [epoch],
  );
  return { epoch, head, headEntryId, packed, entries: others.rows.map(entryOf) };
}

async function readPacked(sql: Sql, epoch: Buffer, from: bigint): Promise<PackedIds[]> {
  const { rows } = await sql.query<PackedRow>(
    `SELECT kind, date_bin('1 minute', keep_until - interval '1 microsecond', to_timestamp(0)) + interval '1 minute'
              AS keep_until,
            string_agg(key, ''::bytea) AS ids
     FROM revocation_entries
     WHERE epoch = $1 AND seq > $2 AND seq <= $3 AND ${IS_PACKED} GROUP BY 1, 2 ORDER BY 1, 2`,
    [epoch, from, from + LIVE_SLICE_ENTRIES],
  );
  return rows.map(packedOf);
}

function packedOf(row: PackedRow): PackedIds {
  if (row.ids.length % ID_BYTES !== 0) throw new TypeError('packed identifiers must be whole');
  return { kind: row.kind, keepUntil: row.keep_until, ids: row.ids };
}

/**
 * Drops entries and moves the horizon in one transaction: a reader that no longer finds an entry finds a horizon that
 * covers it. Rows that another replica is dropping are skipped.
 */
async function dropExpired(sql: Sql, limit: number): Promise<number> {
  await boundLogLock(sql);
  const { rows } = await sql.query<{ count: bigint; keep_until: Date | null }>(
    `WITH dropped AS (
       DELETE FROM revocation_entries WHERE (epoch, seq) IN (
         SELECT epoch, seq FROM revocation_entries WHERE keep_until < (SELECT clock_timestamp())
         ORDER BY keep_until LIMIT $1 FOR UPDATE SKIP LOCKED
       ) RETURNING keep_until
     ) SELECT count(*), max(keep_until) AS keep_until FROM dropped`,
    [limit],
  );
  const { count, keep_until } = theOnly(rows);
  if (keep_until !== null) {
    await sql.query('UPDATE log_state SET horizon = greatest(horizon, $1)', [keep_until]);
  }
  await sql.query(
    'DELETE FROM log_readers WHERE read_time < (SELECT clock_timestamp()) - make_interval(secs => $1)',
    [READER_KEEP_SECONDS],
  );
  return Number(count);
}

async function changeLease(sql: Sql, leaseMs: number): Promise<void> {
  await boundLogLock(sql);
  await sql.query(
    `UPDATE log_state SET
       lease_ms = $1,
       older_lease_ms = nullif(greatest(lease_ms, older_lease_ms, $1), $1)`,
    [leaseMs],
  );
}

async function dateOlderLeases(sql: Sql): Promise<void> {
  await boundLogLock(sql);
  // The lock comes first and the clock is read after it, so that the time lies after the commit of the change.
  const { rows } = await sql.query<{ older_lease_ms: number | null }>(
    'SELECT older_lease_ms FROM log_state FOR UPDATE',
  );
  const { older_lease_ms: olderLeaseMs } = theOnly(rows);
  if (olderLeaseMs === null) return;
  await sql.query(
    `UPDATE log_state SET
       older_leases_end_by = greatest(older_leases_end_by, clock_timestamp() + make_interval(secs => $1)),
       older_lease_ms = NULL`,
    [enforcementBoundMs(olderLeaseMs) / 1000],
  );
}

/** Minting reads the clock before the lifetime, so a token of the former lifetime begins before the commit of this. */
async function changeTokenLifetime(sql: Sql, seconds: number): Promise<void> {
  await boundLogLock(sql);
  await sql.query(
    `UPDATE log_state SET
       token_seconds = $1,
       older_token_seconds = nullif(greatest(token_seconds, older_token_seconds, $1), $1)`,
    [seconds],
  );
}

async function dateOlderTokens(sql: Sql): Promise<void> {
  await boundLogLock(sql);
  // As for leases: the lock comes first, and the clock is read after it.
  const { rows } = await sql.query<{ older_token_seconds: number | null }>(
    'SELECT older_token_seconds FROM log_state FOR UPDATE',
  );
  const { older_token_seconds: olderSeconds } = theOnly(rows);
  if (olderSeconds === null) return;
  await sql.query(
    `UPDATE log_state SET
       older_tokens_end_by = greatest(older_tokens_end_by, clock_timestamp() + make_interval(secs => $1)),
       older_token_seconds = NULL`,
    [olderSeconds],
  );
}

async function readTokenLifetime(sql: Sql): Promise<TokenLifetime> {
  const { rows } = await sql.query<{ minted_seconds: number; kept_seconds: number }>(
    `SELECT minted_seconds, extract(epoch FROM ${OWN_TOKENS_END} - locked_time)::float8 + $1 AS kept_seconds
     FROM (SELECT token_seconds AS minted_seconds, greatest(token_seconds, older_token_seconds) AS token_seconds,
                  older_tokens_end_by, clock_timestamp() AS locked_time
           FROM log_state) AS present`,
    [KEEP_MARGIN_SECONDS],
  );
  const { minted_seconds: tokenSeconds, kept_seconds: keptSeconds } = theOnly(rows);
  return { tokenSeconds, keptSeconds };
}

function theOnly<Row>(rows: readonly Row[]): Row {
  const [row] = rows;
  if (row === undefined || rows.length > 1) throw new TypeError(`expected one row, got ${rows.length}`);
  return row;
}
