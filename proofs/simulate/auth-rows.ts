/** Auth's rows in the simulated database: the same interfaces as in production, over tables instead of SQL. */

import { CLOCK_SKEW_SECONDS } from '@portcullis/guard/limits';
import { readDemoPolicy } from '../../scripts/system/demo-policy.js';
import { AuthError } from '../../services/auth/errors.js';
import { publish } from '../../services/auth/keys/published-keys.js';
import { withBuiltIns } from '../../services/auth/policy/document.js';
import { policyOf } from '../../services/auth/policy/policy.js';
import type { Client } from '../../services/auth/records/clients.js';
import type { KeyRow, PublishedKeys } from '../../services/auth/records/keys.js';
import type { Policy } from '../../services/auth/records/policy.js';
import type {
  Appended,
  EpochStanding,
  LiveSet,
  LogBatch,
  LogEntry,
  LogLock,
  LogState,
  LostEpoch,
  NewEntry,
  PackedIds,
} from '../../services/auth/records/revocations.js';
import type { LockedSession, RefreshTokenRow, Session } from '../../services/auth/records/sessions.js';
import type { MintingTimes } from '../../services/auth/records/tokens.js';
import type { UserState } from '../../services/auth/records/users.js';
import { enforcementBoundMs } from '../../services/auth/revocation/log.js';
import type { LogReader, RevocationStore } from '../../services/auth/revocation/log-access.js';
import type { AuthStore, AuthTransaction, IdempotentRequest } from '../../services/auth/transaction.js';
import { clientRows } from './client-rows.js';
import type { Cluster, Node, Tables, Transaction } from './database.js';
import { keyRows, liveKeys, type StoredKey } from './key-rows.js';
import { onlyThese } from './only-these.js';
import { keepUntilMs } from './retention.js';
import type { Process } from './time.js';
import { START_MS, type World } from './world.js';

/** The single row of the log. Times are the database's own, except one that only the oracle uses. */
interface LogRow {
  readonly epoch: Buffer;
  readonly head: bigint;
  readonly headEntryId: Buffer;
  readonly horizonMs: number;
  readonly leaseMs: number;
  readonly olderLeaseMs: number | undefined;
  readonly olderLeasesEndByMs: number;
  readonly olderLeasesEndTrueMs: number;
  readonly epochNumber: bigint;
  readonly fenceWanted: bigint;
  readonly tokenSeconds: number;
  readonly olderTokenSeconds: number | undefined;
  readonly olderTokensEndByMs: number;
}

type EntryRow = LogEntry & { readonly epoch: Buffer };
type UserRow = UserState & { readonly username: string; readonly createTime: Date };
type SessionRow = Omit<Session, 'open'> & { readonly ended: boolean };

const EMPTY = Buffer.alloc(0);
const LOG = 'log';
const EPOCHS = 'epochs';
const LOST_EPOCHS = 'lost epochs';

/** How a process of auth reaches the database: at the server that it considers the primary. */
export interface Connection {
  readonly world: World;
  readonly cluster: Cluster;
  readonly process: Process;
  readonly node: () => Node;
  /** What this process was last configured with; only a process without the guard uses it. */
  readonly configured: { accessTokenSeconds: number };
}

/** The initial rows: an epoch, its keys, users and clients. */
export function seedTables(
  world: World,
  cluster: Cluster,
  rows: { users: readonly UserRow[]; keys: readonly KeyRow[] },
): void {
  const epoch = world.random.bytes(16);
  const log: LogRow = {
    epoch,
    head: 0n,
    headEntryId: EMPTY,
    horizonMs: 0,
    leaseMs: world.settings.leaseMs,
    olderLeaseMs: undefined,
    olderLeasesEndByMs: 0,
    olderLeasesEndTrueMs: 0,
    epochNumber: 1n,
    fenceWanted: 0n,
    tokenSeconds: world.settings.accessTokenSeconds,
    olderTokenSeconds: undefined,
    olderTokensEndByMs: 0,
  };
  world.oracle.leaseChanged(log.leaseMs);
  world.oracle.epoch = epoch.toString('hex');
  for (const tables of [cluster.standby, cluster.primary.tables]) {
    tables.put(LOG, LOG, log);
    tables.put(EPOCHS, epoch.toString('hex'), { epoch });
    for (const user of rows.users) tables.put('users', user.userId, user);
    for (const key of rows.keys) tables.put('keys', key.kid, { ...key, epoch });
    for (const clientId of ['direct', 'payment']) tables.put('clients', clientId, clientRow(clientId));
  }
}

