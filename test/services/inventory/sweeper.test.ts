/** The sweeper: it keeps going, whatever the database does. */

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { getItem } from '../../../services/inventory/items.js';
import { reserveStock } from '../../../services/inventory/reservations.js';
import { SWEEP_INTERVAL_MS, startSweeper } from '../../../services/inventory/sweeper.js';
import { until } from '../../support/waiting.js';
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
    await until(async () => (await getItem(instance, sku)).reserved === 0n);
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
    await until(() => attempts >= 2);
    await sweeper.stop();
    expect(new Set(warnings)).to.deep.equal(new Set(['could not expire reservations']));
    expect(warnings).to.have.lengthOf(attempts);
  });

  it('forgets requests that are too old to be repeated', async () => {
    await instance.database.query(
      `INSERT INTO requests VALUES ('s', 'm', 'old', '', '', clock_timestamp() - interval '30 days')`,
    );
    const sweeper = startSweeper({ store: instance.store, log: silent });
    const old = "SELECT FROM requests WHERE request_id = 'old'";
    await until(async () => (await instance.database.query(old)).rowCount === 0);
    await sweeper.stop();
  });

  it('stops without waiting for the next sweep', async () => {
    const sweeper = startSweeper({ store: instance.store, log: silent });
    await sleep(100);
    const start = performance.now();
    await sweeper.stop();
    expect(performance.now() - start).to.be.below(SWEEP_INTERVAL_MS / 2);
  });
});
