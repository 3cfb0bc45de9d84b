/** Sync responses whose entries are encoded once. */

import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import { SyncResponse } from '../../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { encodeSyncResponse, shareEntries } from '../../../../services/auth/adapters/encoded-entries.js';
import { syncResponseOf } from '../../../../services/auth/adapters/revocation-messages.js';
import type { LogEntry } from '../../../../services/auth/records/revocations.js';
import { type SyncResult, suffixOf } from '../../../../services/auth/revocation/log.js';

function entry(sequence: bigint): LogEntry {
  const isForeign = sequence % 3n === 0n;
  return {
    entryId: randomBytes(16),
    sequence,
    kind: isForeign ? 'USER' : 'SESSION',
    issuer: isForeign ? 'https://other.example' : '',
    key: isForeign ? Buffer.from('bob') : randomBytes(16),
    minGeneration: sequence,
    keepUntil: new Date(1_700_000_000_123),
    cutOffTime: isForeign ? new Date(1_700_000_000_000) : undefined,
    acknowledge: sequence % 2n === 0n,
  };
}

function answer(reading: readonly LogEntry[], after: bigint): SyncResult {
  return {
    epoch: randomBytes(16),
    head: BigInt(reading.length),
    headEntryId: randomBytes(16),
    horizon: new Date(1_700_000_000_000),
    leaseMs: 5500,
    entries: suffixOf(reading, after),
    reading,
    pull: false,
    keySet: { version: randomBytes(32), keys: [{ kid: 'one', algorithm: 'EdDSA', jwk: '{}' }] },
    broadcastKeys: [{ kid: 'two', algorithm: 'EdDSA', jwk: '{}' }],
  };
}

describe('the encoding of sync responses', () => {
  const reading = Array.from({ length: 10 }, (_, index) => entry(BigInt(index + 1)));

  it('is that of the message, whichever entries of a read the response has', () => {
    for (const after of [0n, 1n, 5n, 9n, 10n]) {
      const result = answer(reading, after);
      const response = syncResponseOf(result);
      shareEntries(response, result);
      const plain = SyncResponse.decode(SyncResponse.encode(syncResponseOf(result)).finish());
      expect(plain.entries).to.have.length(10 - Number(after));
      expect(SyncResponse.decode(encodeSyncResponse(response))).to.deep.equal(plain);
    }
  });

  it('is that of the message for a response of its own', () => {
    const { reading: _reading, ...result } = answer(reading, 4n);
    const response = syncResponseOf(result);
    shareEntries(response, result);
    expect(encodeSyncResponse(response)).to.deep.equal(
      Buffer.from(SyncResponse.encode(syncResponseOf(result)).finish()),
    );
  });

  it('does not translate the entries of a response that shares them', () => {
    const poisoned = reading.map((one) => ({ ...one }));
    const first = answer(poisoned, 0n);
    const response = syncResponseOf(first);
    shareEntries(response, first);
    encodeSyncResponse(response);
    let translated = 0;
    for (const one of poisoned) {
      const { entryId } = one;
      Object.defineProperty(one, 'entryId', {
        get: () => {
          translated += 1;
          return entryId;
        },
      });
    }
    // Of the same read, and of a later one that begins with the same entries.
    for (const later of [poisoned, [...poisoned, entry(11n)]]) {
      const second = answer(later, 3n);
      const other = syncResponseOf(second);
      shareEntries(other, second);
      encodeSyncResponse(other);
    }
    expect(translated).to.equal(0);
  });
});