function clientRow(clientId: string): Client {
  return {
    clientId,
    generation: 0n,
    credentials: [],
    audiences: ['auth'],
    scopes: ['auth.exchange'],
    exchangeAudiences: ['inventory'],
    exchangeScopes: undefined,
    certificateBound: false,
    disabled: false,
    createTime: new Date(0),
  };
}

/** The policy of the demo. */
const POLICY: Policy = readPolicy();

function readPolicy(): Policy {
  const { services, roles } = readDemoPolicy();
  const given = { services: services.map((service) => ({ ...service, clientIds: [] })), roles };
  return policyOf(withBuiltIns(given), { etag: 'demo', changed: true, updateTime: new Date(START_MS) });
}

/** Transactions in which a user's sessions received the user's new generation. */
const restamped = new WeakSet<Transaction>();

const transactions = new WeakMap<AuthTransaction, Transaction>();

/** The transaction of the database behind one of auth. */
export function transactionBehind(tx: AuthTransaction): Transaction {
  const transaction = transactions.get(tx);
  if (transaction === undefined) throw new TypeError('this is no transaction of the simulation');
  return transaction;
}

/** Auth's transactions. Their log entries are broadcast after the commit. */
export function createStore(connection: Connection, onRevoked: (batch: LogBatch) => void): AuthStore {
  const store: AuthStore = {
    reads: onlyThese<AuthStore['reads']>({
      users: { credentialsByName: (name) => store.transaction((tx) => tx.users.credentialsByName(name)) },
      policy: { current: () => store.transaction((tx) => tx.policy.current()) },
      clients: { find: (clientId) => store.transaction((tx) => tx.clients.find(clientId)) },
      sessions: { findRefreshToken: (hash) => store.transaction((tx) => tx.sessions.findRefreshToken(hash)) },
    }),
    transaction: async (work) => {
      const effects: (() => void)[] = [];
      const { cluster, process, node } = connection;
      const result = await cluster.transaction(process, node(), (transaction) => {
        const tx = createTransaction(connection, transaction, {
          afterCommit: (effect) => effects.push(effect),
          onRevoked,
        });
        transactions.set(tx, transaction);
        return work(tx);
      });
      for (const effect of effects) effect();
      return result;
    },
  };
  return store;
}

function createTransaction(
  connection: Connection,
  transaction: Transaction,
  effects: { afterCommit: (effect: () => void) => void; onRevoked: (batch: LogBatch) => void },
): AuthTransaction {
  const { world } = connection;
  return onlyThese<AuthTransaction>({
    users: userRows(transaction),
    sessions: sessionRows(world, transaction),
    clients: clientRows(transaction),
    // The policy never changes in the simulation, so reading it needs no statement.
    policy: onlyThese<AuthTransaction['policy']>({ current: () => Promise.resolve(POLICY) }),
    keys: keyRows(transaction, () => logOf(transaction).epoch),
    tokens: {
      mintingTimes: () => mintingTimes(connection, transaction),
      anyRevoked: (tokenIds) =>
        transaction.statement(() => {
          const keys = new Set(tokenIds.map((tokenId) => tokenId.replaceAll('-', '').toLowerCase()));
          return entriesOf(transaction).some(
            ({ kind, issuer, key }) => kind === 'TOKEN' && issuer === '' && keys.has(key.toString('hex')),
          );
        }),
      foreignRevoked: (token) =>
        transaction.statement(() =>
          entriesOf(transaction).some((entry) => isForeignRevocationOf(entry, token)),
        ),
    },
    revocations: {
      append: async (entries) => {
        const appended = await transaction.statement(() => append(world, transaction, entries));
        const { epoch, entries: written } = appended;
        effects.afterCommit(() => effects.onRevoked({ epoch, entries: written }));
        return appended;
      },
      openEpoch: async ({ reason }) => {
        const opened = await transaction.statement(() => openEpoch(world, transaction, reason));
        effects.afterCommit(() => effects.onRevoked({ epoch: opened.epoch, entries: [] }));
        return opened;
      },
    },
    // Security events have no effect on the simulated protocol.
    events: { record: () => Promise.resolve(), recordAll: () => Promise.resolve() },
    databaseTime: () => transaction.statement(() => timeOf(transaction)),
    afterCommit: effects.afterCommit,
    once: (request, work) => once(transaction, request, work),
  });
}

