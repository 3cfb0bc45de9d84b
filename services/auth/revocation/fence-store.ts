/** The reported fences in PostgreSQL. */

import type { DatabaseLane } from '../../common/database/database.js';
import type { ReportedFence } from './fence-watch.js';
import type { FenceStore } from './fences.js';

/** How long a fence counts after its last report, in seconds: far longer than any lease. */
const FENCE_KEPT_SECONDS = 600;

/** Maximum number of fences that are kept of one service. */
const FENCES_PER_SERVICE_MAX = 100;

interface FenceRow {
  readonly service: string;
  readonly database: string;
  readonly fence_id: Buffer;
  readonly epoch_number: bigint;
  readonly sequence: bigint;
}

/** Creates the store of fences. */
export function createFenceStore(database: DatabaseLane): FenceStore {
  return {
    store: async (fences) => {
      if (fences.length === 0) return;
      // In the order of their keys, so that two replicas cannot deadlock.
      const ordered = fences.toSorted((one, other) => (keyOf(one) < keyOf(other) ? -1 : 1));
      await database.query(
        `INSERT INTO fences (service, database, fence_id, epoch_number, sequence, report_time)
         SELECT reported.*, clock_timestamp()
         FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bigint[], $5::bigint[])
           AS reported (service, database, fence_id, epoch_number, sequence)
         WHERE (SELECT count(*) FROM fences AS others WHERE others.service = reported.service) < $6
           OR EXISTS (SELECT FROM fences AS own
                      WHERE (own.service, own.database, own.fence_id)
                          = (reported.service, reported.database, reported.fence_id))
         ON CONFLICT (service, database, fence_id) DO UPDATE SET
           epoch_number = greatest(fences.epoch_number, excluded.epoch_number),
           sequence = CASE WHEN fences.epoch_number = excluded.epoch_number
                           THEN greatest(fences.sequence, excluded.sequence)
                           WHEN fences.epoch_number < excluded.epoch_number THEN excluded.sequence
                           ELSE fences.sequence END,
           report_time = clock_timestamp()`,
        [
          ordered.map(({ service }) => service),
          ordered.map((fence) => fence.database),
          ordered.map(({ fenceId }) => fenceId),
          ordered.map(({ epochNumber }) => epochNumber),
          ordered.map(({ sequence }) => sequence),
          FENCES_PER_SERVICE_MAX,
        ],
      );
    },

    read: async (services) => {
      const { rows } = await database.query<FenceRow>(
        `SELECT service, database, fence_id, epoch_number, sequence FROM fences
         WHERE service = ANY($1::text[]) AND report_time > clock_timestamp() - make_interval(secs => $2)`,
        [services, FENCE_KEPT_SECONDS],
      );
      return rows.map((row) => ({
        service: row.service,
        database: row.database,
        fenceId: row.fence_id,
        epochNumber: row.epoch_number,
        sequence: row.sequence,
      }));
    },

    deleteSilent: async () => {
      await database.query(
        'DELETE FROM fences WHERE report_time < clock_timestamp() - make_interval(secs => $1)',
        [FENCE_KEPT_SECONDS],
      );
    },
  };
}

function keyOf({ service, database, fenceId }: ReportedFence): string {
  return `${service} ${database} ${fenceId.toString('hex')}`;
}
