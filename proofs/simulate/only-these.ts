/** Parts of auth's stores. */

/** The methods that the simulation implements. Any other one is not a function. */
export function onlyThese<T extends object>(doors: Partial<T>): T {
  return doors as T;
}
