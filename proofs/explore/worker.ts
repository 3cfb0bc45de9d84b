/** A thread of the explorer: it receives chunks of states and returns what expanding them has found. */

import { parentPort } from 'node:worker_threads';
import { constants, deflateRawSync, inflateRawSync } from 'node:zlib';
import type { Chunk, Expanded, Order } from './crew.js';
import { createExpander, type Expander } from './expander.js';
import { CHUNK_STATES_MAX } from './search.js';
import { FingerprintTable } from './table.js';

let expander: Expander | undefined;

parentPort?.on('message', async (order: Order) => {
  if ('world' in order) {
    expander = await createExpander(order.world, order.without);
    parentPort?.postMessage(null);
    return;
  }
  if (expander === undefined) throw new RangeError('there is no world yet');
  const { chunk, table, deflates } = order;
  const states = chunk.isDeflated ? inflateRawSync(chunk.bytes) : chunk.bytes;
  const { next, states: found, ...rest } = expander.expand(states, new FingerprintTable(table));
  const chunks = deflates
    ? deflated(next, found)
    : [{ bytes: next.slice(), isDeflated: false, states: found }];
  const expanded: Expanded = { ...rest, next: chunks };
  parentPort?.postMessage(
    expanded,
    chunks.map(({ bytes: { buffer } }) => buffer as ArrayBuffer),
  );
});

/** Compresses states, cut into equal chunks. Neighbours have most of their bytes in common. */
function deflated(states: Uint8Array, count: number): Chunk[] {
  if (count === 0) return [];
  const length = states.length / count;
  const size = Math.ceil(count / Math.ceil(count / CHUNK_STATES_MAX));
  const chunks: Chunk[] = [];
  for (let from = 0; from < count; from += size) {
    const piece = states.subarray(from * length, (from + size) * length);
    const bytes = Uint8Array.from(deflateRawSync(piece, { level: constants.Z_BEST_SPEED }));
    chunks.push({ bytes, isDeflated: true, states: piece.length / length });
  }
  return chunks;
}
