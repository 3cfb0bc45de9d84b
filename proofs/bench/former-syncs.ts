/** Syncs as they were before entries were encoded once: the arm that the section `sync` compares with. */

import type { RevocationSource } from '@portcullis/guard';
import type { SyncResponse } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { entryMessageOf, questionOf } from '../../services/auth/adapters/revocation-messages.js';
import type { EpochStanding } from '../../services/auth/records/revocations.js';
import type { Instances } from '../../services/auth/revocation/instances.js';
import {
  checkQuestion,
  entriesNeededAfter,
  type LogReading,
  otherEpochs,
  type SyncPosition,
  type SyncResult,
  sequencesToCompare,
  syncResultFor,
} from '../../services/auth/revocation/log.js';
import type { RevocationStore } from '../../services/auth/revocation/log-access.js';
import { createSharedReads } from '../../services/auth/revocation/shared-reads.js';

/**
 * Creates the source of an auth whose every read fetches all entries that its requests need, and in which every response
 * has messages of its own (auth at commit 8259971). Its service must not be the one that shares encoded entries.
 */
export function createFormerSyncs(deps: {
  readonly log: RevocationStore;
  readonly instances: Pick<Instances, 'requested' | 'answered'>;
}): Pick<RevocationSource, 'sync'> {
  const { log, instances } = deps;
  const heads = createSharedReads<SyncPosition, LogReading>(async (questions) => {
    const reading = await readFor(log, questions);
    return () => reading;
  });
  return {
    sync: async (request) => {
      const question = questionOf(request);
      checkQuestion(question);
      const requestedAtMs = performance.now();
      instances.requested(question);
      const reading = await heads.read(question);
      const { applied } = question;
      const answer = syncResultFor(reading, question);
      const entries = answer.pull ? [] : reading.entries.filter(({ sequence }) => sequence > applied);
      instances.answered(question, requestedAtMs, { ...answer, entries });
      return responseOf({ ...answer, entries });
    },
  };
}

function readFor(log: RevocationStore, questions: readonly SyncPosition[]): Promise<LogReading> {
  return log.read(async (reader) => {
    const { state } = reader;
    const after = entriesNeededAfter(state, questions);
    const places = sequencesToCompare(state, questions);
    const others = otherEpochs(state, questions);
    const [keys, entries, entryIds, known] = await Promise.all([
      reader.publishedKeys(),
      after === undefined ? [] : reader.entriesAfter(after),
      places.length === 0 ? new Map<bigint, Buffer>() : reader.entryIdsAt(places),
      others.length === 0 ? new Map<string, EpochStanding>() : reader.standingOf(others),
    ]);
    return { state, keys, entries, entryIds, digests: new Map(), otherEpochs: known };
  });
}

function responseOf(answer: SyncResult): SyncResponse {
  const { leaseMs } = answer;
  return {
    epoch: answer.epoch,
    head: answer.head,
    entryIdAtHead: answer.headEntryId,
    entries: answer.entries.map(entryMessageOf),
    pull: answer.pull,
    keySet: answer.keySet && { version: answer.keySet.version, keys: [...answer.keySet.keys] },
    broadcastKeys: [...answer.broadcastKeys],
    horizon: answer.horizon,
    epochNumber: answer.epochNumber,
    fenceWanted: answer.fenceWanted,
    leaseLength: { seconds: BigInt(Math.floor(leaseMs / 1000)), nanos: (leaseMs % 1000) * 1_000_000 },
  };
}
