/** The faults: each run has a random choice of them, and each occurs several times. */

import { Broadcast } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { entryMessageOf } from '../../services/auth/adapters/revocation-messages.js';
import { BROADCAST_TYPE } from '../../services/auth/keys/keys.js';
import { sessionRevocation, tokenRevocation, userRevocation } from '../../services/auth/revocation/log.js';
import type { Random } from '../shared/random.js';
import type { Link } from './network.js';
import type { RecordedToken } from './oracle.js';
import type { Host, System } from './system.js';
import type { World } from './world.js';

/** Begins a fault and returns the function that ends it; undefined when it cannot begin now. */
type Fault = (faults: Faults) => (() => void) | undefined;

const FAULTS: { readonly [name: string]: Fault } = {
  loss: ({ links, random }) => {
    const struck = links();
    for (const { weather } of struck) weather.lossProbability = random.real(0.2, 1);
    return () => {
      for (const { weather } of struck) weather.lossProbability = 0;
    };
  },
  slowness: ({ links, random, leaseMs }) => {
    const struck = links();
    for (const { weather } of struck) {
      weather.slowProbability = random.real(0.3, 1);
      weather.slowMs = random.real(20, 1.1 * leaseMs);
    }
    return () => {
      for (const { weather } of struck) weather.slowProbability = 0;
    };
  },
  'lost-broadcasts': ({ system, random }) => {
    const struck = system.hosts
      .filter(() => random.chance(0.7))
      .map(({ instance }) => system.world.network.link('broker', instance.process.name));
    const lossProbability = random.real(0.3, 1);
    for (const { weather } of struck) weather.lossProbability = lossProbability;
    return () => {
      for (const { weather } of struck) weather.lossProbability = 0;
    };
  },
  repetition: ({ system, random }) => {
    const struck = system.hosts.map(({ instance }) =>
      system.world.network.link('broker', instance.process.name),
    );
    for (const { weather } of struck) {
      weather.repeatProbability = random.real(0.2, 1);
      weather.slowProbability = 0.7;
      weather.slowMs = random.real(10, 1000);
    }
    return () => {
      for (const { weather } of struck) {
        weather.repeatProbability = 0;
        weather.slowProbability = 0;
      }
    };
  },
  partition: ({ links, block }) => block(links()),
  isolation: ({ system, host, block }) => block(waysOf(system, host().instance.process.name, 'both')),
  'slow-answers-then-isolation': ({ system, host, random, leaseMs, block, later, provoke }) => {
    const struck = host().instance.process;
    const ways = system.replicas.map(({ process }) => system.world.network.link(process.name, struck.name));
    for (const { weather } of ways) {
      weather.slowProbability = 1;
      weather.slowMs = leaseMs * random.real(0.3, 1.1);
    }
    let open: (() => void) | undefined = () => {};
    const atMs = random.next() * leaseMs;
    later(atMs - random.next() * 300, provoke);
    // Messages in flight still arrive; later ones do not.
    later(atMs, () => {
      if (open !== undefined) open = block(waysOf(system, struck.name, 'both'), 'lose');
    });
    return () => {
      for (const { weather } of ways) weather.slowProbability = 0;
      open?.();
      open = undefined;
    };
  },
  'slow-database-then-isolation': ({ system, host, random, leaseMs, block, later, provoke }) => {
    const { network } = system.world;
    const struck = host().instance;
    const way = network.link('database', struck.connectedTo.process.name);
    way.weather.slowProbability = 1;
    way.weather.slowMs = Math.min(1800, leaseMs * random.real(0.1, 0.6));
    let open: (() => void) | undefined = () => {};
    const atMs = random.next() * leaseMs;
    later(atMs, provoke);
    const fromBroker = network.link('broker', struck.process.name);
    fromBroker.weather.blocked = 'lose';
    // Earlier requests still get their response.
    later(atMs + random.real(100, 900), () => {
      if (open !== undefined) open = block(waysOf(system, struck.process.name, 'there'), 'lose');
    });
    return () => {
      way.weather.slowProbability = 0;
      fromBroker.open();
      open?.();
      open = undefined;
    };
  },
  'silent-broker': ({ system }) => system.broker.fallSilent(),
  'wiped-broker': ({ system }) => system.broker.wipe(),
  replay: ({ system, random, later }) => {
    const { broker } = system;
    if (broker.history.length === 0) return undefined;
    for (let count = random.integer(1, 4); count > 0; count -= 1) {
      later(random.next() * 500, () => broker.forward(random.pick(broker.history)));
    }
    return () => {};
  },
  forgery: ({ system, random }) => {
    const forged = forgedBroadcast(system);
    if (forged === undefined) return undefined;
    for (let count = random.integer(1, 3); count > 0; count -= 1) system.broker.forward(forged);
    return () => {};
  },
  'auth-crash': ({ system, random }) => {
    const replica = random.pick(system.replicas);
    if (replica.process.isDead) return undefined;
    replica.crash();
    return () => {
      if (replica.process.isDead) replica.restart();
    };
  },
  'auth-pause': ({ system, random }) => random.pick(system.replicas).process.pause(),
  'instance-restart': ({ host }) => {
    host().restart();
    return () => {};
  },
  'restart-with-slow-pull': ({ system, host, random, leaseMs }) => {
    const struck = host();
    const { name } = struck.instance.process;
    const ways = system.replicas.map(({ process }) => system.world.network.link(process.name, name));
    for (const { weather } of ways) {
      weather.slowProbability = 1;
      weather.slowMs = random.real(50, leaseMs / 2);
    }
    struck.restart();
    return () => {
      for (const { weather } of ways) weather.slowProbability = 0;
    };
  },
  'instance-pause': ({ host }) => host().instance.process.pause(),
  'machine-sleep': ({ system, random }) => {
    const sleeper = system.hosts.find(({ sleeps, isSettled }) => sleeps && isSettled && random.chance(0.7));
    return sleeper?.sleep();
  },
  'set-back-then-sleep': ({ system, random, leaseMs, block, later, callers }) => {
    const struck = system.hosts.find(({ sleeps, isSettled }) => sleeps && isSettled && random.chance(0.7));
    if (struck === undefined) return undefined;
    const { name } = struck.instance.process;
    const open = random.chance(0.7) ? block(waysOf(system, name, 'both'), 'lose') : () => {};
    later(random.next() * 100, () => callers.revokeSomething());
    let wake = (): void => {};
    let isOver = false;
    const ageMs = leaseMs * random.real(0.3, 0.9);
    const backMs = ageMs * random.real(0.4, 1);
    later(ageMs, () => {
      if (isOver || !struck.isSettled) return;
      struck.setBack(backMs);
      later((random.next() * leaseMs) / 5, () => {
        if (isOver || !struck.isSettled) return;
        wake = struck.sleep();
        // It wakes up when its wall clock shows about the same time as before.
        later(backMs * random.real(0.7, 1.3), () => {
          wake();
          for (let call = 0; call < 4; call += 1) {
            later((call * leaseMs) / 20, () => callers.presentSuspects(struck));
          }
        });
      });
    });
    return () => {
      isOver = true;
      wake();
      open();
    };
  },
  'wall-clock-step': ({ system, random }) => {
    const struck = system.hosts.find(({ sleeps }) => !sleeps && random.chance(0.7));
    if (struck === undefined) return undefined;
    const stepMs = random.pick([-600_000, -60_000, -9000, -2000, -300, 300, 2000, 9000, 60_000, 600_000]);
    struck.clock.step(stepMs);
    return () => struck.clock.step(-stepMs);
  },
  'clock-rate': ({ host, random }) => {
    const { clock } = host();
    clock.changeRate(random.pick([0.99, 1.01, random.real(0.99, 1.01)]));
    return () => {};
  },
  'database-clock-step': ({ system, random }) => {
    const toMs = random.real(-DATABASE_STEP_MS / 2, DATABASE_STEP_MS / 2);
    system.stepDatabaseClock(toMs - system.databaseStepMs);
    return () => {};
  },
  'slow-replication': ({ system, random }) => {
    system.cluster.replicationMs = random.real(5, 900);
    return () => {
      system.cluster.replicationMs = 0.5;
    };
  },
  failover: ({ system, random, leaseMs }) => {
    system.failOver(random.real(0, 4 * leaseMs));
    return () => {};
  },
  'failover-unheard': ({ system, random, leaseMs, later, provoke }) => {
    system.failOver(random.real(2 * leaseMs, 5 * leaseMs));
    for (let count = 0; count < 2; count += 1) later(random.next() * leaseMs, provoke);
    return system.broker.fallSilent();
  },
  restore: ({ system, random, leaseMs, later }) => {
    if (!system.restore()) return undefined;
    // The operator acts after a delay.
    later(random.next() * 8 * leaseMs, () => system.openEpochIfDue());
    return () => {};
  },
  'restore-unheard': ({ system, random, leaseMs, later, provoke }) => {
    if (!system.restore()) return undefined;
    for (let count = 0; count < 4; count += 1) later(random.next() * leaseMs, provoke);
    later((2 + random.next() * 8) * leaseMs, () => system.openEpochIfDue());
    return system.broker.fallSilent();
  },
  'restore-and-replay': ({ system, random, leaseMs, later }) => {
    if (!system.restore()) return undefined;
    const { broker } = system;
    const old = broker.history.slice(-12);
    system.verifyMs = 100;
    later(random.next() * leaseMs, () => {
      system.openEpochIfDue();
      // The token is being verified while the new epoch arrives.
      for (let count = 0; count < 40 && old.length > 0; count += 1) {
        later(random.next() * (leaseMs / 5 + 200), () => broker.forward(random.pick(old)));
      }
    });
    return () => {
      system.verifyMs = 0.3;
    };
  },
  'restore-before-epoch': ({ system, random, leaseMs, later }) => {
    system.save();
    system.openEpoch();
    later(random.real(0.2, 2) * leaseMs, () => {
      if (system.restore()) later(random.next() * 8 * leaseMs, () => system.openEpochIfDue());
    });
    return () => {};
  },
  'epoch-amid-questions': ({ system, host, random, leaseMs, later, callers }) => {
    const struck = host();
    const { network } = system.world;
    const { name } = struck.instance.process;
    // Requests and responses overtake each other.
    const ways = system.replicas.flatMap(({ process }) => [
      network.link(process.name, name),
      network.link(name, process.name),
    ]);
    for (const { weather } of ways) {
      weather.slowProbability = 0.7;
      weather.slowMs = leaseMs * random.real(0.1, 0.7);
    }
    const atMs = random.next() * leaseMs;
    later(atMs, () => callers.revokeNextKey());
    later(atMs + random.next() * 0.3 * leaseMs, () => system.openEpoch());
    for (let call = 0; call < 12; call += 1) {
      later(atMs + ((call + random.next()) * leaseMs) / 8, () => callers.presentSuspects(struck));
    }
    return () => {
      for (const { weather } of ways) weather.slowProbability = 0;
    };
  },
  'lease-change': ({ system, random }) => {
    const replica = system.anyReplica();
    const { leaseMs } = system.world.settings;
    replica?.process.run(() => {
      replica.service.setLeaseMs(Math.round(leaseMs * random.real(0.5, 1.6))).catch(() => undefined);
    });
    return () => {};
  },
  'lifetime-change': ({ system, random }) => {
    const { accessTokenSecondsMax } = system.world.settings;
    setLifetime(system, Math.ceil(accessTokenSecondsMax * random.real(0.1, 1)));
    return () => {};
  },
  'long-lifetime-then-restart': ({ system, host, random, later, callers }) => {
    const { scheduler, settings } = system.world;
    const { accessTokenSeconds, accessTokenSecondsMax, keepMarginSeconds, activeMs } = settings;
    const struck = host();
    // A replica may be configured with the long lifetime and not have written it.
    const isWritten = random.chance(0.5);
    const loweredMs = random.real(300, 1500);
    const revokedMs = loweredMs + random.real(100, 1500);
    // By then an entry would have been dropped that is kept for the short lifetime alone.
    const droppedMs = revokedMs + (keepMarginSeconds + (isWritten ? 4 : accessTokenSeconds + 3)) * 1000;
    if (scheduler.nowMs + droppedMs + 3000 > activeMs) return undefined;
    const suspects: RecordedToken[] = [];
    const mint = (): void => callers.freshToken((token) => suspects.push(token));
    if (isWritten) setLifetime(system, accessTokenSecondsMax);
    else for (const { service } of system.replicas) service.configureTokenSeconds(accessTokenSecondsMax);
    later(random.next() * loweredMs, mint);
    if (isWritten) later(loweredMs, () => setLifetime(system, 1));
    later(loweredMs + random.next() * (revokedMs - loweredMs), mint);
    later(revokedMs, () => {
      for (const token of suspects) callers.revokeToken(token);
    });
    later(droppedMs, () => {
      struck.restart();
      for (let call = 1; call < 8; call += 1) {
        later(call * 400, () => callers.present(suspects, struck));
      }
    });
    return () => {};
  },
  'slow-verification': ({ system, random }) => {
    system.verifyMs = random.real(5, 300);
    return () => {
      system.verifyMs = 0.3;
    };
  },
};

