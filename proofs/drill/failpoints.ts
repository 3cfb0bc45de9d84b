/** The moments of a checkout at which something can die, and what the drill orders for one of them. */

/** Before, inside the transaction of, and after each step that is written down; before and after each question to inventory. */
export const FAILPOINTS = [
  'begin:before',
  'begin:after',
  'reserve:before',
  'reserve:after',
  'reserved:before',
  'reserved:inside',
  'reserved:after',
  'held:before',
  'held:inside',
  'held:after',
  'committing:before',
  'committing:inside',
  'committing:after',
  'hand-out:before',
  'hand-out:after',
  'captured:before',
  'captured:inside',
  'captured:after',
  'undoing:before',
  'undoing:inside',
  'undoing:after',
  'give-back:before',
  'give-back:after',
  'failed:before',
  'failed:inside',
  'failed:after',
] as const;

/** The name of one of {@link FAILPOINTS}. */
export type Failpoint = (typeof FAILPOINTS)[number];

/** What is to happen at a failpoint; payment's process of the drill reads it anew at every moment. */
export interface Orders {
  /** Tells one order from the one before. */
  readonly number: number;
  /** None when undefined. */
  readonly failpoint: Failpoint | undefined;
  /** How many times it is passed before. */
  readonly skip: number;
  /** Who is killed: the process itself, others by their numbers, or nobody, and it only waits. */
  readonly victim: 'self' | 'wait' | readonly number[];
  /** Written when the failpoint is reached; whoever waits goes on when it is gone. */
  readonly marker: string;
}

/** The variable that names the file with the orders. */
export const ORDERS_VARIABLE = 'DRILL_ORDERS';
