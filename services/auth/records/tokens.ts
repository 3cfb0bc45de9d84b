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
  /**
   * The values of claims by which it can be revoked, by the JSON Pointers of the claims. A claim that is missing was not
   * read, and the token counts as one that has every value in it.
   */
  readonly revocable?: ReadonlyMap<string, readonly string[]> | undefined;
}

/** When a token that is minted now begins, and how long it lives. */
export interface MintingTimes {
  readonly now: Date;
  readonly lifetimeSeconds: number;
}

/** What minting and checking tokens needs of the revocation log, inside a transaction. */
export interface TokenRows {
  /**
   * The present time of the database, and the lifetime of tokens in the state of the log, which is read after the time.
   * So the token expires no later than that lifetime after the last moment at which it was in force.
   */
  mintingTimes(): Promise<MintingTimes>;
  /** Whether the log has an entry for one of these tokens. */
  anyRevoked(tokenIds: readonly string[]): Promise<boolean>;
  /** Whether the log has an entry for another issuer's token: for the token, its session, or its user or claims at that time. */
  foreignRevoked(token: TokenOrigin): Promise<boolean>;
}
