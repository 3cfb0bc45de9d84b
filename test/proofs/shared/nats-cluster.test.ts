/** The cluster of nats-servers of the proofs. */

import { brokerConnection } from '@portcullis/guard/internal';
import { expect } from 'chai';
import { connect } from 'nats';
import { startNatsCluster } from '../../../proofs/shared/nats-cluster.js';
import { waitUntil } from '../../../proofs/shared/waiting.js';
import { makeTemporaryFolder } from '../../../scripts/system/temporary-folder.js';

describe('a cluster of nats-servers', function () {
  this.timeout(120_000);

  it('passes a message at one server to the subscribers at every other, once', async () => {
    const folder = await makeTemporaryFolder();
    const cluster = await startNatsCluster({ folder: folder.path, size: 3 });
    try {
      expect(new Set(cluster.pids)).to.have.property('size', 3);
      const connections = await Promise.all(
        cluster.urls.map((url) => connect(brokerConnection(url, 'test'))),
      );
      const received: string[] = [];
      for (const [index, connection] of connections.entries()) {
        connection.subscribe('greeting', {
          callback: (_, message) => void received.push(`${index} ${message.string()}`),
        });
      }
      const greet = (text: string): void => connections[0]?.publish('greeting', text);
      // Until the subscriptions have reached the first server.
      await waitUntil(
        () => {
          greet('early');
          return received.some((line) => line === '1 early') && received.some((line) => line === '2 early');
        },
        { timeoutMs: 10_000, pollMs: 20, failure: () => `received only ${received.join(', ')}` },
      );
      greet('first');
      greet('last');
      await waitUntil(() => received.filter((line) => line.endsWith('last')).length === 3, {
        timeoutMs: 10_000,
        pollMs: 20,
        failure: () => `received only ${received.join(', ')}`,
      });
      expect(received.filter((line) => !line.endsWith('early')).toSorted()).to.deep.equal(
        [0, 1, 2].flatMap((index) => [`${index} first`, `${index} last`]).toSorted(),
      );
      await Promise.all(connections.map((connection) => connection.close()));
    } finally {
      await cluster.stop();
      await folder.remove();
    }
  });
});