/** A stored response for retries of its request. */
interface RequestRow {
  readonly payload: string;
  readonly answer: unknown;
}

async function once<T>(
  transaction: Transaction,
  request: IdempotentRequest,
  work: () => Promise<T>,
): Promise<T> {
  const { subject, method, requestId, payload } = request;
  if (requestId === '') return await work();
  const key = JSON.stringify([subject, method, requestId]);
  const known = await transaction.statement(() => {
    if (!transaction.tryLock(`request ${key}`)) {
      throw new AuthError('REQUEST_IN_PROGRESS', 'the same request is being carried out');
    }
    return transaction.get('requests', key) as RequestRow | undefined;
  });
  if (known !== undefined) {
    if (known.payload === payload) return known.answer as T;
    throw new AuthError('REQUEST_ID_REUSED', 'request_id was used before with another request');
  }
  const answer = await work();
  const row: RequestRow = { payload, answer };
  await transaction.statement(() => transaction.put('requests', key, row));
  return answer;
}

function isForeignRevocationOf(
  { kind, issuer, key, claim = '', cutOffTime }: EntryRow,
  token: Parameters<AuthTransaction['tokens']['foreignRevoked']>[0],
): boolean {
  if (issuer !== token.issuer) return false;
  const text = key.toString('utf8');
  switch (kind) {
    case 'TOKEN':
      return text === token.tokenId;
    case 'SESSION':
      return text === token.sessionId;
    case 'USER':
      return (
        text === token.subject &&
        cutOffTime !== undefined &&
        cutOffTime.getTime() >= token.issuedAtSeconds * 1000
      );
    case 'CLAIM':
      return (
        (token.revocable?.get(claim)?.includes(text) ?? true) &&
        cutOffTime !== undefined &&
        cutOffTime.getTime() >= token.issuedAtSeconds * 1000
      );
    default:
      return false;
  }
}

/** The database's present time. */
export function timeOf(transaction: Transaction): Date {
  return new Date(transaction.node.process.clock.wallMs());
}

/** The present row of the log. */
export function logOf(transaction: Transaction): LogRow {
  return transaction.get(LOG, LOG) as LogRow;
}

/** Every entry of the log. */
export function entriesOf(transaction: Transaction): EntryRow[] {
  return [...transaction.all('entries').values()] as EntryRow[];
}

function userRows(transaction: Transaction): AuthTransaction['users'] {
  const find = (userId: string): UserRow | undefined =>
    transaction.get('users', userId) as UserRow | undefined;
  return onlyThese<AuthTransaction['users']>({
    credentialsByName: (username) =>
      transaction.statement(() => {
        for (const row of transaction.all('users').values()) {
          const user = row as UserRow;
          if (user.username === username) return { ...user, passwordHash: username };
        }
        return undefined;
      }),
    find: (userId) => transaction.statement(() => find(userId)),
    setRoles: (userId, roles) =>
      transaction.statement(() => {
        const user = find(userId);
        if (user !== undefined) transaction.put('users', userId, { ...user, roles: roles.toSorted() });
      }),
    lockShared: (userId) =>
      transaction.statement(async () => {
        await transaction.lock(`user ${userId}`, 'share');
        return find(userId);
      }),
    lock: (userId) =>
      transaction.statement(async () => {
        await transaction.lock(`user ${userId}`, 'exclusive');
        return find(userId) !== undefined;
      }),
    lockAdmins: () =>
      transaction.statement(async () => {
        await transaction.lock('administrators', 'exclusive');
        const users = [...transaction.all('users').values()] as UserRow[];
        const admins = users.filter(({ roles, disabled }) => roles.includes('admin') && !disabled);
        return admins
          .map(({ userId }) => userId)
          .sort()
          .slice(0, 2);
      }),
    raiseGeneration: (userId) =>
      transaction.statement(async () => {
        await transaction.lock(`user ${userId}`, 'exclusive');
        const user = find(userId);
        if (user === undefined) return undefined;
        transaction.put('users', userId, { ...user, generation: user.generation + 1n });
        return user.generation + 1n;
      }),
  });
}

