/**
 * A database like auth's: transactions with row locks, a primary whose commits count once the standby has them,
 * promotion of the standby, and restores. It knows tables, not their contents.
 */

import type { ServiceError } from '@portcullis/guard/errors';
import { AuthError } from '../../services/auth/errors.js';
import type { Random } from '../shared/random.js';
import { connectionLost, type Network } from './network.js';
import { MachineClock, Process, type Scheduler } from './time.js';

/** Longest wait for a lock, and longest silence of a transaction, in milliseconds. */
const LOCK_MS_MAX = 1000;

/** Longest wait of a client for the result of a commit, in milliseconds. */
const COMMIT_PATIENCE_MS = 6000;

/** All rows, by table and key. Rows are never changed in place. */
export class Tables {
  readonly #tables: Map<string, Map<string, object>>;

  constructor(tables: Map<string, Map<string, object>> = new Map()) {
    this.#tables = tables;
  }

  get(table: string, key: string): object | undefined {
    return this.#tables.get(table)?.get(key);
  }

  all(table: string): ReadonlyMap<string, object> {
    return this.#tables.get(table) ?? NO_ROWS;
  }

  put(table: string, key: string, row: object | undefined): void {
    let rows = this.#tables.get(table);
    if (rows === undefined) {
      rows = new Map();
      this.#tables.set(table, rows);
    }
    if (row === undefined) rows.delete(key);
    else rows.set(key, row);
  }

  copy(): Tables {
    return new Tables(new Map(Array.from(this.#tables, ([name, rows]) => [name, new Map(rows)])));
  }
}

const NO_ROWS: ReadonlyMap<string, object> = new Map();

/** The mode of a row lock. */
export type LockMode = 'share' | 'exclusive';

interface Waiter {
  readonly transaction: Transaction;
  readonly mode: LockMode;
  readonly grant: () => void;
}

interface Lock {
  readonly holders: Map<Transaction, LockMode>;
  readonly waiters: Waiter[];
}

/** One server of the database. */
export class Node {
  readonly process: Process;
  tables: Tables;
  readonly #scheduler: Scheduler;
  readonly #locks = new Map<string, Lock>();
  readonly #open = new Set<Transaction>();

  constructor(scheduler: Scheduler, process: Process, tables: Tables) {
    this.#scheduler = scheduler;
    this.process = process;
    this.tables = tables;
  }

  /** Aborts every transaction. */
  abortAll(): void {
    for (const transaction of [...this.#open]) transaction.abort();
  }

  opened(transaction: Transaction): void {
    this.#open.add(transaction);
  }

  /** Waits for a lock in order of arrival. Rejects and aborts the transaction after the time limit. */
  lock(transaction: Transaction, key: string, mode: LockMode): Promise<void> {
    const lock = this.#lockOf(key);
    const held = lock.holders.get(transaction);
    if (held === 'exclusive' || held === mode) return DONE;
    if (lock.waiters.length === 0 && isFree(lock, transaction, mode)) {
      lock.holders.set(transaction, mode);
      return DONE;
    }
    return this.#wait(lock, transaction, mode);
  }

  /** Takes an exclusive lock if no other transaction holds the key or waits for it. */
  tryLock(transaction: Transaction, key: string): boolean {
    // A transaction that is idle for too long has lost its lock. Nobody waits for this one, so nobody has ended it.
    for (const holder of [...this.#lockOf(key).holders.keys()]) {
      if (holder !== transaction) holder.abortIfSilent();
    }
    const lock = this.#lockOf(key);
    if (lock.waiters.length > 0 || !isFree(lock, transaction, 'exclusive')) return false;
    lock.holders.set(transaction, 'exclusive');
    return true;
  }

  release(transaction: Transaction): void {
    this.#open.delete(transaction);
    for (const [key, lock] of this.#locks) {
      const at = lock.waiters.findIndex((waiter) => waiter.transaction === transaction);
      if (at >= 0) lock.waiters.splice(at, 1);
      if (!lock.holders.delete(transaction) && at < 0) continue;
      this.#grant(lock);
      if (lock.holders.size === 0 && lock.waiters.length === 0) this.#locks.delete(key);
    }
  }

  #lockOf(key: string): Lock {
    let lock = this.#locks.get(key);
    if (lock === undefined) {
      lock = { holders: new Map(), waiters: [] };
      this.#locks.set(key, lock);
    }
    return lock;
  }

  #wait(lock: Lock, transaction: Transaction, mode: LockMode): Promise<void> {
    return new Promise((resolve, reject) => {
      const stop = this.#scheduler.after(LOCK_MS_MAX, () => {
        transaction.abort();
        reject(unavailable('a lock was not to be had in time'));
      });
      // A transaction that is idle for too long loses its lock.
      for (const holder of lock.holders.keys()) {
        if (holder !== transaction)
          this.#scheduler.at(holder.silentSinceMs + LOCK_MS_MAX, () => holder.abortIfSilent());
      }
      const grant = (): void => {
        stop();
        resolve();
      };
      lock.waiters.push({ transaction, mode, grant });
    });
  }

  #grant(lock: Lock): void {
    for (;;) {
      const [first] = lock.waiters;
      if (first === undefined || !isFree(lock, first.transaction, first.mode)) return;
      lock.waiters.shift();
      lock.holders.set(first.transaction, first.mode);
      first.grant();
    }
  }
}

const DONE = Promise.resolve();

function isFree(lock: Lock, transaction: Transaction, mode: LockMode): boolean {
  for (const [holder, held] of lock.holders) {
    if (holder !== transaction && (mode === 'exclusive' || held === 'exclusive')) return false;
  }
  return true;
}

/** A transaction at one node, read committed. */
export class Transaction {
  readonly node: Node;
  silentSinceMs: number;
  readonly #cluster: Cluster;
  readonly #scheduler: Scheduler;
  readonly #client: Process;
  readonly #writes = new Map<string, { table: string; key: string; row: object | undefined }>();
  readonly #onDurable: (() => void)[] = [];
  readonly #onEnd: (() => void)[] = [];
  #state: 'open' | 'committing' | 'ended' = 'open';
  #busy = false;
  #last: Promise<unknown> = Promise.resolve();

