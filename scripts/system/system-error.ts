/** The error whose message is meant for the person at the terminal. */

/** Something that the person who started us can put right; print its message, without a stack. */
export class SystemError extends Error {
  /** @param message - whole sentences that say what is wrong and what to do about it */
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'SystemError';
  }
}
