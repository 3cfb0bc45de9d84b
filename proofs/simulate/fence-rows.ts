/** The fences that services have reported, in the simulated database of auth. */

import { nameOfFence, type ReportedFence } from '../../services/auth/revocation/fence-watch.js';
import type { FenceStore } from '../../services/auth/revocation/fences.js';
import type { Connection } from './auth-rows.js';

const FENCES = 'fences';

/** Creates the store of fences. No run is long enough for a fence to be forgotten. */
export function createFenceStore({ cluster, process, node }: Connection): FenceStore {
  return {
    store: (fences) =>
      cluster.transaction(process, node(), (transaction) =>
        transaction.statement(async () => {
          await transaction.lock(FENCES, 'exclusive');
          for (const fence of fences) {
            const key = `${nameOfFence(fence)} ${fence.fenceId.toString('hex')}`;
            const known = transaction.get(FENCES, key) as ReportedFence | undefined;
            if (known === undefined || isBelow(known, fence)) transaction.put(FENCES, key, fence);
          }
        }),
      ),
    read: (services) =>
      cluster.uncommitted(process, node(), (transaction) =>
        transaction.statement(() => {
          const fences = [...transaction.all(FENCES).values()] as ReportedFence[];
          return fences.filter(({ service }) => services.includes(service));
        }),
      ),
    deleteSilent: () => Promise.resolve(),
  };
}

function isBelow(one: ReportedFence, other: ReportedFence): boolean {
  if (one.epochNumber !== other.epochNumber) return one.epochNumber < other.epochNumber;
  return one.sequence < other.sequence;
}