  constructor(cluster: Cluster, scheduler: Scheduler, client: Process, node: Node) {
    this.#cluster = cluster;
    this.#scheduler = scheduler;
    this.#client = client;
    this.node = node;
    this.silentSinceMs = scheduler.nowMs;
    node.opened(this);
  }

  /** Sends a statement, which may wait for locks, and waits for its result. Statements run in order, as on a connection. */
  statement<T>(work: () => T | Promise<T>): Promise<T> {
    const result = this.#last.then(() => this.#run(work));
    this.#last = result.catch(() => undefined);
    return result;
  }

  #run<T>(work: () => T | Promise<T>): Promise<T> {
    return this.#cluster.network.call(this.#client, this.node.process, async () => {
      this.#begin('open');
      try {
        const result = await work();
        if (this.#state !== 'open') throw connectionLost();
        return result;
      } catch (error) {
        this.abort();
        throw error;
      } finally {
        this.#busy = false;
        this.silentSinceMs = this.#scheduler.nowMs;
      }
    });
  }

  lock(key: string, mode: LockMode): Promise<void> {
    return this.node.lock(this, key, mode);
  }

  /** Takes an exclusive lock if it is free; never waits. */
  tryLock(key: string): boolean {
    return this.node.tryLock(this, key);
  }

  get(table: string, key: string): object | undefined {
    const written = this.#writes.get(`${table} ${key}`);
    return written === undefined ? this.node.tables.get(table, key) : written.row;
  }

  /** The rows of a table, including uncommitted ones of this transaction. */
  all(table: string): ReadonlyMap<string, object> {
    const committed = this.node.tables.all(table);
    if (this.#writes.size === 0) return committed;
    const rows = new Map(committed);
    for (const write of this.#writes.values()) {
      if (write.table !== table) continue;
      if (write.row === undefined) rows.delete(write.key);
      else rows.set(write.key, write.row);
    }
    return rows;
  }

  put(table: string, key: string, row: object | undefined): void {
    this.#writes.set(`${table} ${key}`, { table, key, row });
  }

  /** Called when the writes are durable, in commit order; only the oracle learns it then. */
  onDurable(tell: () => void): void {
    this.#onDurable.push(tell);
  }

  /** Called when the transaction ends, committed or not, before its locks are free. */
  onEnd(tell: () => void): void {
    this.#onEnd.push(tell);
  }

  /**
   * Commits. The writes are durable once the standby has them, and visible and acknowledged after that. On a deposed
   * primary no standby answers: the commit neither fails nor succeeds until the client's time limit.
   */
  commit(): Promise<void> {
    return this.#cluster.network.call(this.#client, this.node.process, async () => {
      this.#begin('committing');
      await this.#cluster.replicate(this.node, () => {
        for (const { table, key, row } of this.#writes.values()) this.#cluster.standby.put(table, key, row);
        for (const tell of this.#onDurable) tell();
      });
      for (const { table, key, row } of this.#writes.values()) this.node.tables.put(table, key, row);
      this.#end();
    });
  }

  /** Ends the transaction from the client's side, without waiting. */
  rollback(): void {
    if (this.#client.isDead) return;
    this.#cluster.network
      .link(this.#client.name, this.node.process.name)
      .send(this.node.process, () => this.abort());
  }

  abort(): void {
    if (this.#state === 'open') this.#end();
  }

  abortIfSilent(): void {
    if (!this.#busy && this.#scheduler.nowMs - this.silentSinceMs >= LOCK_MS_MAX) this.abort();
  }

  #begin(next: 'open' | 'committing'): void {
    if (this.#scheduler.nowMs - this.silentSinceMs >= LOCK_MS_MAX) this.abort();
    if (this.#state !== 'open') throw connectionLost();
    this.#state = next;
    this.#busy = true;
  }

  #end(): void {
    this.#state = 'ended';
    for (const tell of this.#onEnd) tell();
    this.node.release(this);
  }
}

/** The primary, its standby, and former primaries that do not know that they were deposed. */
export class Cluster {
  readonly network: Network;
  /** The standby's rows: all acknowledged writes, and possibly more. */
  standby: Tables;
  primary: Node;
  /** How long a commit waits for the standby, in milliseconds. */
  replicationMs = 0.5;
  readonly #scheduler: Scheduler;
  readonly #random: Random;
  readonly #nodes: Node[];

  constructor(scheduler: Scheduler, network: Network, random: Random, wallMs: number) {
    this.#scheduler = scheduler;
    this.network = network;
    this.#random = random;
    this.standby = new Tables();
    this.primary = this.#start(new Tables(), wallMs);
    this.#nodes = [this.primary];
  }

  /** Runs work in a transaction at the node that the client considers the primary, and commits it. */
  async transaction<T>(
    client: Process,
    node: Node,
    work: (transaction: Transaction) => Promise<T>,
  ): Promise<T> {
    const transaction = new Transaction(this, this.#scheduler, client, node);
    let result: T;
    try {
      result = await work(transaction);
    } catch (error) {
      transaction.rollback();
      throw error;
    }
    await transaction.commit();
    return result;
  }

  /** Runs read-only work in a transaction, without a commit. */
  async uncommitted<T>(
    client: Process,
    node: Node,
    work: (transaction: Transaction) => Promise<T>,
  ): Promise<T> {
    const transaction = new Transaction(this, this.#scheduler, client, node);
    try {
      return await work(transaction);
    } finally {
      transaction.rollback();
    }
  }

  /** Waits until the standby has what `apply` writes; for ever when the node is no longer the primary. */
  replicate(node: Node, apply: () => void): Promise<void> {
    const halfMs = (this.replicationMs * (0.5 + this.#random.next())) / 2;
    return new Promise((resolve, reject) => {
      const unlessDeposed = (proceed: () => void): void => {
        if (node === this.primary) proceed();
        else this.#scheduler.after(COMMIT_PATIENCE_MS, () => reject(connectionLost()));
      };
      this.#scheduler.after(halfMs, () =>
        unlessDeposed(() => {
          apply();
          this.#scheduler.after(halfMs, () => unlessDeposed(resolve));
        }),
      );
    });
  }

  /** Promotes the standby. The old primary still answers clients that use it. */
  failOver(): void {
    const old = this.primary;
    this.primary = this.#start(this.standby.copy(), old.process.clock.wallMs());
    this.#nodes.push(this.primary);
  }

  /** Restores an older state; all transactions are aborted. */
  restore(tables: Tables): void {
    const old = this.primary;
    this.standby = tables.copy();
    this.primary = this.#start(tables.copy(), old.process.clock.wallMs());
    this.#nodes.push(this.primary);
    old.process.kill();
    old.abortAll();
  }

  /** Sets the clocks of all nodes. */
  stepClocks(ms: number): void {
    for (const { process } of this.#nodes) process.clock.step(ms);
  }

  #start(tables: Tables, wallMs: number): Node {
    const clock = new MachineClock(this.#scheduler, { rate: 1, wallMs, monotonicMs: 0 });
    return new Node(this.#scheduler, new Process(this.#scheduler, 'database', clock), tables);
  }
}

/** The error of a client when the database is unavailable. */
function unavailable(message: string): ServiceError {
  return new AuthError('DEPENDENCY_UNAVAILABLE', message);
}
