/** Digests of ranges of entry ids, compared with the XOR of the ids. */

import { randomBytes } from 'node:crypto';
import { HELD_ENTRIES_MAX, ID_BYTES } from '@portcullis/guard/limits';
import { expect } from 'chai';
import fc from 'fast-check';
import type { LogEntry } from '../../../../services/auth/records/revocations.js';
import { IdDigests } from '../../../../services/auth/revocation/id-digests.js';
import { digestOf } from './revocation-support.js';

function entriesAt(sequences: readonly bigint[]): LogEntry[] {
  return sequences.map((sequence) => ({
    entryId: randomBytes(ID_BYTES),
    sequence,
    kind: 'TOKEN',
    issuer: '',
    key: randomBytes(ID_BYTES),
    minGeneration: 0n,
    keepUntil: new Date(0),
    cutOffTime: undefined,
    acknowledge: false,
  }));
}

describe('digests of entry ids', () => {
  it('are the XOR of the ids in a range, also when entries have left the log in between', () => {
    const steps = fc.array(fc.integer({ min: 1, max: 4 }), { maxLength: 200 });
    const place = fc.integer({ min: 0, max: 500 });
    fc.assert(
      fc.property(steps, place, place, (gaps, one, other) => {
        let last = 10n;
        const entries = entriesAt(
          gaps.map((gap) => {
            last += BigInt(gap);
            return last;
          }),
        );
        const digests = new IdDigests(10n);
        digests.append(entries.slice(0, 7));
        digests.append(entries.slice(7));
        const [after, upTo] = [BigInt(Math.min(one, other)) + 10n, BigInt(Math.max(one, other)) + 10n];
        expect(digests.between(after, upTo)).to.deep.equal(digestOf(entries, after, upTo));
        expect(digests.between(9n, upTo)).to.equal(undefined);
      }),
    );
  });

  it('are kept for the last ids, however many are added', () => {
    const count = 3 * HELD_ENTRIES_MAX;
    const entries = entriesAt(Array.from({ length: count }, (_, index) => BigInt(index + 1)));
    const digests = new IdDigests(0n);
    digests.append(entries);
    const head = BigInt(count);
    for (const after of [head - BigInt(HELD_ENTRIES_MAX), head - 1000n, head - 1n, head]) {
      expect(digests.between(after, head)).to.deep.equal(digestOf(entries, after, head));
    }
    expect(digests.between(head - 7n, head - 3n)).to.deep.equal(digestOf(entries, head - 7n, head - 3n));
    expect(digests.between(1n, head)).to.equal(undefined);
  });
});
