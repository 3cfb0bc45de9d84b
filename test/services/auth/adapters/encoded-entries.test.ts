/** Sync responses whose entries are encoded once. */

import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import { type Entry, SyncResponse } from '../../../../proto/gen/portcullis/revocation/v1/revocation.js';
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
    epochNumber: 7n,
    fenceWanted: 3n,
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
    const translated = countTranslations(poisoned);
    // Of the same read, and of a later one that begins with the same entries.
    for (const later of [poisoned, [...poisoned, entry(11n)]]) encode(later, 3n);
    expect(translated()).to.equal(0);
  });

  it('reuses the bytes of a read that it continues', () => {
    const known = reading.slice(0, 8).map((one) => ({ ...one }));
    encode(known, 0n);
    const poisoned = countTranslations(known);
    const fresh = reading.slice(8);
    const continued = [...known.slice(2), ...fresh];
    const bytes = encode(continued, 4n);
    expect(poisoned()).to.equal(0);
    expect(SyncResponse.decode(bytes).entries.map(({ sequence }) => sequence)).to.deep.equal(
      continued.slice(2).map(({ sequence }) => sequence),
    );
    expect(SyncResponse.decode(bytes).entries).to.deep.equal(plainEntries(reading.slice(4)));
  });

  it('encodes again what another log has at the same places', () => {
    encode(reading, 0n);
    const others = [reading[0], ...reading.slice(1).map(({ sequence }) => entry(sequence))] as LogEntry[];
    expect(SyncResponse.decode(encode(others, 0n)).entries).to.deep.equal(plainEntries(others));
    const same = reading.slice(0, 5);
    const forked = [...same, ...others.slice(5)];
    encode(reading, 0n);
    expect(SyncResponse.decode(encode(forked, 2n)).entries).to.deep.equal(plainEntries(forked.slice(2)));
  });
});

function encode(reading: readonly LogEntry[], after: bigint): Buffer {
  const result = answer(reading, after);
  const response = syncResponseOf(result);
  shareEntries(response, result);
  return encodeSyncResponse(response);
}

/** The entries of a response that encodes them by itself. */
function plainEntries(entries: readonly LogEntry[]): readonly Entry[] {
  const { reading: _reading, ...result } = answer(entries, 0n);
  return SyncResponse.decode(SyncResponse.encode(syncResponseOf({ ...result, entries })).finish()).entries;
}

/** Counts how often entries are read from now on. */
function countTranslations(entries: readonly LogEntry[]): () => number {
  let translated = 0;
  for (const one of entries) {
    const { entryId } = one;
    Object.defineProperty(one, 'entryId', {
      get: () => {
        translated += 1;
        return entryId;
      },
    });
  }
  return () => translated;
}
