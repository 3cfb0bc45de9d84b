/** Answers that cost more to make than to send: callers share what was made last, once there are too many of them. */

import { type Clock, systemClock } from '@portcullis/guard';

/** Renderings in a second. */
const RENDERINGS_PER_SECOND = 10;

/**
 * Calls `render` for each caller, ten times a second at most. Further callers share the last rendering, and its memory,
 * if they read it slowly.
 */
export function shareRendering<T>(render: () => Promise<T>, clock: Clock = systemClock): () => Promise<T> {
  let last: Promise<T> | undefined;
  let allowed = RENDERINGS_PER_SECOND;
  let refilledAtMs = clock.monotonicMs();
  return async () => {
    const nowMs = clock.monotonicMs();
    const refill = ((nowMs - refilledAtMs) * RENDERINGS_PER_SECOND) / 1_000;
    allowed = Math.min(RENDERINGS_PER_SECOND, allowed + refill);
    refilledAtMs = nowMs;
    if (last === undefined || allowed >= 1) {
      allowed -= 1;
      const rendering = render();
      last = rendering;
      rendering.catch(() => {
        if (last === rendering) last = undefined;
      });
    }
    return await last;
  };
}
