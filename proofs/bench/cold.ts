/** Section `cold`: the cost of a token that is verified for the first time. */

import { formatNumber } from '../shared/reporting.js';
import { type Spread, spreadOf } from '../shared/statistics.js';
import { type ColdCommands, type ColdRounds, type ColdTurn, WAYS, type Way } from './cold-process.js';
import { atLeast, atMost, type BenchContext, type Findings, type Goal, type Section } from './section.js';
import { startWorker } from './worker.js';

const ALGORITHMS = ['EdDSA', 'ES256', 'RS256', 'PS256'] as const;
const CPU_RATIO_MAX = 1.1;
const TOKENS = { EdDSA: 600, ES256: 600, RS256: 400, PS256: 400 } as const;

export const cold: Section = {
  name: 'cold',
  title: 'a new token, beside jose alone and the signature alone',
  run: measureCold,
};

async function measureCold(context: BenchContext): Promise<Findings> {
  const rows: string[][] = [];
  const figures: Record<string, unknown> = {};
  const goals: Goal[] = [];
  for (const algorithm of context.isShort ? (['EdDSA'] as const) : ALGORITHMS) {
    context.signal.throwIfAborted();
    context.progress(algorithm);
    // Not pinned: verification runs on other threads, which is part of the measurement.
    const worker = startWorker<ColdCommands>({ program: 'cold-process', core: undefined });
    try {
      const rounds = context.isShort ? 5 : 12;
      const all = await worker.call('measure', { algorithm, tokens: TOKENS[algorithm], rounds });
      const cpu = ratioOf(all, (round) => round.guard.one.cpuMicroseconds / round.jose.one.cpuMicroseconds);
      const cpuMany = ratioOf(
        all,
        (round) => round.guard.many.cpuMicroseconds / round.jose.many.cpuMicroseconds,
      );
      const wall = ratioOf(
        all,
        (round) => round['node-crypto'].many.wallMicroseconds / round.guard.many.wallMicroseconds,
      );
      for (const way of WAYS) rows.push(rowOf(algorithm, way, all));
      figures[algorithm] = {
        cpu_ratio: cpu.median,
        cpu_ratio_quartiles: [cpu.lower, cpu.upper],
        cpu_ratio_64: cpuMany.median,
        wall_ratio_64: wall.median,
        wall_ratio_64_quartiles: [wall.lower, wall.upper],
        ...Object.fromEntries(WAYS.map((way) => [way.replaceAll('-', '_'), timesOf(all, way)])),
      };
      goals.push(atMost(`${algorithm}: CPU against jose`, cpu.median, CPU_RATIO_MAX, ' ×'));
      if (algorithm === 'EdDSA' || algorithm === 'ES256') {
        goals.push(
          atLeast(
            `${algorithm}: per second against a synchronous verify, 64 in flight`,
            wall.median,
            1,
            ' ×',
          ),
        );
      }
    } finally {
      await worker.stop();
    }
  }
  const head = ['', 'CPU µs, 1 in flight', 'wall µs, 1', 'CPU µs, 64 in flight', 'wall µs, 64'];
  return {
    figures,
    goals,
    tables: [
      { title: 'one token; node-crypto verifies the signature only, synchronously', rows: [head, ...rows] },
    ],
  };
}

function ratioOf(rounds: ColdRounds, ratio: (round: ColdRounds[number]) => number): Spread {
  return spreadOf(rounds.map(ratio));
}

function medianOf(
  rounds: ColdRounds,
  way: Way,
  flight: 'one' | 'many',
  value: (turn: ColdTurn) => number,
): number {
  return spreadOf(rounds.map((round) => value(round[way][flight]))).median;
}

function timesOf(rounds: ColdRounds, way: Way): Record<string, number> {
  return {
    cpu_us: medianOf(rounds, way, 'one', ({ cpuMicroseconds }) => cpuMicroseconds),
    wall_us: medianOf(rounds, way, 'one', ({ wallMicroseconds }) => wallMicroseconds),
    cpu_us_64: medianOf(rounds, way, 'many', ({ cpuMicroseconds }) => cpuMicroseconds),
    wall_us_64: medianOf(rounds, way, 'many', ({ wallMicroseconds }) => wallMicroseconds),
  };
}

function rowOf(algorithm: string, way: Way, rounds: ColdRounds): string[] {
  return [`${algorithm} ${way}`, ...Object.values(timesOf(rounds, way)).map(formatNumber)];
}
