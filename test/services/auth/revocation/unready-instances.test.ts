/** The instances that cannot apply a revocation by a claim, as replicas of auth have stored them. */

import { randomBytes } from 'node:crypto';
import { claimIdOf } from '@portcullis/guard/internal';
import { expect } from 'chai';
import type { SharedRecord } from '../../../../services/auth/revocation/instance-records.js';
import { createInstanceStore } from '../../../../services/auth/revocation/instance-store.js';
import type { Abilities } from '../../../../services/auth/revocation/log.js';
import { openTestLog, type TestLog } from './revocation-support.js';

const OTHER = 'https://other.example';
const CLAIM = { issuer: OTHER, claim: '/tenant' };
const KINDS = ['TOKEN', 'SESSION', 'USER', 'CLIENT', 'KEY', 'CLAIM'] as const;
const [TRUSTED, TENANT, GROUP] = [
  claimIdOf(OTHER, ''),
  claimIdOf(OTHER, '/tenant'),
  claimIdOf(OTHER, '/group'),
];

describe('the instances that cannot apply a revocation by a claim', () => {
  let log: TestLog;

  before(async () => {
    log = await openTestLog();
  });
  after(() => log.close());

  const [here, elsewhere] = [randomBytes(16), randomBytes(16)];
  const recordOf = (abilities: Abilities | undefined, over: Partial<SharedRecord> = {}): SharedRecord => ({
    ...{ service: 'inventory', instance: randomBytes(16), epoch: Buffer.alloc(0), applied: 0n, seen: [] },
    ...{ ageMs: 0, leaseLeftMs: 5000, abilities },
    ...over,
  });
  const reading = (...claimIds: Buffer[]): Abilities => ({ kinds: KINDS, claimIds });
  const isUnready = async (replica: Buffer, ...records: SharedRecord[]): Promise<boolean | undefined> => {
    const store = createInstanceStore(log.database);
    await store.share(replica, records);
    const found = (await store.unready(CLAIM)).find(({ instance }) =>
      instance.equals(records[0]?.instance ?? here),
    );
    return found === undefined ? undefined : !found.knowsKind;
  };

  it('do not know the kind: they have stated none, or others', async () => {
    expect(await isUnready(here, recordOf(undefined))).to.equal(true);
    expect(await isUnready(here, recordOf({ kinds: [], claimIds: [] }))).to.equal(true);
    expect(
      await isUnready(here, recordOf({ kinds: KINDS.slice(0, 5), claimIds: [TRUSTED, TENANT] })),
    ).to.equal(true);
  });

  it('trust the issuer and do not read the claim', async () => {
    expect(await isUnready(here, recordOf(reading(TRUSTED)))).to.equal(false);
    expect(await isUnready(here, recordOf(reading(GROUP, TRUSTED)))).to.equal(false);
    expect(
      await isUnready(here, recordOf(reading(TRUSTED, claimIdOf('https://third.example', '/tenant')))),
    ).to.equal(false);
  });

  it('are none of those that read it, that do not trust the issuer, or whose lease is over', async () => {
    expect(await isUnready(here, recordOf(reading(GROUP, TRUSTED, TENANT)))).to.equal(undefined);
    expect(await isUnready(here, recordOf(reading()))).to.equal(undefined);
    expect(await isUnready(here, recordOf(reading(claimIdOf('https://third.example', ''))))).to.equal(
      undefined,
    );
    expect(await isUnready(here, recordOf(undefined, { leaseLeftMs: -1 }))).to.equal(undefined);
  });

  it('have stated nothing to any replica: one of an earlier version stores no statement', async () => {
    const record = recordOf(reading(TRUSTED, TENANT));
    expect(await isUnready(elsewhere, { ...record, abilities: undefined })).to.equal(true);
    expect(await isUnready(here, record)).to.equal(undefined);
    // The lease that the other replica has granted counts, whoever knows the statement.
    const old = recordOf(undefined, { leaseLeftMs: -1 });
    expect(await isUnready(here, old)).to.equal(undefined);
    expect(await isUnready(elsewhere, { ...old, leaseLeftMs: 5000 })).to.equal(true);
  });
});
