/** The ids of the entries that an instance holds beyond its position in the log, and their digest. */

import { HELD_ENTRIES_MAX, ID_BYTES } from '../limits.js';

/** Number of slots at the start. There are never more than {@link HELD_ENTRIES_MAX}. */
const SLOTS_MIN = 16;

/**
 * Remembers which entries after the position are in the list. They arrive in any order and repeatedly. The digest covers
 * those that follow the position without a gap; others wait until the gap is closed, or until the position is beyond it.
 *
 * An entry has its slot by its sequence. When two entries contend for a slot and there can be no more slots, the entry that
 * the digest covers stays, and otherwise the later one. An entry that finds no slot is a gap.
 */
export class HeldEntries {
  #position = 0;
  #heldTo = 0;
  /** The XOR of the ids after the position up to `heldTo`. */
  readonly #digest = Buffer.alloc(ID_BYTES);
  /** The sequence in each slot; 0 when it is empty. Sequences up to the position are over. */
  #sequences = new Float64Array(SLOTS_MIN);
  #ids = new Uint8Array(SLOTS_MIN * ID_BYTES);

  /** The instance holds every entry after its position up to this sequence; 0 when there is none. */
  get heldTo(): bigint {
    return this.#heldTo > this.#position ? BigInt(this.#heldTo) : 0n;
  }

  /** The XOR of their ids; empty when there is none. */
  get digest(): Buffer {
    return Buffer.from(this.#heldTo > this.#position ? this.#digest : []);
  }

  /** Memory of the ids, in bytes. */
  get bytes(): number {
    return this.#sequences.byteLength + this.#ids.byteLength;
  }

  /** Notes an entry that has been added to the list. */
  add(entrySequence: bigint, id: Uint8Array): void {
    const sequence = Number(entrySequence);
    if (!Number.isSafeInteger(sequence) || sequence <= this.#position || id.byteLength !== ID_BYTES) return;
    if (!this.#makeRoom(sequence)) return;
    const slot = this.#slotOf(sequence);
    const isCovered = sequence <= this.#heldTo;
    // After a restore, the log may have another entry at this place. The digest has the id of one of them.
    if (isCovered) this.#toggle(slot);
    this.#sequences[slot] = sequence;
    this.#ids.set(id, slot * ID_BYTES);
    if (isCovered) this.#toggle(slot);
    else this.#extend();
  }

  /** The list is complete up to this sequence, from which on the digest begins. */
  advance(position: bigint): void {
    const to = Number(position);
    for (let sequence = this.#position + 1; sequence <= Math.min(to, this.#heldTo); sequence += 1) {
      this.#toggle(this.#slotOf(sequence));
    }
    this.#position = Math.max(this.#position, to);
    this.#heldTo = Math.max(this.#heldTo, to);
    this.#extend();
  }

  /** Another list begins, which is empty. */
  clear(): void {
    this.#position = 0;
    this.#heldTo = 0;
    this.#digest.fill(0);
    this.#resize(SLOTS_MIN);
  }

  #slotOf(sequence: number): number {
    return sequence % this.#sequences.length;
  }

  /** Whether the slot of an entry is free, or can be. */
  #makeRoom(sequence: number): boolean {
    for (;;) {
      const present = this.#sequences[this.#slotOf(sequence)] ?? 0;
      if (present <= this.#position || present === sequence) return true;
      if (this.#sequences.length >= HELD_ENTRIES_MAX) return present > this.#heldTo && present < sequence;
      this.#grow();
    }
  }

  #grow(): void {
    const sequences = this.#sequences;
    const ids = this.#ids;
    this.#resize(sequences.length * 2);
    for (const [from, sequence] of sequences.entries()) {
      if (sequence <= this.#position) continue;
      const slot = this.#slotOf(sequence);
      this.#sequences[slot] = sequence;
      this.#ids.set(ids.subarray(from * ID_BYTES, (from + 1) * ID_BYTES), slot * ID_BYTES);
    }
  }

  #resize(slots: number): void {
    this.#sequences = new Float64Array(slots);
    this.#ids = new Uint8Array(slots * ID_BYTES);
  }

  /** Extends the digest up to the next gap. */
  #extend(): void {
    for (;;) {
      const slot = this.#slotOf(this.#heldTo + 1);
      if (this.#sequences[slot] !== this.#heldTo + 1) return;
      this.#heldTo += 1;
      this.#toggle(slot);
    }
  }

  /** Adds the id in a slot to the digest, or removes it. */
  #toggle(slot: number): void {
    const digest = this.#digest;
    const start = slot * ID_BYTES;
    for (let at = 0; at < ID_BYTES; at += 1) digest[at] = (digest[at] ?? 0) ^ (this.#ids[start + at] ?? 0);
  }
}
