/** What expands chunks of states: threads, or the caller's own. */

import { Worker } from 'node:worker_threads';
import { createExpander, type Expander, type Expansion } from './expander.js';
import { FingerprintTable, type TableMemory } from './table.js';
import type { World } from './world.js';

/** States that were found and are not expanded yet. */
export interface Chunk {
  /** The states, one packed state after the other; raw, or compressed with deflate. */
  readonly bytes: Uint8Array;
  readonly isDeflated: boolean;
  readonly states: number;
}

/** What expanding a chunk has found. */
export interface Expanded extends Omit<Expansion, 'next' | 'states'> {
  readonly next: readonly Chunk[];
}

/** A world, with its guards or without one of them. */
interface Subject {
  readonly world: World;
  readonly without: string | undefined;
}

/** A chunk to be expanded. */
interface Work {
  readonly chunk: Chunk;
  readonly table: TableMemory;
  /** The states that are found are compressed. */
  readonly deflates: boolean;
}

/** An order to a thread: which world comes next, or a chunk of the present one. */
export type Order = Subject | Work;

/** Expands the chunks of one world after the other. */
export interface Crew {
  /** How many chunks can be expanded at a time. */
  readonly size: number;
  /** From now on, chunks are of this world. */
  begin(subject: Subject): Promise<void>;
  expand(work: Work): Promise<Expanded>;
  close(): Promise<void>;
}

/** The caller's own thread. */
export function createOwnCrew(): Crew {
  let expander: Expander | undefined;
  return {
    size: 1,
    begin: async ({ world, without }) => {
      expander = await createExpander(world, without);
    },
    expand: ({ chunk: { bytes }, table }) => {
      if (expander === undefined) throw new RangeError('there is no world yet');
      const { next, states, ...rest } = expander.expand(bytes, new FingerprintTable(table));
      return Promise.resolve({ ...rest, next: [{ bytes: next, isDeflated: false, states }] });
    },
    close: () => Promise.resolve(),
  };
}

/** Threads, each with its own copy of the protocol. They live from world to world: their code stays compiled. */
export function createThreads(count: number): Crew {
  const threads = Array.from({ length: count }, () => new Worker(new URL('./worker.js', import.meta.url)));
  const idle = [...threads];
  const give = <T>(thread: Worker, order: Order): Promise<T> =>
    new Promise<T>((resolve, reject) => {
      thread.once('error', reject);
      thread.once('message', (answer: T) => {
        thread.off('error', reject);
        resolve(answer);
      });
      thread.postMessage(order);
    });
  return {
    size: count,
    begin: async (subject) => {
      await Promise.all(threads.map((thread) => give<null>(thread, subject)));
    },
    expand: async (work) => {
      const thread = idle.pop();
      if (thread === undefined) throw new RangeError('every thread is busy');
      try {
        return await give<Expanded>(thread, work);
      } finally {
        idle.push(thread);
      }
    },
    close: async () => {
      await Promise.all(threads.map((thread) => thread.terminate()));
    },
  };
}
