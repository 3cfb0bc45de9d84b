/** How soon a revocation is seen when nothing is broken. */

import { type Percentiles, percentilesOf } from '../shared/statistics.js';
import { nowMs } from '../shared/waiting.js';
import { type Clients, questionsOf } from './calls.js';
import type { Arena, InstanceName } from './environment.js';
import { logInAs, type Revoker } from './participants.js';

const QUESTION_TIMEOUT_MS = 2_000;
const LOG_INS_AT_ONCE = 4;
/** One question to each instance; all of them are refused as soon as the revocation is there. */
const METHODS = new Set(['ListSessions', 'GetReservation', 'ListPayments', 'Unary']);

/** Latencies of one instance, in milliseconds. */
export type Latencies = Percentiles;

/** What was measured at all of them, together and one by one. */
export interface CalmFigures extends Latencies {
  readonly measurements: number;
  readonly instances: Readonly<Record<string, Latencies>>;
}

/**
 * Revokes sessions one after another, and asks every instance from the moment at which Revoke has
 * returned until it refuses. What is measured is the time up to that answer.
 */
export async function measureCalm(options: {
  arena: Arena;
  clients: Clients;
  revoker: Revoker;
  times: number;
  signal: AbortSignal;
}): Promise<CalmFigures> {
  const { arena, clients, revoker, times, signal } = options;
  await revoker.prepare();
  const questions = questionsOf(clients).filter(({ method }) => METHODS.has(method));
  const measured = new Map<InstanceName, number[]>();
  for (let done = 0; done < times && !signal.aborted; done += LOG_INS_AT_ONCE) {
    const batch = await Promise.all(
      Array.from({ length: Math.min(LOG_INS_AT_ONCE, times - done) }, async (_, index) =>
        logInAs(clients, arena.customers[index], 'calm'),
      ),
    );
    for (const { player, sessionId } of batch) {
      // A token that an instance has never seen would be measured with its first verification.
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
export function latenciesOf(all: readonly number[]): Latencies {
  return percentilesOf(all, 2);
}