/** Sets the lifetime of tokens at one replica, which the others do not learn. */
function setLifetime(system: System, seconds: number): void {
  const replica = system.anyReplica();
  replica?.process.run(() => void replica.service.setTokenSeconds(seconds).catch(() => undefined));
}

/** The largest difference between two readings of the database's clock that time does not explain, in milliseconds. */
export const DATABASE_STEP_MS = 4000;

/** Approximate number of kinds of faults in a run. */
const FAULT_SHARE = 0.3;

/** Actions that faults trigger: a fault without traffic proves little. */
export interface Callers {
  revokeSomething(): void;
  revokeNextKey(): void;
  presentSuspects(host: Host): void;
  freshToken(then: (token: RecordedToken) => void): void;
  revokeToken(token: RecordedToken): void;
  present(tokens: readonly RecordedToken[], host: Host): void;
}

/** The faults of one run. */
export class Faults {
  readonly system: System;
  readonly leaseMs: number;
  readonly callers: Callers;
  readonly #world: World;
  readonly #enabled: readonly string[];
  readonly #active = new Set<() => void>();

  constructor(system: System, callers: Callers) {
    this.system = system;
    this.callers = callers;
    this.#world = system.world;
    this.leaseMs = this.#world.settings.leaseMs;
    this.#enabled = Object.keys(FAULTS).filter(() => this.random.chance(FAULT_SHARE));
  }

