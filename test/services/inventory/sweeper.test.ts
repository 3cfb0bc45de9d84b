/** The sweeper: it keeps going, whatever the database does. */

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { getItem } from '../../../services/inventory/items.js';
import { reserveStock } from '../../../services/inventory/reservations.js';
import { SWEEP_INTERVAL_MS, startSweeper } from '../../../services/inventory/sweeper.js';
import { alice, breachesIn, type Instance, openFreshInstance, stockUp } from './instance.js';

const silent = { debug: () => {}, warn: () => {} };

describe('inventory sweeper', () => {
  let instance: Instance;

  before(async () => {
    instance = await openFreshInstance();
  });
  after(() => instance.close());

  it('gives units back soon after the time of their reservation is up', async () => {
    const { sku } = await stockUp(instance, 5n);
    const sweepers = [
      startSweeper({ store: instance.store, log: silent }),
      startSweeper({ store: instance.store, log: silent }),
    ];
    const lines = [{ sku, quantity: 5n }];
    const timeToLive = { seconds: 1n, nanos: 0 };
    await reserveStock(instance, alice, { lines, timeToLive, requestId: randomUUID() });
    await sleep(1_000 + SWEEP_INTERVAL_MS + 300);
    expect((await getItem(instance, sku)).reserved).to.equal(0n);
    await Promise.all(sweepers.map((sweeper) => sweeper.stop()));
    expect(await breachesIn(instance)).to.deep.equal([]);
  });

  it('goes on after a failure, and tells the log', async () => {
    const warnings: string[] = [];
    let attempts = 0;
    const store = {
      ...instance.store,
      changeReservations: async () => {
        attempts += 1;
        throw new Error('away');
      },
    };
    const log = { debug: () => {}, warn: (_fields: object, message: string) => warnings.push(message) };
    const sweeper = startSweeper({ store, log });
    await sleep(SWEEP_INTERVAL_MS + 300);
    await sweeper.stop();
    expect(attempts).to.equal(2);
    expect(warnings).to.deep.equal(['could not expire reservations', 'could not expire reservations']);
  });

  it('forgets requests that are too old to be repeated', async () => {
    await instance.database.query(
      `INSERT INTO requests VALUES ('s', 'm', 'old', '', '', clock_timestamp() - interval '30 days')`,
    );
    const sweeper = startSweeper({ store: instance.store, log: silent });
    await sleep(200);
    await sweeper.stop();
    const { rowCount } = await instance.database.query("SELECT FROM requests WHERE request_id = 'old'");
    expect(rowCount).to.equal(0);
  });

  it('stops without waiting for the next sweep', async () => {
    const sweeper = startSweeper({ store: instance.store, log: silent });
    await sleep(100);
    const start = performance.now();
    await sweeper.stop();
    expect(performance.now() - start).to.be.below(SWEEP_INTERVAL_MS / 2);
  });
});
