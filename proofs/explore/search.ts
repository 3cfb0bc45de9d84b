/** The search: breadth first, so that the first violation has one of the shortest histories. */

import { type Chunk, type Crew, createOwnCrew, type Expanded } from './crew.js';
import { EVENTS, type EventCode, type EventKind } from './events.js';
import { createExpander, type Expander } from './expander.js';
import { bytesOf, createTable, type Fingerprint, FingerprintTable, withRoomFor } from './table.js';
import type { World } from './world.js';

/** Largest and smallest number of states that a thread expands at once. */
export const CHUNK_STATES_MAX = 4096;
const CHUNK_STATES_MIN = 128;

/** From so many states of one depth on, they are kept compressed. */
const DEFLATED_STATES_MIN = 200_000;

/** Number of chunks for each thread between two looks at the size of the table. */
const ROUND_CHUNKS = 4;

/** Number of events of a state, at most; it bounds how many states a chunk adds. */
const EVENTS_MAX = 32;

/** What is searched, and for how long. */
export interface SearchOptions {
  readonly world: World;
  readonly without: string | undefined;
  /** Default: the caller's own thread. */
  readonly crew?: Crew;
  /** The table keeps no predecessors: it needs half of the memory, and a violation has no history. */
  readonly isBare?: boolean;
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
  /** The largest size of the table, and of the states that were not expanded yet, in bytes. */
  readonly bytes: number;
  readonly violation: Violation | undefined;
}

/** A state that violates something. */
export interface Violation {
  readonly what: string;
  /** The events that lead to it; undefined when the table has no predecessors. */
  readonly events: readonly EventCode[] | undefined;
}

/** Searches one world, with its guards or without one of them. */
export async function search(options: SearchOptions): Promise<Found> {
  const { world, without, crew = createOwnCrew() } = options;
  const expander = await createExpander(world, without);
  await crew.begin({ world, without });
  return await new Search(options, expander, crew).run();
}

class Search {
  readonly #options: SearchOptions;
  readonly #expander: Expander;
  readonly #crew: Crew;
  readonly #startedMs = performance.now();
  #memory;
  #bytesMax = 0;
  #states = 1;
  #transitions = 0;
  readonly #kinds = new Set<number>();
  #depth = 0;
  #violation: Expanded['violation'];
  #isOver = false;

  constructor(options: SearchOptions, expander: Expander, crew: Crew) {
    this.#options = options;
    this.#expander = expander;
    this.#crew = crew;
    this.#memory = createTable(options.isBare);
  }

  async run(): Promise<Found> {
    const root = this.#expander.root();
    new FingerprintTable(this.#memory).add(this.#expander.fingerprintOf(root), { low: 0, high: 0 });
    let frontier: Chunk[] = [{ bytes: root, isDeflated: false, states: 1 }];
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
      bytes: this.#bytesMax,
      violation: this.#violation && {
        what: this.#violation.what,
        events: this.#options.isBare === true ? undefined : this.#pathTo(this.#violation.at),
      },
    };
  }

  /** Expands all states of one depth. @returns those of the next */
  async #level(frontier: readonly Chunk[]): Promise<Chunk[]> {
    const chunks = this.#chunksOf(frontier);
    const deflates = statesIn(frontier) >= DEFLATED_STATES_MIN;
    const next: Chunk[] = [];
    const { onProgress = () => {}, untilMs = Number.POSITIVE_INFINITY } = this.#options;
    while (chunks.length > 0 && this.#violation === undefined) {
      if (performance.now() >= untilMs) {
        this.#isOver = true;
        break;
      }
      // Between two rounds no thread uses the table, so it can be replaced.
      const round = chunks.splice(0, this.#crew.size * ROUND_CHUNKS);
      this.#memory = withRoomFor(this.#memory, this.#states, statesIn(round) * EVENTS_MAX);
      for (const { transitions, kinds, violation, next: found } of await this.#expandAll(round, deflates)) {
        this.#states += statesIn(found);
        this.#transitions += transitions;
        for (const kind of kinds) this.#kinds.add(kind);
        this.#violation ??= violation;
        next.push(...found);
      }
      onProgress({
        states: this.#states,
        depth: this.#depth,
        frontier: statesIn(chunks) + statesIn(next),
      });
    }
    const waiting = next.reduce((sum, { bytes }) => sum + bytes.length, 0);
    this.#bytesMax = Math.max(this.#bytesMax, bytesOf(this.#memory) + waiting);
    return next;
  }

  async #expandAll(round: readonly Chunk[], deflates: boolean): Promise<Expanded[]> {
    const waiting = [...round];
    const expansions: Expanded[] = [];
    const work = async (): Promise<void> => {
      for (let chunk = waiting.shift(); chunk !== undefined; chunk = waiting.shift()) {
        expansions.push(await this.#crew.expand({ chunk, table: this.#memory, deflates }));
      }
    };
    await Promise.all(Array.from({ length: this.#crew.size }, work));
    return expansions;
  }

  /** Cuts what is not compressed into so many chunks that every thread has something to do. */
  #chunksOf(frontier: readonly Chunk[]): Chunk[] {
    const { length } = this.#expander.model.packing;
    const raw = Buffer.concat(frontier.filter(({ isDeflated }) => !isDeflated).map(({ bytes }) => bytes));
    const share = Math.ceil(raw.length / length / (this.#crew.size * ROUND_CHUNKS));
    const size = length * Math.min(CHUNK_STATES_MAX, Math.max(CHUNK_STATES_MIN, share));
    const chunks = frontier.filter(({ isDeflated }) => isDeflated);
    for (let from = 0; from < raw.length; from += size) {
      const bytes = Uint8Array.from(raw.subarray(from, from + size));
      chunks.push({ bytes, isDeflated: false, states: bytes.length / length });
    }
    return chunks;
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

function statesIn(chunks: readonly Chunk[]): number {
  return chunks.reduce((sum, { states }) => sum + states, 0);
}