  /** Triggers a revocation now. */
  readonly provoke = (): void => this.callers.revokeSomething();

  get random(): Random {
    return this.#world.random;
  }

  /** Schedules the faults of a run. */
  start(): void {
    const { activeMs } = this.#world.settings;
    const strikes = this.#enabled.length === 0 ? 0 : this.random.integer(2, 14);
    for (let strike = 0; strike < strikes; strike += 1) {
      this.#world.scheduler.at(this.random.next() * activeMs, () => this.strike());
    }
    this.later(this.random.next() * activeMs * 0.6, () => this.system.save());
  }

  /** Begins one of the run's faults. */
  strike(): void {
    if (this.#enabled.length === 0 || this.#world.scheduler.nowMs >= this.#world.settings.activeMs) return;
    const name = this.random.pick(this.#enabled);
    const end = FAULTS[name]?.(this);
    if (end === undefined) return;
    const { measures, scheduler } = this.#world;
    measures.faults.set(name, (measures.faults.get(name) ?? 0) + 1);
    this.#world.tell('fault', () => `${name} begins`);
    let ended = false;
    const endOnce = (): void => {
      if (ended) return;
      ended = true;
      this.#active.delete(endOnce);
      end();
      this.#world.tell('fault', () => `${name} is over`);
    };
    this.#active.add(endOnce);
    scheduler.after(this.random.exponential(1.2 * this.leaseMs), endOnce);
  }

  /** Ends all faults. */
  heal(): void {
    for (const end of [...this.#active]) end();
    const { system } = this;
    for (const replica of system.replicas) replica.node = system.cluster.primary;
    system.stepDatabaseClock(-system.databaseStepMs);
    for (const host of system.hosts) host.correctClock();
    system.openEpochIfDue();
  }

  /** Runs work while the run is still active. */
  readonly later = (ms: number, work: () => void): void => {
    this.#world.scheduler.after(ms, () => {
      if (this.#world.scheduler.nowMs < this.#world.settings.activeMs) work();
    });
  };

  readonly host = (): Host => this.random.pick(this.system.hosts);

  /** Related links: between two places, in one direction or both. */
  readonly links = (): Link[] => {
    const { random, system } = this;
    const { network } = system.world;
    const auth = random.pick(system.replicas).process.name;
    const instance = this.host().instance.process.name;
    const [from, to] = random.pick([
      [auth, instance],
      [auth, instance],
      [auth, 'broker'],
      ['broker', instance],
      [auth, 'database'],
    ] as const);
    const there = network.link(from, to);
    const back = network.link(to, from);
    return random.pick([[there], [back], [there, back]]);
  };

  readonly block = (
    links: readonly Link[],
    how: 'lose' | 'hold' = this.random.pick(['lose', 'hold']),
  ): (() => void) => {
    for (const { weather } of links) weather.blocked = how;
    return () => {
      for (const link of links) link.open();
    };
  };
}

/** The links between an instance and all others: inbound only, or both directions. */
function waysOf(system: System, instance: string, which: 'there' | 'both'): Link[] {
  const { network } = system.world;
  const others = ['broker', ...system.replicas.map(({ process }) => process.name)];
  return others.flatMap((other) => [
    network.link(instance, other),
    ...(which === 'both' ? [network.link(other, instance)] : []),
  ]);
}

/** A message of an attacker with access to the broker but without a key: correct except for its signature. */
function forgedBroadcast(system: System): string | undefined {
  const { world, cluster } = system;
  const { random, oracle, signatures } = world;
  const tokens = [...oracle.tokens].slice(-10);
  if (tokens.length === 0) return undefined;
  const token = random.pick(tokens);
  const session = token.session;
  const kind = random.pick([
    tokenRevocation(token.tokenId),
    ...(session === undefined
      ? []
      : [sessionRevocation(session.sessionId), userRevocation(session.userId, 1000n)]),
  ]);
  const entry = entryMessageOf({
    ...kind,
    entryId: random.bytes(16),
    sequence: 1n,
    keepUntil: new Date(cluster.primary.process.clock.wallMs() + 60_000),
    cutOffTime: undefined,
    acknowledge: false,
  });
  const payload = Broadcast.encode({ epoch: Buffer.from(oracle.epoch, 'hex'), entries: [entry] }).finish();
  const keys = [...cluster.primary.tables.all('keys').values()] as {
    kid: string;
    purpose: string;
    state: string;
  }[];
  const key = keys.find(({ purpose, state }) => purpose === 'broadcast' && state === 'signing');
  return key && signatures.forge(key.kid, BROADCAST_TYPE, payload);
}
