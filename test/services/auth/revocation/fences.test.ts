/** Fences at auth: what services report, what a waiting Revoke learns of it, and whom it believes. */

import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '@portcullis/guard/clock';
import { expect } from 'chai';
import { createFenceStore } from '../../../../services/auth/revocation/fence-store.js';
import type { FenceReceipt } from '../../../../services/auth/revocation/fence-watch.js';
import { createFences, type Fences } from '../../../../services/auth/revocation/fences.js';
import { rejectionOf } from '../../../support/outcomes.js';
import { following, openTestLog, question, type TestLog } from './revocation-support.js';

const ID = Buffer.alloc(16, 5);
const OTHER_ID = Buffer.alloc(16, 6);

describe('fences at auth', function () {
  this.timeout(30_000);
  let log: TestLog;
  let other: Fences;

  beforeEach(async () => {
    log = await openTestLog();
    other = createFences({ store: createFenceStore(log.database), clock: systemClock });
  });
  afterEach(() => log.close());

  const revoke = (fences: readonly string[], signal?: AbortSignal) =>
    log.revocations.revoke({
      target: { kind: 'token-id', tokenId: '11111111-1111-4111-8111-111111111111' },
      reason: '',
      actor: 'olga',
      wait: 'FENCED',
      fences,
      ...(signal !== undefined && { signal }),
    });
  const statesOf = (fences: readonly FenceReceipt[]) => fences.map(({ name, state }) => `${name} ${state}`);
  const position = (epochNumber: bigint, sequence: bigint, fenceId = ID, database = '') => ({
    database,
    fenceId,
    epochNumber,
    sequence,
  });

  it('asks for fences up to the entry, and returns when the service has reported one there', async () => {
    const before = await log.revocations.sync(question());
    expect(before.fenceWanted).to.equal(0n);
    const waiting = revoke(['payment']);
    await sleep(100);
    const answer = await log.revocations.sync(question());
    expect(answer.fenceWanted).to.equal(1n);
    expect(answer.epochNumber).to.equal(before.epochNumber);
    const report = (sequence: bigint) =>
      log.revocations.sync({
        ...following(answer),
        service: 'payment',
        instance: Buffer.alloc(16, 9),
        fences: [position(answer.epochNumber, sequence)],
      });
    await report(0n);
    await sleep(100);
    await report(1n);
    const { fences, sequence } = await waiting;
    expect(sequence).to.equal(1n);
    expect(statesOf(fences)).to.deep.equal(['payment FENCED']);
    expect(fences[0]?.milliseconds).to.be.within(150, 5_000);
  });

  it('finds what another replica was told', async () => {
    const { epochNumber } = await log.revocations.sync(question());
    const waiting = revoke(['payment', 'payment/archive']);
    await sleep(50);
    other.reported('payment', [position(epochNumber, 1n), position(epochNumber, 4n, OTHER_ID, 'archive')]);
    expect(statesOf((await waiting).fences)).to.deep.equal(['payment FENCED', 'payment/archive FENCED']);
  });

  it('returns at the bound, or with its signal, naming what is not fenced and what nobody has reported', async () => {
    const { epochNumber } = await log.revocations.sync(question());
    const gone = new AbortController();
    const waiting = revoke(['payment', 'inventory'], gone.signal);
    other.reported('payment', [position(epochNumber, 0n)]);
    await sleep(200);
    gone.abort();
    expect(statesOf((await waiting).fences)).to.deep.equal(['payment PENDING', 'inventory UNKNOWN']);
  });

  it('waits for every database that reports the name, and believes a service about its own fences only', async () => {
    const { epochNumber } = await log.revocations.sync(question());
    other.reported('payment', [position(epochNumber, 0n), position(epochNumber, 1n, OTHER_ID)]);
    other.reported('mallory', [position(epochNumber, 9n)]);
    await sleep(100);
    const gone = new AbortController();
    const waiting = revoke(['payment'], gone.signal);
    await sleep(200);
    other.reported('mallory', [position(epochNumber, 9n, ID, '')]);
    await sleep(100);
    gone.abort();
    expect(statesOf((await waiting).fences)).to.deep.equal(['payment PENDING']);
  });

  it('ignores what an instance reports that must pull', async () => {
    const { epochNumber } = await log.revocations.sync(question());
    const gone = new AbortController();
    const waiting = revoke(['payment'], gone.signal);
    await sleep(50);
    const answer = await log.revocations.sync(
      question({ service: 'payment', instance: Buffer.alloc(16, 9), fences: [position(epochNumber, 1n)] }),
    );
    expect(answer.pull).to.equal(true);
    await sleep(100);
    gone.abort();
    expect(statesOf((await waiting).fences)).to.deep.equal(['payment UNKNOWN']);
  });

  it('gives a new epoch a larger number, in which nothing is wanted yet', async () => {
    await log.revokeToken();
    const gone = AbortSignal.timeout(50);
    await revoke(['payment'], gone);
    const before = await log.revocations.sync(question());
    await log.transaction((tx) => tx.revocations.openEpoch({ reason: '', actor: 'olga' }));
    const after = await log.revocations.sync(question());
    expect(before.fenceWanted).to.equal(2n);
    expect(after.epochNumber > before.epochNumber).to.equal(true);
    expect(after.fenceWanted).to.equal(0n);
  });

  it('rejects names that mean nothing, before anything is revoked', async () => {
    const before = await log.revocations.sync(question());
    for (const names of [
      [],
      ['a b'],
      ['payment', 'payment'],
      Array.from({ length: 17 }, (_, n) => `s${n}`),
    ]) {
      expect(await rejectionOf(revoke(names))).to.have.property('code', 'FIELD_INVALID');
    }
    const target = { kind: 'token-id', tokenId: '11111111-1111-4111-8111-111111111111' } as const;
    const unwanted = log.revocations.revoke({
      target,
      reason: '',
      actor: 'olga',
      wait: 'NONE',
      fences: ['payment'],
    });
    expect(await rejectionOf(unwanted)).to.have.property('code', 'FIELD_INVALID');
    const after = await log.revocations.sync(question());
    expect(after.head).to.equal(before.head);
    for (const fence of [
      position(1n, 1n, Buffer.alloc(3)),
      position(1n, 1n, ID, 'a/b'),
      position(1n, 2n ** 63n),
    ]) {
      const asked = log.revocations.sync(question({ fences: [fence] }));
      expect(await rejectionOf(asked)).to.have.property('code', 'FIELD_INVALID');
    }
  });
});
