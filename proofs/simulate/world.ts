/** The shared context of one simulated run: time, random source, network, oracle and trace. */

import type { Random } from '../shared/random.js';
import type { GuardName } from './guards.js';
import type { Network } from './network.js';
import type { Oracle } from './oracle.js';
import type { Signatures } from './signatures.js';
import type { Scheduler } from './time.js';

/** Figures of one run. They are smaller than in production so that expiry, retention and leases meet in one run. */
export interface Settings {
  readonly leaseMs: number;
  /** The lifetime of tokens at the beginning. */
  readonly accessTokenSeconds: number;
  /** The longest lifetime of tokens, to which it may be changed. */
  readonly accessTokenSecondsMax: number;
  /** How long the log keeps an entry after the last token that it revokes has expired. */
  readonly keepMarginSeconds: number;
  readonly replicas: number;
  readonly instances: number;
  /** Whether some revocations wait for instances, for which the replicas exchange instance states. */
  readonly waits: boolean;
  /** Whether calls run transactions behind a fence, and some revocations wait for it. */
  readonly fences: boolean;
  /** Faults occur and clients call until then; afterwards everything heals. */
  readonly activeMs: number;
}

/** The issuer (`iss`) of all tokens. */
export const ISSUER = 'https://auth.example';

/** The service that the instances belong to. */
export const AUDIENCE = 'inventory';

/** The service that acts for users. */
export const ACTING_CLIENT = 'payment';

/** Real time at the beginning of a run, in milliseconds since the Unix epoch. */
export const START_MS = Date.UTC(2030, 0, 1);

/** A violation. */
export interface Violation {
  readonly oracle: 'late' | 'innocent' | 'unnoticed' | 'liveness' | 'tables';
  readonly atMs: number;
  readonly what: string;
}

/** Context of one run. */
export interface World {
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly network: Network;
  readonly oracle: Oracle;
  readonly signatures: Signatures;
  readonly settings: Settings;
  readonly without: GuardName | undefined;
  /** Every decision of a feed is compared with the tables of the specification. */
  readonly comparesTables: boolean;
  readonly measures: Measures;
  readonly violations: Violation[];
  /** Adds a line to the trace, if a trace is requested; the text is created only then. */
  tell(actor: string, what: () => string): void;
}

/** Figures of a run. */
export interface Measures {
  checks: number;
  /** Steps of feeds that were compared with the tables of the specification. */
  comparedSteps: number;
  revocations: number;
  /** Transactions that were committed, and revocations whose fence stood when Revoke returned. */
  commits: number;
  fenced: number;
  /** Latest admission of a revoked token after Revoke returned, in milliseconds. */
  maxLateMs: number;
  /** Times from Revoke's return until the entry was in the list of a running instance, in milliseconds. */
  readonly revokeToRefusedMs: number[];
  /** How long an instance refused calls that need a lease, in milliseconds. */
  readonly unavailableMs: number[];
  /** Time from the healing of all faults until every instance served again, in milliseconds. */
  readonly recoveryMs: number[];
  readonly faults: Map<string, number>;
}

export function createMeasures(): Measures {
  return {
    checks: 0,
    comparedSteps: 0,
    revocations: 0,
    commits: 0,
    fenced: 0,
    maxLateMs: 0,
    revokeToRefusedMs: [],
    unavailableMs: [],
    recoveryMs: [],
    faults: new Map(),
  };
}
