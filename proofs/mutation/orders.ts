/** What the parent and the workers of a mutation run send each other. */

/** The id under which code that runs while modules are loaded is recorded. */
export const LOADING = '(loading)';

/** Prefix of the id of a suite, under which the code of its hooks is recorded. */
export const SUITE = '(suite) ';

/** To a worker. */
export type Order =
  | { readonly kind: 'record' }
  | {
      readonly kind: 'run';
      /** The mutant to turn on; undefined when it is on since the start of the worker. */
      readonly mutant: string | undefined;
      /** Titles of tests, in groups; the first group with a failure is the last that runs. */
      readonly tests: readonly (readonly string[])[];
    };

/** A test that passed without a mutant. */
export interface TestRecord {
  readonly title: string;
  /** Its file, from the root. */
  readonly file: string;
  readonly ms: number;
}

/** A test that failed without a mutant. */
export interface TestFailure {
  readonly title: string;
  readonly message: string;
}

/** From a worker. */
export type Report =
  /** Sent while the event loop turns: a worker that is silent hangs in a loop. */
  | { readonly kind: 'alive' }
  | { readonly kind: 'loaded' }
  | { readonly kind: 'broken'; readonly reason: string }
  | {
      readonly kind: 'recorded';
      readonly tests: readonly TestRecord[];
      /** The ids of the mutants that each test, each suite's hooks and the loading reach. */
      readonly coverage: Readonly<Record<string, readonly string[]>>;
      readonly failed: readonly TestFailure[];
    }
  | { readonly kind: 'ran'; readonly failed: string | undefined };

/** How often a worker reports that it is alive, in milliseconds. */
export const ALIVE_INTERVAL_MS = 1_000;
