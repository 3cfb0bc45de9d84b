/** The worlds of the fence, and their states. */

/** What the surroundings do although a guard of theirs forbids it. */
export interface FenceEnvironment {
  /** The transaction does not keep the lock on the fence. */
  readonly withoutLock?: boolean;
  /** The transaction reads the fence as it was when the transaction began. */
  readonly oldVersion?: boolean;
  /** The token is looked up in the list before the fence is locked, and not after. */
  readonly listFirst?: boolean;
  /** The instance reports the fence before the database has confirmed the commit. */
  readonly reportsEarly?: boolean;
  /** An epoch that is opened after a restore may get the number of one that was lost. */
  readonly equalNumbers?: boolean;
}

/** How much of everything there may be in one history. */
export interface FenceWorld {
  readonly name: string;
  readonly about: string;
  readonly entries: number;
  readonly epochs: number;
  readonly restores: number;
  /** The first instance only runs transactions, and the second one only raises the fence. */
  readonly apart?: boolean;
  /** No entry arrives by broadcast. */
  readonly withoutBroadcasts?: boolean;
  /** Instances may crash and start again. */
  readonly crashes?: boolean;
  readonly states: number;
}

/** A place in the log: the number of the epoch, and a sequence. */
export type Place = readonly [epochNumber: number, sequence: number];

/** A transaction of one instance. */
interface Work {
  /** BEGUN: the snapshot is taken. LOCKED: the fence was read. PASSED: only COMMIT is missing. */
  readonly step: 'BEGUN' | 'LOCKED' | 'PASSED';
  /** The fence as it was when the transaction began, or as it was read. */
  readonly fence: Place;
  /** The entry that revokes the token of the work. */
  readonly token: number;
}

export interface Instance {
  /** The log that its list is a copy of, and how much of it; undefined before the first sync. */
  readonly list: { readonly log: number; readonly applied: number } | undefined;
  /** Entries of that log that came by broadcast, by their sequences. */
  readonly heard: readonly number[];
  /** Where it knows the fence to stand. */
  readonly known: Place | undefined;
  readonly work: Work | undefined;
  /** A transaction that raises the fence, and what it has written; it is not committed. */
  readonly raising: Place | undefined;
}

/** One log: that of an epoch. */
export interface Log {
  readonly number: number;
  /** What its entries revoke, in their order. */
  readonly entries: readonly number[];
}

/** A state; it is compared as JSON. */
export interface FenceState {
  /** All logs that have ever been, the lost ones included. */
  readonly logs: readonly Log[];
  readonly present: number;
  /** How many entries were committed. */
  readonly committed: number;
  /** The entries that the database still has. */
  readonly kept: readonly number[];
  readonly backup:
    | { readonly log: number; readonly length: number; readonly kept: readonly number[] }
    | undefined;
  readonly restoresLeft: number;
  readonly fence: Place;
  readonly instances: readonly [Instance, Instance];
  /** The latest report that auth has stored. */
  readonly reported: Place | undefined;
  /** The entries whose Revoke has returned FENCED. */
  readonly fenced: readonly number[];
  /** What has gone wrong. */
  readonly violation: string;
}

/** An event, in words. */
export interface FenceStep {
  readonly text: string;
  readonly state: FenceState;
}
