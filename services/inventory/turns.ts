/** Watchers go on in turns, so that what hundreds wait for does not keep the event loop from other calls. */

import { setImmediate as nextTurn } from 'node:timers/promises';

/**
 * How many watchers go on in one turn of the event loop. Each of them encodes and sends what it waited for, and one change
 * may be what hundreds wait for.
 */
export const WATCHERS_PER_TURN = 32;

/** Calls `goOn` for each watcher, for some in each turn of the event loop. It must not throw. */
export async function inTurns<Watcher>(
  watchers: readonly Watcher[],
  goOn: (watcher: Watcher) => void,
): Promise<void> {
  for (const [index, watcher] of watchers.entries()) {
    if (index > 0 && index % WATCHERS_PER_TURN === 0) await nextTurn();
    goOn(watcher);
  }
}
