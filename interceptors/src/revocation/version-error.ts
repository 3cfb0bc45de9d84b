/** Where the versions of the library and of the issuer do not fit together. */

/**
 * The issuer sends what this version of the library does not know, or does not serve the protocol that it needs. Leaving out
 * what is not known would make the list incomplete, so the list becomes stale until one of the two is updated. The message is
 * for operators.
 */
export class VersionError extends RangeError {
  constructor(problem: string, options?: ErrorOptions) {
    super(`${problem}: update @portcullis/guard or the issuer, whichever is older`, options);
    this.name = 'VersionError';
  }
}
