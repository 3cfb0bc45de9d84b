/** The receipt of a revocation, out of the evidence of its round. */

import { expect } from 'chai';
import type { InstanceEvidence, ReceiptedRevocation } from '../../../../services/auth/evidence/receipt.js';
import { receiptOf } from '../../../../services/auth/evidence/receipt.js';

const REVOCATION: ReceiptedRevocation = {
  ...{ epoch: 'AAAA', sequence: '7', kind: 'USER', target: 'u' },
  ...{ revoke_time: '2026-11-30T14:03:00.000Z', enforced_everywhere_by: '2026-11-30T14:03:06.150Z' },
  ...{ actor: 'olga', network: '192.0.2.7', reason: 'stolen' },
};

const INSTANCE: InstanceEvidence = {
  ...{ service: 'inventory', instance: '01', host: 'web1', version: '0.1.0', left: false },
  ...{ sync_time: '2026-11-30T14:03:09.000Z', lease_end_time: '2026-11-30T14:03:14.000Z', positions: [] },
};

const known = (sequence: string, up_to: boolean, second: string) => ({
  ...{ sequence, up_to, known_time: `2026-11-30T14:03:${second}Z` },
});

function stateOf(
  evidence: Partial<InstanceEvidence>,
  closedAt = '2026-11-30T14:03:10.000Z',
  { final = false } = {},
) {
  const round = { closeTime: new Date(closedAt), instances: [{ ...INSTANCE, ...evidence }] };
  const about = { issuer: 'https://auth.test', final, now: new Date(closedAt) };
  return receiptOf(REVOCATION, round, about).instances;
}

describe('the receipt of a revocation', () => {
  it('takes the first position at or beyond the entry for the time of enforcement', () => {
    const positions = [known('6', true, '00.100'), known('8', true, '01.000'), known('9', true, '02.000')];
    expect(stateOf({ positions })).to.deep.include.members([
      {
        ...{ service: 'inventory', instance: '01', host: 'web1', version: '0.1.0', state: 'ENFORCED' },
        enforced_time: '2026-11-30T14:03:01.000Z',
        last_sync_time: INSTANCE.sync_time,
        lease_end_time: INSTANCE.lease_end_time,
      },
    ]);
  });

  it('counts the acknowledgement of a single entry for that entry alone', () => {
    expect(stateOf({ positions: [known('7', false, '00.050')] })[0]).to.include({ state: 'ENFORCED' });
    expect(stateOf({ positions: [known('8', false, '00.050')] })[0]).to.include({ state: 'PENDING' });
  });

  it('states an instance that never confirmed as silent once its lease is over, and until when it ran', () => {
    const lease_end_time = '2026-11-30T14:03:04.000Z';
    expect(stateOf({ lease_end_time })[0]).to.include({ state: 'SILENT', lease_end_time });
    expect(stateOf({ lease_end_time }, '2026-11-30T14:03:02.000Z')[0]).to.include({ state: 'PENDING' });
  });

  it('states an instance of which a crash of the database left no times as pending until the bound', () => {
    const lost = { sync_time: null, lease_end_time: null };
    expect(stateOf(lost)[0]).to.include({ state: 'PENDING' });
    expect(stateOf(lost, undefined, { final: true })[0]).to.include({ state: 'SILENT' });
  });

  it('has no pending instance once it is final: a lease that runs then began with the entry in the list', () => {
    expect(stateOf({})[0]).to.include({ state: 'PENDING' });
    expect(stateOf({}, undefined, { final: true })[0]).to.include({ state: 'SILENT' });
  });

  it('leaves out an instance whose lease was over before the revocation', () => {
    const before = '2026-11-30T14:02:00.000Z';
    expect(stateOf({ sync_time: before, lease_end_time: before })).to.deep.equal([]);
  });
});