function sessionRows(world: World, transaction: Transaction): AuthTransaction['sessions'] {
  const find = (sessionId: string): Session | undefined => {
    const row = transaction.get('sessions', sessionId) as SessionRow | undefined;
    if (row === undefined) return undefined;
    const session = { ...row, open: !row.ended && row.expireTime > timeOf(transaction) };
    if (world.without !== 'session-generation') return session;
    // A refresh without the guard: it uses the current generations instead of those of the login.
    const user = transaction.get('users', row.userId) as UserRow;
    const client = transaction.get('clients', row.clientId) as Client;
    return { ...session, generation: user.generation, clientGeneration: client.generation };
  };
  const lock = (sessionId: string, mode: 'share' | 'exclusive') =>
    transaction.statement(async () => {
      await transaction.lock(`session ${sessionId}`, mode);
      return find(sessionId);
    });
  const endThose = async (isMeant: (row: SessionRow) => boolean) => (await endSome(isMeant)).length;
  const endSome = (isMeant: (row: SessionRow) => boolean, limit = Number.POSITIVE_INFINITY) =>
    transaction.statement(async () => {
      const ended: string[] = [];
      for (const [sessionId, row] of [...transaction.all('sessions')]) {
        if (ended.length === limit) break;
        if (!isMeant(row as SessionRow)) continue;
        await transaction.lock(`session ${sessionId}`, 'exclusive');
        const now = transaction.get('sessions', sessionId) as SessionRow | undefined;
        if (now === undefined || now.ended) continue;
        transaction.put('sessions', sessionId, { ...now, ended: true });
        ended.push(sessionId);
      }
      return ended;
    });
  return onlyThese<AuthTransaction['sessions']>({
    insert: (session) =>
      transaction.statement(() => {
        transaction.put('sessions', session.sessionId, { ...session, ended: false });
        transaction.onDurable(() => world.oracle.sessionOpened(session));
      }),
    lockShared: (sessionId) => lock(sessionId, 'share'),
    lock: (sessionId) => lock(sessionId, 'exclusive'),
    setLastUse: (sessionId, lastUseTime) =>
      transaction.statement(() => {
        const row = transaction.get('sessions', sessionId);
        if (row !== undefined) transaction.put('sessions', sessionId, { ...row, lastUseTime });
      }),
    end: async (sessionId) => (await endThose((row) => row.sessionId === sessionId && !row.ended)) > 0,
    lockEach: (sessionIds, busy) =>
      transaction.statement(async () => {
        const locked: LockedSession[] = [];
        for (const sessionId of [...new Set(sessionIds)].sort()) {
          if (transaction.get('sessions', sessionId) === undefined) continue;
          const key = `session ${sessionId}`;
          if (busy === 'wait') await transaction.lock(key, 'exclusive');
          else if (!transaction.tryLock(key)) continue;
          const { userId, ended, expireTime } = transaction.get('sessions', sessionId) as SessionRow;
          locked.push({ sessionId, userId, ended, open: !ended && expireTime > timeOf(transaction) });
        }
        return locked;
      }),
    existing: (sessionIds) =>
      transaction.statement(() =>
        sessionIds.filter((sessionId) => transaction.get('sessions', sessionId) !== undefined),
      ),
    endEach: async (endings) => {
      const wanted = new Set(endings.map(({ sessionId }) => sessionId));
      await endThose((row) => wanted.has(row.sessionId) && !row.ended);
    },
    endAllOfUser: (userId) => endThose((row) => row.userId === userId && !row.ended),
    endOthersOfUser: (userId, { than, limit }) => {
      const now = timeOf(transaction);
      return endSome(
        (row) => row.userId === userId && row.sessionId !== than && !row.ended && row.expireTime > now,
        limit,
      );
    },
    endEvery: () => endThose((row) => !row.ended),
    restamp: (userId, { from, to, scopes, audiences }) =>
      transaction.statement(async () => {
        restamped.add(transaction);
        for (const [sessionId, row] of [...transaction.all('sessions')]) {
          if ((row as SessionRow).userId !== userId) continue;
          await transaction.lock(`session ${sessionId}`, 'exclusive');
          const session = transaction.get('sessions', sessionId) as SessionRow | undefined;
          if (session === undefined || session.ended) continue;
          const isStamped = session.generation === from;
          const kept = {
            scopes: session.scopes.filter((scope) => scopes.includes(scope)),
            audiences: session.audiences.filter((audience) => audiences.includes(audience)),
          };
          const stamped = { ...session, ...(isStamped && { ...kept, generation: to }) };
          const ended = stamped.generation !== to || stamped.audiences.length === 0;
          transaction.put('sessions', sessionId, { ...stamped, ended });
        }
      }),
    insertRefreshToken: ({ hash, sessionId, expireTime }) =>
      transaction.statement(() => {
        const { userId } = transaction.get('sessions', sessionId) as SessionRow;
        const fresh: RefreshTokenRow = {
          sessionId,
          userId,
          expireTime,
          useTime: undefined,
          requestId: undefined,
          successorHash: undefined,
        };
        transaction.put('refresh', hash.toString('hex'), fresh);
      }),
    findRefreshToken: (hash) =>
      transaction.statement(
        () => transaction.get('refresh', hash.toString('hex')) as RefreshTokenRow | undefined,
      ),
    markUsed: ({ hash, time, requestId, successorHash }) =>
      transaction.statement(() => {
        const key = hash.toString('hex');
        const row = transaction.get('refresh', key) as RefreshTokenRow;
        if (row.useTime !== undefined) throw new Error('a refresh token was used twice at once');
        transaction.put('refresh', key, { ...row, useTime: time, requestId, successorHash });
      }),
  });
}

