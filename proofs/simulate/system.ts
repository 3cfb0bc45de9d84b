/** The system of one run: the database, the broker, replicas of auth, instances, and the operator. */

import { keyRow, nextTokenKeyIn, seedTables, userRow } from './auth-rows.js';
import { Broker } from './broker.js';
import { Cluster, type Node, type Tables } from './database.js';
import type { Reachable } from './instance.js';
import { Instance } from './instance.js';
import { Money } from './money.js';
import { type AuthService, startReplica } from './replica.js';
import { MachineClock, Process } from './time.js';
import { START_MS, type World } from './world.js';

/** Interval of the operator's retries, in milliseconds. */
const OPERATOR_RETRY_MS = 2000;

/** A replica of auth across process restarts. */
export class Replica implements Reachable {
  process: Process;
  service: AuthService;
  /** The database server that it considers the primary. */
  node: Node;
  readonly #system: System;

  constructor(system: System, name: string) {
    this.#system = system;
    this.node = system.cluster.primary;
    const { scheduler } = system.world;
    // The bound allows a difference of one percent between two clocks; here the instances' clocks differ.
    const clock = new MachineClock(scheduler, { rate: 1, wallMs: START_MS, monotonicMs: 0 });
    this.process = new Process(scheduler, name, clock);
    this.service = this.#start();
  }

  crash(): void {
    this.process.kill();
  }

  /** Replaces a crashed process by a new one. */
  restart(): void {
    const { name, clock } = this.process;
    this.process = new Process(this.#system.world.scheduler, name, clock);
    this.node = this.#system.cluster.primary;
    this.service = this.#start();
  }

  #start(): AuthService {
    const { world, cluster, broker } = this.#system;
    return startReplica({
      world,
      cluster,
      broker,
      process: this.process,
      node: () => this.node,
      onLogChanged: () => this.#system.logChanged(),
    });
  }
}

/** A machine of an instance, across process restarts. */
export class Host {
  instance: Instance;
  /**
   * Whether the machine sleeps sometimes, or has its wall clock set at any time. On a machine that sleeps the wall clock is
   * set back only within the promise: the clocks are read in between.
   */
  readonly sleeps: boolean;
  /** Whether the clocks have been read since the machine last slept, or since its wall clock was last set back. */
  #isRead = true;
  #sleeping = false;
  readonly #system: System;
  readonly #name: string;
  readonly #clock: MachineClock;
  readonly #offsetMs: number;

  constructor(system: System, name: string) {
    const { scheduler, random } = system.world;
    this.#system = system;
    this.#name = name;
    this.#offsetMs = random.real(-1500, 1500);
    this.sleeps = random.chance(0.4);
    this.#clock = new MachineClock(scheduler, {
      rate: random.chance(0.3) ? 0.99 : random.real(0.99, 1.01),
      wallMs: START_MS + this.#offsetMs,
      monotonicMs: random.real(0, 1e6),
    });
    this.instance = this.#start();
  }

  get clock(): MachineClock {
    return this.#clock;
  }

  restart(): void {
    this.instance.process.kill();
    this.instance = this.#start();
    this.#read();
  }

  /** Whether it may be put to sleep now, or have its wall clock set back, within the promise. */
  get isSettled(): boolean {
    return this.#isRead && !this.#sleeping;
  }

  setBack(ms: number): void {
    this.#clock.step(-ms);
    this.#read();
  }

  /** @returns a function that wakes it up */
  sleep(): () => void {
    const resume = this.instance.process.pause();
    this.#sleeping = true;
    this.#clock.sleep(true);
    let isOver = false;
    return () => {
      if (isOver) return;
      isOver = true;
      this.#clock.sleep(false);
      this.#sleeping = false;
      resume();
      this.#read();
    };
  }

  /** Reads the clocks as soon as the process runs. */
  #read(): void {
    this.#isRead = false;
    const { instance } = this;
    instance.process.run(() => {
      this.#isRead = instance === this.instance && instance.readClocks();
    });
  }

  /** Corrects the clock, as a time service does. Not on a machine that may just have slept: that would combine both. */
  correctClock(): void {
    if (this.sleeps) return;
    this.#clock.step(START_MS + this.#system.world.scheduler.nowMs - this.#clock.wallMs());
  }

  #start(): Instance {
    const { world, broker } = this.#system;
    const process = new Process(world.scheduler, this.#name, this.#clock);
    return new Instance({
      world,
      process,
      broker,
      money: this.#system.money,
      replicas: () => this.#system.replicas,
      verifyMs: () => world.random.exponential(this.#system.verifyMs),
      onEntry: ({ entryId }) => this.#system.entryArrived(process.name, entryId.toString('hex')),
    });
  }
}

/** The system, as used by faults and callers. */
export class System {
  readonly world: World;
  readonly cluster: Cluster;
  readonly broker: Broker;
  /** The database of the service; undefined without fences. */
  readonly money: Money | undefined;
  readonly replicas: readonly Replica[];
  readonly hosts: readonly Host[];
  readonly userIds: readonly string[];
  /** Approximate duration of a signature verification, in milliseconds. */
  verifyMs = 0.3;
  #databaseStepMs = 0;
  #saved: { readonly tables: Tables; readonly atMs: number } | undefined;
  #epochs = 0;
  /** The epochs that are being opened. */
  readonly #opening = new Set<string>();
  #epochDue = false;

