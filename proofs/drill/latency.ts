/** The latency of revocations when nothing is broken. */

import { type Percentiles, percentilesOf } from '../shared/statistics.js';
import { nowMs } from '../shared/waiting.js';
import { type Clients, questionsOf } from './calls.js';
import type { Environment, InstanceName } from './environment.js';
import { logInAs, type Revoker } from './participants.js';

const QUESTION_TIMEOUT_MS = 2_000;
const LOG_INS_AT_ONCE = 4;
/** One call to each instance; all of them are refused as soon as the revocation is enforced. */
const METHODS = new Set(['ListSessions', 'GetReservation', 'ListPayments', 'Unary']);

/** Latencies of one instance, in milliseconds. */
type Latencies = Percentiles;

/** Latencies of all instances together and of each. */
export interface LatencyFigures extends Latencies {
  readonly measurements: number;
  readonly instances: Readonly<Record<string, Latencies>>;
}

/**
 * Revokes sessions one after another, and calls every instance from the return of Revoke until the
 * call is refused. The latency is the time until that refusal.
 */
export async function measureLatency(options: {
  environment: Environment;
  clients: Clients;
  revoker: Revoker;
  times: number;
  signal: AbortSignal;
}): Promise<LatencyFigures> {
  const { environment, clients, revoker, times, signal } = options;
  await revoker.prepare();
  const questions = questionsOf(clients).filter(({ method }) => METHODS.has(method));
  const measured = new Map<InstanceName, number[]>();
  for (let done = 0; done < times && !signal.aborted; done += LOG_INS_AT_ONCE) {
    const batch = await Promise.all(
      Array.from({ length: Math.min(LOG_INS_AT_ONCE, times - done) }, async (_, index) =>
        logInAs(clients, environment.customers[index], 'calm'),
      ),
    );
    for (const { player, sessionId } of batch) {
      // The first call with a token includes its verification, which is not to be measured.
      await Promise.all(questions.map((question) => question.ask(player.token, QUESTION_TIMEOUT_MS)));
      const target = { $case: 'sessionId' as const, value: sessionId };
      if (!(await revoker.once({ name: 'session', target, hits: [player] }))) continue;
      const revokedMs = nowMs();
      await Promise.all(
        questions.map(async ({ instance, ask }) => {
          const refusedMs = await untilRefused(() => ask(player.token, QUESTION_TIMEOUT_MS), revokedMs);
          measured.set(instance, [...(measured.get(instance) ?? []), refusedMs - revokedMs]);
        }),
      );
    }
  }
  const instances = Object.fromEntries([...measured].map(([name, all]) => [name, latenciesOf(all)]));
  const all = [...measured.values()].flat();
  return { ...latenciesOf(all), measurements: all.length, instances };
}

async function untilRefused(ask: () => Promise<{ kind: string }>, fromMs: number): Promise<number> {
  for (;;) {
    const { kind } = await ask();
    const now = nowMs();
    if (kind === 'refused' || now - fromMs > QUESTION_TIMEOUT_MS) return now;
  }
}

/** p50, p99 and maximum, in milliseconds with two decimals. */
function latenciesOf(all: readonly number[]): Latencies {
  return percentilesOf(all, 2);
}
