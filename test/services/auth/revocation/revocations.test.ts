/** Revoking, and following the log, against a real PostgreSQL. */

import { randomUUID } from 'node:crypto';
import { ServiceError } from '@portcullis/guard/errors';
import { expect } from 'chai';
import pg from 'pg';
import { AuthError } from '../../../../services/auth/errors.js';
import type {
  LogEntry,
  LogHead,
  NewEntry,
  PackedIds,
} from '../../../../services/auth/records/revocations.js';
import { INSTANCES_PER_CLIENT_DEFAULT } from '../../../../services/auth/revocation/instance-places.js';
import {
  clientRevocation,
  enforcementBoundMs,
  foreignRevocation,
  KEEP_MARGIN_SECONDS,
  keyRevocation,
  type PullPart,
  SYNC_ENTRIES_MAX,
  type SyncPosition,
  type SyncResult,
  sessionRevocation,
  tokenRevocation,
  userRevocation,
} from '../../../../services/auth/revocation/log.js';
import { LOST_EPOCHS_MAX } from '../../../../services/auth/revocation/log-access.js';
import {
  createRevocationRows,
  LIVE_SLICE_ENTRIES,
  LOG_LOCK_MS_MAX,
} from '../../../../services/auth/revocation/store.js';
import { codeOf, rejectionOf } from '../../../support/outcomes.js';
import { until } from '../../../support/waiting.js';
import {
  digestOf,
  following,
  KEPT_SECONDS,
  openTestLog,
  publishedKeys,
  question,
  type TestLog,
} from './revocation-support.js';

async function logRows(log: TestLog) {
  const { rows } = await log.database.query<{
    seq: bigint;
    kind: string;
    key: Buffer;
    min_generation: bigint;
    reason: string;
    actor: string;
  }>('SELECT seq, kind, key, min_generation, reason, actor FROM revocation_entries ORDER BY seq');
  return rows;
}

function openEpoch(log: TestLog) {
  return log.transaction((tx) => tx.revocations.openEpoch({ reason: 'a test', actor: 'olga' }));
}

/** Restores the database to its state at a response, except for the lost epochs that were found since. */
async function goBackTo(log: TestLog, answer: SyncResult): Promise<void> {
  const { epoch, head, headEntryId } = answer;
  await log.database.transaction(async (sql) => {
    await sql.query('UPDATE log_state SET epoch = $1, seq = $2, entry_id = $3', [epoch, head, headEntryId]);
    await sql.query("DELETE FROM epochs WHERE epoch <> $1 AND actor <> ''", [epoch]);
  });
}

async function append(log: TestLog, entries: readonly NewEntry[]): Promise<void> {
  await log.transaction((tx) => tx.revocations.append(entries));
}

function tokenEntries(count: number): NewEntry[] {
  return Array.from({ length: count }, () => ({
    ...tokenRevocation(randomUUID()),
    reason: 'many',
    actor: 'test',
  }));
}

async function pull(log: TestLog) {
  const packed: PackedIds[] = [];
  const entries: LogEntry[] = [];
  const ends: LogHead[] = [];
  const parts: PullPart[] = [];
  for await (const part of log.revocations.pull({ service: 'inventory', instance: Buffer.alloc(16) })) {
    parts.push(part);
    if (part.part === 'packed') packed.push(part.packed);
    if (part.part === 'entries') entries.push(...part.entries);
    if (part.part === 'end') ends.push(part.end);
  }
  expect(parts.at(-1)?.part).to.equal('end');
  expect(ends).to.have.length(1);
  return { packed, entries, end: ends[0] };
}

/** When the token `ours` of these tests expires. */
const OURS_EXPIRES = new Date(Math.ceil(Date.now() / 1000) * 1000 + 60_000);