  constructor(world: World) {
    const { scheduler, network, random, settings } = world;
    this.world = world;
    this.cluster = new Cluster(scheduler, network, random, START_MS);
    this.broker = new Broker(scheduler, network);
    this.money = settings.fences ? new Money(world) : undefined;
    this.userIds = [random.uuid(), random.uuid(), random.uuid()];
    seedTables(world, this.cluster, {
      users: this.userIds.map((userId, index) => userRow(userId, `user-${index + 1}`)),
      keys: (['token', 'broadcast'] as const).flatMap((purpose) => [
        keyRow(`key-${purpose}-1`, purpose, 'signing'),
        keyRow(`key-${purpose}-2`, purpose, 'next'),
      ]),
    });
    const replicas = Array.from(
      { length: settings.replicas },
      (_, index) => new Replica(this, `auth-${index + 1}`),
    );
    this.replicas = replicas;
    this.hosts = Array.from(
      { length: settings.instances },
      (_, index) => new Host(this, `inventory-${index + 1}`),
    );
  }

  /** A running replica, if there is one. */
  anyReplica(): Replica | undefined {
    const running = this.replicas.filter(({ process }) => process.isRunning);
    return running.length === 0 ? undefined : this.world.random.pick(running);
  }

  stepDatabaseClock(ms: number): void {
    this.#databaseStepMs += ms;
    this.cluster.stepClocks(ms);
  }

  get databaseStepMs(): number {
    return this.#databaseStepMs;
  }

  /** The next token key. */
  nextTokenKey(): string | undefined {
    return nextTokenKeyIn(this.cluster.primary.tables);
  }

  /** Copies the database's current state as a backup. */
  save(): void {
    this.#saved = { tables: this.cluster.standby.copy(), atMs: this.world.scheduler.nowMs };
  }

  /** Restores the database from the backup. @returns whether there was one */
  restore(): boolean {
    const saved = this.#saved;
    if (saved === undefined) return false;
    const { scheduler, oracle } = this.world;
    this.cluster.restore(saved.tables);
    oracle.restored(saved.atMs);
    this.world.tell('database', () => `is as it was at ${Math.round(saved.atMs)} ms`);
    for (const replica of this.replicas) {
      scheduler.after(this.world.random.real(0, 300), () => {
        replica.node = this.cluster.primary;
      });
    }
    this.#epochDue = true;
    return true;
  }

  failOver(slowestMs: number): void {
    this.cluster.failOver();
    this.world.tell('database', () => 'the standby is promoted');
    for (const replica of this.replicas) {
      this.world.scheduler.after(this.world.random.next() * slowestMs, () => {
        replica.node = this.cluster.primary;
      });
    }
  }

  /** After a restore an epoch must be opened eventually. */
  openEpochIfDue(): void {
    if (!this.#epochDue) return;
    this.#epochDue = false;
    this.openEpoch();
  }

  /** Operators may open an epoch at any time. */
  openEpoch(): void {
    this.#epochs += 1;
    const reason = `epoch-${this.#epochs}`;
    this.#opening.add(reason);
    this.#openEpoch(reason);
  }

  /** An instance received LOG_CHANGED. */
  logChanged(): void {
    const { oracle, violations, scheduler } = this.world;
    if (oracle.restoredAtMs === undefined) {
      violations.push({
        oracle: 'liveness',
        atMs: scheduler.nowMs,
        what: 'an instance received LOG_CHANGED, but nothing was lost',
      });
      return;
    }
    // An alarm after an epoch was opened comes from an instance that first synced after the restore: then another epoch is due.
    const isExpected =
      this.#epochDue || this.#opening.size > 0 || oracle.epochOpenedAtMs <= oracle.restoredAtMs;
    if (isExpected || scheduler.nowMs < oracle.epochOpenedAtMs + OPERATOR_RETRY_MS) return;
    this.#epochDue = true;
    scheduler.after(OPERATOR_RETRY_MS, () => this.openEpochIfDue());
  }

  entryArrived(host: string, entryId: string): void {
    this.onEntryArrived(host, entryId);
  }

  /** Set by the measurement. */
  onEntryArrived: (host: string, entryId: string) => void = () => {};

  #openEpoch(reason: string): void {
    const { scheduler, oracle } = this.world;
    let isOpen = false;
    // A retry does no harm, whatever the outcome of the request.
    scheduler.after(OPERATOR_RETRY_MS, () => {
      if (!isOpen) this.#openEpoch(reason);
    });
    const replica = this.anyReplica();
    replica?.process.run(() => {
      replica.service.epochs.open({ reason, actor: 'operator', requestId: reason }).then(
        () => {
          isOpen = true;
          this.#opening.delete(reason);
          oracle.confirmed(reason);
          this.world.tell('operator', () => `${reason} is open`);
        },
        () => undefined,
      );
    });
  }
}
