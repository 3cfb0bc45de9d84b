/** The records of instances that replicas share. */

import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import type { SharedRecord } from '../../../services/auth/revocation/instance-records.js';
import { anEntry, append, headOf, type Under } from './store-under-test.js';

export function describeInstances(under: Under): void {
  const [here, elsewhere] = [randomBytes(16), randomBytes(16)];
  const recordOf = (over: Partial<SharedRecord> = {}): SharedRecord => ({
    service: 'inventory',
    instance: randomBytes(16),
    epoch: Buffer.alloc(0),
    applied: 0n,
    seen: [],
    ageMs: 0,
    leaseLeftMs: 5000,
    ...over,
  });
  const share = (...records: SharedRecord[]) => under().instances.share(elsewhere, records);
  const foundBy = async ({ instance }: SharedRecord, { replica = here, withinMs = 5000 } = {}) => {
    const records = await under().instances.readFromOthers(replica, withinMs);
    return records.find((record) => record.instance.equals(instance));
  };

  describe('the records of instances', () => {
    it('reach every other replica, and not the one that shared them', async () => {
      const record = recordOf({ epoch: randomBytes(16), seen: [randomBytes(16), randomBytes(16)] });
      await share(record);
      const { service, instance, epoch, seen } = record;
      expect(await foundBy(record)).to.deep.include({ service, instance, epoch, seen, applied: 0n });
      expect(await foundBy(record, { replica: elsewhere })).to.equal(undefined);
    });

    it('grow older, and are left out when they are too old', async () => {
      const record = recordOf({ ageMs: 1000, leaseLeftMs: 2000 });
      await share(record);
      await under().sleep(50);
      const found = await foundBy(record);
      expect(found?.ageMs).to.be.within(1050, 5000);
      expect((found?.ageMs ?? 0) + (found?.leaseLeftMs ?? 0)).to.be.within(2990, 3010);
      expect(await foundBy(record, { withinMs: 1000 })).to.equal(undefined);
    });

    it('count the position of an instance only if the log has the entry that the instance named there', async () => {
      const [entry] = await append(under(), anEntry());
      const { epoch } = await headOf(under());
      const at = { epoch, applied: entry?.sequence ?? 0n };
      const compared = recordOf({ ...at, seen: [randomBytes(16), entry?.entryId ?? randomBytes(16)] });
      const otherEntry = recordOf({ ...at, seen: [randomBytes(16)] });
      const otherEpoch = recordOf({ ...compared, instance: randomBytes(16), epoch: randomBytes(16) });
      await share(compared, otherEntry, otherEpoch);
      expect((await foundBy(compared))?.applied).to.equal(entry?.sequence);
      expect((await foundBy(otherEntry))?.applied).to.equal(0n);
      expect((await foundBy(otherEpoch))?.applied).to.equal(0n);
    });

    it('replace the earlier record of the same replica and instance', async () => {
      const first = recordOf({ service: 'inventory' });
      await share(first);
      await share({ ...first, service: 'payment' });
      expect((await foundBy(first))?.service).to.equal('payment');
      const all = await under().instances.readFromOthers(here, 5000);
      expect(all.filter(({ instance }) => instance.equals(first.instance))).to.have.length(1);
    });

    it('return a lease that was never granted as expired', async () => {
      const record = recordOf({ leaseLeftMs: Number.NEGATIVE_INFINITY, ageMs: 100 });
      await share(record);
      const leaseLeftMs = (await foundBy(record))?.leaseLeftMs;
      expect(leaseLeftMs).to.be.within(-5000, -100);
    });
  });
}
