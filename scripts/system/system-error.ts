/** The error whose message is meant for the operator. */

/** An error that the operator can correct; printed as its message, without a stack. */
export class SystemError extends Error {
  /** @param message - full sentences: what is wrong, and what to do about it */
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'SystemError';
  }
}
