/** Opens a new epoch of the revocation log, after the database was restored or has lost transactions. */

import { type Clock, systemClock } from '@portcullis/guard/clock';
import { invalidField } from '@portcullis/guard/errors';
import { parseRequestId } from '../../common/validation/request-id.js';
import type { Keys } from '../keys/keys.js';
import type { AuthStore, AuthTransaction } from '../transaction.js';
import { checkReason, enforcedEverywhereBy } from './log.js';

/** The result of opening an epoch. */
interface OpenedEpoch {
  readonly epoch: Buffer;
  readonly endedSessions: number;
  /** From this moment of database time on no instance admits a token of an earlier epoch. */
  readonly enforcedEverywhereBy: Date;
}

/** Opens epochs. */
export interface Epochs {
  /**
   * Replaces every signing key, ends every session, and begins a new log, all or nothing. The same request id opens
   * one epoch only.
   *
   * @throws ServiceError FIELD_INVALID, REQUEST_ID_REUSED, REQUEST_IN_PROGRESS, DEPENDENCY_UNAVAILABLE
   */
  open(request: { reason: string; actor: string; network?: string; requestId: string }): Promise<OpenedEpoch>;
}

/** Creates the operation that opens epochs. */
export function createEpochs(deps: {
  readonly store: AuthStore;
  readonly keys: Pick<Keys, 'createAll'>;
  readonly clock?: Clock;
}): Epochs {
  const { store, keys, clock = systemClock } = deps;
  return {
    open: async ({ reason, actor, network = '', requestId: text }) => {
      checkReason(reason);
      const requestId = parseRequestId(text);
      if (requestId === '') throw invalidField('request_id', 'must be set');
      const made = await keys.createAll();
      return await store.transaction((tx) =>
        tx.once({ subject: actor, method: 'OpenEpoch', requestId, payload: reason }, async () => {
          // A replica that starts meanwhile must not create keys for an epoch that is about to end.
          await tx.keys.lockCreation();
          const endedSessions = await endAndRetire(tx);
          await tx.events.record({
            type: 'epoch-opened',
            subject: {},
            actor,
            reason,
            network,
            requestId,
            details: { endedSessions },
          });
          const startedMs = clock.monotonicMs();
          const opened = await tx.revocations.openEpoch({ reason, actor });
          for (const key of made) await tx.keys.insert(key);
          return {
            epoch: opened.epoch,
            endedSessions,
            // The answer is stored with the request, so it is written before the commit.
            enforcedEverywhereBy: enforcedEverywhereBy(
              opened,
              COMMIT_MS_MAX + clock.monotonicMs() - startedMs,
            ),
          };
        }),
      );
    },
  };
}

/** Longest commit that the stored answer allows for, in milliseconds. */
const COMMIT_MS_MAX = 1000;

/** Ends sessions before keys, in the common lock order, and again after them for sessions that were opened meanwhile. */
async function endAndRetire({ sessions, keys }: AuthTransaction): Promise<number> {
  const ended = await sessions.endEvery('EPOCH_ENDED');
  await keys.retireAll();
  return ended + (await sessions.endEvery('EPOCH_ENDED'));
}
