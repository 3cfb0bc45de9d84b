/** The records of instances that replicas share, in PostgreSQL. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import type { LogEntry } from '../../../../services/auth/records/revocations.js';
import type { SharedRecord } from '../../../../services/auth/revocation/instance-records.js';
import { createInstanceStore } from '../../../../services/auth/revocation/instance-store.js';
import { createRevocationRecords } from '../../../../services/auth/revocation/listed-revocations-store.js';
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

describe('the history of instances', () => {
  let auth: AuthInstance;
  let entries: readonly LogEntry[];
  let epoch: Buffer;

  before(async () => {
    auth = await openFreshAuth({ keyEncryptionKey: newKeyEncryptionKey() });
    ({ epoch, entries } = await auth.store.transaction((tx) =>
      tx.revocations.append(
        [1, 2, 3].map(() => ({ ...tokenRevocation(randomUUID()), reason: 'test', actor: 'test' })),
      ),
    ));
  });
  after(() => auth.close());

  const idAt = (sequence: number) => entries[sequence - 1]?.entryId ?? createId();

  /** Shares that an instance has applied entries up to one, or has others in its list. */
  async function share(
    instance: Buffer,
    {
      applied = 0,
      seen = [],
      ...over
    }: { applied?: number; seen?: Buffer[] } & Partial<Omit<SharedRecord, 'applied'>>,
  ): Promise<void> {
    const ids = applied > 0 ? [...seen, idAt(applied)] : seen;
    await createInstanceStore(auth.database).share(createId(), [
      {
        ...{ service: 'inventory', instance, epoch, applied: BigInt(applied), seen: ids },
        ...{ ageMs: 10, leaseLeftMs: 5000, isNews: true, ...over },
      },
    ]);
  }

  async function at(sequence: number, instance: Buffer) {
    const { instances } = await createRevocationRecords(auth.database).get(BigInt(sequence));
    return instances.find((one) => one.instance.equals(instance));
  }

  it('states the first time at which an instance had an entry, whatever it has sent since', async () => {
    const instance = createId();
    await share(instance, { applied: 1, ageMs: 0 });
    const first = (await at(1, instance))?.enforcedTime;
    expect(first).to.be.an.instanceOf(Date);
    expect(await at(2, instance)).to.include({ state: 'PENDING', enforcedTime: undefined });
    await share(instance, { applied: 1, ageMs: 0 });
    await share(instance, { applied: 3, ageMs: 0 });
    expect((await at(1, instance))?.enforcedTime).to.deep.equal(first);
    // It went from the first entry to the third at once.
    const second = await at(2, instance);
    expect(second?.enforcedTime?.getTime()).to.be.greaterThan(first?.getTime() ?? 0);
    expect(second?.enforcedTime).to.deep.equal((await at(3, instance))?.enforcedTime);
  });

  it('counts an acknowledged entry alone, without those before it', async () => {
    const instance = createId();
    await share(instance, { applied: 1, seen: [idAt(3)] });
    expect((await at(3, instance))?.state).to.equal('ENFORCED');
    expect((await at(2, instance))?.state).to.equal('PENDING');
  });

  it('counts nothing that the log does not have at that place', async () => {
    const instance = createId();
    await share(instance, { applied: 0, seen: [createId()] });
    await createInstanceStore(auth.database).share(createId(), [
      {
        ...{ service: 'inventory', instance, epoch, applied: 3n, seen: [createId()] },
        ...{ ageMs: 10, leaseLeftMs: 5000, isNews: true },
      },
    ]);
    expect(await at(1, instance)).to.include({ state: 'PENDING', enforcedTime: undefined });
  });

  it('does not count what an instance of the same id has sent for another service', async () => {
    const instance = createId();
    await share(instance, { applied: 3, service: 'payment' });
    await share(instance, { applied: 0, service: 'inventory' });
    const { instances } = await createRevocationRecords(auth.database).get(3n);
    const states = instances.filter((one) => one.instance.equals(instance));
    expect(states.map(({ service, state }) => [service, state])).to.deep.equal([
      ['inventory', 'PENDING'],
      ['payment', 'ENFORCED'],
    ]);
  });

  it('shows a silent instance with the end of its lease, for as long as the entry is listed', async () => {
    const [had, silent, gone] = [createId(), createId(), createId()];
    await share(had, { applied: 3 });
    await share(silent, { ageMs: 100, leaseLeftMs: -1 });
    await share(gone, { ageMs: 3_600_000, leaseLeftMs: -3_500_000 });
    // 50 minutes later.
    await auth.database.query(
      `UPDATE instances SET sync_time = sync_time - interval '50 minutes',
                            lease_end_time = lease_end_time - interval '50 minutes'`,
    );
    await auth.database.transaction(async (sql) => {
      await sql.query("SELECT set_config('session_replication_role', 'replica', true)");
      await sql.query("UPDATE revocation_entries SET revoke_time = revoke_time - interval '50 minutes'");
      await sql.query("UPDATE instance_positions SET known_time = known_time - interval '50 minutes'");
    });
    await createInstanceStore(auth.database).deleteSilent();
    expect((await at(3, had))?.state).to.equal('ENFORCED');
    const unknown = await at(3, silent);
    expect(unknown).to.include({ state: 'UNKNOWN', enforcedTime: undefined });
    expect(Date.now() - (unknown?.leaseEndTime?.getTime() ?? 0)).to.be.within(2_900_000, 3_100_000);
    expect(await at(3, gone), 'its lease was over before the revocation').to.equal(undefined);
  });

  it('survives a crash of the database, which empties the present records', async () => {
    const instance = createId();
    await share(instance, { applied: 3 });
    await auth.database.query('TRUNCATE instances');
    expect(await at(3, instance)).to.include({
      service: 'inventory',
      state: 'ENFORCED',
      leaseEndTime: undefined,
    });
  });

  it('is deleted once no entry can be listed that it is about', async () => {
    await share(createId(), { applied: 3 });
    await auth.database.query("UPDATE instance_positions SET known_time = now() - interval '2 hours'");
    await auth.database.query("UPDATE instance_names SET begin_time = now() - interval '2 hours'");
    await auth.database.query("UPDATE instances SET sync_time = now() - interval '2 hours'");
    await createInstanceStore(auth.database).deleteSilent();
    for (const table of ['instance_positions', 'instance_names', 'instances']) {
      const { rows } = await auth.database.query(`SELECT FROM ${table}`);
      expect(rows, table).to.be.empty;
    }
  });
});
