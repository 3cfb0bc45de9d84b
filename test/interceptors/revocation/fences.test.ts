/** When a process raises its fences, and for how long it holds a transaction back: without a database, by the timers. */

import { expect } from 'chai';
import {
  type FencePlace,
  type FenceQuery,
  isBefore,
  type LogPlace,
  lockFence,
  raiseFence,
} from '../../../interceptors/src/revocation/fence.js';
import { type FenceDatabase, Fences } from '../../../interceptors/src/revocation/fences.js';
import { rejectionOf } from '../../support/outcomes.js';
import { SetTimers } from '../tokens-support.js';
import { settled } from './runner-support.js';

const at = (epochNumber: bigint, sequence: bigint): LogPlace => ({ epochNumber, sequence });
const FENCE_ID = '00'.repeat(16);

/** The table of a fence, as far as the statements of the library go. */
class Table {
  place = at(0n, 0n);
  /** Whether another instance is raising the fence. */
  isShared = false;
  rows = 1;
  readonly statements: string[] = [];

  readonly query: FenceQuery = async (text, values = []) => {
    this.statements.push(text.trim().split(/\s/)[0] ?? '');
    if (text.startsWith('UPDATE')) {
      const to = at(BigInt(String(values[0])), BigInt(String(values[1])));
      if (isBefore(this.place, to)) this.place = to;
    }
    const { epochNumber, sequence } = this.place;
    const row = {
      ...{ fence_id: FENCE_ID, epoch_number: String(epochNumber), sequence: String(sequence) },
      alone: !this.isShared,
    };
    return { rows: new Array(this.rows).fill(row) };
  };
}

describe('a fence as a row', () => {
  let table: Table;
  beforeEach(() => {
    table = new Table();
  });

  it('is locked only to be raised, and by one instance at a time', async () => {
    expect(await raiseFence(table.query, at(2n, 5n))).to.include(at(2n, 5n));
    expect(table.statements).to.deep.equal(['SELECT', 'LOCK', 'UPDATE', 'SELECT']);
    table.statements.length = 0;
    for (const to of [at(2n, 5n), at(1n, 9n)]) {
      expect(await raiseFence(table.query, to)).to.include(at(2n, 5n));
    }
    table.isShared = true;
    expect(await raiseFence(table.query, at(3n, 0n))).to.include(at(2n, 5n));
    expect(table.statements).to.deep.equal(['SELECT', 'SELECT', 'SELECT']);
  });

  it('is the only one of its table', async () => {
    for (const rows of [0, 2]) {
      table.rows = rows;
      const error = await rejectionOf(lockFence(table.query));
      expect(error).to.have.property('message', `expected one row in revocation_fence, got ${rows}`);
    }
  });
});

