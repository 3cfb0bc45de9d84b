/** Rows of the tables, whatever they are about. */

/** A row: when its condition holds, its action follows. An action with a result ends the event. */
export interface Row<S, E, R> {
  readonly id: string;
  readonly when: (state: S, event: E) => boolean;
  readonly act: (state: S, event: E) => R | undefined;
}

export const always = (): boolean => true;

/** An action without a result. */
export function effect<S, E>(work: (state: S, event: E) => void) {
  return (state: S, event: E): undefined => {
    work(state, event);
    return undefined;
  };
}

/** Goes through the rows in their order. @returns the first result; undefined when no row had one */
export function decide<S, E, R>(
  rows: readonly Row<S, E, R>[],
  state: S,
  event: E,
  without: ReadonlySet<string>,
): R | undefined {
  for (const { id, when, act } of rows) {
    if (without.has(id) || !when(state, event)) continue;
    const result = act(state, event);
    if (result !== undefined) return result;
  }
  return undefined;
}
