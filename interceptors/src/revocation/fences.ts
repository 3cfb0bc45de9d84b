/** The fences of one process: raises them when the issuer wants them raised, and holds transactions back that they stop. */

import type { FencePosition } from '../../gen/portcullis/revocation/v1/revocation.js';
import type { Timers } from '../clock.js';
import type { GuardLog } from '../log.js';
import type { Feed } from './feed.js';
import { type FencePlace, type FenceQuery, isBefore, lockFence, passesFence, raiseFence } from './fence.js';

/** Pause before a fence is raised again that could not be raised, in milliseconds. */
const RETRY_MS = 100;

/** After how many failures in a row there is a warning: a service whose database is starting should not warn. */
const FAILURES_QUIET = 20;

/** How long a transaction waits for a sync that brings its instance up to the fence, in milliseconds. */
const REACH_MS = 200;

/** A database of the service that has a fence. */
export interface FenceDatabase {
  /** Tells apart the databases of a service. Default: empty, for the only one. */
  readonly name?: string;
  /**
   * Runs the work in a transaction of its own at READ COMMITTED, and resolves once the database has confirmed the commit.
   */
  readonly transaction: (work: (query: FenceQuery) => Promise<void>) => Promise<void>;
}

/** The fences of one process. */
export class Fences {
  readonly #options: FencesOptions;
  readonly #raisers: readonly FenceRaiser[];
  readonly #waiting = new Set<() => void>();

  constructor(options: FencesOptions) {
    this.#options = options;
    this.#raisers = options.databases.map((database) => new FenceRaiser(database, options));
  }

  /** Where the fences stand, as the issuer is to know it. */
  positions(): FencePosition[] {
    return this.#raisers.flatMap((raiser) => raiser.position() ?? []);
  }

  /** The list is complete up to another place. */
  granted(): void {
    for (const wake of this.#waiting) wake();
    for (const raiser of this.#raisers) raiser.raiseIfWanted();
  }

  /**
   * Locks the fence in the transaction of `query` until that ends. When the fence is beyond what this process has applied,
   * syncs and waits for a moment.
   *
   * @returns whether the list has everything up to the fence. The token must be looked up in it in the same turn
   */
  async pass(query: FenceQuery): Promise<boolean> {
    const { feed, syncNow } = this.#options;
    const fence = await lockFence(query);
    if (passesFence(feed, fence)) return true;
    syncNow();
    await this.#untilPassed(fence);
    return passesFence(feed, fence);
  }

  close(): void {
    for (const raiser of this.#raisers) raiser.close();
  }

  #untilPassed(fence: FencePlace): Promise<void> {
    const { feed, timers } = this.#options;
    return new Promise((resolve) => {
      const end = (): void => {
        stop();
        this.#waiting.delete(check);
        resolve();
      };
      const check = (): void => {
        if (passesFence(feed, fence)) end();
      };
      const stop = timers.after(REACH_MS, end);
      this.#waiting.add(check);
    });
  }
}

/** Raises the fence of one database, one transaction at a time. */
class FenceRaiser {
  readonly #database: FenceDatabase;
  readonly #options: FencesOptions;
  /** Where the fence stood after the last commit that was confirmed. */
  #known: FencePlace | undefined;
  #isRaising = false;
  #closed = false;
  #failures = 0;

  constructor(database: FenceDatabase, options: FencesOptions) {
    this.#database = database;
    this.#options = options;
  }

  position(): FencePosition | undefined {
    if (this.#known === undefined) return undefined;
    const { fenceId, epochNumber, sequence } = this.#known;
    return { database: this.#database.name ?? '', fenceId, epochNumber, sequence };
  }

  raiseIfWanted(): void {
    if (!this.#isRaising && this.#isDue()) void this.#raise();
  }

  close(): void {
    this.#closed = true;
  }

  /** A fence that this instance could not pass itself would stop the service. */
  #isDue(): boolean {
    const { place, fenceWanted } = this.#options.feed;
    if (this.#closed || place.epochNumber === 0n || isBefore(place, fenceWanted)) return false;
    return this.#known === undefined || isBefore(this.#known, fenceWanted);
  }

  async #raise(): Promise<void> {
    const { feed, timers, syncNow } = this.#options;
    this.#isRaising = true;
    try {
      while (this.#isDue()) {
        const former = this.#known;
        await this.#raiseOnce(feed).catch((error: unknown) => this.#failed(error));
        // The issuer may wait for it.
        if (this.#known !== former) syncNow();
        if (this.#isDue()) await new Promise<void>((resolve) => timers.after(RETRY_MS, resolve));
      }
    } finally {
      this.#isRaising = false;
    }
  }

  async #raiseOnce({ fenceWanted }: FencesOptions['feed']): Promise<void> {
    let place: FencePlace | undefined;
    await this.#database.transaction(async (query) => {
      place = await raiseFence(query, fenceWanted);
    });
    // Only now is it certain that the fence stands there.
    this.#known = place;
    this.#failures = 0;
  }

  #failed(error: unknown): void {
    this.#failures += 1;
    if (this.#failures !== FAILURES_QUIET) return;
    this.#options.log.warn(
      { event: 'fence_not_raised', database: this.#database.name ?? '', err: error },
      'could not raise the fence yet',
    );
  }
}

/** What the fences need of their process. */
export interface FencesOptions {
  readonly databases: readonly FenceDatabase[];
  readonly feed: Pick<Feed, 'place' | 'fenceWanted'>;
  readonly syncNow: () => void;
  readonly timers: Timers;
  readonly log: GuardLog;
}
