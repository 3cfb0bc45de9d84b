/** The records of instances that replicas share. */

import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import {
  HISTORY_KEPT_SECONDS,
  INSTANCE_KEPT_SECONDS,
  type ListedInstance,
  type SharedRecord,
} from '../../../services/auth/revocation/instance-records.js';
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

    it('are listed once for each instance, with its last request, by service and id, in pages', async () => {
      const { instances } = under();
      await append(under(), anEntry());
      const { epoch, head } = await headOf(under());
      const name = randomBytes(8).toString('hex');
      const ids = [1, 2].map((first) => Buffer.concat([Buffer.from([first]), randomBytes(15)]));
      const [first, second] = ids as [Buffer, Buffer];
      const current = recordOf({ service: `a${name}`, instance: first, epoch, applied: head, ageMs: 10 });
      const behind = recordOf({ service: `a${name}`, instance: second, epoch, applied: head - 1n });
      const foreign = recordOf({ service: `b${name}`, instance: first, epoch: randomBytes(16), applied: 9n });
      await share(behind, { ...current, applied: 0n, ageMs: 5000 });
      // A replica has one record of an instance id; another one may have it of another service.
      await instances.share(randomBytes(16), [current]);
      await instances.share(randomBytes(16), [foreign]);
      await share(recordOf({ service: `c${name}`, ageMs: (INSTANCE_KEPT_SECONDS + 1) * 1000 }));
      const listed: ListedInstance[] = [];
      let pageToken = '';
      do {
        const page = await instances.list({ pageSize: 1, pageToken });
        expect(page.instances).to.have.length(1);
        listed.push(...page.instances.filter(({ service }) => service.endsWith(name)));
        pageToken = page.nextPageToken;
      } while (pageToken !== '');
      expect(listed.map(({ service, instance }) => [service.slice(0, 1), instance])).to.deep.equal([
        ['a', first],
        ['a', second],
        ['b', first],
      ]);
      expect(listed.map(({ applied, lag, currentEpoch }) => [applied, lag, currentEpoch])).to.deep.equal([
        [head, 0n, true],
        [head - 1n, 1n, true],
        [9n, head, false],
      ]);
      const leases = listed.map(({ leaseLeftMs }) => leaseLeftMs > 0);
      expect(leases).to.deep.equal([true, true, false]);
      expect(listed[0]?.lastSyncAgeMs).to.be.within(10, 4000);
    });

    it('are deleted when the instance has been silent for long', async () => {
      const silent = recordOf({ ageMs: (HISTORY_KEPT_SECONDS + 1) * 1000 });
      const recent = recordOf({ ageMs: (HISTORY_KEPT_SECONDS - 60) * 1000 });
      await share(silent, recent);
      const withinMs = 2 * HISTORY_KEPT_SECONDS * 1000;
      expect(await foundBy(silent, { withinMs })).to.not.equal(undefined);
      await under().instances.deleteSilent();
      expect(await foundBy(silent, { withinMs })).to.equal(undefined);
      expect(await foundBy(recent, { withinMs })).to.not.equal(undefined);
    });

    it('return a lease that was never granted as expired', async () => {
      const record = recordOf({ leaseLeftMs: Number.NEGATIVE_INFINITY, ageMs: 100 });
      await share(record);
      const leaseLeftMs = (await foundBy(record))?.leaseLeftMs;
      expect(leaseLeftMs).to.be.within(-5000, -100);
    });
  });
}
