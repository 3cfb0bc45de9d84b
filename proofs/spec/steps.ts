/**
 * Steps: what happens to an instance, and what it decides. The vectors of the specification and the traces of running
 * instances are sequences of steps. Bytes are hexadecimal text, times are milliseconds.
 */

/** A reading of both clocks. */
export type Moment = readonly [monotonicMs: number, wallMs: number];

/** An entry of the log. */
export interface EntryStep {
  readonly entry_id: string;
  readonly sequence: number;
  /** The name of the kind without its prefix; any other text is an unknown kind. */
  readonly kind: string;
  readonly key: string;
  readonly min_generation: number;
  /** Null when it is missing. */
  readonly keep_until_ms: number | null;
  readonly acknowledge: boolean;
  readonly issuer: string;
  readonly cut_off_ms?: number;
  /** The JSON Pointer of a claim. */
  readonly claim?: string;
}

/** A Sync request, without what identifies the instance. */
export interface RequestStep {
  readonly epoch: string;
  readonly applied: number;
  readonly entry_id_at_applied: string;
  readonly key_set_version: string;
  readonly seen: readonly string[];
  /** 0 when there is none. */
  readonly held_to: number;
  /** Empty when there is none. */
  readonly held_digest: string;
}

/** A Sync response. */
export interface ResponseStep {
  readonly epoch: string;
  readonly head: number;
  readonly entry_id_at_head: string;
  readonly entries: readonly EntryStep[];
  readonly pull: boolean;
  /** Null when the response has no key set. */
  readonly key_set_version: string | null;
  readonly horizon_ms: number;
  readonly lease_ms: number;
  /** Missing: 0. */
  readonly epoch_number?: number;
  readonly fence_wanted?: number;
}

/** A part of a pull; without members it is of unknown kind. */
export interface PartStep {
  readonly packed?: { readonly kind: string; readonly keep_until_ms: number | null; readonly ids: string };
  readonly entries?: readonly EntryStep[];
  readonly end?: { readonly epoch: string; readonly sequence: number; readonly entry_id: string };
}

/** The claims of a token by which entries revoke it. */
export interface TokenStep {
  readonly jti: string;
  /** Another issuer; missing when the token is ours. */
  readonly iss?: string;
  readonly sub?: string;
  readonly sid?: string;
  readonly gen?: number;
  readonly iat?: number;
  readonly kid?: string;
  readonly clients?: readonly (readonly [string, number])[];
  /** The `jti` of every token from which it was derived. */
  readonly ancestors?: readonly string[];
  /** With another issuer: the values of claims, by their JSON Pointers; a missing claim was not read. */
  readonly claims?: Readonly<Record<string, readonly string[]>>;
  /** The token of another issuer from which it was derived. */
  readonly origin?: {
    readonly iss: string;
    readonly jti: string;
    readonly sub: string;
    readonly sid?: string;
    readonly iat: number;
    readonly claims?: Readonly<Record<string, readonly string[]>>;
  };
}

/** The decision about a response; `error` when it failed. */
export type Outcome = 'granted' | 'pull' | 'outdated' | 'error';

/** The decision about a broadcast. */
export type BroadcastResult = { readonly accepted: boolean; readonly sync_due: boolean } | 'error';

/** The decision about a part of a pull. */
export type PartResult = 'complete' | 'incomplete' | 'error';

/** What can be seen of an instance from outside. */
export interface StateStep extends RequestStep {
  readonly hydrated: boolean;
  readonly horizon_ms: number;
  /** 0 without a lease. */
  readonly lease_ms: number;
  /** Number of entries in the list. An instance may keep an entry for longer than the horizon requires. */
  readonly entries: number;
  /** The largest sequence seen; missing where it cannot be observed. */
  readonly highest?: number;
  /** What is known of fences; missing where it is not observed. */
  readonly epoch_number?: number;
  readonly fence_wanted?: number;
}

/** A step, and the decision that is expected. */
export type Step = (
  | {
      readonly do: 'ask';
      readonly ticket: string;
      readonly at: Moment;
      readonly expect?: Partial<RequestStep>;
    }
  | {
      readonly do: 'answer';
      readonly ticket: string;
      readonly response: ResponseStep;
      readonly expect: Outcome;
    }
  | {
      readonly do: 'broadcast';
      readonly epoch: string;
      readonly entries: readonly EntryStep[];
      readonly expect: BroadcastResult;
    }
  | { readonly do: 'begin-pull' }
  | { readonly do: 'part'; readonly part: PartStep; readonly expect: PartResult }
  | { readonly do: 'abandon-pull' }
  /** The lease is read; 0 or less when it is over. */
  | { readonly do: 'lease'; readonly at: Moment; readonly expect: number }
  /** Whether an entry revokes a token that is verified now. The instance remembers a token with a name as verified. */
  | { readonly do: 'revoked'; readonly token: TokenStep; readonly name?: string; readonly expect: boolean }
  /** Whether a token that was verified before is still valid. */
  | { readonly do: 'valid'; readonly name: string; readonly expect: boolean }
  | { readonly do: 'state' }
) & {
  /** The state after the step. */
  readonly state?: Partial<StateStep>;
};
