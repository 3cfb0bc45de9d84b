/** What a world consists of: how much of everything there may be in one history. */

/** The kinds of entries that worlds revoke with. */
export type Kind = 'TOKEN' | 'USER' | 'KEY' | 'FOREIGN' | 'CLAIM';

/** Whether entries of a kind are about another issuer, so that they are carried over to a new epoch. */
export function isOfOtherIssuer(kind: Kind): boolean {
  return kind === 'FOREIGN' || kind === 'CLAIM';
}

/** A small world. The explorer visits every state that can be reached in it. */
export interface World {
  readonly name: string;
  /** What the world is about, in one phrase. */
  readonly about: string;
  /** The length of a lease, in ticks. */
  readonly lease: number;
  /** Maximum number of sync requests that are open at a time. */
  readonly questions: number;
  /** Number of entries that may be committed, the lost ones included, by kind. */
  readonly entries: readonly Kind[];
  /** How often a new epoch may be opened. */
  readonly epochs?: number;
  /** How often the key set may change while every token stays valid. */
  readonly keyChanges?: number;
  /** How often the database may be restored to an earlier state. */
  readonly restores?: number;
  /** Pulls and sync responses may come from an old state of the database: pulls always, responses without a guard. */
  readonly oldStates?: boolean;
  /** No pull ever arrives: the instance gets its list from sync responses. */
  readonly withoutPulls?: boolean;
  /** The instance may crash and start again. */
  readonly crashes?: boolean;
  /** How often the wall clock of the instance may be set forward, and back, by one tick. */
  readonly forward?: number;
  readonly back?: number;
  /** For how many ticks the machine of the instance may sleep. */
  readonly sleeps?: number;
  /** For how many ticks the log keeps an entry. A token expires one tick earlier. Without it, both are for ever. */
  readonly keep?: number;
  /** Maximum number of entries in the list of the instance. */
  readonly listMax?: number;
  /** Calls to methods with ON_STALE_ALLOW are checked, too. */
  readonly stale?: boolean;
  /** A shorter length that leases may be set to, in ticks. */
  readonly shorterLease?: number;
  /**
   * Receipts: two replicas of auth share their records, at once or at any time. Only in the first case a receipt can say
   * that a silent instance admits no call any more.
   */
  readonly receipts?: 'PROMPT' | 'SLOW';
  /** With receipts: auth is a single process. */
  readonly oneReplica?: boolean;
  /** The instance has a version that does not know entries of kind CLAIM. */
  readonly oldVersion?: boolean;
  /** The instance does not read the claim that entries of kind CLAIM name. */
  readonly unread?: boolean;
  /** The instance caches tokens that it has verified. */
  readonly cached?: boolean;
  /** A replica of auth remembers the end of the log between its reads; others do not. */
  readonly tail?: boolean;
  /** Number of states up to the fix point, recorded at the last change of the protocol; 0 when it is not known. */
  readonly states: number;
  /** Explored by the short run of CI, too. */
  readonly short?: boolean;
}
