/** Explores the fence and prints what was found. */

import { roundTo } from '../../shared/statistics.js';
import { FENCE_GUARDS, FENCE_WORLDS } from './guards.js';
import { searchFence } from './search.js';

/** The JSON figures of the fence. */
export interface FenceFigures {
  readonly worlds: Readonly<
    Record<
      string,
      { states: number; transitions: number; depth: number; violations: number; seconds: number }
    >
  >;
  /** For each guard the number of events until a violation; null when there is none. */
  readonly without: Readonly<Record<string, { steps: number | null; ok: boolean }>>;
  /** Every world holds, and every guard is needed. */
  readonly ok: boolean;
}

/** Searches every world of the fence to the end, and leaves out each of its guards. */
export async function exploreFence(): Promise<FenceFigures> {
  const worlds: Record<string, FenceFigures['worlds'][string]> = {};
  const without: Record<string, FenceFigures['without'][string]> = {};
  for (const { name } of FENCE_WORLDS) {
    const startedMs = performance.now();
    const { states, transitions, depth, story, violation } = await searchFence(name);
    const isHolding = story === undefined;
    console.log(
      `${name}: ${states.toLocaleString('en-US')} states, ${isHolding ? 'the fix point is reached' : 'a violation'}`,
    );
    printStory(story, violation);
    const seconds = roundTo((performance.now() - startedMs) / 1000, 1);
    worlds[name] = { states, transitions, depth, violations: isHolding ? 0 : 1, seconds };
  }
  for (const { name, world, redundant } of FENCE_GUARDS) {
    const { story, violation } = await searchFence(world, name);
    const ok = (story === undefined) === (redundant !== undefined);
    const found = story === undefined ? 'no violation' : `${world} is violated after ${story.length} events`;
    console.log(`without ${name}: ${found}${redundant === undefined ? '' : ` was expected (${redundant})`}`);
    printStory(story, violation);
    without[name] = { steps: story?.length ?? null, ok };
  }
  const ok =
    Object.values(worlds).every(({ violations }) => violations === 0) &&
    Object.values(without).every((guard) => guard.ok);
  return { worlds, without, ok };
}

function printStory(story: readonly string[] | undefined, violation: string): void {
  if (story === undefined) return;
  for (const [index, line] of story.entries()) console.log(`${String(index + 1).padStart(4)}  ${line}`);
  console.log(`      ${violation}`);
}
