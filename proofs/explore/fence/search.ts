/** Visits every state of the worlds of the fence, breadth first, and leaves out its guards. */

import { loadProtocol } from '../protocol.js';
import { FENCE_GUARDS, FENCE_WORLDS } from './guards.js';
import { FenceModel } from './model.js';
import type { FenceState } from './state.js';

/** What a search has found. */
export interface FenceFound {
  readonly states: number;
  readonly transitions: number;
  readonly depth: number;
  /** The shortest history that leads to a violation, one line for each event; undefined when there is none. */
  readonly story: readonly string[] | undefined;
  readonly violation: string;
}

/**
 * Searches a world to the end, or to the first violation.
 *
 * @param without - the guard that is left out
 * @param isCompared - every decision is compared with the rows of the specification
 * @throws RangeError when there is no such world or guard
 */
export async function searchFence(
  world: string,
  without?: string,
  isCompared = without === undefined,
): Promise<FenceFound> {
  const chosen = FENCE_WORLDS.find(({ name }) => name === world);
  const guard = FENCE_GUARDS.find(({ name }) => name === without);
  if (chosen === undefined) throw new RangeError(`there is no world ${world}`);
  if (without !== undefined && guard === undefined) throw new RangeError(`there is no guard ${without}`);
  const model = new FenceModel(
    await loadProtocol(guard?.edits ?? []),
    chosen,
    guard?.environment,
    isCompared,
  );
  return search(model);
}

function search(model: FenceModel): FenceFound {
  const first = model.initial();
  /** For each state the one before it, and what happened. */
  const before = new Map<string, readonly [before: string, text: string]>([
    [JSON.stringify(first), ['', '']],
  ]);
  let front: FenceState[] = [first];
  let transitions = 0;
  let depth = 0;
  while (front.length > 0) {
    const next: FenceState[] = [];
    for (const state of front) {
      const from = JSON.stringify(state);
      for (const { text, state: after } of model.next(state)) {
        transitions += 1;
        const key = JSON.stringify(after);
        if (before.has(key)) continue;
        before.set(key, [from, text]);
        if (after.violation !== '') {
          return {
            states: before.size,
            transitions,
            depth: depth + 1,
            story: storyOf(before, key),
            violation: after.violation,
          };
        }
        next.push(after);
      }
    }
    if (next.length > 0) depth += 1;
    front = next;
  }
  return { states: before.size, transitions, depth, story: undefined, violation: '' };
}

function storyOf(before: ReadonlyMap<string, readonly [string, string]>, end: string): string[] {
  const story: string[] = [];
  for (let key = end; ; ) {
    const [from, text] = before.get(key) ?? ['', ''];
    if (from === '') return story.reverse();
    story.push(text);
    key = from;
  }
}