function lockOf(log: LogRow, nowMs: number): LogLock {
  return {
    lockedTime: new Date(nowMs),
    leaseMs: Math.max(log.leaseMs, log.olderLeaseMs ?? 0),
    olderLeasesEndBy: new Date(log.olderLeasesEndByMs),
  };
}

async function append(
  world: World,
  transaction: Transaction,
  entries: readonly NewEntry[],
): Promise<Appended> {
  await transaction.lock(LOG, 'exclusive');
  const log = logOf(transaction);
  const nowMs = timeOf(transaction).getTime();
  const written = entries.map(
    (entry, index): EntryRow => ({
      ...cutOffByTime(world, entry, nowMs),
      epoch: log.epoch,
      entryId: world.random.bytes(16),
      sequence: log.head + BigInt(index + 1),
      keepUntil: new Date(keepUntilMs(world, log, entry, nowMs)),
      cutOffTime:
        entry.issuer !== '' && (entry.kind === 'USER' || entry.kind === 'CLAIM')
          ? new Date(Math.ceil(nowMs / 1000 + CLOCK_SKEW_SECONDS) * 1000)
          : undefined,
      acknowledge: entry.acknowledge ?? false,
    }),
  );
  for (const entry of written) putEntry(transaction, entry);
  const last = written.at(-1);
  if (last === undefined) throw new TypeError('nothing to append');
  const fenced = entries.findLastIndex(({ fence = false }) => fence);
  const fenceWanted = fenced < 0 ? log.fenceWanted : log.head + BigInt(fenced + 1);
  transaction.put(LOG, LOG, { ...log, head: last.sequence, headEntryId: last.entryId, fenceWanted });
  const lock = lockOf(log, nowMs);
  transaction.onDurable(() => {
    const { leaseMs } = lock;
    const olderLeasesEndMs = log.olderLeasesEndTrueMs;
    for (const [index, entry] of entries.entries()) {
      const entryId = written[index]?.entryId.toString('hex') ?? '';
      const sessionsGoOn = restamped.has(transaction);
      // Each operation of a run has a name of its own, by which it is found again.
      world.oracle.revoked(entry, { label: entry.actor, entryId, leaseMs, olderLeasesEndMs, sessionsGoOn });
      world.tell(
        'log',
        () => `${entry.actor} is durable: ${world.oracle.describe(entry)} at ${last.sequence}`,
      );
    }
  });
  return { epoch: log.epoch, epochNumber: log.epochNumber, entries: written, ...lock };
}

/** The lifetime is read after the time, as in production. */
async function mintingTimes(
  { world, configured }: Connection,
  transaction: Transaction,
): Promise<MintingTimes> {
  const now = await transaction.statement(() => timeOf(transaction));
  const stored = await transaction.statement(() => logOf(transaction).tokenSeconds);
  return {
    now,
    lifetimeSeconds: world.without === 'stored-lifetime' ? configured.accessTokenSeconds : stored,
  };
}

/** Stores an entry. Only its broadcast asks for an acknowledgement. */
function putEntry(transaction: Transaction, entry: EntryRow): void {
  transaction.put('entries', `${entry.epoch.toString('hex')} ${entry.sequence}`, {
    ...entry,
    acknowledge: false,
  });
}

/** Without generations the cut-off is a time: everything issued up to this second. */
function cutOffByTime(world: World, entry: NewEntry, nowMs: number): NewEntry {
  if (world.without !== 'generation' || (entry.kind !== 'USER' && entry.kind !== 'CLIENT')) return entry;
  return { ...entry, minGeneration: BigInt(Math.floor(nowMs / 1000)) + 1n };
}

