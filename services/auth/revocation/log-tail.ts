/** The end of the log in memory, so that a read fetches only what is new. */

import { HELD_ENTRIES_MAX } from '@portcullis/guard/limits';
import type { LogEntry, LogId } from '../records/revocations.js';
import { IdDigests } from './id-digests.js';
import { type HeldRange, rangeName, SYNC_ENTRIES_MAX } from './log.js';
import type { LogReader } from './log-access.js';

/** What a read needs of the log. */
interface TailRequest {
  /** All entries after this sequence, which is at most {@link SYNC_ENTRIES_MAX} before the head; undefined for none. */
  readonly after: bigint | undefined;
  /** The ranges whose digests are wanted. */
  readonly ranges: readonly HeldRange[];
}

/** What a read has found. */
export interface TailReading {
  /** The wanted entries and perhaps some before, ascending. */
  readonly entries: readonly LogEntry[];
  /** By {@link rangeName}. */
  readonly digests: ReadonlyMap<string, Buffer>;
}

/**
 * Remembers the last {@link SYNC_ENTRIES_MAX} entries that were read, and digests of the last {@link HELD_ENTRIES_MAX} ids.
 *
 * They are used only if the log still has the last of them at its place, under its random id. Everything before that place
 * is then the same, too: an entry is appended once, in a transaction that depends on the place before. A database that was
 * restored to before the entry cannot have it again. Entries that have expired meanwhile may still be remembered; they
 * revoke nothing that is not expired.
 */
export class LogTail {
  #epoch: Buffer = Buffer.alloc(0);
  /** Every entry after this sequence has been read. */
  #from = 0n;
  #entries: readonly LogEntry[] = [];
  #ids = new IdDigests(0n);

  /** Reads what is wanted in the reader's snapshot. */
  async read(reader: LogReader, { after, ranges }: TailRequest): Promise<TailReading> {
    const from = lowestOf(after, ranges);
    if (from === undefined) return { entries: [], digests: new Map() };
    return (await this.#continued(reader, from, ranges)) ?? (await this.#begun(reader, from, ranges));
  }

  /** Continues from what is known; undefined when that is not possible. */
  async #continued(
    reader: LogReader,
    from: bigint,
    ranges: readonly HeldRange[],
  ): Promise<TailReading | undefined> {
    const { state } = reader;
    const known = this.#entries;
    const last = known.at(-1);
    if (last === undefined || !this.#epoch.equals(state.epoch)) return undefined;
    if (this.#from > from) return undefined;
    // After many entries that no request needed: all of them would have to be read to continue.
    if (last.sequence < from) return undefined;
    if (last.sequence === state.head) {
      return last.entryId.equals(state.headEntryId) ? this.#readingOf(known, ranges) : undefined;
    }
    // The last known entry once more, to compare its id in this snapshot.
    const [same, ...fresh] = await reader.entriesAfter(last.sequence - 1n);
    if (same?.sequence !== last.sequence || !same.entryId.equals(last.entryId)) return undefined;
    const all = [...known, ...fresh];
    if (this.#entries === known) this.#ids.append(fresh);
    // Another read has ended meanwhile, and may have continued otherwise.
    else this.#restart(reader, (all[0]?.sequence ?? 1n) - 1n, all);
    this.#entries = all.slice(-SYNC_ENTRIES_MAX);
    return this.#readingOf(all, ranges);
  }

  async #begun(reader: LogReader, from: bigint, ranges: readonly HeldRange[]): Promise<TailReading> {
    const { head } = reader.state;
    if (head - from <= SYNC_ENTRIES_MAX) {
      const entries = await reader.entriesAfter(from);
      this.#restart(reader, from, entries);
      this.#entries = entries;
      return this.#readingOf(entries, ranges);
    }
    // A request that lags further than a response reaches. All ids that any request may compare are read at once, so that
    // requests which lag further and further do not have them read again and again.
    const start = head > HELD_ENTRIES_MAX ? head - BigInt(HELD_ENTRIES_MAX) : 0n;
    const [ids, entries] = await Promise.all([
      reader.idsAfter(start),
      reader.entriesAfter(head - BigInt(SYNC_ENTRIES_MAX)),
    ]);
    this.#restart(reader, start, ids);
    this.#entries = entries;
    return this.#readingOf(entries, ranges);
  }

  #restart({ state }: LogReader, from: bigint, ids: readonly LogId[]): void {
    this.#epoch = state.epoch;
    this.#from = from;
    this.#ids = new IdDigests(from);
    this.#ids.append(ids);
  }

  #readingOf(entries: readonly LogEntry[], ranges: readonly HeldRange[]): TailReading {
    const digests = new Map<string, Buffer>();
    for (const range of ranges) {
      const digest = this.#ids.between(range.applied, range.heldTo);
      if (digest !== undefined) digests.set(rangeName(range), digest);
    }
    return { entries, digests };
  }
}

function lowestOf(after: bigint | undefined, ranges: readonly HeldRange[]): bigint | undefined {
  let lowest = after;
  for (const { applied } of ranges) if (lowest === undefined || applied < lowest) lowest = applied;
  return lowest;
}
