/** Steps of a start, while the dependency fails. */

import { ServiceError } from '@portcullis/guard';
import { expect } from 'chai';
import { openDatabase } from '../../../../services/common/database/database.js';
import { createLog } from '../../../../services/common/host/log.js';
import { untilAvailable } from '../../../../services/common/host/start-step.js';
import { createStore } from '../../../../services/payment/store.js';
import { rejectionOf } from '../../../support/outcomes.js';
import { freshDatabase } from '../../../support/postgres.js';
import { startRelay } from '../../../support/tcp-relay.js';

/** The first connections are reset: each one packet later than the one before. */
const CONNECTIONS_RESET = 20;

describe('a step of the start', () => {
  const log = createLog({ service: 'test', level: 'silent' });
  const unavailable = new ServiceError('DEPENDENCY_UNAVAILABLE', 'UNAVAILABLE', 'away');

  it('is repeated until the dependency answers', async () => {
    let attempts = 0;
    const step = async (): Promise<string> => {
      attempts += 1;
      if (attempts < 3) throw unavailable;
      return 'done';
    };
    expect(await untilAvailable(step, { signal: new AbortController().signal, log })).to.equal('done');
  });

  it('fails with what does not pass by itself, and ends when it is aborted', async () => {
    const stop = new AbortController();
    const fault = new Error('a fault');
    const failing = untilAvailable(() => Promise.reject(fault), { signal: stop.signal, log });
    expect(await rejectionOf(failing)).to.equal(fault);
    const waiting = untilAvailable(() => Promise.reject(unavailable), { signal: stop.signal, log });
    stop.abort(fault);
    expect(await rejectionOf(waiting)).to.equal(fault);
  });

  it('succeeds although one connection after another is reset, each at a later packet', async function () {
    this.timeout(120_000);
    const fresh = await freshDatabase();
    const relay = await startRelay(Number(new URL(fresh.url).port), 0, (connection) =>
      connection <= CONNECTIONS_RESET ? connection : undefined,
    );
    const url = new URL(fresh.url);
    url.port = String(relay.port);
    const migrations = new URL('../../../../services/payment/migrations/', import.meta.url);
    const database = openDatabase({ url: url.href, migrations, log });
    const { signal } = new AbortController();
    try {
      await database.ready(signal);
      await database.listen(
        'changes',
        () => {},
        () => {},
      );
      const store = createStore(database);
      // As the service's own start does; its pooled connections are reset, too.
      for (let step = 0; step < 30; step += 1) {
        expect(await untilAvailable(() => store.mayRewriteLedger(), { signal, log })).to.equal(true);
      }
      expect(database.missing()).to.equal('');
    } finally {
      await database.close();
      await relay.cut();
      await fresh.drop();
    }
  });
});
