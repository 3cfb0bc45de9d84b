/** The metrics of a database. */

import { expect } from 'chai';
import { Registry } from 'prom-client';
import { registerDatabaseMetrics } from '../../../../services/common/metrics/database-metrics.js';

describe('the metrics of a database', () => {
  it('state whether it answers, and what waits for it by class', async () => {
    let missing = '';
    const registry = new Registry();
    const lane = { importance: 'promise' as const, connections: 4, inUse: 3, waiting: 2 };
    registerDatabaseMetrics(registry, {
      missing: () => missing,
      lanes: () => [{ ...lane, rejected: new Map([['queue' as const, 1]]) }],
    });
    const text = await registry.metrics();
    expect(text).to.contain('\nportcullis_database_reachable 1\n');
    expect(text).to.contain('portcullis_database_waiting{lane="promise"} 2');
    expect(text).to.contain('portcullis_database_rejected_total{lane="promise",limit="queue"} 1');
    missing = 'connection refused';
    expect(await registry.metrics()).to.contain('\nportcullis_database_reachable 0\n');
  });
});
