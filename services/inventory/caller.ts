/** The caller, as the domain knows it. */

/** A verified user. */
export interface Caller {
  /** Identifies the user; reservations belong to it. */
  readonly subject: string;
  /** Whether the token may manage inventory: then it reads and commits what belongs to other users. */
  readonly isOperator: boolean;
  /** The service that acts for the user; undefined when the user calls directly. */
  readonly actingClient: string | undefined;
}

/** The user and the service that authorise a movement of stock. */
export interface Actor {
  readonly subject: string;
  /** The service that acts for the user, or in its own name under the user's recorded authority. */
  readonly actingClient: string | undefined;
  /** The token with which the user authorised a service that acts in its own name. */
  readonly authorisingToken?: string | undefined;
}
