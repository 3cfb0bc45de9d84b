/**
 * The admission to the connections of one lane: a bounded number runs, a bounded number waits, and callers take turns.
 * Knows nothing of PostgreSQL: an admitted caller may use one connection until it leaves.
 */
/**
 * How many transactions that lock one contended row use connections at once: one holds the row, and the next ones wait for
 * it in the database, so that they proceed without a round trip.
 */
export const ROW_CONNECTIONS_MAX = 3;

/** The limits of one lane. */
export interface LaneLimits {
  /** Connections, and so statements and transactions that run at once. */
  readonly connections: number;
  /** Maximum number of statements and transactions that wait for a connection. */
  readonly queue: number;
}

/** What is admitted. */
export interface Admitted {
  /** Names of rows that it locks and for which callers can make others wait. */
  readonly contends?: readonly string[] | undefined;
  /** Whom it is for, such as a network. Callers take turns; without one, all work shares one turn. */
  readonly caller?: string | undefined;
}

/** The limits that reject: a full queue, too many that wait for one row, and the longest wait. */
export const LANE_REJECTIONS = ['queue', 'row', 'time'] as const;

export type LaneRejection = (typeof LANE_REJECTIONS)[number];

/** Present numbers of a lane. */
export interface LaneState {
  readonly inUse: number;
  readonly waiting: number;
  readonly rejected: ReadonlyMap<LaneRejection, number>;
}

export interface LaneOptions extends LaneLimits {
  /** Maximum number of transactions of one caller that wait for one contended row. */
  readonly rowQueue: number;
  /** Longest wait, in milliseconds. */
  readonly waitMs: number;
  /** Called for each rejection; returns the error. */
  readonly reject: (limit: LaneRejection) => Error;
}

interface Waiter {
  readonly caller: string;
  readonly contends: readonly string[];
  readonly admit: () => void;
  readonly reject: (error: Error) => void;
}

/** The admission to one lane. */
export class Lane {
  readonly #options: LaneOptions;
  /** What waits, by caller. The order of the callers is the order of their turns. */
  readonly #waiting = new Map<string, Waiter[]>();
  readonly #runningByRow = new Map<string, number>();
  readonly #waitingByRow = new Map<string, number>();
  readonly #waitingByRowAndCaller = new Map<string, number>();
  readonly #rejected = new Map<LaneRejection, number>(LANE_REJECTIONS.map((limit) => [limit, 0]));
  #running = 0;
  #waitingCount = 0;
  #closedBy: Error | undefined;

  constructor(options: LaneOptions) {
    this.#options = options;
  }

  /** Present numbers. */
  state(): LaneState {
    return { inUse: this.#running, waiting: this.#waitingCount, rejected: this.#rejected };
  }

  /**
   * Waits for a connection's place.
   *
   * @returns what gives the place back
   * @throws the error of `reject` when the queue is full or the wait takes too long
   */
  async enter({ contends = [], caller = '' }: Admitted): Promise<() => void> {
    if (this.#closedBy !== undefined) throw this.#closedBy;
    const { queue, rowQueue } = this.#options;
    const isRowAwaited = contends.some((row) => this.#waitingByRow.has(row));
    if (!isRowAwaited && this.#mayRun(contends)) return this.#start(contends);
    const waitsFor = (row: string): number => this.#waitingByRowAndCaller.get(keyOf(row, caller)) ?? 0;
    if (contends.some((row) => waitsFor(row) >= rowQueue)) throw this.#refuse('row');
    if (this.#waitingCount >= queue && !this.#makeRoomFor(caller)) throw this.#refuse('queue');
    return await this.#wait(caller, contends);
  }

  /** Rejects everything that waits, and everything later. */
  close(error: Error): void {
    this.#closedBy = error;
    for (const waiter of [...this.#waiting.values()].flat()) {
      this.#remove(waiter);
      waiter.reject(error);
    }
  }

  #start(contends: readonly string[]): () => void {
    this.#running += 1;
    for (const row of contends) add(this.#runningByRow, row, 1);
    let hasLeft = false;
    return () => {
      if (hasLeft) return;
      hasLeft = true;
      this.#running -= 1;
      for (const row of contends) add(this.#runningByRow, row, -1);
      this.#admitNext();
    };
  }

  #mayRun(contends: readonly string[]): boolean {
    if (this.#running >= this.#options.connections) return false;
    return contends.every((row) => (this.#runningByRow.get(row) ?? 0) < ROW_CONNECTIONS_MAX);
  }

  #admitNext(): void {
    while (this.#running < this.#options.connections) {
      const next = this.#nextWaiter();
      if (next === undefined) return;
      this.#remove(next);
      next.admit();
    }
  }

  /** The first waiter that may run, in the order of turns. None overtakes an earlier one that waits for the same row. */
  #nextWaiter(): Waiter | undefined {
    const awaited = new Set<string>();
    for (const waiters of this.#waiting.values()) {
      for (const waiter of waiters) {
        const { contends } = waiter;
        if (contends.every((row) => !awaited.has(row)) && this.#mayRun(contends)) return waiter;
        for (const row of contends) awaited.add(row);
      }
    }
    return undefined;
  }

  #wait(caller: string, contends: readonly string[]): Promise<() => void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#remove(waiter);
        reject(this.#refuse('time'));
      }, this.#options.waitMs);
      const waiter: Waiter = {
        caller,
        contends,
        admit: () => {
          clearTimeout(timer);
          resolve(this.#start(contends));
        },
        reject: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      };
      const others = this.#waiting.get(caller);
      if (others === undefined) this.#waiting.set(caller, [waiter]);
      else others.push(waiter);
      this.#waitingCount += 1;
      this.#countWaiting(waiter, 1);
    });
  }

  #remove(waiter: Waiter): void {
    const others = (this.#waiting.get(waiter.caller) ?? []).filter((other) => other !== waiter);
    this.#waiting.delete(waiter.caller);
    // Put behind all other callers: the next turn is theirs.
    if (others.length > 0) this.#waiting.set(waiter.caller, others);
    this.#waitingCount -= 1;
    this.#countWaiting(waiter, -1);
  }

  #countWaiting({ contends, caller }: Waiter, change: number): void {
    for (const row of contends) {
      add(this.#waitingByRow, row, change);
      add(this.#waitingByRowAndCaller, keyOf(row, caller), change);
    }
  }

  /**
   * Makes room in a full queue: the caller with most waiters loses its last one, unless the newcomer has as many. So one
   * caller that fills the queue refuses only itself.
   */
  #makeRoomFor(caller: string): boolean {
    let most: Waiter[] = [];
    for (const waiters of this.#waiting.values()) if (waiters.length > most.length) most = waiters;
    const last = most.at(-1);
    if (last === undefined || most.length <= (this.#waiting.get(caller)?.length ?? 0) + 1) return false;
    this.#remove(last);
    last.reject(this.#refuse('queue'));
    return true;
  }

  #refuse(limit: LaneRejection): Error {
    this.#rejected.set(limit, (this.#rejected.get(limit) ?? 0) + 1);
    return this.#options.reject(limit);
  }
}

function keyOf(row: string, caller: string): string {
  return `${caller.length} ${caller}${row}`;
}

/** Adds to a count; a count of 0 is absent. */
function add(counts: Map<string, number>, key: string, change: number): void {
  const count = (counts.get(key) ?? 0) + change;
  if (count === 0) counts.delete(key);
  else counts.set(key, count);
}
