/**
 * The lanes of a process's database: one for each class of importance, each with connections and a queue of its own, so
 * that work of a lower class can never take what a higher one needs.
 */
import { type ServiceError, shareError } from '@portcullis/guard/errors';
import { CommonError } from '../errors.js';
import type { Log } from '../host/log.js';
import { type Admitted, LANE_REJECTIONS, Lane, type LaneLimits, type LaneRejection } from './lane.js';
import { createPool, type Pool } from './pool.js';
import { unavailable } from './statements.js';

/**
 * The classes of importance: what keeps the promise (syncs, pulls, revocations, keys, background work), what known
 * callers ask for, and what anyone may ask for.
 */
export const IMPORTANCES = ['promise', 'known', 'unknown'] as const;

export type Importance = (typeof IMPORTANCES)[number];

/** The limits of all lanes. */
export interface DatabaseLimits {
  readonly lanes: Readonly<Record<Importance, LaneLimits>>;
  /** Maximum number of transactions of one lane and one caller that wait for one contended row. */
  readonly rowQueue: number;
}

/** The default limits. */
export const DATABASE_LIMITS_DEFAULT: DatabaseLimits = {
  lanes: {
    promise: { connections: 4, queue: 1000 },
    known: { connections: 8, queue: 1000 },
    unknown: { connections: 4, queue: 200 },
  },
  rowQueue: 64,
};

/** RetryInfo delay of RATE_LIMITED, in milliseconds. */
const RETRY_AFTER_MS = 500;

/** Longest wait for a connection of a lane, in milliseconds. */
export const LANE_WAIT_MS = 5_000;

/** Between two lines of the log about rejections, in milliseconds. */
const LOG_INTERVAL_MS = 1_000;

/** Present numbers of one lane. */
export interface LaneStatus {
  readonly importance: Importance;
  readonly connections: number;
  readonly inUse: number;
  readonly waiting: number;
  readonly rejected: ReadonlyMap<LaneRejection, number>;
}

/** A lane with its connections. */
export interface OpenLane {
  readonly pool: Pool;
  /** See {@link Lane.enter}. */
  enter(admitted: Admitted): Promise<() => void>;
  status(): LaneStatus;
  close(): Promise<void>;
}

/** Opens one lane. It connects when it is first used. */
export function openLane(
  importance: Importance,
  {
    urls,
    limits,
    log,
  }: { readonly urls: readonly string[]; readonly limits: DatabaseLimits; readonly log: Log },
): OpenLane {
  const { connections, queue } = limits.lanes[importance];
  const logRejection = createRejectionLog(log, importance);
  // Shared, because a flood causes thousands of rejections a second.
  const rejections = Object.fromEntries(
    LANE_REJECTIONS.map((limit) => [limit, shareError(rejectionOf(importance, limit))]),
  ) as Readonly<Record<LaneRejection, ServiceError>>;
  const lane = new Lane({
    connections,
    queue,
    rowQueue: limits.rowQueue,
    waitMs: LANE_WAIT_MS,
    reject: (limit) => {
      logRejection(limit);
      return rejections[limit];
    },
  });
  const pool = createPool({
    urls,
    size: connections,
    // A server without free connections must not keep this class from working, so it never gives any back.
    keepsConnections: importance === 'promise',
  });
  return {
    pool,
    enter: (admitted) => lane.enter(admitted),
    status: () => ({ importance, connections, ...lane.state() }),
    close: async () => {
      lane.close(unavailable('the database is closed'));
      await pool.end();
    },
  };
}

function rejectionOf(importance: Importance, limit: LaneRejection): ServiceError {
  const variable = `PORTCULLIS_DATABASE_${importance.toUpperCase()}`;
  const retry = { retryAfterMs: RETRY_AFTER_MS };
  switch (limit) {
    case 'queue':
      return new CommonError(
        'RATE_LIMITED',
        `too many requests wait for the database (${variable}_QUEUE)`,
        retry,
      );
    case 'row':
      return new CommonError(
        'RATE_LIMITED',
        'too many requests change the same data at once (PORTCULLIS_DATABASE_ROW_QUEUE)',
        retry,
      );
    case 'time':
      return unavailable(`no database connection became free (${variable}_CONNECTIONS)`);
  }
}

/** Logs the numbers of rejections, at most one line a second. */
function createRejectionLog(log: Log, importance: Importance): (limit: LaneRejection) => void {
  let counts = new Map<LaneRejection, number>();
  let isPlanned = false;
  const write = (): void => {
    const rejected = Object.fromEntries(LANE_REJECTIONS.map((limit) => [limit, counts.get(limit) ?? 0]));
    counts = new Map();
    isPlanned = false;
    log.warn(
      { event: 'database_lane_full', lane: importance, rejected },
      'rejected requests for the database',
    );
  };
  return (limit) => {
    counts.set(limit, (counts.get(limit) ?? 0) + 1);
    if (isPlanned) return;
    isPlanned = true;
    setTimeout(write, LOG_INTERVAL_MS).unref();
  };
}
