/** The heap without garbage. */

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** Collects garbage: all of it, or that of the young generation. */
export function collectGarbage(type: 'major' | 'minor'): void {
  setFlagsFromString('--expose-gc');
  const collect: unknown = runInNewContext('gc');
  if (typeof collect !== 'function') throw new Error('this Node has no garbage collection by hand');
  // A major collection that is named so leaves more behind than one that is not.
  if (type === 'major') collect();
  else collect({ type });
}

/** The size of the heap after a full collection, in bytes. */
export function heapUsedAfterCollection(): number {
  collectGarbage('major');
  return process.memoryUsage().heapUsed;
}
