/** The vectors of the specification, against auth's answers and the table of the issuer. */

import { ServiceError } from '@portcullis/guard/errors';
import { expect } from 'chai';
import {
  type AnswerStep,
  ISSUER_ROWS,
  type IssuerVector,
  issuerAnswer,
  LACKING,
  type LogStep,
  readIssuerVectors,
} from '../../../../proofs/spec/issuer.js';
import type { LogEntry, LogHead } from '../../../../services/auth/records/revocations.js';
import { IdDigests } from '../../../../services/auth/revocation/id-digests.js';
import {
  entriesNeededAfter,
  type LogReading,
  newlyLost,
  rangeName,
  rangesToCompare,
  type SyncPosition,
  sequencesToCompare,
  syncResultFor,
} from '../../../../services/auth/revocation/log.js';

const bytes = (hex: string): Buffer => Buffer.from(hex, 'hex');

function entry(sequence: bigint): LogEntry {
  return {
    entryId: bytes(sequence.toString(16).padStart(32, '0')),
    sequence,
    kind: 'TOKEN',
    issuer: '',
    key: Buffer.alloc(16, 1),
    minGeneration: 0n,
    keepUntil: new Date(1_000_000),
    cutOffTime: undefined,
    acknowledge: false,
  };
}

function positionOf({ request }: IssuerVector): SyncPosition {
  return {
    service: 'vectors',
    instance: Buffer.alloc(16, 1),
    epoch: bytes(request.epoch),
    applied: BigInt(request.applied),
    entryIdAtApplied: bytes(request.entry_id_at_applied),
    keySetVersion: Buffer.alloc(0),
    seen: [],
    fences: [],
    heldTo: BigInt(request.held_to ?? 0),
    heldDigest: bytes(request.held_digest ?? ''),
  };
}

/** What auth reads for the request: only what it says that it needs. */
function readingOf({ log }: IssuerVector, position: SyncPosition): LogReading {
  const head = BigInt(log.head);
  const state = {
    epoch: bytes(log.epoch),
    head,
    headEntryId: bytes(log.entry_ids[log.head] ?? ''),
    horizon: new Date(0),
    leaseMs: 5000,
    epochNumber: 1n,
    fenceWanted: 0n,
  };
  const after = entriesNeededAfter(state, [position]);
  const entries: LogEntry[] = [];
  if (after !== undefined)
    for (let sequence = after + 1n; sequence <= head; sequence += 1n) entries.push(entry(sequence));
  const compared = sequencesToCompare(state, [position]);
  const known = compared.flatMap((sequence) => {
    const id = log.entry_ids[String(sequence)];
    return id === undefined ? [] : [[sequence, bytes(id)] as const];
  });
  return {
    state,
    entries,
    entryIds: new Map(known),
    digests: digestsOf(log, state, position),
    otherEpochs: new Map(Object.entries(log.other_epochs)),
    keys: { keySet: { version: Buffer.alloc(32, 1), keys: [] }, broadcastKeys: [] },
  };
}

/** What auth knows of the ranges that it compares. */
function digestsOf({ entry_ids }: LogStep, state: LogHead, position: SyncPosition): LogReading['digests'] {
  return new Map(
    rangesToCompare(state, [position]).map((range) => {
      const ids = new IdDigests(range.applied);
      const entries: LogEntry[] = [];
      for (let sequence = range.applied + 1n; sequence <= range.heldTo; sequence += 1n) {
        entries.push({ ...entry(sequence), entryId: bytes(entry_ids[String(sequence)] ?? '00'.repeat(16)) });
      }
      ids.append(entries);
      return [rangeName(range), ids.between(range.applied, range.heldTo) ?? Buffer.alloc(0)];
    }),
  );
}

function answerOf(vector: IssuerVector): AnswerStep {
  const position = positionOf(vector);
  try {
    const { pull, entries, head } = syncResultFor(readingOf(vector, position), position);
    if (pull) return 'pull';
    return { entries: [Number(entries[0]?.sequence ?? head + 1n), Number(entries.at(-1)?.sequence ?? head)] };
  } catch (error) {
    if (error instanceof ServiceError && error.code === 'LOG_CHANGED') return 'LOG_CHANGED';
    throw error;
  }
}

describe('the vectors of an issuer', () => {
  const vectors = readIssuerVectors();

  for (const vector of vectors) {
    it(vector.name, () => {
      expect(issuerAnswer(vector.log, vector.request), 'the table').to.deep.equal(vector.expect);
      expect(answerOf(vector), 'auth').to.deep.equal(vector.expect);
    });
  }

  for (const id of [LACKING, ...ISSUER_ROWS.map((row) => row.id)]) {
    it(`fail without row ${id}`, () => {
      const failing = vectors.filter(
        ({ log, request, expect: answer }) =>
          JSON.stringify(issuerAnswer(log, request, id)) !== JSON.stringify(answer),
      );
      expect(failing.map(({ row }) => row)).to.include(id);
    });
  }

  it('note the loss of an unknown epoch once', () => {
    for (const vector of vectors) {
      const position = positionOf(vector);
      const isUnknown = vector.row === 'I3' && vector.log.other_epochs[vector.request.epoch] === undefined;
      expect(newlyLost(readingOf(vector, position), position) !== undefined, vector.name).to.equal(isUnknown);
    }
  });
});
