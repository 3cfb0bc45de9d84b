/** The database of the simulated service: its fence, and transactions of calls that cannot be undone. */

import type { FenceDatabase, FenceQuery } from '@portcullis/guard';
import type { Feed } from '@portcullis/guard/internal';
import { FenceChecker } from '../spec/fence-checker.js';
import { type FenceStep, isBelow, type PlaceStep } from '../spec/fence-rows.js';
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

/** Why a transaction raises the fence. */
interface Raise {
  readonly instance: string;
  readonly place: PlaceStep;
  readonly wanted: PlaceStep;
}

/** What a transaction may do. */
interface MoneyTransaction {
  readonly query: FenceQuery;
  /** Its name in the steps that are compared with the rows of the specification. */
  readonly name: string;
  /** Called when the transaction is durable; only the oracle learns it then. */
  onDurable(tell: () => void): void;
}

/** The database that all instances of the service share. */
export class Money {
  readonly #cluster: Cluster;
  readonly #world: World;
  /** Undefined once a step has differed from the rows. */
  #checker: FenceChecker | undefined;
  #transactions = 0;

  constructor(world: World) {
    if (world.comparesTables) this.#checker = new FenceChecker();
    const { scheduler, network, random } = world;
    this.#world = world;
    this.#cluster = new Cluster(scheduler, network, random, START_MS);
    const row: FenceRow = { fence_id: random.bytes(16).toString('hex'), epoch_number: '0', sequence: '0' };
    for (const tables of [this.#cluster.standby, this.#cluster.primary.tables]) tables.put(FENCE, FENCE, row);
  }

  /** The fence, for the guard of one instance. */
  fenceFor(process: Process, instance: string, feed: Pick<Feed, 'place' | 'fenceWanted'>): FenceDatabase {
    return {
      transaction: async (work) => {
        const [place, wanted] = [placeStep(feed.place), placeStep(feed.fenceWanted)];
        let transaction = '';
        await this.transaction(
          process,
          ({ query, name }) => {
            transaction = name;
            return work(query);
          },
          { instance, place, wanted },
        );
        this.compare({ do: 'confirm', transaction, instance });
      },
    };
  }

  /** Runs work in a transaction, and commits it. @param raise - why it raises the fence, if it does */
  transaction<T>(
    process: Process,
    work: (transaction: MoneyTransaction) => Promise<T>,
    raise?: Raise,
  ): Promise<T> {
    return this.#cluster.transaction(process, this.#cluster.primary, (transaction) => {
      this.#transactions += 1;
      const name = `${process.name} ${this.#transactions}`;
      this.compare({ do: 'begin', transaction: name });
      transaction.onDurable(() => this.compare({ do: 'commit', transaction: name }));
      transaction.onEnd(() => this.compare({ do: 'end', transaction: name }));
      const run = (text: string, values?: readonly unknown[]) =>
        this.#run(transaction, { name, raise }, text, values);
      return work({
        name,
        query: (text, values) => transaction.statement(() => run(text, values)),
        onDurable: (tell) => transaction.onDurable(tell),
      });
    });
  }

  /** Compares a step of the fence with the rows of the specification. */
  compare(step: FenceStep): void {
    if (this.#checker === undefined) return;
    const { measures, scheduler, violations } = this.#world;
    measures.comparedSteps += 1;
    const mismatch = this.#checker.check(step);
    if (mismatch === undefined) return;
    this.#checker = undefined;
    const what = `the fence and the tables of the specification differ: ${mismatch.what}`;
    violations.push({ oracle: 'tables', atMs: scheduler.nowMs, what });
  }

  /** The statements of the library. */
  async #run(
    transaction: Transaction,
    { name, raise }: { readonly name: string; readonly raise: Raise | undefined },
    text: string,
    values: readonly unknown[] = [],
  ): Promise<{ rows: readonly object[] }> {
    if (text.startsWith('LOCK TABLE')) {
      await transaction.lock(FENCE, 'exclusive');
      return { rows: [] };
    }
    const locks = text.endsWith('FOR SHARE');
    if (locks && this.#world.without !== 'fence-lock') await transaction.lock(FENCE, 'share');
    const row = transaction.get(FENCE, FENCE) as FenceRow;
    const place = placeOf(row);
    if (locks) this.compare({ do: 'lock', transaction: name, expect: place });
    if (text.startsWith('UPDATE')) {
      const [epochNumber, sequence] = values.map(String);
      const raised = { ...row, epoch_number: epochNumber ?? '0', sequence: sequence ?? '0' };
      if (isBelow(place, placeOf(raised))) transaction.put(FENCE, FENCE, raised);
      if (raise) this.compare({ do: 'raise', transaction: name, ...raise, expect: placeOf(raised) });
      return { rows: [] };
    }
    if (!text.includes('pg_try_advisory_xact_lock')) return { rows: [{ ...row, alone: false }] };
    const alone = transaction.tryLock(RAISE);
    if (raise && (!alone || !isBelow(place, raise.wanted))) {
      this.compare({ do: 'raise', transaction: name, ...raise, reads: !alone, expect: place });
    }
    return { rows: [{ ...row, alone }] };
  }
}

function placeOf({ epoch_number: epochNumber, sequence }: FenceRow): PlaceStep {
  return [Number(epochNumber), Number(sequence)];
}

/** A place in the steps of the specification. */
export function placeStep({ epochNumber, sequence }: Feed['place']): PlaceStep {
  return [Number(epochNumber), Number(sequence)];
}
