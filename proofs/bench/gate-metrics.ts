/** What a gate counts of itself. */

/** The number of calls that a gate has cut, in its metrics; 0 before the first. */
export function cutsIn(metrics: string): number {
  return Number(/^portcullis_gate_events_total\{event="call_cut"\} (\d+)$/m.exec(metrics)?.[1] ?? 0);
}
