/** The search: breadth first, so that the first violation has one of the shortest histories. */

import { Worker } from 'node:worker_threads';
import { EVENTS, type EventCode, type EventKind } from './events.js';
import { createExpander, type Expander, type Expansion } from './expander.js';
import { createTable, type Fingerprint, FingerprintTable, slotsFor } from './table.js';
import type { World } from './world.js';

/** Largest and smallest number of states that a thread expands at once. */
const CHUNK_STATES_MAX = 4096;
const CHUNK_STATES_MIN = 128;

/** Number of events of a state, at most; it bounds how many states a chunk adds. */
const EVENTS_MAX = 32;

/** What is searched, and for how long. */
export interface SearchOptions {
  readonly world: World;
  readonly without: string | undefined;
  /** Number of threads; 0 searches in the caller's thread. */
  readonly workers: number;
  /** Monotonic time at which the search stops, in milliseconds. */
  readonly untilMs?: number;
  readonly onProgress?: (progress: Progress) => void;
}

/** How far a search has come. */
interface Progress {
  readonly states: number;
  readonly depth: number;
  /** Number of states that were found last and are not expanded yet. */
  readonly frontier: number;
}

/** What a search has found. */
export interface Found {
  readonly states: number;
  readonly transitions: number;
  readonly depth: number;
  /** Every state that can be reached was visited. */
  readonly isFixPoint: boolean;
  /** The kinds of events that have happened. */
  readonly kinds: readonly EventKind[];
  readonly seconds: number;
  readonly violation: { readonly what: string; readonly events: readonly EventCode[] } | undefined;
}

/** What expands chunks: threads, or the caller's own. */
interface Crew {
  readonly size: number;
  expand(chunk: Uint8Array, table: SharedArrayBuffer): Promise<Expansion>;
  close(): Promise<void>;
}

/** Searches one world, with its guards or without one of them. */
export async function search(options: SearchOptions): Promise<Found> {
  const expander = await createExpander(options.world, options.without);
  const crew = options.workers === 0 ? createOwnCrew(expander) : createThreads(options);
  try {
    return await new Search(options, expander, crew).run();
  } finally {
    await crew.close();
  }
}

class Search {
  readonly #options: SearchOptions;
  readonly #expander: Expander;
  readonly #crew: Crew;
  readonly #startedMs = performance.now();
  #memory = createTable(slotsFor(1));
  #states = 1;
  #transitions = 0;
  readonly #kinds = new Set<number>();
  #depth = 0;
  #violation: Expansion['violation'];
  #isOver = false;

  constructor(options: SearchOptions, expander: Expander, crew: Crew) {
    this.#options = options;
    this.#expander = expander;
    this.#crew = crew;
  }

