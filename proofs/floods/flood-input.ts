/** The input of the process of a flood, and its report. */

/** A customer whose account an attacker has. */
export interface FloodCustomer {
  readonly username: string;
  readonly password: string;
  readonly accessToken: string;
  readonly refreshToken: string;
  readonly sessionId: string;
}

/** The input of the process of a flood. */
export interface FloodInput {
  readonly name: string;
  readonly seed: number;
  readonly seconds: number;
  readonly addresses: {
    readonly auth: string;
    readonly inventory: readonly [string, string];
    readonly payment: string;
    /** The HTTP addresses for probes: auth, both instances of inventory, payment. */
    readonly ops: readonly string[];
  };
  readonly issuer: string;
  /** The names of honest users, which are no secret. */
  readonly honestNames: readonly string[];
  readonly customers: readonly FloodCustomer[];
  /** The token of a user who may list users and read security events. */
  readonly securityToken: string;
  readonly service: {
    readonly clientId: string;
    readonly privateKeyPem: string;
    readonly accessToken: string;
  };
}

/** What a flood sent, and what it received: counts by kind. */
export type Tally = Readonly<Record<string, number>>;
