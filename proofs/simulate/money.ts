/** The database of the simulated service: its fence, and transactions of calls that cannot be undone. */

import type { FenceDatabase, FenceQuery } from '@portcullis/guard';
import { Cluster, type Transaction } from './database.js';
import type { Process } from './time.js';
import { START_MS, type World } from './world.js';

const FENCE = 'fence';
const RAISE = 'raise';

/** The fence: strings, as PostgreSQL answers. */
interface FenceRow {
  readonly fence_id: string;
  readonly epoch_number: string;
  readonly sequence: string;
}

/** What a transaction of a call may do. */
interface MoneyTransaction {
  readonly query: FenceQuery;
  /** Called when the transaction is durable; only the oracle learns it then. */
  onDurable(tell: () => void): void;
}

/** The database that all instances of the service share. */
export class Money {
  readonly #cluster: Cluster;
  readonly #world: World;

  constructor(world: World) {
    const { scheduler, network, random } = world;
    this.#world = world;
    this.#cluster = new Cluster(scheduler, network, random, START_MS);
    const row: FenceRow = { fence_id: random.bytes(16).toString('hex'), epoch_number: '0', sequence: '0' };
    for (const tables of [this.#cluster.standby, this.#cluster.primary.tables]) tables.put(FENCE, FENCE, row);
  }

  /** The fence, for the guard of one process. */
  fenceFor(process: Process): FenceDatabase {
    return {
      transaction: (work) => this.transaction(process, ({ query }) => work(query)),
    };
  }

  /** Runs work in a transaction, and commits it. */
  transaction<T>(process: Process, work: (transaction: MoneyTransaction) => Promise<T>): Promise<T> {
    return this.#cluster.transaction(process, this.#cluster.primary, (transaction) =>
      work({
        query: (text, values) => transaction.statement(() => this.#run(transaction, text, values)),
        onDurable: (tell) => transaction.onDurable(tell),
      }),
    );
  }

  /** The statements of the library. */
  async #run(
    transaction: Transaction,
    text: string,
    values: readonly unknown[] = [],
  ): Promise<{ rows: readonly object[] }> {
    if (text.startsWith('LOCK TABLE')) {
      await transaction.lock(FENCE, 'exclusive');
      return { rows: [] };
    }
    if (text.endsWith('FOR SHARE') && this.#world.without !== 'fence-lock') {
      await transaction.lock(FENCE, 'share');
    }
    const row = transaction.get(FENCE, FENCE) as FenceRow;
    if (text.startsWith('UPDATE')) {
      const [epochNumber, sequence] = values.map(String);
      const raised = { ...row, epoch_number: epochNumber ?? '0', sequence: sequence ?? '0' };
      if (isBelow(row, raised)) transaction.put(FENCE, FENCE, raised);
      return { rows: [] };
    }
    const alone = text.includes('pg_try_advisory_xact_lock') && transaction.tryLock(RAISE);
    return { rows: [{ ...row, alone }] };
  }
}

function isBelow(one: FenceRow, other: FenceRow): boolean {
  const [before, after] = [BigInt(one.epoch_number), BigInt(other.epoch_number)];
  return before === after ? BigInt(one.sequence) < BigInt(other.sequence) : before < after;
}
