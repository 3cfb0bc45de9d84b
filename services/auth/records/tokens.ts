/** What the revocation log records about single tokens. */

/** A client of a token's chain, and the generation at which it took part. */
export type ClientLink = readonly [clientId: string, generation: bigint];

/** The token of another issuer at the root of an exchange, as far as it can be revoked. */
export interface TokenOrigin {
  readonly issuer: string;
  readonly subject: string;
  readonly sessionId: string | undefined;
  readonly tokenId: string;
  readonly issuedAtSeconds: number;
}

/** What the revocation log says of single tokens, inside a transaction. */
export interface TokenRows {
  /** Whether the log has an entry for one of these tokens. */
  anyRevoked(tokenIds: readonly string[]): Promise<boolean>;
  /** Whether the log has an entry for this token of another issuer: for itself, its session, or its user by then. */
  foreignRevoked(token: TokenOrigin): Promise<boolean>;
}