describe('the fences of a process', () => {
  let table: Table;
  let timers: SetTimers;
  let list: { place: LogPlace; fenceWanted: LogPlace };
  let fences: Fences;
  let syncs: number;
  let transactions: number;
  let warnings: object[];
  /** What ends the transactions that raise the fence. */
  let ending: () => Promise<void>;

  beforeEach(() => {
    table = new Table();
    timers = new SetTimers();
    list = { place: at(0n, 0n), fenceWanted: at(0n, 0n) };
    syncs = 0;
    transactions = 0;
    warnings = [];
    ending = async () => undefined;
    fences = create({ name: 'orders' });
  });
  afterEach(() => fences.close());

  function create(more: Pick<FenceDatabase, 'name'>): Fences {
    const warn = (fields: object): void => void warnings.push(fields);
    return new Fences({
      databases: [
        {
          ...more,
          transaction: async (work) => {
            transactions += 1;
            await work(table.query);
            await ending();
          },
        },
      ],
      feed: list,
      syncNow: () => {
        syncs += 1;
      },
      timers,
      log: { info: warn, warn, error: warn },
    });
  }

  async function grant(place: LogPlace, fenceWanted = place): Promise<void> {
    Object.assign(list, { place, fenceWanted });
    fences.granted();
    await settled();
  }

  const reported = (): (Omit<FencePlace, 'fenceId'> & { database: string })[] =>
    fences.positions().map(({ database, epochNumber, sequence }) => ({ database, epochNumber, sequence }));

  it('are raised once to where the issuer wants them, which learns it at once', async () => {
    await grant(at(1n, 4n));
    expect(reported()).to.deep.equal([{ database: 'orders', epochNumber: 1n, sequence: 4n }]);
    expect([transactions, syncs, timers.waiting]).to.deep.equal([1, 1, 0]);
    await grant(at(1n, 6n), at(1n, 4n));
    expect([transactions, syncs]).to.deep.equal([1, 1]);
    // Without a pause, as nothing has failed.
    await grant(at(1n, 6n));
    expect(reported()).to.deep.equal([{ database: 'orders', epochNumber: 1n, sequence: 6n }]);
    expect([transactions, syncs]).to.deep.equal([2, 2]);
  });

  it('are one without a name where the service has one database', async () => {
    fences.close();
    fences = create({});
    await grant(at(1n, 1n));
    expect(reported()).to.deep.equal([{ database: '', epochNumber: 1n, sequence: 1n }]);
  });

  it('are raised by one transaction at a time', async () => {
    let commit = (): void => undefined;
    ending = () =>
      new Promise((resolve) => {
        commit = resolve;
      });
    await grant(at(1n, 1n));
    await grant(at(1n, 2n));
    await grant(at(1n, 3n));
    expect(transactions).to.equal(1);
    ending = async () => undefined;
    commit();
    // Wanted meanwhile: after the pause, as another instance may have raised it.
    await settled();
    timers.pass(100);
    await settled();
    expect([transactions, reported()[0]?.sequence]).to.deep.equal([2, 3n]);
  });

  it('are raised again after a pause where that fails, with one warning for many failures', async () => {
    ending = () => Promise.reject(new Error('no connection'));
    await grant(at(1n, 1n));
    expect([transactions, syncs, timers.waiting]).to.deep.equal([1, 0, 1]);
    timers.pass(99);
    await settled();
    expect(transactions).to.equal(1);
    for (let failures = 2; failures <= 19; failures += 1) {
      timers.pass(100);
      await settled();
    }
    expect([transactions, warnings]).to.deep.equal([19, []]);
    for (let failures = 20; failures <= 25; failures += 1) {
      timers.pass(100);
      await settled();
    }
    expect(warnings).to.have.length(1);
    expect(warnings[0]).to.include({ event: 'fence_not_raised', database: 'orders' });
    expect(reported()).to.deep.equal([]);
    ending = async () => undefined;
    timers.pass(100);
    await settled();
    expect([reported().length, syncs]).to.deep.equal([1, 1]);
    // The next failures are the first ones again.
    ending = () => Promise.reject(new Error('no connection'));
    await grant(at(1n, 2n));
    for (let failures = 2; failures <= 20; failures += 1) {
      expect(warnings).to.have.length(1);
      timers.pass(100);
      await settled();
    }
    expect(warnings).to.have.length(2);
  });

  it('are not raised any more after they were closed', async () => {
    fences.close();
    await grant(at(1n, 1n));
    expect(transactions).to.equal(0);
  });

  it('let a transaction pass at once that is up to date, and ask for a sync otherwise', async () => {
    table.place = at(1n, 5n);
    list.place = at(1n, 5n);
    expect(await fences.pass(table.query)).to.equal(true);
    expect([syncs, timers.waiting]).to.deep.equal([0, 0]);
    list.place = at(1n, 4n);
    let outcome: boolean | undefined;
    void fences.pass(table.query).then((passed) => {
      outcome = passed;
    });
    await settled();
    expect([syncs, timers.waiting, outcome]).to.deep.equal([1, 1, undefined]);
    // Not far enough.
    await grant(at(1n, 4n), at(0n, 0n));
    expect(outcome).to.equal(undefined);
    await grant(at(1n, 5n), at(0n, 0n));
    expect([outcome, timers.waiting]).to.deep.equal([true, 0]);
  });

  it('stop a transaction for which the sync comes too late', async () => {
    table.place = at(1n, 5n);
    list.place = at(1n, 4n);
    let outcome: boolean | undefined;
    void fences.pass(table.query).then((passed) => {
      outcome = passed;
    });
    await settled();
    timers.pass(199);
    await settled();
    expect(outcome).to.equal(undefined);
    timers.pass(1);
    await settled();
    expect(outcome).to.equal(false);
    expect(transactions).to.equal(0);
  });
});