async function openEpoch(world: World, transaction: Transaction, reason: string) {
  await transaction.lock(LOG, 'exclusive');
  const log = logOf(transaction);
  const epoch = world.random.bytes(16);
  const now = timeOf(transaction);
  const carried = carriedEntries(world, transaction, { from: log.epoch, to: epoch, now });
  for (const { entry } of carried) putEntry(transaction, entry);
  const last = carried.at(-1)?.entry;
  transaction.put(LOG, LOG, {
    ...log,
    epoch,
    head: last?.sequence ?? 0n,
    headEntryId: last?.entryId ?? EMPTY,
    epochNumber: nextEpochNumber(log, now),
    fenceWanted: 0n,
  });
  transaction.put(EPOCHS, epoch.toString('hex'), { epoch });
  const lock = lockOf(log, now.getTime());
  transaction.onDurable(() => {
    const { leaseMs } = lock;
    const olderLeasesEndMs = log.olderLeasesEndTrueMs;
    world.oracle.epochOpened(epoch.toString('hex'), { label: reason, leaseMs, olderLeasesEndMs });
    for (const { entry, formerId } of carried) {
      world.oracle.carriedOver(formerId.toString('hex'), entry.entryId.toString('hex'));
    }
    world.tell('log', () => `${reason} is durable: epoch ${epoch.toString('hex').slice(0, 8)} begins`);
  });
  return { epoch, ...lock };
}

/** As in production: larger than any before, also than those that a restore has lost. */
function nextEpochNumber({ epochNumber }: LogRow, now: Date): bigint {
  const byClock = BigInt(Math.floor(now.getTime() * 1000));
  return byClock > epochNumber ? byClock : epochNumber + 1n;
}

/** Entries about other issuers are copied into the new epoch: their tokens do not end with our keys. */
function carriedEntries(
  world: World,
  transaction: Transaction,
  { from, to, now }: { from: Buffer; to: Buffer; now: Date },
): readonly { readonly entry: EntryRow; readonly formerId: Buffer }[] {
  return entriesOf(transaction)
    .filter(({ epoch, issuer, keepUntil }) => epoch.equals(from) && issuer !== '' && keepUntil > now)
    .map((former, index) => ({
      entry: { ...former, epoch: to, entryId: world.random.bytes(16), sequence: BigInt(index + 1) },
      formerId: former.entryId,
    }));
}

