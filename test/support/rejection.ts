/** Looking at the error of a promise that must be rejected. */

/** Returns what a promise is rejected with; a promise that is fulfilled fails the test. */
export async function rejectionOf(promise: Promise<unknown>): Promise<Error> {
  const fulfilled = Symbol('fulfilled');
  const outcome = await promise.then(
    () => fulfilled,
    (error: unknown) => error,
  );
  if (outcome === fulfilled) throw new Error('the promise was fulfilled, and should have been rejected');
  return outcome instanceof Error ? outcome : new Error(String(outcome));
}
