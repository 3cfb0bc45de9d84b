/** Expands states of one world: judges each, lets every event happen, and keeps the new ones. */

import { comparedWithTables, isComparable } from './compared.js';
import { type EventCode, kindNumber } from './events.js';
import { guardOf, OLD_VERSION } from './guards.js';
import { Model } from './model.js';
import { Oracle } from './oracle.js';
import { loadProtocol } from './protocol.js';
import { type Fingerprint, type FingerprintTable, fingerprintOf } from './table.js';
import type { World } from './world.js';

/** What expanding some states has found. */
export interface Expansion {
  /** The new states, packed one after the other. */
  readonly next: Uint8Array;
  readonly states: number;
  readonly transitions: number;
  /** The numbers of the kinds of events that have happened. */
  readonly kinds: ReadonlySet<number>;
  readonly violation: { readonly what: string; readonly at: Fingerprint } | undefined;
}

/** @param without - the guard that is left out */
export async function createExpander(world: World, without: string | undefined): Promise<Expander> {
  return new Expander(await createModel(world, without));
}

/**
 * @param without - the guard that is left out. With every guard in place, feeds are compared with the tables of the
 *   specification
 * @param everyFeed - compares every feed with the tables, even without a guard
 */
export async function createModel(
  world: World,
  without: string | undefined,
  everyFeed = false,
): Promise<Model> {
  const guard = without === undefined ? undefined : guardOf(without);
  const version = world.oldVersion === true ? OLD_VERSION : [];
  const loaded = await loadProtocol([...version, ...(guard?.edits ?? [])]);
  const isCompared = isComparable(world) && (everyFeed || without === undefined);
  const protocol = isCompared ? comparedWithTables(loaded, everyFeed) : loaded;
  return new Model(protocol, world, guard?.environment ?? {});
}

/** Expands the states of one world. */
export class Expander {
  readonly model: Model;
  readonly #oracle: Oracle;
  readonly #bytes: Uint8Array;
  readonly #words: Uint32Array;
  readonly #parent: Uint8Array;
  readonly #parentWords: Uint32Array;

  constructor(model: Model) {
    this.model = model;
    this.#oracle = new Oracle(model);
    const { length } = model.packing;
    this.#bytes = new Uint8Array(length);
    this.#words = new Uint32Array(this.#bytes.buffer);
    this.#parent = new Uint8Array(length);
    this.#parentWords = new Uint32Array(this.#parent.buffer);
  }

  /** The first state, packed. */
  root(): Uint8Array {
    const bytes = new Uint8Array(this.model.packing.length);
    this.model.packing.pack(this.model.initial(), bytes);
    return bytes;
  }

  fingerprintOf(state: Uint8Array): Fingerprint {
    this.#parent.set(state);
    const fingerprint = { low: 0, high: 0 };
    fingerprintOf(this.#parentWords, fingerprint);
    return fingerprint;
  }

  /** Expands packed states. New ones are added to the table. */
  expand(states: Uint8Array, table: FingerprintTable): Expansion {
    const { model } = this;
    const { length } = model.packing;
    let next = new Uint8Array(states.length * 2);
    let count = 0;
    let transitions = 0;
    const kinds = new Set<number>();
    const own = { low: 0, high: 0 };
    const found = { low: 0, high: 0 };
    for (let from = 0; from < states.length; from += length) {
      const packed = states.subarray(from, from + length);
      this.#parent.set(packed);
      fingerprintOf(this.#parentWords, own);
      const state = model.packing.unpack(packed);
      const what = this.#oracle.violationOf(state);
      if (what !== undefined) {
        return {
          next: next.subarray(0, count * length),
          states: count,
          transitions,
          kinds,
          violation: { what, at: { ...own } },
        };
      }
      model.beginSteps();
      for (const code of model.events(state)) {
        const after = { ...state };
        model.step(after, code);
        model.packing.pack(after, this.#bytes, { state, bytes: packed });
        transitions += 1;
        fingerprintOf(this.#words, found);
        kinds.add(kindNumber(code));
        if (!table.add(found, own)) continue;
        if ((count + 1) * length > next.length) {
          const larger = new Uint8Array(next.length * 2);
          larger.set(next);
          next = larger;
        }
        next.set(this.#bytes, count * length);
        count += 1;
      }
    }
    return {
      next: next.subarray(0, count * length),
      states: count,
      transitions,
      kinds,
      violation: undefined,
    };
  }

  /** The event that leads from a packed state to the one with this fingerprint. */
  stepTo(packed: Uint8Array, next: Fingerprint): { readonly code: EventCode; readonly state: Uint8Array } {
    const { model } = this;
    for (const code of model.events(model.packing.unpack(packed))) {
      const after = model.packing.unpack(packed);
      model.apply(after, code);
      model.packing.pack(after, this.#bytes);
      const found = this.fingerprintOf(this.#bytes);
      if (found.low === next.low && found.high === next.high) return { code, state: this.#bytes.slice() };
    }
    throw new RangeError('no event leads to the next state of the path');
  }
}
