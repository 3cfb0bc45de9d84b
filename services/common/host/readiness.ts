/** Readiness: what a process still lacks, as the health service, `/readyz` and the log report it. */
import type { Health } from './health.js';
import type { Log } from './log.js';

/** By name, a function that returns what is missing in one phrase, or '' when nothing is. */
export type ReadinessChecks = { readonly [name: string]: () => string };

/** The readiness of one process. */
export interface Readiness {
  /** What is missing, by name; empty when the process is ready. */
  missing(): Readonly<Record<string, string>>;
  /** Runs the checks, and reports a change to health and log. */
  update(): void;
  /** From now on the process is shutting down, whatever the checks return. */
  drain(): void;
}

/** Readiness that follows the checks; not reported before the first update. */
export function createReadiness(
  checks: ReadinessChecks,
  { health, log }: { health: Health; log: Log },
): Readiness {
  let draining = false;
  let reported: string | undefined;

  function missing(): Record<string, string> {
    if (draining) return { process: 'shutting down' };
    const phrases = Object.entries(checks).map(([name, check]) => [name, check()] as const);
    return Object.fromEntries(phrases.filter(([, phrase]) => phrase !== ''));
  }
  function update(): void {
    const current = missing();
    const ready = Object.keys(current).length === 0;
    const summary = JSON.stringify(current);
    if (summary === reported) return;
    reported = summary;
    health.setReady(ready);
    if (ready) log.info('ready');
    else log.warn({ missing: current }, 'not ready');
  }
  function drain(): void {
    draining = true;
    update();
  }
  return { missing, update, drain };
}
