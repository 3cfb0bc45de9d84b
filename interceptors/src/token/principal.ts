/** The verified caller of a call. Every field was signed by the issuer; none comes from the peer. */
export interface Principal {
  /** The issuer of the token (`iss`). A principal is the pair of issuer and subject. */
  readonly issuer: string;
  /**
   * The principal as one string, for ownership of records: the subject when this service's own issuer signed for it, and
   * `issuer#subject` for a subject of another issuer, also when a service acts for it.
   */
  readonly id: string;
  /** A user's identifier, or a service's client id (`sub`). Two issuers may use the same one. */
  readonly subject: string;
  /** The client that the token was issued to (`client_id`, RFC 9068 §2.2). */
  readonly clientId: string;
  /** The token's identifier (`jti`). A UUID, except in a token of another issuer. */
  readonly tokenId: string;
  /** The session that the token belongs to (`sid`); services have none. A UUID, except in a token of another issuer. */
  readonly sessionId: string | undefined;
  /** USER: a user, directly or through a service that acts for it. SERVICE: a service that acts for itself. */
  readonly kind: 'USER' | 'SERVICE';
  /** The scopes of the token (`scope`, RFC 8693 §4.2). */
  readonly scopes: ReadonlySet<string>;
  /** The roles of the subject (`roles`, RFC 9068 §2.2.3.1). */
  readonly roles: ReadonlySet<string>;
  /** The services that accept the token (`aud`). */
  readonly audiences: readonly string[];
  /** The services that act for the subject (`act`, RFC 8693 §4.1), the current one first. */
  readonly actors: readonly string[];
  /** When the subject last authenticated (`auth_time`), in seconds since the epoch. */
  readonly authTimeSeconds: number | undefined;
  /** When the token expires (`exp`), in seconds since the epoch. */
  readonly expiresAtSeconds: number;
}
