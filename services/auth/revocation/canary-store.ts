/** Whose turn it is to measure, in PostgreSQL. */

import type { DatabaseLane } from '../../common/database/database.js';
import type { CanaryTurns } from './canary.js';

export function createCanaryStore(database: DatabaseLane): CanaryTurns {
  return {
    claim: async (intervalSeconds) => {
      // A time in the future is from before the database's clock was set back.
      const { rowCount } = await database.query(
        `UPDATE canary_state SET begin_time = clock_timestamp()
         WHERE begin_time <= clock_timestamp() - make_interval(secs => $1) OR begin_time > clock_timestamp()`,
        [intervalSeconds],
      );
      return rowCount === 1;
    },
  };
}
