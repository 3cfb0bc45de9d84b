/** Running simulated work from within a test. */

/** Runs work from an event of the loop, where promises can be settled on demand. */
export function inEvent<T>(work: () => T): Promise<T> {
  return new Promise((resolve, reject) => {
    setImmediate(() => {
      try {
        resolve(work());
      } catch (error) {
        reject(error);
      }
    });
  });
}
