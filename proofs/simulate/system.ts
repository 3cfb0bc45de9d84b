/** The whole system of one run: the database, the broker, replicas of auth, instances, and the operator who minds them. */

import { keyRow, nextTokenKeyIn, seedTables, userRow } from './auth-rows.js';
import { Broker } from './broker.js';
import { Cluster, type Node, type Tables } from './database.js';
import type { Reachable } from './instance.js';
import { Instance } from './instance.js';
import { type AuthService, startReplica } from './replica.js';
import { MachineClock, Process } from './time.js';
import { START_MS, type World } from './world.js';

/** How often the operator tries again, in milliseconds. */
const OPERATOR_RETRY_MS = 2000;

/** A replica of auth, through all its processes. */
export class Replica implements Reachable {
  process: Process;
  service: AuthService;
  /** The server of the database that it takes for the primary. */
  node: Node;
  readonly #system: System;

  constructor(system: System, name: string) {
    this.#system = system;
    this.node = system.cluster.primary;
    const { scheduler } = system.world;
    // The bound allows for one clock that differs from another by one percent; the instances' clocks do that here.
    const clock = new MachineClock(scheduler, { rate: 1, wallMs: START_MS, monotonicMs: 0 });
    this.process = new Process(scheduler, name, clock);
    this.service = this.#start();
  }

  crash(): void {
    this.process.kill();
  }

  /** A new process in the place of the one that crashed. */
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

/** A machine on which an instance runs, through all its processes. */
export class Host {
  instance: Instance;
  /**
   * Whether the machine sleeps now and then, or has its wall clock set at any time. One that sleeps has it set back only in a
   * way for which something is promised: its clocks are read in between.
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

  /** Whether it may be put to sleep now, or have its wall clock set back, so that something is still promised. */
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

  /** What a time service does in the end. Not on a machine that may have slept until now: that would be both at once. */
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
      replicas: () => this.#system.replicas,
      verifyMs: () => world.random.exponential(this.#system.verifyMs),
      onEntry: ({ entryId }) => this.#system.entryArrived(process.name, entryId.toString('hex')),
    });
  }
}

/** The system, as faults and callers reach it. */
export class System {
  readonly world: World;
  readonly cluster: Cluster;
  readonly broker: Broker;
  readonly replicas: readonly Replica[];
  readonly hosts: readonly Host[];
  readonly userIds: readonly string[];
  /** How long a signature takes to be verified, in milliseconds, about. */
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

  /** A replica that runs, if there is one. */
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

  /** The key that is to sign tokens next. */
  nextTokenKey(): string | undefined {
    return nextTokenKeyIn(this.cluster.primary.tables);
  }

  /** Keeps the database's present state, as a backup does. */
  save(): void {
    this.#saved = { tables: this.cluster.standby.copy(), atMs: this.world.scheduler.nowMs };
  }

  /** Puts the database back to what was saved. @returns whether anything was */
  restore(): boolean {
    const saved = this.#saved;
    if (saved === undefined) return false;
    const { scheduler, truth } = this.world;
    this.cluster.restore(saved.tables);
    truth.restored(saved.atMs);
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

  /** After a restore an epoch must be opened, sooner or later. */
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

  /** An instance was told that the log is not the one that it has followed. */
  logChanged(): void {
    const { truth, violations, scheduler } = this.world;
    if (truth.restoredAtMs === undefined) {
      violations.push({
        oracle: 'liveness',
        atMs: scheduler.nowMs,
        what: 'an instance was told LOG_CHANGED, and nothing was lost',
      });
      return;
    }
    // After an epoch was opened an alarm is of an instance that nobody had heard of since the restore: then another one is due.
    const isExpected =
      this.#epochDue || this.#opening.size > 0 || truth.epochOpenedAtMs <= truth.restoredAtMs;
    if (isExpected || scheduler.nowMs < truth.epochOpenedAtMs + OPERATOR_RETRY_MS) return;
    this.#epochDue = true;
    scheduler.after(OPERATOR_RETRY_MS, () => this.openEpochIfDue());
  }

  entryArrived(host: string, entryId: string): void {
    this.onEntryArrived(host, entryId);
  }

  /** Set by whoever measures. */
  onEntryArrived: (host: string, entryId: string) => void = () => {};

  #openEpoch(reason: string): void {
    const { scheduler, truth } = this.world;
    let isOpen = false;
    // Whatever became of the request, a repetition does no harm.
    scheduler.after(OPERATOR_RETRY_MS, () => {
      if (!isOpen) this.#openEpoch(reason);
    });
    const replica = this.anyReplica();
    replica?.process.run(() => {
      replica.service.epochs.open({ reason, actor: 'operator', requestId: reason }).then(
        () => {
          isOpen = true;
          this.#opening.delete(reason);
          truth.confirmed(reason);
          this.world.tell('operator', () => `${reason} is open`);
        },
        () => undefined,
      );
    });
  }
}
