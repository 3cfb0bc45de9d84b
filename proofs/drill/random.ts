/** Choices that follow from a seed. */

/** A source of choices; the same seed gives the same ones. */
export interface Random {
  /** A number from 0 up to, and without, 1. */
  next(): number;
  /** A whole number between two bounds, both included. */
  between(min: number, max: number): number;
  /** One of several. */
  pick<T>(from: readonly T[]): T;
  /** All of them, in another order. */
  shuffle<T>(all: readonly T[]): T[];
}

/** Makes a source of choices (mulberry32). */
export function createRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const between = (min: number, max: number): number => min + Math.floor(next() * (max - min + 1));
  return {
    next,
    between,
    pick(from) {
      const [chosen] = from.slice(between(0, from.length - 1));
      if (chosen === undefined) throw new TypeError('there is nothing to choose from');
      return chosen;
    },
    shuffle(all) {
      return all
        .map((item) => ({ item, place: next() }))
        .sort((a, b) => a.place - b.place)
        .map(({ item }) => item);
    },
  };
}
