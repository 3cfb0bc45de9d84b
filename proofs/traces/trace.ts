/** A trace: what the rules would have learned, in order, and which attacks are in it. */

import type { AnomalyRule } from '../../services/auth/records/security-events.js';
import type { Observation } from '../../services/auth/security/anomaly-rules.js';

/** An attack in a trace, and what must be found of it. */
export interface PlantedAttack {
  readonly rule: AnomalyRule;
  /** An identifier in the subject of the finding. */
  readonly subject: string;
  readonly beginMs: number;
  readonly endMs: number;
}

/** What the rules would have learned within some time. */
export interface Trace {
  readonly name: string;
  /** In order. */
  readonly observations: readonly Observation[];
  readonly ordinaryCalls: number;
  readonly planted: readonly PlantedAttack[];
}
