/** What a flood is. */

import type { Attack } from './attack.js';

/** Who can start a flood: anybody, a customer, a user who may read what auth records, or the holder of a client key. */
type AttackerClass = 'stranger' | 'customer' | 'security' | 'service';

/** One kind of flood, bounded in time and in the number of what it sends. */
export interface Flood {
  /** Its name in figures and on the command line. */
  readonly name: string;
  readonly attacker: AttackerClass;
  /** What it sends, in some words. */
  readonly title: string;
  /** The log of one instance cannot be written meanwhile: the disk is full, or the reader stands still. */
  readonly log?: 'full' | 'stalled';
  /** Why this flood breaks a limit, where that is known and stays so; without it, a broken limit fails the run. */
  readonly notReached?: string;
  /** Sends until the time of the attack is over. */
  run(attack: Attack): Promise<void>;
}
