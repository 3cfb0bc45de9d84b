/** A trace: the observations of the anomaly rules in order, and the attacks among them. */

import type { AnomalyRule } from '../../services/auth/records/security-events.js';
import type { Observation } from '../../services/auth/security/anomaly-rules.js';

/** An attack in a trace, and the finding that it must cause. */
export interface PlantedAttack {
  readonly rule: AnomalyRule;
  /** An identifier in the subject of the finding. */
  readonly subject: string;
  readonly beginMs: number;
  readonly endMs: number;
}

export interface Trace {
  readonly name: string;
  /** In the order in which the rules receive them. */
  readonly observations: readonly Observation[];
  readonly ordinaryCalls: number;
  readonly planted: readonly PlantedAttack[];
}
