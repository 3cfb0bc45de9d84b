/** Tests of what the metrics of auth read from the database. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { readPublishedKeys } from '../../../services/auth/keys/store.js';
import { createStoredFacts } from '../../../services/auth/metrics.js';
import { createRevocationStore } from '../../../services/auth/revocation/store.js';
import { type FreshAuth, openFreshAuth } from './instance.js';

describe('the stored facts of the metrics', () => {
  let auth: FreshAuth;

  before(async () => {
    auth = await openFreshAuth();
  });
  after(() => auth.close());

  it('count the changes of the policy whose revocations are not all committed', async () => {
    const revocationLog = createRevocationStore({
      database: auth.database,
      publishedKeys: readPublishedKeys,
    });
    const facts = createStoredFacts({ ...auth, revocationLog });
    expect(facts.pendingNarrowings()).to.equal(undefined);
    await facts.refresh();
    expect(facts.pendingNarrowings()).to.equal(0);
    await auth.store.transaction((tx) =>
      tx.narrowings.add({ scopes: ['payment.pay'], audiences: [], actor: 'olga', eventId: randomUUID() }),
    );
    await facts.refresh();
    expect(facts.pendingNarrowings()).to.equal(1);
    await auth.narrowings.resume();
    await facts.refresh();
    expect(facts.pendingNarrowings()).to.equal(0);
  });
});
