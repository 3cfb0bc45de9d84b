/** Parts of tokens that the database knows, and the lookup of single tokens in the revocation log. */

/** A client of a token's chain, and its generation when it joined the chain. */
export type ClientLink = readonly [clientId: string, generation: bigint];

/** The token of another issuer at the root of an exchange: the identifiers by which it can be revoked. */
export interface TokenOrigin {
  readonly issuer: string;
  readonly subject: string;
  readonly sessionId: string | undefined;
  readonly tokenId: string;
  readonly issuedAtSeconds: number;
}

/** Lookups of single tokens in the revocation log, inside a transaction. */
export interface TokenRows {
  /** Whether the log has an entry for one of these tokens. */
  anyRevoked(tokenIds: readonly string[]): Promise<boolean>;
  /** Whether the log has an entry for another issuer's token: for the token, its session, or its user at that time. */
  foreignRevoked(token: TokenOrigin): Promise<boolean>;
}
