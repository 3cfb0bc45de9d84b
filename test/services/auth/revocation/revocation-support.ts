/** A revocation log in a database of its own, with users and sessions to revoke, for the tests of auth. */

import { randomUUID } from 'node:crypto';
import { systemClock } from '@portcullis/guard/clock';
import { createClientRows } from '../../../../services/auth/clients/store.js';
import { createKeyRows } from '../../../../services/auth/keys/store.js';
import { createPolicyRows } from '../../../../services/auth/policy/store.js';
import type { PublishedKeys } from '../../../../services/auth/records/keys.js';
import type { LogBatch, Receipt } from '../../../../services/auth/records/revocations.js';
import { createFenceStore } from '../../../../services/auth/revocation/fence-store.js';
import { createFences } from '../../../../services/auth/revocation/fences.js';
import { createInstanceStore } from '../../../../services/auth/revocation/instance-store.js';
import { createInstances, type Instances } from '../../../../services/auth/revocation/instances.js';
import {
  KEEP_MARGIN_SECONDS,
  type SyncPosition,
  type SyncResult,
} from '../../../../services/auth/revocation/log.js';
import type { RevocationStore } from '../../../../services/auth/revocation/log-access.js';
import { createRevocations, type Revocations } from '../../../../services/auth/revocation/revocations.js';
import type {
  IdentifiedToken,
  RevocationTransaction,
} from '../../../../services/auth/revocation/revoke-targets.js';
import { createRevocationRows, createRevocationStore } from '../../../../services/auth/revocation/store.js';
import { createSessionRows } from '../../../../services/auth/sessions/store.js';
import {
  type Database,
  type DatabaseLimits,
  openDatabase,
  type Sql,
} from '../../../../services/common/database/database.js';
import { createLog } from '../../../../services/common/host/log.js';
import { type FreshDatabase, freshDatabase } from '../../../support/postgres.js';
import { installDemoPolicy } from '../demo-policy.js';

export const MIGRATIONS = new URL('../../../../services/auth/migrations/', import.meta.url);

export const quietLog = createLog({ service: 'test', level: 'silent' });

/** The log under test, with its database and the batches that it broadcasts. */
export interface TestLog {
  readonly url: string;
  readonly database: Database;
  readonly store: RevocationStore;
  readonly revocations: Revocations;
  readonly instances: Instances;
  /** The number of reads of the log for sync requests. */
  reads(): number;
  /** The committed batches, in the order of their broadcasts. */
  readonly broadcast: LogBatch[];
  /** The sync requests that raised the alarm of a changed log. */
  readonly alarms: SyncPosition[];
  /** The keys that the log publishes; a test may change them. */
  readonly keys: { published: PublishedKeys };
  transaction<T>(work: (tx: RevocationTransaction, sql: Sql) => Promise<T>): Promise<T>;
  addUser(): Promise<string>;
  addSession(userId: string): Promise<string>;
  revokeToken(tokenId?: string): Promise<Receipt>;
  /** Makes existing entries older by `byMs`, by default all of them. */
  age(byMs: number, where?: string): Promise<void>;
  close(): Promise<void>;
}

/** A sync request of a new instance. */
export function question(over: Partial<SyncPosition> = {}): SyncPosition {
  return {
    service: 'inventory',
    instance: Buffer.alloc(16, 1),
    epoch: Buffer.alloc(0),
    applied: 0n,
    entryIdAtApplied: Buffer.alloc(0),
    keySetVersion: Buffer.alloc(0),
    seen: [],
    fences: [],
    heldTo: 0n,
    heldDigest: Buffer.alloc(0),
    ...over,
  };
}

/** The XOR of the ids of the entries after a sequence up to another one. */
export function digestOf(
  entries: readonly { readonly sequence: bigint; readonly entryId: Buffer }[],
  after: bigint,
  upTo: bigint,
): Buffer {
  const sum = Buffer.alloc(16);
  for (const { sequence, entryId } of entries) {
    if (sequence <= after || sequence > upTo) continue;
    for (let at = 0; at < sum.length; at += 1) sum[at] = (sum[at] ?? 0) ^ (entryId[at] ?? 0);
  }
  return sum;
}

/** The question of an instance that has taken an answer. */
export function following(answer: SyncResult): SyncPosition {
  return question({ epoch: answer.epoch, applied: answer.head, entryIdAtApplied: answer.headEntryId });
}

/** Tests hold many transactions open at once. */
const LIMITS: DatabaseLimits = {
  rowQueue: 100,
  lanes: {
    promise: { connections: 20, queue: 1000 },
    known: { connections: 40, queue: 1000 },
    unknown: { connections: 4, queue: 1000 },
  },
};

/** The lifetime of tokens in these tests, in seconds. */
const TOKEN_SECONDS = 300;

/** How long an entry about tokens of this issuer is kept in these tests, in seconds. */
export const KEPT_SECONDS = TOKEN_SECONDS + KEEP_MARGIN_SECONDS;

/** Lookups of tokens that a test replaces. */
interface SupportOptions {
  readonly identify?: (token: string) => Promise<IdentifiedToken>;
  readonly sessionIdOf?: (refreshToken: string) => Promise<string | undefined>;
}

