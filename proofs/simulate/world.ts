/** What all parts of one simulated run share: time, chance, the network, the truth, and what is written down of it. */

import type { Random } from '../shared/random.js';
import type { GuardName } from './guards.js';
import type { Network } from './network.js';
import type { Truth } from './oracle.js';
import type { Signatures } from './signatures.js';
import type { Scheduler } from './time.js';

/** Figures of one run. They are smaller than in production so that expiry, retention and leases meet in one run. */
export interface Settings {
  readonly leaseMs: number;
  readonly accessTokenSeconds: number;
  /** For how long the log keeps an entry. */
  readonly keepSeconds: number;
  readonly replicas: number;
  readonly instances: number;
  /** Some revocations wait for instances; it takes the replicas telling each other of them all the time. */
  readonly waits: boolean;
  /** Faults strike and clients call until then; afterwards everything heals. */
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

/** Something that should not have happened. */
export interface Violation {
  readonly oracle: 'late' | 'innocent' | 'unnoticed' | 'liveness';
  readonly atMs: number;
  readonly what: string;
}

/** What one run has in common. */
export interface World {
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly network: Network;
  readonly truth: Truth;
  readonly signatures: Signatures;
  readonly settings: Settings;
  readonly without: GuardName | undefined;
  readonly measures: Measures;
  readonly violations: Violation[];
  /** Writes down what happened, when anybody wants to read it; the text is made only then. */
  tell(actor: string, what: () => string): void;
}

/** What is counted and measured in a run. */
export interface Measures {
  checks: number;
  revocations: number;
  /** Latest admission of something revoked, after Revoke had returned, in milliseconds. */
  maxLateMs: number;
  /** From Revoke's return until an entry was in the list of an instance that was running. */
  readonly revokeToRefusedMs: number[];
  /** How long an instance refused what needs a lease. */
  readonly unavailableMs: number[];
  /** From the healing of everything until every instance served again. */
  readonly recoveryMs: number[];
  readonly faults: Map<string, number>;
}

export function createMeasures(): Measures {
  return {
    checks: 0,
    revocations: 0,
    maxLateMs: 0,
    revokeToRefusedMs: [],
    unavailableMs: [],
    recoveryMs: [],
    faults: new Map(),
  };
}