/** The log outside the transactions that write to it. */
export function createLogStore(connection: Connection): RevocationStore {
  const { world, cluster, process, node } = connection;
  let last: { readonly view: LogView; readonly endedAtMs: number } | undefined;

  const read = async <T>(work: (log: LogReader) => Promise<T>): Promise<T> => {
    // Without the guard, a request that waits for the next read gets the result of the current one.
    const { nowMs } = world.scheduler;
    if (world.without === 'shared-read' && last?.endedAtMs === nowMs)
      return await work(readerOf(world, last.view));
    const perform = async (transaction: Transaction): Promise<T> => {
      const view = await transaction.statement(() => viewOf(world, transaction.node.tables));
      const result = await work(readerOf(world, view));
      last = { view, endedAtMs: Number.POSITIVE_INFINITY };
      return result;
    };
    const at = node();
    // The commit of its own write proves that the response came from the primary.
    const result =
      world.without === 'fence'
        ? await cluster.uncommitted(process, at, perform)
        : await cluster.transaction(process, at, perform);
    if (last !== undefined) last = { ...last, endedAtMs: world.scheduler.nowMs };
    return result;
  };

  return {
    read,
    noteLostEpochs: (lost) =>
      cluster.transaction(process, node(), (transaction) =>
        transaction.statement(() => noteLostEpochs(transaction, lost)),
      ),
    readLive: () =>
      cluster.uncommitted(process, node(), (transaction) =>
        transaction.statement(() => liveSetOf(viewOf(world, transaction.node.tables))),
      ),
    dropExpired: (limit) =>
      cluster.transaction(process, node(), (transaction) => dropExpired(world, transaction, limit)),
    setLeaseMs: async (leaseMs) => {
      await cluster.transaction(process, node(), (transaction) =>
        transaction.statement(async () => {
          await transaction.lock(LOG, 'exclusive');
          const log = logOf(transaction);
          const longest = Math.max(log.leaseMs, log.olderLeaseMs ?? 0, leaseMs);
          transaction.put(LOG, LOG, {
            ...log,
            leaseMs,
            olderLeaseMs: longest === leaseMs ? undefined : longest,
          });
          transaction.onDurable(() => world.oracle.leaseChanged(leaseMs));
        }),
      );
      await cluster.transaction(process, node(), (transaction) =>
        transaction.statement(async () => {
          await transaction.lock(LOG, 'exclusive');
          const log = logOf(transaction);
          if (log.olderLeaseMs === undefined) return;
          const boundMs = enforcementBoundMs(log.olderLeaseMs);
          transaction.put(LOG, LOG, {
            ...log,
            olderLeaseMs: undefined,
            olderLeasesEndByMs: Math.max(log.olderLeasesEndByMs, timeOf(transaction).getTime() + boundMs),
            olderLeasesEndTrueMs: Math.max(log.olderLeasesEndTrueMs, world.scheduler.nowMs + boundMs),
          });
        }),
      );
    },
    setTokenSeconds: async (tokenSeconds) => {
      const change = (work: (log: LogRow, transaction: Transaction) => LogRow): Promise<void> =>
        cluster.transaction(process, node(), (transaction) =>
          transaction.statement(async () => {
            await transaction.lock(LOG, 'exclusive');
            transaction.put(LOG, LOG, work(logOf(transaction), transaction));
          }),
        );
      await change((log) => {
        const longest = Math.max(log.tokenSeconds, log.olderTokenSeconds ?? 0, tokenSeconds);
        return { ...log, tokenSeconds, olderTokenSeconds: longest === tokenSeconds ? undefined : longest };
      });
      await change((log, transaction) => {
        if (log.olderTokenSeconds === undefined) return log;
        const endMs = timeOf(transaction).getTime() + log.olderTokenSeconds * 1000;
        const olderTokensEndByMs = Math.max(log.olderTokensEndByMs, endMs);
        return { ...log, olderTokenSeconds: undefined, olderTokensEndByMs };
      });
    },
    tokenLifetime: () => Promise.reject(new TypeError('only metrics ask for it')),
  };
}

/** A snapshot for one reading. */
interface LogView {
  readonly state: LogState;
  readonly entries: readonly EntryRow[];
  readonly keys: PublishedKeys;
  /** Standing of every known epoch other than the current one, by its hexadecimal id. */
  readonly standings: ReadonlyMap<string, EpochStanding>;
}

function viewOf(world: World, tables: Tables): LogView {
  const log = tables.get(LOG, LOG) as LogRow;
  const entries: EntryRow[] = [];
  for (const row of tables.all('entries').values()) {
    const entry = row as EntryRow;
    if (entry.epoch.equals(log.epoch)) entries.push(entry);
  }
  const { epoch, head, headEntryId, leaseMs, epochNumber, fenceWanted } = log;
  const horizon = new Date(world.without === 'retention' ? 0 : log.horizonMs);
  const fences = { epochNumber, fenceWanted };
  const state = { epoch, head, headEntryId: comparable(world, headEntryId), horizon, leaseMs, ...fences };
  const keys = publishOnce(liveKeys(tables.all('keys'), epoch));
  return { state, entries, keys, standings: standingsOf(tables, epoch) };
}

function standingsOf(tables: Tables, epoch: Buffer): ReadonlyMap<string, EpochStanding> {
  const standings = new Map<string, EpochStanding>();
  for (const [hex, row] of tables.all(LOST_EPOCHS)) {
    standings.set(hex, (row as LostEpoch).foundUnder.equals(epoch) ? 'LOST' : 'OVER');
  }
  for (const hex of tables.all(EPOCHS).keys()) standings.set(hex, 'OVER');
  return standings;
}

/** Not bounded: a restore loses a few epochs, and no instance invents one. */
async function noteLostEpochs(transaction: Transaction, lost: readonly LostEpoch[]): Promise<void> {
  await transaction.lock(LOST_EPOCHS, 'exclusive');
  const present = logOf(transaction).epoch;
  for (const one of lost) {
    const hex = one.epoch.toString('hex');
    const isKnown = [EPOCHS, LOST_EPOCHS].some((table) => transaction.get(table, hex) !== undefined);
    if (one.foundUnder.equals(present) && !isKnown) transaction.put(LOST_EPOCHS, hex, one);
  }
}