/** Opens a log in a new database. */
export async function openTestLog(options: SupportOptions = {}): Promise<TestLog> {
  const fresh = await freshDatabase();
  const database = openDatabase({ url: fresh.url, migrations: MIGRATIONS, log: quietLog, limits: LIMITS });
  await database.ready(AbortSignal.timeout(45_000));
  await installDemoPolicy(database);
  const log = compose({ fresh, database, options });
  await log.store.setTokenSeconds(TOKEN_SECONDS);
  return log;
}

function compose(parts: {
  readonly fresh: FreshDatabase;
  readonly database: Database;
  readonly options: SupportOptions;
}): TestLog {
  const { fresh, database, options } = parts;
  const broadcast: LogBatch[] = [];
  const alarms: SyncPosition[] = [];
  const keys = { published: publishedKeys('one') };

  const transaction = async <T>(work: (tx: RevocationTransaction, sql: Sql) => Promise<T>): Promise<T> => {
    let appended: LogBatch[] = [];
    const result = await database.transaction((sql) => {
      appended = [];
      const revocations = createRevocationRows(sql, (batch) => appended.push(batch));
      return work({ ...accountRows(sql), revocations }, sql);
    });
    broadcast.push(...appended);
    return result;
  };
  const store = createRevocationStore({ database, publishedKeys: async () => keys.published });
  let reads = 0;
  const countingStore: RevocationStore = {
    ...store,
    read: (work) => {
      reads += 1;
      return store.read(work);
    },
  };
  const instances = createInstances({ store: createInstanceStore(database), clock: systemClock });
  const revocations = createRevocations({
    store: { transaction },
    log: countingStore,
    issuer: 'https://auth.test',
    foreignIssuers: [],
    instances,
    fences: createFences({ store: createFenceStore(database), clock: systemClock }),
    onKeyRevoked: () => undefined,
    identify: options.identify ?? (() => Promise.reject(new TypeError('no token expected'))),
    sessionIdOf: options.sessionIdOf ?? (() => Promise.resolve(undefined)),
    clock: systemClock,
    onLogChanged: (asked) => alarms.push(asked),
  });

  return {
    url: fresh.url,
    database,
    store,
    revocations,
    instances,
    reads: () => reads,
    broadcast,
    alarms,
    keys,
    transaction,
    addUser: () => addUser(database),
    addSession: (userId) => addSession(database, userId),
    revokeToken: (tokenId = randomUUID()) =>
      revocations.revoke({ target: { kind: 'token-id', tokenId }, reason: 'a test', actor: 'olga' }),
    age: (byMs, where = 'true') => age(database, byMs, where),
    close: async () => {
      await instances.close();
      await database.close();
      await fresh.drop();
    },
  };
}

/** Keys that a log may publish; another name yields another version. */
export function publishedKeys(name: string): PublishedKeys {
  const key = { kid: `token-${name}`, algorithm: 'EdDSA', jwk: '{}' };
  return {
    keySet: { version: Buffer.alloc(32, name), keys: [key] },
    broadcastKeys: [{ ...key, kid: `broadcast-${name}` }],
  };
}

function accountRows(sql: Sql): Omit<RevocationTransaction, 'revocations'> {
  return {
    clients: createClientRows(sql),
    events: { record: () => Promise.resolve(), recordAll: () => Promise.resolve() },
    policy: createPolicyRows(sql, { policy: undefined }),
    keys: createKeyRows(sql),
    users: {
      raiseGeneration: async (userId) => {
        const { rows } = await sql.query<{ generation: bigint }>(
          'UPDATE users SET generation = generation + 1 WHERE user_id = $1 RETURNING generation',
          [userId],
        );
        return rows[0]?.generation;
      },
    },
    sessions: createSessionRows(sql),
  };
}

async function addUser(sql: Sql): Promise<string> {
  const userId = randomUUID();
  await sql.query(
    "INSERT INTO users (user_id, username, name_skeleton, password_hash) VALUES ($1, $2, $2, '')",
    [userId, `user-${userId.slice(0, 8)}`],
  );
  return userId;
}

async function addSession(sql: Sql, userId: string): Promise<string> {
  const sessionId = randomUUID();
  await sql.query(
    `INSERT INTO sessions (session_id, user_id, client_id, generation, client_generation, device_name, audiences,
                           scopes, amr, create_time, last_use_time, expire_time)
     VALUES ($1, $2, 'direct', 1, 1, '', '{}', '{}', '{}', now(), now(), now() + interval '1 day')`,
    [sessionId, userId],
  );
  return sessionId;
}

async function age(database: Database, byMs: number, where: string): Promise<void> {
  await database.transaction(async (sql) => {
    await sql.query('ALTER TABLE revocation_entries DISABLE TRIGGER revocation_entries_only_grow');
    await sql.query(
      `UPDATE revocation_entries SET keep_until = keep_until - make_interval(secs => $1) WHERE ${where}`,
      [byMs / 1000],
    );
    await sql.query('ALTER TABLE revocation_entries ENABLE TRIGGER revocation_entries_only_grow');
  });
}
