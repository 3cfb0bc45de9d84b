/** The sweeper, and that it survives failures of the database. */

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { createReservations } from '../../../services/inventory/reservations.js';
import { SWEEP_INTERVAL_MS, startSweeper } from '../../../services/inventory/sweeper.js';
import { until } from '../../support/waiting.js';
import { alice, breachesIn, type Instance, NO_LIMITS, openFreshInstance, stockUp } from './instance.js';

const silent = { debug: () => {}, warn: () => {} };

describe('inventory sweeper', () => {
  let instance: Instance;

  before(async () => {
    instance = await openFreshInstance();
  });
  after(() => instance.close());

  it('expires a reservation soon after its time to live', async () => {
    const { sku } = await stockUp(instance, 5n);
    const sweepers = [startSweeper({ ...instance, log: silent }), startSweeper({ ...instance, log: silent })];
    const lines = [{ sku, quantity: 5n }];
    const timeToLive = { seconds: 1n, nanos: 0 };
    await instance.reservations.reserve({ lines, timeToLive, requestId: randomUUID() }, alice);
    await until(async () => (await instance.items.get(sku)).reserved === 0n);
    await Promise.all(sweepers.map((sweeper) => sweeper.stop()));
    expect(await breachesIn(instance)).to.deep.equal([]);
  });

  it('continues after a failure, and logs it', async () => {
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
    const sweeper = startSweeper({
      reservations: createReservations({ store, limits: NO_LIMITS, onLimit: () => {} }),
      store,
      log,
    });
    await until(() => attempts >= 2);
    await sweeper.stop();
    expect(warnings).to.have.lengthOf(attempts);
    expect(new Set(warnings)).to.deep.equal(new Set(['cannot expire reservations or delete old requests']));
  });

  it('deletes requests that are too old to be retried', async () => {
    await instance.database.query(
      `INSERT INTO requests VALUES ('s', 'm', 'old', '', '', clock_timestamp() - interval '30 days')`,
    );
    const sweeper = startSweeper({ ...instance, log: silent });
    const old = "SELECT FROM requests WHERE request_id = 'old'";
    await until(async () => (await instance.database.query(old)).rowCount === 0);
    await sweeper.stop();
  });

  it('stops without waiting for the next sweep', async () => {
    const sweeper = startSweeper({ ...instance, log: silent });
    await sleep(100);
    const start = performance.now();
    await sweeper.stop();
    expect(performance.now() - start).to.be.below(SWEEP_INTERVAL_MS / 2);
  });
});
