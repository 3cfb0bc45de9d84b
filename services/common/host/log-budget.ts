/**
 * How many lines of one kind the log may have. Callers cause many lines, such as rejected headers, and choose how often;
 * without a limit they fill the disk and the event loop. A kind is a message: ours are constant texts.
 */

/** A bucket holds the lines of this many seconds. */
const BURST_SECONDS = 10;
/** Kinds that are told apart; later ones share one budget. */
const KINDS_MAX = 500;
const OTHER_KINDS = 'other messages';

interface Bucket {
  lines: number;
  filledAtMs: number;
  suppressed: number;
}

/** The budget of one log. */
export class LogBudget {
  readonly #perMs: number;
  readonly #burst: number;
  readonly #nowMs: () => number;
  readonly #buckets = new Map<string, Bucket>();
  #suppressed = 0;

  /** @param linesPerMinute - of each kind; a sixth of them may come at once */
  constructor(linesPerMinute: number, nowMs: () => number) {
    this.#perMs = linesPerMinute / 60_000;
    this.#burst = Math.max(1, (linesPerMinute * BURST_SECONDS) / 60);
    this.#nowMs = nowMs;
  }

  /** Lines suppressed since the start. */
  get suppressed(): number {
    return this.#suppressed;
  }

  /** Whether a line of this kind may be written; counts it otherwise. */
  take(kind: string): boolean {
    if (this.#burst === Number.POSITIVE_INFINITY) return true;
    const bucket = this.#bucketOf(kind);
    const nowMs = this.#nowMs();
    bucket.lines = Math.min(this.#burst, bucket.lines + Math.max(0, nowMs - bucket.filledAtMs) * this.#perMs);
    bucket.filledAtMs = nowMs;
    if (bucket.lines >= 1) {
      bucket.lines -= 1;
      return true;
    }
    bucket.suppressed += 1;
    this.#suppressed += 1;
    return false;
  }

  /** How many lines of each kind were suppressed since the last call. */
  takeSuppressed(): { kind: string; suppressed: number }[] {
    const counts: { kind: string; suppressed: number }[] = [];
    for (const [kind, bucket] of this.#buckets) {
      if (bucket.suppressed === 0) continue;
      counts.push({ kind, suppressed: bucket.suppressed });
      bucket.suppressed = 0;
    }
    return counts;
  }

  #bucketOf(kind: string): Bucket {
    const name = this.#buckets.has(kind) || this.#buckets.size < KINDS_MAX ? kind : OTHER_KINDS;
    let bucket = this.#buckets.get(name);
    if (bucket === undefined) {
      bucket = { lines: this.#burst, filledAtMs: this.#nowMs(), suppressed: 0 };
      this.#buckets.set(name, bucket);
    }
    return bucket;
  }
}
