/** The records of instances that replicas share, in PostgreSQL. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import type { SharedRecord } from '../../../../services/auth/revocation/instance-records.js';
import { createInstanceStore } from '../../../../services/auth/revocation/instance-store.js';
import { createId, tokenRevocation } from '../../../../services/auth/revocation/log.js';
import { type AuthInstance, newKeyEncryptionKey, openFreshAuth } from '../instance.js';

describe('the record of another replica', () => {
  let auth: AuthInstance;

  before(async () => {
    auth = await openFreshAuth({ keyEncryptionKey: newKeyEncryptionKey() });
  });
  after(() => auth.close());

  it('counts its position only if the current log has the same entry there', async () => {
    const store = createInstanceStore(auth.database);
    const { epoch, entries } = await auth.store.transaction((tx) =>
      tx.revocations.append(
        [1, 2].map(() => ({ ...tokenRevocation(randomUUID()), reason: 'test', actor: 'test' })),
      ),
    );
    const [first, second] = entries;
    const ids = [first?.entryId ?? createId(), second?.entryId ?? createId()] as const;
    const appliedBy = async (over: Partial<SharedRecord>): Promise<bigint | undefined> => {
      const instance = createId();
      const record: SharedRecord = {
        ...{ service: 'inventory', instance, epoch, applied: second?.sequence ?? 0n, seen: [] },
        ...{ ageMs: 10, leaseLeftMs: 100, ...over },
      };
      await store.share(createId(), [record]);
      const found = await store.readFromOthers(createId(), 60_000);
      return found.find((one) => one.instance.equals(instance))?.applied;
    };
    expect(await appliedBy({ seen: [createId(), ids[1]] })).to.equal(second?.sequence);
    // The second entry of a log from before a restore, and a position that was not compared.
    expect(await appliedBy({ seen: [createId()] })).to.equal(0n);
    expect(await appliedBy({ seen: [] })).to.equal(0n);
    // Another position, another epoch, a position that the log has not reached.
    expect(await appliedBy({ seen: [ids[0]] })).to.equal(0n);
    expect(await appliedBy({ seen: [ids[1]], epoch: createId() })).to.equal(0n);
    expect(await appliedBy({ seen: [ids[1]], applied: 99n })).to.equal(0n);
  });
});
