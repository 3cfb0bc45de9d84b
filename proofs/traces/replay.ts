/** Replays a trace through the anomaly rules, and compares their findings with the planted attacks. */

import type { AnomalyRule } from '../../services/auth/records/security-events.js';
import { createAnomalyRules, type Finding } from '../../services/auth/security/anomaly-rules.js';
import { identifiersOf } from '../../services/auth/security/events.js';
import { tableText } from '../shared/reporting.js';
import type { PlantedAttack, Trace } from './trace.js';

/** How long after an attack its finding may come, because services report at intervals, in milliseconds. */
const LATE_MS = 60_000;

export interface Replay {
  readonly name: string;
  readonly ordinaryCalls: number;
  readonly planted: number;
  readonly found: readonly PlantedAttack[];
  readonly missed: readonly PlantedAttack[];
  /** Findings without a planted attack, and repeated findings. */
  readonly falseAlarms: readonly Finding[];
}

/** Replays a trace through new rules. */
export function replay({ name, observations, ordinaryCalls, planted }: Trace): Replay {
  const rules = createAnomalyRules();
  const left = new Set(planted);
  const falseAlarms: Finding[] = [];
  for (const finding of observations.flatMap((observation) => rules.observe(observation))) {
    const attack = [...left].find((one) => isOf(finding, one));
    if (attack === undefined) falseAlarms.push(finding);
    else left.delete(attack);
  }
  const found = planted.filter((attack) => !left.has(attack));
  return { name, ordinaryCalls, planted: planted.length, found, missed: [...left], falseAlarms };
}

function isOf({ subject, time, details }: Finding, attack: PlantedAttack): boolean {
  const timeMs = time.getTime();
  return (
    details.rule === attack.rule &&
    identifiersOf(subject).includes(attack.subject) &&
    timeMs >= attack.beginMs &&
    timeMs <= attack.endMs + LATE_MS
  );
}

/** What was planted and found, by rule. */
export function tableOf({ name, ordinaryCalls, found, missed, falseAlarms }: Replay): string {
  const rules = new Map<AnomalyRule, { found: number; missed: number; falseAlarms: number }>();
  const count = (rule: AnomalyRule, what: 'found' | 'missed' | 'falseAlarms'): void => {
    const row = rules.get(rule) ?? { found: 0, missed: 0, falseAlarms: 0 };
    row[what] += 1;
    rules.set(rule, row);
  };
  for (const { rule } of found) count(rule, 'found');
  for (const { rule } of missed) count(rule, 'missed');
  for (const { details } of falseAlarms) count(details.rule, 'falseAlarms');
  const rows = [...rules]
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .map(([rule, figures]) => [
      rule,
      ...[figures.found + figures.missed, figures.found, figures.missed, figures.falseAlarms].map(String),
    ]);
  return [
    `${name}: ${ordinaryCalls} ordinary calls`,
    tableText([['', 'planted', 'found', 'missed', 'false alarms'], ...rows]),
    ...missed.map(({ rule, subject }) => `MISSED ${rule} ${subject}`),
    ...falseAlarms.map(({ subject, details }) => `FALSE ALARM ${details.rule} ${JSON.stringify(subject)}`),
  ].join('\n');
}
