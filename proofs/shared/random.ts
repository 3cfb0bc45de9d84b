/** Seeded random choices: the same seed gives the same choices on every machine. */

import { randomInt } from 'node:crypto';

/** The largest seed: a seed is an unsigned 32-bit integer. */
export const SEED_MAX = 2 ** 32 - 1;

/** Chooses a seed for a run whose caller named none. */
export function randomSeed(): number {
  return randomInt(2 ** 32);
}

/**
 * Creates a source of random choices.
 *
 * @param options.discard - how many draws to throw away first; neighbouring seeds have similar first draws
 */
export function createRandom(seed: number, { discard = 0 } = {}): Random {
  const random = new Random(seed);
  for (let draw = 0; draw < discard; draw += 1) random.next();
  return random;
}

/** A pseudo-random generator (mulberry32). Not for secrets. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** A number in [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** True with the given probability. */
  chance(probability: number): boolean {
    return this.next() < probability;
  }

  /** An integer from `min` to `max`, both included. */
  integer(min: number, max: number): number {
    return min + Math.floor(this.next() * (max - min + 1));
  }

  /** A real number in [min, max), uniformly distributed. */
  real(min: number, max: number): number {
    return min + this.next() * (max - min);
  }

  /** A positive number, exponentially distributed: mostly small, sometimes several times the mean. */
  exponential(mean: number): number {
    return -Math.log(1 - this.next()) * mean;
  }

  /** @throws RangeError when the list is empty */
  pick<T>(from: readonly T[]): T {
    const index = this.integer(0, from.length - 1);
    if (index >= from.length) throw new RangeError('cannot pick from an empty list');
    return from[index] as T;
  }

  /** All items in random order, as a new array. */
  shuffle<T>(items: readonly T[]): T[] {
    return items
      .map((item) => ({ item, place: this.next() }))
      .sort((a, b) => a.place - b.place)
      .map(({ item }) => item);
  }

  bytes(count: number): Buffer {
    const bytes = Buffer.allocUnsafe(count);
    for (let at = 0; at < count; at += 1) bytes[at] = this.integer(0, 255);
    return bytes;
  }

  /** A UUID by form; version and variant bits are random as well. */
  uuid(): string {
    const hex = this.bytes(16).toString('hex');
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
  }
}
