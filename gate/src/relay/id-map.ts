/** A map for ids of streams, of which a connection adds and removes one for each call. */

const SLOTS_MIN = 16;

/** What stands in a free slot: no stream has this id. */
const FREE = 0;

/** 2^32 divided by the golden ratio: it spreads ids that follow one another (Knuth, TAOCP 6.4). */
const SPREAD = 0x9e3779b1;

/**
 * Values by id. A `Map` would replace its table after every few calls; each table refers to the next one, and once one of
 * them is in the old generation, all later ones follow it there, and so do full collections.
 */
export class IdMap<T> {
  #ids = new Int32Array(SLOTS_MIN);
  #values: (T | undefined)[] = new Array<T | undefined>(SLOTS_MIN).fill(undefined);
  #mask = SLOTS_MIN - 1;
  #size = 0;

  /** Number of values. */
  get size(): number {
    return this.#size;
  }

  get(id: number): T | undefined {
    return this.#values[this.#slotOf(id)];
  }

  /** @param id from 1 to 2^31 - 1 */
  set(id: number, value: T): void {
    if (2 * (this.#size + 1) > this.#mask) this.#resize(2 * (this.#mask + 1));
    const slot = this.#slotOf(id);
    if (this.#ids[slot] === FREE) {
      this.#ids[slot] = id;
      this.#size += 1;
    }
    this.#values[slot] = value;
  }

  delete(id: number): void {
    let free = this.#slotOf(id);
    if (this.#ids[free] === FREE) return;
    // What follows moves up, so that no search ends at the free slot too early (Knuth, TAOCP 6.4, Algorithm R).
    const mask = this.#mask;
    for (let slot = (free + 1) & mask; this.#ids[slot] !== FREE; slot = (slot + 1) & mask) {
      const home = this.#homeOf(this.#ids[slot] as number);
      if (((slot - home) & mask) < ((slot - free) & mask)) continue;
      this.#ids[free] = this.#ids[slot] as number;
      this.#values[free] = this.#values[slot];
      free = slot;
    }
    this.#ids[free] = FREE;
    this.#values[free] = undefined;
    this.#size -= 1;
    if (this.#mask >= SLOTS_MIN && 16 * this.#size < this.#mask) this.#resize((this.#mask + 1) / 4);
  }

  /** All values, in any order. */
  values(): T[] {
    return this.#values.filter((value) => value !== undefined);
  }

  /** Where an id is, or would be. */
  #slotOf(id: number): number {
    let slot = this.#homeOf(id);
    for (; this.#ids[slot] !== id && this.#ids[slot] !== FREE; slot = (slot + 1) & this.#mask);
    return slot;
  }

  #homeOf(id: number): number {
    return (Math.imul(id, SPREAD) >>> 12) & this.#mask;
  }

  #resize(slots: number): void {
    const ids = this.#ids;
    const values = this.#values;
    const count = Math.max(SLOTS_MIN, slots);
    this.#ids = new Int32Array(count);
    this.#values = new Array<T | undefined>(count).fill(undefined);
    this.#mask = count - 1;
    for (let slot = 0; slot < ids.length; slot += 1) {
      const id = ids[slot] as number;
      if (id === FREE) continue;
      const place = this.#slotOf(id);
      this.#ids[place] = id;
      this.#values[place] = values[slot];
    }
  }
}