describe('revoking', () => {
  let log: TestLog;
  beforeEach(async () => {
    log = await openTestLog({
      identify: async (token) => {
        if (token === 'ours')
          return { tokenId: '0190b5a4-7c3e-7d1a-8f00-00112233aabb', expireTime: OURS_EXPIRES };
        throw new AuthError(token === 'late' ? 'TOKEN_EXPIRED' : 'TOKEN_INVALID', 'the token is not good');
      },
    });
  });
  afterEach(() => log.close());

  const revoke = (target: Parameters<TestLog['revocations']['revoke']>[0]['target'], reason = 'lost') =>
    log.revocations.revoke({ target, reason, actor: 'olga' });

  it('writes an entry for an unknown token id, once per request', async () => {
    const tokenId = randomUUID();
    const first = await revoke({ kind: 'token-id', tokenId });
    const second = await revoke({ kind: 'token-id', tokenId: tokenId.toUpperCase() });
    expect([first.sequence, second.sequence]).to.deep.equal([1n, 2n]);
    const row = {
      kind: 'TOKEN',
      key: tokenRevocation(tokenId).key,
      min_generation: 0n,
      reason: 'lost',
      actor: 'olga',
    };
    expect(await logRows(log)).to.deep.equal([
      { seq: 1n, ...row },
      { seq: 2n, ...row },
    ]);
  });

  it('revokes a token that is sent whole, by its id', async () => {
    await revoke({ kind: 'token', token: 'ours' });
    expect((await logRows(log))[0]?.key.toString('hex')).to.equal('0190b5a47c3e7d1a8f0000112233aabb');
    // Its own expiry is known, so the entry need not wait for the longest lifetime.
    const { rows } = await log.database.query<{ keep_until: Date }>(
      'SELECT keep_until FROM revocation_entries',
    );
    expect(rows[0]?.keep_until.getTime()).to.equal(OURS_EXPIRES.getTime() + KEEP_MARGIN_SECONDS * 1000);
  });

  it('rejects a token of another issuer or an expired one with a code that is not about the caller', async () => {
    for (const token of ['forged', 'late']) {
      expect(await codeOf(revoke({ kind: 'token', token }))).to.equal('FIELD_INVALID');
    }
    expect(await logRows(log)).to.deep.equal([]);
  });

  it('ends the session and writes its entry in one transaction', async () => {
    const userId = await log.addUser();
    const [revoked, other] = [await log.addSession(userId), await log.addSession(userId)];
    await revoke({ kind: 'session', sessionId: revoked });
    const { rows } = await log.database.query('SELECT session_id FROM sessions WHERE end_time IS NULL');
    expect(rows).to.deep.equal([{ session_id: other }]);
    expect((await logRows(log)).map(({ kind, key }) => ({ kind, key }))).to.deep.equal([
      { kind: 'SESSION', key: sessionRevocation(revoked).key },
    ]);
  });

  it('writes another entry for a session that has ended already', async () => {
    const sessionId = await log.addSession(await log.addUser());
    await revoke({ kind: 'session', sessionId });
    expect((await revoke({ kind: 'session', sessionId })).sequence).to.equal(2n);
  });

  it('raises the generation of a user, ends all its sessions, and revokes lower generations', async () => {
    const userId = await log.addUser();
    await log.addSession(userId);
    await log.addSession(userId);
    const bystander = await log.addSession(await log.addUser());
    await revoke({ kind: 'user', userId: userId.toUpperCase() });
    const users = await log.database.query('SELECT generation FROM users WHERE user_id = $1', [userId]);
    expect(users.rows).to.deep.equal([{ generation: 2n }]);
    const open = await log.database.query('SELECT session_id FROM sessions WHERE end_time IS NULL');
    expect(open.rows).to.deep.equal([{ session_id: bystander }]);
    const [row] = await logRows(log);
    expect(row).to.deep.include({ kind: 'USER', key: Buffer.from(userId), min_generation: 2n });
  });

  it('fails with NOT_FOUND for an unknown session or user, and writes nothing', async () => {
    expect(await codeOf(revoke({ kind: 'session', sessionId: randomUUID() }))).to.equal('NOT_FOUND');
    expect(await codeOf(revoke({ kind: 'user', userId: randomUUID() }))).to.equal('NOT_FOUND');
    expect(await logRows(log)).to.deep.equal([]);
    expect(log.broadcast).to.deep.equal([]);
  });

  it('fails with FIELD_INVALID for an id that is not a UUID, and for a reason that is too long or contains NUL', async () => {
    expect(await codeOf(revoke({ kind: 'token-id', tokenId: 'x' }))).to.equal('FIELD_INVALID');
    expect(await codeOf(revoke({ kind: 'session', sessionId: '' }))).to.equal('FIELD_INVALID');
    expect(await codeOf(revoke({ kind: 'user', userId: "' OR 1=1" }))).to.equal('FIELD_INVALID');
    const tokenId = randomUUID();
    expect(await codeOf(revoke({ kind: 'token-id', tokenId }, 'x'.repeat(201)))).to.equal('FIELD_INVALID');
    expect(await codeOf(revoke({ kind: 'token-id', tokenId }, 'a\0b'))).to.equal('FIELD_INVALID');
    await revoke({ kind: 'token-id', tokenId }, '🔑'.repeat(200));
  });

  it('returns the time from which on all instances enforce it: the bound after the commit', async () => {
    await log.store.setLeaseMs(1500);
    const { enforcedEverywhereBy } = await revoke({ kind: 'token-id', tokenId: randomUUID() });
    // After the lease was lowered, the default still counts until the longer leases are over.
    expect(enforcedEverywhereBy.getTime() - Date.now()).to.be.within(4500, enforcementBoundMs(5000));
    await log.database.query('UPDATE log_state SET older_leases_end_by = clock_timestamp()');
    const next = await revoke({ kind: 'token-id', tokenId: randomUUID() });
    expect(next.enforcedEverywhereBy.getTime() - Date.now()).to.be.within(
      1300,
      enforcementBoundMs(1500) + 500,
    );
  });

  it('keeps an entry for the lifetime of a token, plus skew and a step of the clock', async () => {
    await log.revokeToken();
    const { rows } = await log.database.query<{ seconds: number; whole: boolean }>(
      `SELECT extract(epoch FROM keep_until - clock_timestamp())::float8 AS seconds,
              keep_until = date_trunc('milliseconds', keep_until) AS whole FROM revocation_entries`,
    );
    expect(rows[0]?.seconds).to.be.within(KEPT_SECONDS - 2, KEPT_SECONDS);
    expect(rows[0]?.whole).to.equal(true);
  });

  it('fails with UNAVAILABLE, never OK, while the database is unreachable', async () => {
    await log.database.close();
    expect(await codeOf(log.revokeToken())).to.equal('DEPENDENCY_UNAVAILABLE');
    expect(await codeOf(log.revocations.sync(question()))).to.equal('DEPENDENCY_UNAVAILABLE');
    expect(await codeOf(pull(log))).to.equal('DEPENDENCY_UNAVAILABLE');
    expect(log.broadcast).to.deep.equal([]);
  });

  it('fails with UNAVAILABLE within two seconds while a frozen process locks the end of the log', async () => {
    const frozen = new pg.Client({ connectionString: log.url });
    await frozen.connect();
    await frozen.query('BEGIN');
    await frozen.query('SELECT FROM log_state FOR UPDATE');
    const sessionId = await log.addSession(await log.addUser());
    const startedMs = performance.now();
    expect(await codeOf(revoke({ kind: 'session', sessionId }))).to.equal('DEPENDENCY_UNAVAILABLE');
    expect(performance.now() - startedMs).to.be.below(2000);
    await frozen.end();
    const { rows } = await log.database.query('SELECT FROM sessions WHERE end_time IS NOT NULL');
    expect(rows).to.have.length(0);
  });
});

