/** The heap without garbage. */

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** The size of the heap after a full collection, in bytes. */
export function heapUsedAfterCollection(): number {
  setFlagsFromString('--expose-gc');
  const collect: unknown = runInNewContext('gc');
  if (typeof collect !== 'function') throw new Error('this Node has no garbage collection by hand');
  collect();
  return process.memoryUsage().heapUsed;
}
