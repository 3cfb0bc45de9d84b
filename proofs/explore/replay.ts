/** Replays a history: the real objects live on from event to event, and none is made from a state. */

import { EVENTS, type EventCode, type EventKind, eventCode, eventOf } from './events.js';
import { createModel } from './expander.js';
import { Oracle } from './oracle.js';
import type { World } from './world.js';

/** A history as it is kept in a file. */
export interface Trace {
  readonly world: World;
  /** The guard that was left out; null for none. */
  readonly without: string | null;
  /** What the last state violates. */
  readonly violation: string;
  /** The events: a kind, and the number of a request or an entry. */
  readonly events: readonly (readonly [kind: EventKind, number: number])[];
}

/** What a replay has shown. */
export interface Replay {
  /** One line for each event. */
  readonly story: readonly string[];
  /** The first violation. */
  readonly violation: string | undefined;
}

/**
 * Replays events. An event that cannot happen is left out: with the guard in its place a history may take another course.
 *
 * @param options.checksStates - compares the state after each event with the one that is computed from packed states alone
 * @throws Error when the two differ: the state of the explorer lacks something
 */
export async function replay(
  world: World,
  without: string | undefined,
  events: readonly EventCode[],
  { checksStates = false } = {},
): Promise<Replay> {
  const model = await createModel(world, without);
  const packedModel = checksStates ? await createModel(world, without) : undefined;
  const oracle = new Oracle(model);
  const state = model.initial();
  const bytes = new Uint8Array(model.packing.length);
  const packed = new Uint8Array(model.packing.length);
  model.packing.pack(state, packed);
  model.instance.goLive();
  const story: string[] = [];
  for (const code of events) {
    if (!model.events(state).includes(code)) continue;
    story.push(model.apply(state, code));
    model.instance.saveLive(state);
    model.packing.pack(state, bytes);
    if (packedModel !== undefined) {
      const after = packedModel.packing.unpack(packed);
      packedModel.beginSteps();
      packedModel.step(after, code);
      packedModel.packing.pack(after, packed);
      if (Buffer.compare(bytes, packed) !== 0) {
        throw new Error(
          `after "${story.at(-1)}" the living objects differ from the state:\n${JSON.stringify(state)}\n${JSON.stringify(after)}`,
        );
      }
    }
    const violation = oracle.violationOf(state);
    if (violation !== undefined) return { story, violation };
  }
  return { story, violation: undefined };
}

/** The events of a trace as numbers. */
export function codesOf({ events }: Pick<Trace, 'events'>): EventCode[] {
  return events.map(([kind, number]) => {
    if (!EVENTS.includes(kind)) throw new RangeError(`there is no event ${kind}`);
    return eventCode(kind, number);
  });
}

/** The trace of a violation. */
export function traceOf(
  world: World,
  without: string | undefined,
  violation: { readonly what: string; readonly events: readonly EventCode[] },
): Trace {
  const events = violation.events.map((code) => {
    const { kind, number } = eventOf(code);
    return [kind, number] as const;
  });
  return { world, without: without ?? null, violation: violation.what, events };
}
