/** A thread of the explorer: it receives chunks of states and returns what expanding them has found. */

import { parentPort, workerData } from 'node:worker_threads';
import { createExpander } from './expander.js';
import { FingerprintTable } from './table.js';
import type { World } from './world.js';

const { world, without } = workerData as { world: World; without: string | undefined };
const expander = await createExpander(world, without);

parentPort?.on('message', ({ chunk, table }: { chunk: Uint8Array; table: SharedArrayBuffer }) => {
  const expansion = expander.expand(chunk, new FingerprintTable(table));
  // A copy without the unused rest of its buffer.
  const next = expansion.next.slice();
  parentPort?.postMessage({ ...expansion, next }, [next.buffer as ArrayBuffer]);
});
