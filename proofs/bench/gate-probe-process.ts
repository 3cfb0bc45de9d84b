/** A module for `node --import`: it tells the bench how much memory the program of this process holds. */

import { executeCommands } from './worker.js';

/** Memory of a process after a collection of garbage, in bytes. */
interface Memory {
  /** The heap, and what lies outside of it: buffers among others. */
  readonly heapBytes: number;
  /** All of the process. */
  readonly residentBytes: number;
}

const commands = {
  memory: (): Memory => {
    globalThis.gc?.();
    const { heapUsed, external, rss } = process.memoryUsage();
    return { heapBytes: heapUsed + external, residentBytes: rss };
  },
};

export type ProbeCommands = typeof commands;

executeCommands(commands);
// The program ends as it would without this module.
process.channel?.unref();
