/** The failpoints of a checkout, and the drill's order for one of them. */

/** Before, inside the transaction of, and after each stored step; before and after each request to inventory. */
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

/** The action at a failpoint; the drill's payment process reads the order at every failpoint. */
export interface Orders {
  /** Identifies the order. */
  readonly number: number;
  /** None when undefined. */
  readonly failpoint: Failpoint | undefined;
  /** How often the failpoint is passed before the action. */
  readonly skip: number;
  /** What is killed: the process itself, other processes by pid, or none: then the process only waits. */
  readonly victim: 'self' | 'wait' | readonly number[];
  /** Written when the failpoint is reached; a waiting process continues when the file is removed. */
  readonly marker: string;
}

/** The variable that names the file with the orders. */
export const ORDERS_VARIABLE = 'DRILL_ORDERS';
