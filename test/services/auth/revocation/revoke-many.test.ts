/** Revoking many targets: the receipt of all of them, and the order in which they are written. */

import { randomUUID } from 'node:crypto';
import { systemClock } from '@portcullis/guard/clock';
import { expect } from 'chai';
import type { LogEntry } from '../../../../services/auth/records/revocations.js';
import type { Committed } from '../../../../services/auth/revocation/enforcement-watch.js';
import type { Written } from '../../../../services/auth/revocation/revocation-groups.js';
import { revokeMany } from '../../../../services/auth/revocation/revoke-many.js';

const BY = { reason: 'a test', actor: 'olga' } as const;

/** An entry whose commit was confirmed at this time. */
function written(sequence: bigint, committedAtMs: number, epoch = Buffer.alloc(16, 1)): Written {
  const entry: LogEntry = {
    entryId: Buffer.alloc(16, Number(sequence)),
    sequence,
    kind: 'TOKEN',
    issuer: '',
    key: Buffer.alloc(16),
    minGeneration: 0n,
    keepUntil: new Date(0),
    cutOffTime: undefined,
    acknowledge: false,
  };
  const lock = { lockedTime: new Date(committedAtMs), leaseMs: 5000, olderLeasesEndBy: new Date(0) };
  return {
    appended: { epoch, epochNumber: 1n, entries: [entry], ...lock },
    entry,
    committedAtMs,
    elapsedMs: 1,
  };
}

describe('many revocations by claims', () => {
  const issuer = 'https://other.example';
  const byClaim = (claim: string, id: string) =>
    ({ kind: 'foreign', foreign: { issuer, what: 'CLAIM', claim, id } }) as const;

  it('read the instances once for each claim, and fail alone where one cannot apply it', async () => {
    const read: string[] = [];
    const unexpected = () => Promise.reject(new TypeError('not expected'));
    let sequence = 0n;
    const { results } = await revokeMany(
      {
        store: { transaction: unexpected },
        groups: { write: () => Promise.resolve(written(++sequence, 1000)) },
        instances: {
          waits: () => 0,
          wait: unexpected,
          unready: ({ claim }) => {
            read.push(claim);
            const unready = { service: 'payment', instance: Buffer.alloc(16, 7), knowsKind: false };
            return Promise.resolve(claim === '/tenant' ? [] : [unready]);
          },
        },
        fences: { waits: () => 0, wait: unexpected },
        clock: systemClock,
        issuer: 'https://auth.test',
        foreignIssuers: [issuer],
        revocableClaims: new Map([[issuer, ['/tenant', '/group']]]),
        identify: unexpected,
        sessionIdOf: unexpected,
        onKeyRevoked: () => undefined,
      },
      { ...BY, targets: [byClaim('/tenant', 'a'), byClaim('/group', 'b'), byClaim('/tenant', 'c')] },
    );
    expect(read).to.deep.equal(['/tenant', '/group']);
    const outcomes = results.map((result) => ('error' in result ? result.error.code : result.sequence));
    expect(outcomes).to.deep.equal([1n, 'CLAIM_UNSUPPORTED', 2n]);
  });
});

describe('the receipt of many revocations', () => {
  /** What is waited for after these were written. */
  async function committedAfter(all: readonly Written[]): Promise<Committed> {
    const left = [...all];
    const waits: Committed[] = [];
    await revokeMany(
      {
        store: { transaction: () => Promise.reject(new TypeError('not expected')) },
        groups: { write: () => Promise.resolve(left.shift()) },
        instances: {
          waits: () => 0,
          wait: (committed) => {
            waits.push(committed);
            return Promise.resolve([]);
          },
          unready: () => Promise.reject(new TypeError('not expected')),
        },
        fences: { waits: () => 0, wait: () => Promise.reject(new TypeError('not expected')) },
        clock: systemClock,
        issuer: 'https://auth.test',
        foreignIssuers: [],
        identify: () => Promise.reject(new TypeError('not expected')),
        sessionIdOf: () => Promise.resolve(undefined),
        onKeyRevoked: () => undefined,
      },
      {
        ...BY,
        wait: 'KNOWN_INSTANCES',
        targets: all.map(() => ({ kind: 'token-id', tokenId: randomUUID() })),
      },
    );
    const [committed] = waits;
    if (committed === undefined) throw new TypeError('nothing was waited for');
    return committed;
  }

  it('is that of the last entry, although the commit before it was confirmed later', async () => {
    // An instance that has the first three does not have the fourth.
    const committed = await committedAfter([written(4n, 1000), written(3n, 1002), written(2n, 1002)]);
    expect(committed.entry.sequence).to.equal(4n);
    expect(committed.committedAtMs).to.equal(1000);
    // The bound of the one that was confirmed later.
    expect(committed.boundAtMs).to.equal(1000 + 2 + 5150);
  });

  it('is that of the last epoch', async () => {
    const epoch = Buffer.alloc(16, 2);
    const committed = await committedAfter([
      written(9n, 1000),
      written(1n, 1001, epoch),
      written(2n, 1001, epoch),
    ]);
    expect(committed.epoch).to.deep.equal(epoch);
    expect(committed.entry.sequence).to.equal(2n);
  });
});
