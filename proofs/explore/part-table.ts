/** Values by the fingerprints of parts of states. Only one thread uses it. */

import { type Fingerprint, fingerprintOf } from './table.js';

const SLOTS_MIN = 1024;

/** A map whose keys are fingerprints of 64 bits. */
export class PartTable<T> {
  /** Two words for each slot. */
  #words = new Int32Array(2 * SLOTS_MIN);
  #values: (T | undefined)[] = new Array<T | undefined>(SLOTS_MIN).fill(undefined);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(key: Fingerprint): T | undefined {
    return this.#values[this.#slotOf(key)];
  }

  /** Adds a value. The key must not have one. */
  add(key: Fingerprint, value: T): void {
    if (2 * this.#size >= this.#values.length) this.#grow();
    this.#put(key.low, key.high, value);
    this.#size += 1;
  }

  clear(): void {
    this.#words.fill(0);
    this.#values.fill(undefined);
    this.#size = 0;
  }

  #put(low: number, high: number, value: T): void {
    const slot = this.#slotOf({ low, high });
    this.#words[2 * slot] = low;
    this.#words[2 * slot + 1] = high;
    this.#values[slot] = value;
  }

  /** Where a key is, or belongs. */
  #slotOf({ low, high }: Fingerprint): number {
    const words = this.#words;
    const mask = this.#values.length - 1;
    let slot = low & mask;
    while (words[2 * slot] !== 0 && (words[2 * slot] !== low || words[2 * slot + 1] !== high)) {
      slot = (slot + 1) & mask;
    }
    return slot;
  }

  #grow(): void {
    const [words, values] = [this.#words, this.#values];
    this.#words = new Int32Array(2 * words.length);
    this.#values = new Array<T | undefined>(2 * values.length).fill(undefined);
    for (const [slot, value] of values.entries()) {
      if (value !== undefined) this.#put(words[2 * slot] ?? 0, words[2 * slot + 1] ?? 0, value);
    }
  }
}

/** Computes the fingerprints of bytes of one length. */
export class PartKeys {
  /** Where the bytes are written. */
  readonly bytes: Uint8Array;
  readonly #words: Uint32Array;
  readonly #key: Fingerprint = { low: 0, high: 0 };

  /** @param length - a multiple of four */
  constructor(length: number) {
    this.#words = new Uint32Array(length / Uint32Array.BYTES_PER_ELEMENT);
    this.bytes = new Uint8Array(this.#words.buffer);
  }

  /** The fingerprint of what is in {@link bytes} now; it is valid until the next one is computed. */
  key(): Fingerprint {
    fingerprintOf(this.#words, this.#key);
    return this.#key;
  }
}

/** The fingerprint of a part and a number. Different numbers have different ones. */
export function withNumber({ low, high }: Fingerprint, number: number): Fingerprint {
  return {
    low: Math.imul(low ^ Math.imul(number + 1, 0x9e3779b1), 0x85ebca6b) || 1,
    high: (high ^ Math.imul(number + 1, 0xc2b2ae35)) | 0 || 1,
  };
}