describe('the log', () => {
  let log: TestLog;
  beforeEach(async () => {
    log = await openTestLog();
  });
  afterEach(() => log.close());

  it('has no gaps and follows the order of commits under 30 concurrent revocations', async () => {
    const watcher = new pg.Client({ connectionString: log.url });
    await watcher.connect();
    let watching = true;
    const heads: { head: number; count: number }[] = [];
    const watch = (async () => {
      while (watching) {
        const { rows } = await watcher.query(
          'SELECT seq::int AS head, (SELECT count(*)::int FROM revocation_entries) AS count FROM log_state',
        );
        heads.push(...rows);
      }
    })();
    const userId = await log.addUser();
    const rounds = Array.from({ length: 30 }, async (_, index) => {
      if (index % 3 === 0) return log.revokeToken();
      const sessionId = index % 3 === 1 ? await log.addSession(userId) : undefined;
      const target =
        sessionId === undefined ? { kind: 'user' as const, userId } : { kind: 'session' as const, sessionId };
      return log.revocations.revoke({ target, reason: '', actor: 'olga' });
    });
    const receipts = await Promise.all(rounds);
    watching = false;
    await watch;
    await watcher.end();

    const sequences = receipts.map(({ sequence }) => sequence).sort((a, b) => Number(a - b));
    expect(sequences).to.deep.equal(Array.from({ length: 30 }, (_, index) => BigInt(index + 1)));
    // A reader of a head can read every entry up to it: none commits later with a lower sequence.
    for (const { head, count } of heads) expect(count).to.equal(head);
    expect(log.broadcast.flatMap(({ entries }) => entries)).to.have.length(30);
  });

  it('has no gap after a rollback, and broadcasts none of its entries', async () => {
    await log.revokeToken();
    await log
      .transaction(async (tx) => {
        await tx.revocations.append(tokenEntries(3));
        throw new Error('changed its mind');
      })
      .catch(() => undefined);
    expect((await log.revokeToken()).sequence).to.equal(2n);
    expect(log.broadcast.flatMap(({ entries }) => entries.map(({ sequence }) => sequence))).to.deep.equal([
      1n,
      2n,
    ]);
  });

  it('stores entries of all kinds and issuers, several in one transaction, and returns them as they were written', async () => {
    const id = randomUUID();
    const revocations = [
      tokenRevocation(id),
      sessionRevocation(id),
      userRevocation('alice', 3n),
      clientRevocation('payment', 2n ** 62n),
      keyRevocation('kid-1'),
      foreignRevocation({ issuer: 'https://other.test', what: 'TOKEN', id: 'any text' }),
      foreignRevocation({ issuer: 'https://other.test', what: 'SESSION', id: 's' }),
      foreignRevocation({ issuer: 'https://other.test', what: 'USER', id: 'älice' }),
    ];
    await append(
      log,
      revocations.map((revocation) => ({ ...revocation, reason: 'all kinds', actor: 'test' })),
    );
    const epoch = (await log.revocations.sync(question())).epoch;
    const { entries } = await log.revocations.sync(question({ epoch }));
    expect(
      entries.map(({ kind, issuer, key, minGeneration }) => ({ kind, issuer, key, minGeneration })),
    ).to.deep.equal(revocations);
    expect(entries).to.deep.equal(log.broadcast[0]?.entries);
  });

  it('shares the parts of one read of the list among the Pulls that waited for it', async () => {
    await append(log, tokenEntries(3));
    const pulled = await Promise.all([pull(log), pull(log), pull(log)]);
    // The first had no other to wait for.
    const [, second, third] = pulled.map(({ packed }) => packed[0]);
    expect(second).to.not.equal(undefined);
    expect(second).to.equal(third);
  });

  it('rejects changes of an entry, and its deletion before its time', async () => {
    await log.revokeToken();
    for (const statement of [
      'UPDATE revocation_entries SET min_generation = 1',
      'DELETE FROM revocation_entries',
      'TRUNCATE revocation_entries',
    ]) {
      const outcome = await log.database.query(statement).catch((error: Error) => error.message);
      expect(outcome).to.match(/neither changed nor dropped before its time/);
    }
  });

  it('waits for the disk at every commit, whatever the settings of the database are', async () => {
    const name = new URL(log.url).pathname.slice(1);
    await log.database.query(`ALTER DATABASE ${name} SET synchronous_commit = off`);
    const relaxed = new pg.Client({ connectionString: log.url });
    await relaxed.connect();
    const sql = {
      query: async <Row extends object>(text: string, values: readonly unknown[] = []) => {
        const { rows, rowCount } = await relaxed.query<Row>(text, [...values]);
        return { rows, rowCount: rowCount ?? 0 };
      },
    };
    const setting = async () => (await relaxed.query('SHOW synchronous_commit')).rows[0];
    await relaxed.query('BEGIN');
    expect(await setting()).to.deep.equal({ synchronous_commit: 'off' });
    await createRevocationRows(sql, () => undefined).append(tokenEntries(1));
    expect(await setting()).to.deep.equal({ synchronous_commit: 'on' });
    await relaxed.end();
  });

  it('bounds the wait for the end of the log and the time for which it stays locked by its own limit', async () => {
    const holder = new pg.Client({ connectionString: log.url });
    await holder.connect();
    await holder.query('BEGIN');
    await holder.query('SELECT FROM log_state FOR UPDATE');
    const startedMs = performance.now();
    const appending = log.database.transaction(async (sql) => {
      await sql.query("SET LOCAL lock_timeout = '4s'");
      await createRevocationRows(sql, () => {}).append(tokenEntries(1));
    });
    expect(await rejectionOf(appending)).to.have.property('code', 'DEPENDENCY_UNAVAILABLE');
    expect(performance.now() - startedMs).to.be.within(LOG_LOCK_MS_MAX - 50, 3 * LOG_LOCK_MS_MAX);
    await holder.end();
    await log.database.transaction(async (sql) => {
      await sql.query("SET LOCAL idle_in_transaction_session_timeout = '30s'");
      await createRevocationRows(sql, () => {}).append(tokenEntries(1));
      const { rows } = await sql.query('SHOW idle_in_transaction_session_timeout');
      expect(rows).to.deep.equal([{ idle_in_transaction_session_timeout: '1s' }]);
    });
  });

  it('reads the clock after the lock, so that a wait for it shortens no retention', async () => {
    const holder = new pg.Client({ connectionString: log.url });
    await holder.connect();
    await holder.query('BEGIN');
    await holder.query('SELECT FROM log_state FOR UPDATE');
    const waiting = log.transaction((tx) => tx.revocations.append(tokenEntries(1)));
    await until(async () => {
      const { rows } = await holder.query(
        `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
      );
      return rows.length > 0;
    });
    const { rows } = await holder.query<{ now: Date }>('SELECT clock_timestamp() AS now');
    await holder.query('COMMIT');
    await holder.end();
    const { lockedTime } = await waiting;
    expect(lockedTime.getTime()).to.be.at.least(rows[0]?.now.getTime() ?? Number.NaN);
  });
});

describe('a sync', () => {
  let log: TestLog;
  beforeEach(async () => {
    log = await openTestLog();
  });
  afterEach(() => log.close());

  it('requires a new instance to pull, and returns head, keys and lease', async () => {
    const answer = await log.revocations.sync(question());
    expect(answer.epoch).to.have.length(16);
    expect(answer).to.deep.include({
      head: 0n,
      headEntryId: Buffer.alloc(0),
      pull: true,
      entries: [],
      leaseMs: 5000,
      horizon: new Date(0),
      keySet: publishedKeys('one').keySet,
    });
  });

  it('returns no entries to an instance that is up to date, also when the entry at the head was dropped', async () => {
    await log.revokeToken();
    const first = await log.revocations.sync(question());
    expect(first.head).to.equal(1n);
    expect(await log.revocations.sync(following(first))).to.deep.include({
      pull: false,
      entries: [],
      head: 1n,
    });
    await log.age(KEPT_SECONDS * 1000 + 10);
    expect(await log.revocations.purge()).to.equal(1);
    expect(await log.revocations.sync(following(first))).to.deep.include({
      pull: false,
      entries: [],
      head: 1n,
    });
  });

  it('returns every entry after the position of an instance that lags', async () => {
    await log.revokeToken();
    const first = await log.revocations.sync(question());
    await append(log, tokenEntries(3));
    const answer = await log.revocations.sync(following(first));
    expect(answer).to.include({ pull: false, head: 4n });
    expect(answer.entries).to.deep.equal(log.broadcast.at(-1)?.entries);
    expect(answer.headEntryId).to.deep.equal(answer.entries.at(-1)?.entryId);
  });

  it('requires a pull when an instance lags by more entries than a response holds', async () => {
    await log.revokeToken();
    const first = await log.revocations.sync(question());
    await append(log, tokenEntries(SYNC_ENTRIES_MAX));
    const reached = await log.revocations.sync(following(first));
    expect(reached.pull).to.equal(false);
    expect(reached.entries).to.have.length(SYNC_ENTRIES_MAX);
    await log.revokeToken();
    expect(await log.revocations.sync(following(first))).to.deep.include({ pull: true, entries: [] });
  });

  describe('of an instance that has entries by broadcasts', () => {
    const heldEntries = () => log.broadcast.flatMap(({ entries }) => entries);
    const holding = (applied: SyncResult, heldTo: bigint) => ({
      ...following(applied),
      heldTo,
      heldDigest: digestOf(heldEntries(), applied.head, heldTo),
    });

    it('lists only those that it lacks, however many the instance has', async () => {
      await log.revokeToken();
      const first = await log.revocations.sync(question());
      await append(log, tokenEntries(SYNC_ENTRIES_MAX));
      await append(log, tokenEntries(SYNC_ENTRIES_MAX));
      const head = BigInt(2 * SYNC_ENTRIES_MAX + 1);
      expect(await log.revocations.sync(following(first))).to.include({ pull: true });
      expect(await log.revocations.sync(holding(first, head))).to.deep.include({
        pull: false,
        head,
        entries: [],
      });
      const lacks = await log.revocations.sync(holding(first, head - 2n));
      expect(lacks).to.include({ pull: false, head });
      expect(lacks.entries).to.deep.equal(heldEntries().slice(-2));
    });

    it('lists or pulls as before when the digest is another one', async () => {
      await log.revokeToken();
      const first = await log.revocations.sync(question());
      await append(log, tokenEntries(3));
      const other = { ...holding(first, 4n), heldDigest: Buffer.alloc(16, 1) };
      expect((await log.revocations.sync(other)).entries).to.have.length(3);
      await append(log, tokenEntries(SYNC_ENTRIES_MAX));
      expect(await log.revocations.sync({ ...other, heldTo: 1004n })).to.include({ pull: true });
    });

    it('compares with the log as it is after a restore, not as it was read before', async () => {
      await log.revokeToken();
      const first = await log.revocations.sync(question());
      await append(log, tokenEntries(2));
      expect(await log.revocations.sync(holding(first, 3n))).to.deep.include({ entries: [], head: 3n });
      const lost = heldEntries();
      await log.database.transaction(async (sql) => {
        await sql.query('ALTER TABLE revocation_entries DISABLE TRIGGER ALL');
        await sql.query('DELETE FROM revocation_entries WHERE seq > 1');
        await sql.query('ALTER TABLE revocation_entries ENABLE TRIGGER ALL');
        await sql.query('UPDATE log_state SET seq = 1, entry_id = $1', [lost[0]?.entryId]);
      });
      await append(log, tokenEntries(2));
      const held = { ...following(first), heldTo: 3n, heldDigest: digestOf(lost, 1n, 3n) };
      const answer = await log.revocations.sync(held);
      expect(answer).to.include({ pull: false, head: 3n });
      expect(answer.entries).to.deep.equal(log.broadcast.at(-1)?.entries);
    });
  });

  it('requires a pull when the entry at the position of the instance was dropped', async () => {
    await log.revokeToken();
    const first = await log.revocations.sync(question());
    await log.revokeToken();
    await log.age(KEPT_SECONDS * 1000 + 10, 'seq = 1');
    await log.revocations.purge();
    expect(await log.revocations.sync(following(first))).to.deep.include({ pull: true, entries: [] });
  });

  it('requires an instance of an earlier epoch to pull, the first epoch included', async () => {
    await log.revokeToken();
    const first = await log.revocations.sync(question());
    await openEpoch(log);
    const second = await log.revocations.sync(following(first));
    expect(second).to.include({ pull: true });
    expect(second.epoch).to.not.deep.equal(first.epoch);
    await openEpoch(log);
    for (const earlier of [first, second]) {
      expect(await log.revocations.sync(following(earlier))).to.include({ pull: true });
    }
    expect(log.alarms).to.deep.equal([]);
  });

  describe('of a database that was restored to before an epoch was opened', () => {
    let before: SyncResult;
    let lost: SyncResult;

    beforeEach(async () => {
      await log.revokeToken();
      before = await log.revocations.sync(question());
      await openEpoch(log);
      lost = await log.revocations.sync(following(before));
      await goBackTo(log, before);
    });

    const outcomeOf = (asked: SyncPosition) =>
      log.revocations.sync(asked).then(
        () => 'OK',
        (error: unknown) => (error instanceof ServiceError ? error.code : String(error)),
      );
    const ask = (answer: SyncResult) => outcomeOf(following(answer));
    const found = async () => {
      const { rows } = await log.database.query<{ epoch: Buffer; found_under: Buffer }>(
        'SELECT epoch, found_under FROM lost_epochs ORDER BY epoch',
      );
      return rows;
    };

    it('fails with LOG_CHANGED for an instance that follows that epoch, and raises the alarm each time', async () => {
      expect([await ask(lost), await ask(lost)]).to.deep.equal(['LOG_CHANGED', 'LOG_CHANGED']);
      expect(log.alarms).to.have.length(2);
      // An instance of the former epoch continues, and a new instance may begin.
      expect([await ask(before), await outcomeOf(question())]).to.deep.equal(['OK', 'OK']);
      expect(await found()).to.deep.equal([{ epoch: lost.epoch, found_under: before.epoch }]);
    });

    it('accepts its instances again once another epoch was opened, on every replica', async () => {
      expect(await ask(lost)).to.equal('LOG_CHANGED');
      await openEpoch(log);
      expect(await log.revocations.sync(following(lost))).to.include({ pull: true });
      expect(await log.revocations.sync(following(before))).to.include({ pull: true });
      expect(log.alarms).to.have.length(1);
    });

    it('does not count a loss that was found after an epoch was opened as found before', async () => {
      const next = await openEpoch(log);
      expect(await ask(lost)).to.equal('LOG_CHANGED');
      expect(await found()).to.deep.equal([{ epoch: lost.epoch, found_under: next.epoch }]);
      await openEpoch(log);
      expect(await log.revocations.sync(following(lost))).to.include({ pull: true });
    });

    it('fails with LOG_CHANGED again after another restore', async () => {
      expect(await ask(lost)).to.equal('LOG_CHANGED');
      await openEpoch(log);
      const later = await log.revocations.sync(following(lost));
      await goBackTo(log, before);
      for (const answer of [lost, later]) expect(await ask(answer)).to.equal('LOG_CHANGED');
      await openEpoch(log);
      for (const answer of [lost, later]) expect(await ask(answer)).to.equal('OK');
    });

    it('records no loss that was found in a log that no longer exists', async () => {
      const other = Buffer.alloc(16, 9);
      await log.store.noteLostEpochs([{ epoch: lost.epoch, foundUnder: other }]);
      expect(await found()).to.deep.equal([]);
      // An epoch that the database knows is not recorded either.
      await log.store.noteLostEpochs([{ epoch: before.epoch, foundUnder: before.epoch }]);
      expect(await found()).to.deep.equal([]);
    });

    it('records a bounded number of lost epochs, the latest', async () => {
      const made = (index: number) => {
        const epoch = Buffer.alloc(16, 0xff);
        epoch.writeUInt32BE(index);
        return { epoch, foundUnder: before.epoch };
      };
      const batch = (from: number) =>
        Array.from({ length: LOST_EPOCHS_MAX }, (_, index) => made(from + index));
      await log.store.noteLostEpochs(batch(0));
      await log.store.noteLostEpochs([{ epoch: lost.epoch, foundUnder: before.epoch }]);
      let rows = await found();
      expect(rows).to.have.length(LOST_EPOCHS_MAX);
      expect(rows.some(({ epoch }) => epoch.equals(lost.epoch))).to.equal(true);
      await log.store.noteLostEpochs(batch(LOST_EPOCHS_MAX));
      rows = await found();
      expect(rows).to.have.length(LOST_EPOCHS_MAX);
      expect(await ask(lost)).to.equal('LOG_CHANGED');
      // The lost epoch was reported again, so it is among the latest; losses under the next epoch do not displace it.
      const next = await openEpoch(log);
      await log.store.noteLostEpochs(batch(0).map(({ epoch }) => ({ epoch, foundUnder: next.epoch })));
      expect(await ask(lost)).to.equal('OK');
    });

    it('records a loss once when several replicas find it at the same time', async () => {
      const notes = Array.from({ length: 20 }, () =>
        log.store.noteLostEpochs(
          [lost.epoch, Buffer.alloc(16, 1), Buffer.alloc(16, 2)].map((epoch) => ({
            epoch,
            foundUnder: before.epoch,
          })),
        ),
      );
      await Promise.all(notes);
      expect(await found()).to.have.length(3);
    });
  });

  it('fails with LOG_CHANGED and raises the alarm when the log has lost or replaced entries', async () => {
    await log.revokeToken();
    await log.revokeToken();
    const seen = await log.revocations.sync(question());
    await forgetLast(log);
    expect(await codeOf(log.revocations.sync(following(seen)))).to.equal('LOG_CHANGED');
    await log.revokeToken();
    expect(await codeOf(log.revocations.sync(following(seen)))).to.equal('LOG_CHANGED');
    await log.revokeToken();
    expect(await codeOf(log.revocations.sync(following(seen)))).to.equal('LOG_CHANGED');
    expect(log.alarms).to.have.length(3);
    const whole = await log.revocations.sync(question());
    await log.revocations.sync(following(whole));
  });

  it('returns the key set only to instances that have another one', async () => {
    const first = await log.revocations.sync(question());
    const version = first.keySet?.version ?? Buffer.alloc(0);
    const known = { ...following(first), keySetVersion: version };
    expect((await log.revocations.sync(known)).keySet).to.equal(undefined);
    log.keys.published = publishedKeys('two');
    const changed = await log.revocations.sync(known);
    expect(changed.keySet).to.deep.equal(publishedKeys('two').keySet);
    expect(changed.broadcastKeys).to.deep.equal(publishedKeys('two').broadcastKeys);
  });

  it('returns every revocation that was committed before the request', async () => {
    const syncing = Array.from({ length: 4 }, async () => {
      for (let round = 0; round < 25; round++) {
        const { sequence } = await log.revokeToken();
        const { head } = await log.revocations.sync(question({ instance: Buffer.alloc(16, round) }));
        expect(Number(head)).to.be.at.least(Number(sequence));
      }
    });
    await Promise.all(syncing);
  });

  it('answers many instances with few reads', async () => {
    const asked = Array.from({ length: 200 }, (_, index) =>
      log.revocations.sync(question({ instance: Buffer.alloc(16, index) })),
    );
    await Promise.all(asked);
    expect(log.reads()).to.equal(2);
    expect(log.instances.known()).to.have.length(200);
  });

  it('commits a write, and fails where a write is rejected, as on a standby', async () => {
    await log.revocations.sync(question());
    const { rows } = await log.database.query('SELECT count(*)::int AS readers FROM log_readers');
    expect(rows).to.deep.equal([{ readers: 1 }]);
    await log.database.query(
      `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
       $$ BEGIN RAISE read_only_sql_transaction; END $$`,
    );
    await log.database.query(
      'CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON log_readers EXECUTE FUNCTION refuse()',
    );
    expect(await codeOf(log.revocations.sync(question()))).to.equal('DEPENDENCY_UNAVAILABLE');
  });

  it('grants no lease to one instance more than a client may have, and none of 3,000 that a client invents', async () => {
    const numbered = (number: number) => {
      const instance = Buffer.alloc(16);
      instance.writeUInt32BE(number);
      return question({ service: 'mallory', instance });
    };
    const honest = question();
    await log.revocations.sync(honest);
    const outcomeOf = (number: number) =>
      log.revocations.sync(numbered(number)).then(
        () => 'OK',
        (error: unknown) => (error instanceof ServiceError ? error.code : String(error)),
      );
    const codes = await Promise.all(Array.from({ length: 3000 }, (_, number) => outcomeOf(number)));
    expect(codes.filter((code) => code === 'OK')).to.have.length(INSTANCES_PER_CLIENT_DEFAULT);
    expect(new Set(codes)).to.deep.equal(new Set(['OK', 'RATE_LIMITED']));
    expect(log.instances.known()).to.have.length(INSTANCES_PER_CLIENT_DEFAULT + 1);
    // The instances of other clients, known and new, keep theirs.
    await log.revocations.sync(honest);
    await log.revocations.sync(question({ instance: Buffer.alloc(16, 2) }));
    const receipt = await log.revocations.revoke({
      target: { kind: 'token-id', tokenId: randomUUID() },
      reason: '',
      actor: 'olga',
      wait: 'KNOWN_INSTANCES',
      signal: AbortSignal.timeout(200),
    });
    expect(receipt.instances).to.have.length(INSTANCES_PER_CLIENT_DEFAULT + 2);
  }).timeout(180_000);
});

describe('a pull', () => {
  let log: TestLog;
  beforeEach(async () => {
    log = await openTestLog();
  });
  afterEach(() => log.close());

  it('returns only the end for an empty log', async () => {
    const { packed, entries, end } = await pull(log);
    expect({ packed, entries }).to.deep.equal({ packed: [], entries: [] });
    expect(end).to.deep.include({ head: 0n, headEntryId: Buffer.alloc(0) });
  });

  it('packs identifiers by kind and minute, the minute rounded up, and lists the rest', async () => {
    const [token, session] = [tokenRevocation(randomUUID()), sessionRevocation(randomUUID())];
    const user = userRevocation('alice', 2n);
    const foreign = foreignRevocation({
      issuer: 'https://other.test',
      what: 'TOKEN',
      id: 'of 16 characters',
    });
    await append(
      log,
      [token, session, user, token, foreign].map((revocation) => ({
        ...revocation,
        reason: '',
        actor: 'test',
      })),
    );
    const { packed, entries, end } = await pull(log);
    const written = log.broadcast[0]?.entries ?? [];
    const keepUntil = new Date(Math.ceil((written[0]?.keepUntil.getTime() ?? 0) / 60_000) * 60_000);
    expect(packed).to.deep.equal([
      { kind: 'SESSION', keepUntil, ids: session.key },
      { kind: 'TOKEN', keepUntil, ids: Buffer.concat([token.key, token.key]) },
    ]);
    expect(entries).to.deep.equal([written[2], written[4]]);
    expect(end).to.deep.include({ head: 5n, headEntryId: written[4]?.entryId });
  });

  it('does not round a time that is a whole minute', async () => {
    await log.revokeToken();
    await log.database.transaction(async (sql) => {
      await sql.query('ALTER TABLE revocation_entries DISABLE TRIGGER ALL');
      await sql.query("UPDATE revocation_entries SET keep_until = date_trunc('minute', keep_until)");
      await sql.query('ALTER TABLE revocation_entries ENABLE TRIGGER ALL');
    });
    const { rows } = await log.database.query<{ keep_until: Date }>(
      'SELECT keep_until FROM revocation_entries',
    );
    expect((await pull(log)).packed[0]?.keepUntil).to.deep.equal(rows[0]?.keep_until);
  });

  it('ends at a position from which a sync continues', async () => {
    await append(log, tokenEntries(SYNC_ENTRIES_MAX + 1));
    const { packed, end } = await pull(log);
    expect(packed.reduce((sum, { ids }) => sum + ids.length / 16, 0)).to.equal(SYNC_ENTRIES_MAX + 1);
    await log.revokeToken();
    const answer = await log.revocations.sync(
      question({
        epoch: end?.epoch ?? Buffer.alloc(0),
        applied: end?.head ?? 0n,
        entryIdAtApplied: end?.headEntryId ?? Buffer.alloc(0),
      }),
    );
    expect(answer).to.include({ pull: false });
    expect(answer.entries).to.have.length(1);
  });

  it('is complete when it is read in slices, also when the log no longer begins at 1', async () => {
    const count = Number(LIVE_SLICE_ENTRIES) + 2;
    await log.database.query(
      `INSERT INTO revocation_entries
       SELECT epoch, number, uuid_send(gen_random_uuid()), 'TOKEN', uuid_send(gen_random_uuid()), 0,
              date_trunc('minute', clock_timestamp()) + interval '1 hour', '', 'test'
       FROM log_state, generate_series(5, 4 + $1::int) number`,
      [count],
    );
    await log.database.query(
      `UPDATE log_state SET (seq, entry_id) =
         (SELECT seq, entry_id FROM revocation_entries ORDER BY seq DESC LIMIT 1)`,
    );
    const ids = Buffer.concat((await pull(log)).packed.map((packed) => packed.ids)).toString('latin1');
    expect(new Set(ids.match(/.{16}/gs))).to.have.property('size', count);
  });

  it('returns one state of the log while entries are appended', async () => {
    let writing = true;
    const write = (async () => {
      while (writing) await log.revokeToken();
    })();
    for (let round = 0; round < 20; round++) {
      const { packed, end } = await pull(log);
      expect(packed.reduce((sum, { ids }) => sum + ids.length / 16, 0)).to.equal(Number(end?.head));
    }
    writing = false;
    await write;
  });
});

describe('purging', () => {
  let log: TestLog;
  beforeEach(async () => {
    log = await openTestLog();
  });
  afterEach(() => log.close());

  it('drops nothing before its time', async () => {
    await log.revokeToken();
    await log.age(KEPT_SECONDS * 1000 - 5000);
    expect(await log.revocations.purge()).to.equal(0);
    expect((await log.revocations.sync(question())).horizon).to.deep.equal(new Date(0));
  });

  it('moves the horizon to the latest dropped entry, in the same transaction', async () => {
    await append(log, tokenEntries(3));
    await log.age(KEPT_SECONDS * 1000 + 3_600_000, 'seq <> 2');
    const { rows } = await log.database.query<{ keep_until: Date }>(
      'SELECT keep_until FROM revocation_entries ORDER BY keep_until',
    );
    const watcher = new pg.Client({ connectionString: log.url });
    await watcher.connect();
    let watching = true;
    const torn: unknown[] = [];
    const watch = (async () => {
      while (watching) {
        const seen = await watcher.query(
          `SELECT count(*)::int AS left, (SELECT horizon > to_timestamp(0) FROM log_state) AS moved
           FROM revocation_entries`,
        );
        torn.push(...seen.rows.filter(({ left, moved }) => left < 3 !== moved));
      }
    })();
    expect(await log.revocations.purge()).to.equal(2);
    watching = false;
    await watch;
    await watcher.end();
    expect(torn).to.deep.equal([]);
    expect((await log.revocations.sync(question())).horizon).to.deep.equal(rows[1]?.keep_until);
  });

  it('never moves the horizon back', async () => {
    await append(log, tokenEntries(2));
    await log.age(KEPT_SECONDS * 1000 + 1000, 'seq = 2');
    await log.revocations.purge();
    const { horizon } = await log.revocations.sync(question());
    await log.age(KEPT_SECONDS * 1000 + 3_600_000, 'seq = 1');
    expect(await log.revocations.purge()).to.equal(1);
    expect((await log.revocations.sync(question())).horizon).to.deep.equal(horizon);
  });

  it('drops more entries than one transaction does', async () => {
    await append(log, tokenEntries(2500));
    await log.age(KEPT_SECONDS * 1000 + 1000);
    expect(await log.revocations.purge()).to.equal(2500);
    expect(await logRows(log)).to.deep.equal([]);
  });
});

describe('the length of leases', () => {
  let log: TestLog;
  beforeEach(async () => {
    log = await openTestLog();
  });
  afterEach(() => log.close());

  const leaseState = async () => {
    const { rows } = await log.database.query<{ older_lease_ms: number | null; left: number }>(
      `SELECT older_lease_ms, extract(epoch FROM older_leases_end_by - clock_timestamp())::float8 AS left
       FROM log_state`,
    );
    return rows[0];
  };

  it('is returned as soon as it is set', async () => {
    await log.store.setLeaseMs(1500);
    expect((await log.revocations.sync(question())).leaseMs).to.equal(1500);
  });

  it('counts at its former value until the last lease of that length is over, when it is lowered', async () => {
    await log.store.setLeaseMs(1500);
    const state = await leaseState();
    expect(state?.older_lease_ms).to.equal(null);
    expect(state?.left).to.be.within(4.5, enforcementBoundMs(5000) / 1000);
  });

  it('counts only at its new value when it is raised', async () => {
    await log.store.setLeaseMs(9000);
    expect((await leaseState())?.left).to.be.below(0);
    const begunMs = Date.now();
    const { enforcedEverywhereBy } = await log.revokeToken();
    const boundMs = enforcementBoundMs(9000);
    const endedMs = Date.now();
    // It counts from when the log was locked, plus all the time that the revocation took: from no earlier than the commit,
    // and from no later than if the log had been locked at the very end. The times are rounded.
    const tookMs = endedMs - begunMs;
    expect(enforcedEverywhereBy.getTime()).to.be.within(
      begunMs + boundMs - 5,
      endedMs + tookMs + boundMs + 5,
    );
  });

  it('counts at its former value while the end of the last such lease is unknown', async () => {
    await log.database.query('UPDATE log_state SET lease_ms = 1500, older_lease_ms = 5000');
    const { enforcedEverywhereBy } = await log.revokeToken();
    expect(enforcedEverywhereBy.getTime() - Date.now()).to.be.above(4500);
    await log.store.setLeaseMs(1500);
    expect((await leaseState())?.older_lease_ms).to.equal(null);
    expect((await leaseState())?.left).to.be.above(4.5);
  });
});

describe('the lifetime of tokens in the log', () => {
  let log: TestLog;
  beforeEach(async () => {
    log = await openTestLog();
  });
  afterEach(() => log.close());

  /** How long an entry that is written now is kept, in seconds. */
  /** Times of entries are rounded up to the millisecond. */
  const ROUNDED = 0.001;
  const keptSeconds = async () => {
    await log.revokeToken();
    const { rows } = await log.database.query<{ seconds: number }>(
      `SELECT extract(epoch FROM keep_until - clock_timestamp())::float8 AS seconds
       FROM revocation_entries ORDER BY seq DESC LIMIT 1`,
    );
    return rows[0]?.seconds ?? 0;
  };

  it('is reported together with how long an entry is kept', async () => {
    expect(await log.store.tokenLifetime()).to.deep.equal({ tokenSeconds: 300, keptSeconds: KEPT_SECONDS });
    await log.store.setTokenSeconds(30);
    const { tokenSeconds, keptSeconds } = await log.store.tokenLifetime();
    expect(tokenSeconds).to.equal(30);
    expect(keptSeconds).to.be.within(KEPT_SECONDS - 5, KEPT_SECONDS);
  });

  it('counts only at its new value when it is raised', async () => {
    await log.store.setTokenSeconds(900);
    expect(await keptSeconds()).to.be.within(
      900 + KEEP_MARGIN_SECONDS - 2,
      900 + KEEP_MARGIN_SECONDS + ROUNDED,
    );
  });

  it('counts at its former value while the end of the last such token is unknown', async () => {
    await log.database.query('UPDATE log_state SET token_seconds = 20, older_token_seconds = 1000');
    expect(await keptSeconds()).to.be.above(1000);
    expect((await log.store.tokenLifetime()).keptSeconds).to.equal(1000 + KEEP_MARGIN_SECONDS);
    await log.store.setTokenSeconds(20);
    expect(await keptSeconds()).to.be.above(1000);
    await log.database.query('UPDATE log_state SET older_tokens_end_by = clock_timestamp()');
    expect(await keptSeconds()).to.be.within(
      20 + KEEP_MARGIN_SECONDS - 2,
      20 + KEEP_MARGIN_SECONDS + ROUNDED,
    );
  });
});

/** Restores the database to its state before the last entry, as from a backup. */
async function forgetLast(log: TestLog): Promise<void> {
  await log.database.transaction(async (sql) => {
    await sql.query('ALTER TABLE revocation_entries DISABLE TRIGGER revocation_entries_only_grow');
    await sql.query('DELETE FROM revocation_entries WHERE seq = (SELECT seq FROM log_state)');
    await sql.query(
      `UPDATE log_state SET seq = log_state.seq - 1, entry_id = entry.entry_id
       FROM revocation_entries entry WHERE entry.seq = log_state.seq - 1`,
    );
    await sql.query('ALTER TABLE revocation_entries ENABLE TRIGGER revocation_entries_only_grow');
  });
}
