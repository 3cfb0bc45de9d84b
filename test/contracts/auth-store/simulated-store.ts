/** The stores of auth in the simulator, whose virtual time passes in the background. */

import { randomUUID } from 'node:crypto';
import { Random } from '../../../proofs/shared/random.js';
import { createLogStore, createStore, seedTables, userRow } from '../../../proofs/simulate/auth-rows.js';
import { Cluster } from '../../../proofs/simulate/database.js';
import { createInstanceStore } from '../../../proofs/simulate/instance-rows.js';
import { Network } from '../../../proofs/simulate/network.js';
import { Oracle } from '../../../proofs/simulate/oracle.js';
import { Signatures } from '../../../proofs/simulate/signatures.js';
import { MachineClock, Process, Scheduler } from '../../../proofs/simulate/time.js';
import { createMeasures, START_MS, type World } from '../../../proofs/simulate/world.js';
import type { LogBatch } from '../../../services/auth/records/revocations.js';
import { KEEP_SECONDS_MAX } from '../../../services/auth/revocation/log.js';
import type { AuthStoreUnderTest } from './store-under-test.js';

export async function openSimulation(): Promise<AuthStoreUnderTest> {
  const world = createWorld();
  const { scheduler, network, random, settings } = world;
  const cluster = new Cluster(scheduler, network, random, START_MS);
  seedTables(world, cluster, { users: [], keys: [] });
  const process = new Process(
    scheduler,
    'auth',
    new MachineClock(scheduler, { rate: 1, wallMs: START_MS, monotonicMs: 0 }),
  );
  const configured = { accessTokenSeconds: settings.accessTokenSeconds };
  const connection = { world, cluster, process, node: () => cluster.primary, configured };
  const passedOn: LogBatch[] = [];
  return {
    store: createStore(connection, (batch) => passedOn.push(batch)),
    log: createLogStore(connection),
    instances: createInstanceStore(connection),
    passedOn,
    addUser: async () => {
      const userId = randomUUID();
      const user = userRow(userId, `user-${userId}`);
      for (const tables of [cluster.standby, cluster.primary.tables]) tables.put('users', userId, user);
      return user;
    },
    addClient: async () => {
      const clientId = `client-${randomUUID()}`;
      for (const tables of [cluster.standby, cluster.primary.tables]) {
        tables.put('clients', clientId, { ...tables.get('clients', 'direct'), clientId });
      }
      return clientId;
    },
    sleep: (ms) => new Promise((resolve) => process.after(ms, resolve)),
    expireEntries: async () => cluster.stepClocks((KEEP_SECONDS_MAX + 1) * 1000),
    close: runInBackground(scheduler),
  };
}

function createWorld(): World {
  const random = new Random(1);
  const scheduler = new Scheduler();
  return {
    scheduler,
    random,
    network: new Network(scheduler, random),
    oracle: new Oracle(() => scheduler.nowMs),
    signatures: new Signatures(random),
    settings: {
      leaseMs: 5000,
      accessTokenSeconds: 300,
      accessTokenSecondsMax: 3600,
      keepMarginSeconds: 65,
      replicas: 1,
      instances: 0,
      waits: true,
      fences: false,
      activeMs: 0,
    },
    without: undefined,
    comparesTables: false,
    measures: createMeasures(),
    violations: [],
    tell: () => {},
  };
}

/** Lets virtual time pass while tests wait for it. @returns a function that ends it */
function runInBackground(scheduler: Scheduler): () => Promise<void> {
  const turn = (): void => {
    scheduler.runUntil(scheduler.nowMs + 1);
    next = setImmediate(turn);
  };
  let next = setImmediate(turn);
  return async () => clearImmediate(next);
}
