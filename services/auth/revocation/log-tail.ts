/** The end of the log in memory, so that a read fetches only what is new. */

import type { LogEntry } from '../records/revocations.js';
import { SYNC_ENTRIES_MAX } from './log.js';
import type { LogReader } from './log-access.js';

/**
 * Remembers the last {@link SYNC_ENTRIES_MAX} entries that were read.
 *
 * They are used only if the log still has the last of them at its place, under its random id. Everything before that place
 * is then the same, too: an entry is appended once, in a transaction that depends on the place before. A database that was
 * restored to before the entry cannot have it again. Entries that have expired meanwhile may still be remembered; they
 * revoke nothing that is not expired.
 */
export class LogTail {
  #epoch: Buffer = Buffer.alloc(0);
  #entries: readonly LogEntry[] = [];

  /** All entries after a sequence in the reader's snapshot, and perhaps some before, ascending. */
  async entriesAfter(reader: LogReader, after: bigint): Promise<readonly LogEntry[]> {
    const continued = await this.#continued(reader, after);
    if (continued !== undefined) return continued;
    const entries = await reader.entriesAfter(after);
    this.#remember(reader, entries);
    return entries;
  }

  async #continued(reader: LogReader, after: bigint): Promise<readonly LogEntry[] | undefined> {
    const { state } = reader;
    const known = this.#entries;
    const [first, last] = [known[0], known.at(-1)];
    if (first === undefined || last === undefined || !this.#epoch.equals(state.epoch)) return undefined;
    if (first.sequence > after + 1n) return undefined;
    // After many entries that no request needed: all of them would have to be read to continue.
    if (last.sequence < after) return undefined;
    if (last.sequence === state.head) {
      return last.entryId.equals(state.headEntryId) ? known : undefined;
    }
    // The last known entry once more, to compare its id in this snapshot.
    const [same, ...fresh] = await reader.entriesAfter(last.sequence - 1n);
    if (same?.sequence !== last.sequence || !same.entryId.equals(last.entryId)) return undefined;
    const all = [...known, ...fresh];
    this.#remember(reader, all);
    return all;
  }

  #remember({ state }: LogReader, entries: readonly LogEntry[]): void {
    this.#epoch = state.epoch;
    this.#entries = entries.slice(-SYNC_ENTRIES_MAX);
  }
}
