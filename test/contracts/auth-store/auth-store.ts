/**
 * The behaviour of every auth store: PostgreSQL in production, tables in memory in the simulator.
 * The simulator proves the protocol only as far as its rows behave like the real ones.
 */

import { describeClients, describeUsers } from './accounts.js';
import { describeInstances } from './instances.js';
import { describeKeys } from './keys.js';
import { describeLocks } from './locks.js';
import {
  describeEpochs,
  describeLeases,
  describeLiveSet,
  describeLog,
  describeLogReads,
  describeRetention,
  describeTokenLifetimes,
} from './log.js';
import { describeRefreshTokens, describeSessions } from './sessions.js';
import type { AuthStoreUnderTest } from './store-under-test.js';
import { describeRequests, describeTransactions } from './transactions.js';

/** Declares the tests of one store; `open` opens it on an empty database. */
export function describeAuthStore(name: string, open: () => Promise<AuthStoreUnderTest>): void {
  describe(`the auth store in ${name}`, function () {
    this.timeout(180_000);
    let opened: AuthStoreUnderTest;
    before(async () => {
      opened = await open();
    });
    after(() => opened.close());

    const under = (): AuthStoreUnderTest => opened;
    describeTransactions(under);
    describeRequests(under);
    describeUsers(under);
    describeClients(under);
    describeSessions(under);
    describeRefreshTokens(under);
    describeKeys(under);
    describeLocks(under);
    describeLog(under);
    describeLogReads(under);
    describeLiveSet(under);
    describeRetention(under);
    describeLeases(under);
    describeTokenLifetimes(under);
    describeEpochs(under);
    describeInstances(under);
  });
}
