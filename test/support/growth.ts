/** Measures how the time of a function grows with its input. */

const SMALL = 8 * 1024;
const FACTOR = 8;
/** Too short to be measured; a quadratic search of the large input takes far longer. */
const NEGLIGIBLE_MS = 10;
const ROUNDS = 3;

/**
 * How often longer `work` takes for each unit of an input that is 8 times as large: about 1 when it is linear, 8 when
 * it is quadratic. The fastest of a few rounds counts, so that a busy machine does not matter.
 */
export function growth(work: (length: number) => unknown): number {
  const large = fastestMs(() => work(SMALL * FACTOR));
  if (large < NEGLIGIBLE_MS) return 1;
  return (
    large /
    FACTOR /
    Math.max(
      fastestMs(() => work(SMALL)),
      NEGLIGIBLE_MS / FACTOR / 2,
    )
  );
}

function fastestMs(work: () => unknown): number {
  let fastest = Number.POSITIVE_INFINITY;
  for (let round = 0; round < ROUNDS; round += 1) {
    const begin = performance.now();
    work();
    fastest = Math.min(fastest, performance.now() - begin);
    // Once slow, always slow: the other rounds would only take time.
    if (fastest > 1_000) break;
  }
  return fastest;
}
