/** The policy as the database has it: services with their scopes, roles with the scopes that they grant. */

/** A service that tokens can be for. */
export interface PolicyService {
  /** The name by which tokens name it (`aud`). */
  readonly audience: string;
  readonly description: string;
  /** The clients that serve it; the client of the same name when empty. */
  readonly clientIds: readonly string[];
  readonly scopes: readonly string[];
}

/** A role of users. */
export interface PolicyRole {
  readonly role: string;
  readonly description: string;
  /** The scopes that it grants. */
  readonly scopes: readonly string[];
}

/** What a client may ask for, as a policy has it. */
export interface PolicyClient {
  readonly clientId: string;
  /** The audiences that its own tokens may have. */
  readonly audiences: readonly string[];
  /** The scopes that its own tokens may have. */
  readonly scopes: readonly string[];
  /** The audiences of the tokens with which it acts for a user. */
  readonly exchangeAudiences: readonly string[];
  /** The scopes that it may have when it acts for a user; empty for all that the user's token has. */
  readonly exchangeScopes: readonly string[];
}

/** What an administrator decides. Services, roles and their lists are sorted. */
export interface PolicyDocument {
  readonly services: readonly PolicyService[];
  readonly roles: readonly PolicyRole[];
}

/** The policy in force, arranged for lookups. */
export interface Policy extends PolicyDocument {
  /** Another text after every change. */
  readonly etag: string;
  /** False for the built-in policy, which the bootstrap file may replace once. */
  readonly changed: boolean;
  readonly updateTime: Date;
  readonly scopesOfRole: ReadonlyMap<string, readonly string[]>;
  readonly audienceOfScope: ReadonlyMap<string, string>;
}

/** What a change took from roles, and live sessions may still have. */
export interface Narrowing {
  readonly narrowingId: bigint;
  readonly scopes: readonly string[];
  readonly audiences: readonly string[];
  readonly actor: string;
  /** The security event of the change. */
  readonly eventId: string;
  /** The last user that a batch has looked at. */
  readonly afterUser: string | undefined;
  /** The number of users whose tokens were revoked. */
  readonly users: bigint;
  /** The position of the last entry; 0 when nothing was revoked. */
  readonly sequence: bigint;
  readonly enforcedEverywhereBy: Date | undefined;
  readonly ended: boolean;
}

/** One step of the search for the users of a narrowing. */
export interface NarrowingStep {
  readonly userIds: readonly string[];
  /** The user after whom the next step begins; undefined at the end. */
  readonly next: string | undefined;
}

/** Whose sessions a batch of a narrowing has narrowed. */
export interface NarrowedUser {
  readonly userId: string;
  /** The generation that the user has now. */
  readonly generation: bigint;
}

/** The rows of the policy, inside a transaction. */
export interface PolicyRows {
  /**
   * The policy in force. It does not change until the transaction ends, because changes wait for that; so no token of the
   * former policy can be committed after a change.
   */
  current(): Promise<Policy>;
  /** Waits until no other transaction uses the policy, and keeps others waiting until this one ends. Comes before `current`. */
  lock(): Promise<Policy>;
  /** Replaces the policy and returns it with its new etag. The caller has locked it. */
  replace(document: PolicyDocument): Promise<Policy>;
  /** The number of users that have each of these roles; roles without users are missing. */
  countUsers(roles: readonly string[]): Promise<ReadonlyMap<string, number>>;
  /** The clients whose rights name one of these scopes or audiences, by the word. */
  clientsNaming(words: {
    readonly scopes: readonly string[];
    readonly audiences: readonly string[];
  }): Promise<ReadonlyMap<string, readonly string[]>>;
}

/** The narrowings, inside a transaction. */
export interface NarrowingRows {
  add(narrowing: Pick<Narrowing, 'scopes' | 'audiences' | 'actor' | 'eventId'>): Promise<bigint>;
  /** A narrowing; takes no lock. */
  find(narrowingId: bigint): Promise<Narrowing | undefined>;
  /** The ids of the narrowings that have not ended, oldest first. */
  pending(): Promise<readonly bigint[]>;
  /** The narrowing; its row stays locked until the transaction ends, so one process works on it at a time. */
  lock(narrowingId: bigint): Promise<Narrowing | undefined>;
  /**
   * The next users, by id, with an open session that has one of the scopes or audiences and is not granted it any more.
   * One step looks at a bounded number of sessions.
   */
  usersAfter(narrowing: Narrowing, limit: number): Promise<NarrowingStep>;
  /** Locks these users in the order of their ids, and raises the generation of those who still have such a session. */
  raiseGenerations(narrowing: Narrowing, userIds: readonly string[]): Promise<readonly NarrowedUser[]>;
  /**
   * Moves the open sessions of these users to their present generations, and narrows the sessions to what the roles of the
   * users grant.
   */
  restamp(userIds: readonly string[]): Promise<void>;
  /** Stores what a batch has done. */
  advance(
    narrowing: Narrowing,
    step: {
      /** The user after whom the next batch begins; undefined at the end. */
      readonly next: string | undefined;
      readonly users: number;
      readonly sequence: bigint;
      readonly enforcedEverywhereBy: Date | undefined;
    },
  ): Promise<void>;
}