  async run(): Promise<Found> {
    const root = this.#expander.root();
    new FingerprintTable(this.#memory).add(this.#expander.fingerprintOf(root), { low: 0, high: 0 });
    let frontier: Uint8Array[] = [root];
    while (frontier.length > 0 && this.#violation === undefined && !this.#isOver) {
      frontier = await this.#level(frontier);
      this.#depth += 1;
    }
    return {
      states: this.#states,
      transitions: this.#transitions,
      depth: this.#depth,
      isFixPoint: this.#violation === undefined && !this.#isOver,
      kinds: EVENTS.filter((_, number) => this.#kinds.has(number)),
      seconds: (performance.now() - this.#startedMs) / 1000,
      violation: this.#violation && {
        what: this.#violation.what,
        events: this.#pathTo(this.#violation.at),
      },
    };
  }

  /** Expands all states of one depth. @returns those of the next */
  async #level(frontier: readonly Uint8Array[]): Promise<Uint8Array[]> {
    const chunks = this.#chunksOf(frontier);
    const next: Uint8Array[] = [];
    const { onProgress = () => {}, untilMs = Number.POSITIVE_INFINITY } = this.#options;
    const { length } = this.#expander.model.packing;
    let found = 0;
    while (chunks.length > 0 && this.#violation === undefined) {
      if (performance.now() >= untilMs) {
        this.#isOver = true;
        break;
      }
      // Between two rounds no thread uses the table, so it can be replaced.
      const round = chunks.splice(0, Math.max(1, this.#crew.size) * ROUND_CHUNKS);
      const states = round.reduce((sum, chunk) => sum + chunk.length / length, 0);
      this.#makeRoomFor(states * EVENTS_MAX);
      for (const expansion of await this.#expandAll(round)) {
        this.#states += expansion.states;
        this.#transitions += expansion.transitions;
        for (const kind of expansion.kinds) this.#kinds.add(kind);
        this.#violation ??= expansion.violation;
        if (expansion.states > 0) next.push(expansion.next);
        found += expansion.states;
      }
      const left = chunks.reduce((sum, chunk) => sum + chunk.length / length, found);
      onProgress({ states: this.#states, depth: this.#depth, frontier: left });
    }
    return next;
  }

  async #expandAll(round: readonly Uint8Array[]): Promise<Expansion[]> {
    const waiting = [...round];
    const expansions: Expansion[] = [];
    const work = async (): Promise<void> => {
      for (;;) {
        const chunk = waiting.shift();
        if (chunk === undefined) return;
        expansions.push(await this.#crew.expand(chunk, this.#memory));
      }
    };
    await Promise.all(Array.from({ length: Math.max(1, this.#crew.size) }, work));
    return expansions;
  }

  /** Cuts states into so many chunks that every thread has something to do. */
  #chunksOf(frontier: readonly Uint8Array[]): Uint8Array[] {
    const { length } = this.#expander.model.packing;
    const states = frontier.reduce((sum, part) => sum + part.length / length, 0);
    const share = Math.ceil(states / (Math.max(1, this.#crew.size) * ROUND_CHUNKS));
    const bytes = Math.min(CHUNK_STATES_MAX, Math.max(CHUNK_STATES_MIN, share)) * length;
    const chunks: Uint8Array[] = [];
    for (const part of frontier) {
      for (let from = 0; from < part.length; from += bytes) chunks.push(part.slice(from, from + bytes));
    }
    return chunks;
  }

  #makeRoomFor(states: number): void {
    const table = new FingerprintTable(this.#memory);
    if (slotsFor(this.#states + states) <= table.slots) return;
    this.#memory = createTable(slotsFor(2 * (this.#states + states)));
    table.copyTo(new FingerprintTable(this.#memory));
  }

  /** The events from the first state to this one. */
  #pathTo(state: Fingerprint): EventCode[] {
    const table = new FingerprintTable(this.#memory);
    const path: Fingerprint[] = [];
    for (let at: Fingerprint | undefined = state; at !== undefined && at.low !== 0; ) {
      path.unshift(at);
      at = table.predecessorOf(at);
    }
    const events: EventCode[] = [];
    let packed = this.#expander.root();
    for (const next of path.slice(1)) {
      const step = this.#expander.stepTo(packed, next);
      events.push(step.code);
      packed = step.state;
    }
    return events;
  }
}

/** Number of chunks for each thread between two looks at the size of the table. */
const ROUND_CHUNKS = 4;

function createOwnCrew(expander: Expander): Crew {
  return {
    size: 1,
    expand: (chunk, table) => Promise.resolve(expander.expand(chunk, new FingerprintTable(table))),
    close: () => Promise.resolve(),
  };
}

/** Threads that expand chunks, each with its own copy of the protocol. */
function createThreads({ world, without, workers }: SearchOptions): Crew {
  const threads = Array.from(
    { length: workers },
    () => new Worker(new URL('./worker.js', import.meta.url), { workerData: { world, without } }),
  );
  const idle = [...threads];
  return {
    size: workers,
    expand: async (chunk, table) => {
      const thread = idle.pop();
      if (thread === undefined) throw new RangeError('every thread is busy');
      try {
        return await new Promise<Expansion>((resolve, reject) => {
          thread.once('error', reject);
          thread.once('message', (expansion: Expansion) => {
            thread.off('error', reject);
            resolve(expansion);
          });
          thread.postMessage({ chunk, table });
        });
      } finally {
        idle.push(thread);
      }
    },
    close: async () => {
      await Promise.all(threads.map((thread) => thread.terminate()));
    },
  };
}
