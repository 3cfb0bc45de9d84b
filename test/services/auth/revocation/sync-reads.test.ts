/** How often the log is read for sync requests. */

import { randomBytes } from 'node:crypto';
import { systemClock, systemTimers } from '@portcullis/guard/clock';
import { expect } from 'chai';
import { createId } from '../../../../services/auth/revocation/log.js';
import type { LogReader, RevocationStore } from '../../../../services/auth/revocation/log-access.js';
import { createRevocations } from '../../../../services/auth/revocation/revocations.js';
import { question } from './revocation-support.js';

const unexpected = (): never => {
  throw new TypeError('not expected');
};

describe('reads for sync requests', () => {
  it('begin at once when the last one is 10 ms old, and are shared by all requests before that', async () => {
    const planned: { readonly ms: number; readonly work: () => void }[] = [];
    let reads = 0;
    const reader: LogReader = {
      state: {
        epoch: createId(),
        head: 0n,
        headEntryId: Buffer.alloc(0),
        horizon: new Date(0),
        leaseMs: 5000,
        epochNumber: 1n,
        fenceWanted: 0n,
      },
      entriesAfter: unexpected,
      idsAfter: unexpected,
      entryIdsAt: unexpected,
      standingOf: unexpected,
      publishedKeys: () =>
        Promise.resolve({ keySet: { version: randomBytes(32), keys: [] }, broadcastKeys: [] }),
    };
    // Sync requests use no other method.
    const log: RevocationStore = {
      ...({} as RevocationStore),
      read: (work) => {
        reads += 1;
        return work(reader);
      },
    };
    const revocations = createRevocations({
      log,
      timers: {
        ...systemTimers,
        after: (ms, work) => {
          planned.push({ ms, work });
          return () => undefined;
        },
      },
      clock: systemClock,
      store: { transaction: unexpected },
      groups: { write: unexpected },
      identify: unexpected,
      sessionIdOf: unexpected,
      issuer: 'https://issuer.example',
      foreignIssuers: [],
      instances: {
        requested: () => {},
        answered: () => {},
        waits: () => 0,
        wait: unexpected,
        unready: unexpected,
      },
      fences: { reported: () => {}, waits: () => 0, wait: unexpected },
      onKeyRevoked: unexpected,
      onLogChanged: unexpected,
    });
    await revocations.sync(question());
    expect(reads).to.equal(1);
    const later = [revocations.sync(question()), revocations.sync(question()), revocations.sync(question())];
    await new Promise(setImmediate);
    expect(reads).to.equal(1);
    for (const { ms, work } of planned) if (ms === 10) work();
    await Promise.all(later);
    expect(reads).to.equal(2);
  });
});