/** Without the entry-id guard all ids are equal. */
function comparable(world: World, entryId: Buffer): Buffer {
  if (world.without !== 'entry-id' || entryId.length === 0) return entryId;
  return Object.assign(Buffer.from(entryId), { equals: () => true });
}

const published = new Map<string, PublishedKeys>();

/** The published set depends on the keys alone and is hashed, so it is cached. */
function publishOnce(keys: readonly StoredKey[]): PublishedKeys {
  const name = keys.map(({ kid }) => kid).join();
  let known = published.get(name);
  if (known === undefined) {
    if (published.size > 1000) published.clear();
    known = publish(keys);
    published.set(name, known);
  }
  return known;
}

/** Without the known-epochs guard every other epoch counts as over. */
function readerOf(world: World, { state, entries, keys, standings }: LogView): LogReader {
  return {
    state,
    entriesAfter: async (sequence) => entries.filter((entry) => entry.sequence > sequence),
    idsAfter: async (sequence) => entries.filter((entry) => entry.sequence > sequence),
    entryIdsAt: async (sequences) => {
      const ids = new Map<bigint, Buffer>();
      for (const { sequence, entryId } of entries)
        if (sequences.includes(sequence)) ids.set(sequence, entryId);
      return ids;
    },
    standingOf: async (epochs) => {
      const known = new Map<string, EpochStanding>();
      for (const epoch of epochs) {
        const hex = epoch.toString('hex');
        const standing = world.without === 'known-epochs' ? 'OVER' : standings.get(hex);
        if (standing !== undefined) known.set(hex, standing);
      }
      return known;
    },
    publishedKeys: async () => keys,
  };
}

const MINUTE_MS = 60_000;

function liveSetOf({ state, entries }: LogView): LiveSet {
  const packed = new Map<string, PackedIds>();
  const others: LogEntry[] = [];
  for (const entry of entries) {
    const { kind, issuer, key } = entry;
    if ((kind !== 'TOKEN' && kind !== 'SESSION') || issuer !== '') {
      others.push(entry);
      continue;
    }
    const minute = Math.ceil(entry.keepUntil.getTime() / MINUTE_MS);
    const name = `${kind} ${minute}`;
    const ids = Buffer.concat([packed.get(name)?.ids ?? EMPTY, key]);
    packed.set(name, { kind, keepUntil: new Date(minute * MINUTE_MS), ids });
  }
  const { epoch, head, headEntryId } = state;
  return { epoch, head, headEntryId, packed: [...packed.values()], entries: others };
}

/** Entries and horizon change in one transaction: a reader that misses an entry reads a horizon that covers it. */
async function dropExpired(world: World, transaction: Transaction, limit: number): Promise<number> {
  const dropped = await transaction.statement(() => {
    const now = timeOf(transaction);
    const expired = entriesOf(transaction).filter(({ keepUntil }) => keepUntil < now);
    expired.sort((a, b) => a.keepUntil.getTime() - b.keepUntil.getTime());
    return expired.slice(0, limit);
  });
  if (dropped.length === 0) return 0;
  await transaction.statement(async () => {
    await transaction.lock(LOG, 'exclusive');
    for (const { epoch, sequence } of dropped) {
      transaction.put('entries', `${epoch.toString('hex')} ${sequence}`, undefined);
    }
    const log = logOf(transaction);
    const horizonMs = Math.max(log.horizonMs, ...dropped.map(({ keepUntil }) => keepUntil.getTime()));
    transaction.put(LOG, LOG, { ...log, horizonMs });
    transaction.onDurable(() => world.tell('log', () => `${dropped.length} entries are dropped`));
  });
  return dropped.length;
}

/** The next token key in the database. */
export function nextTokenKeyIn(tables: Tables): string | undefined {
  const { epoch } = tables.get(LOG, LOG) as LogRow;
  const keys = liveKeys(tables.all('keys'), epoch);
  return keys.find(({ purpose, state }) => purpose === 'token' && state === 'next')?.kid;
}

/** A new user, whose password is the username. */
export function userRow(userId: string, username: string): UserRow {
  return {
    userId,
    username,
    generation: 0n,
    passwordVersion: 0n,
    roles: ['customer'],
    disabled: false,
    createTime: new Date(START_MS),
  };
}

/** A new key of one purpose. */
export function keyRow(kid: string, purpose: KeyRow['purpose'], state: KeyRow['state']): KeyRow {
  return { kid, purpose, state, algorithm: 'EdDSA', jwk: '{}', sealedPrivateKey: EMPTY };
}
