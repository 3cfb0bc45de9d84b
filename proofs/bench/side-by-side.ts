/**
 * The method for small effects: one server process, whose arms take turns in random order. The result is the median over
 * all rounds of the ratio of processor times to the bare arm of the same round. A second bare arm shows the noise of the
 * method.
 */

import { randomBytes } from 'node:crypto';
import { createRandom, randomSeed } from '../shared/random.js';
import { type Spread, spreadOf } from '../shared/statistics.js';
import type { ArmName } from './arms.js';
import { UNARY_PATH } from './echo.js';
import type { LoadCommands } from './load-process.js';
import type { BenchContext } from './section.js';
import type { ServerCommands, Serving } from './server-process.js';
import { startWorker, type Worker } from './worker.js';

/** A server process with its arms, and the load generator. */
export interface Bench {
  readonly server: Worker<ServerCommands>;
  readonly load: Worker<LoadCommands>;
  readonly ports: Partial<Record<ArmName, number>>;
  stop(): Promise<void>;
}

export async function openBench(
  context: BenchContext,
  serving: Omit<Serving, 'secret'> & { readonly secret?: string },
): Promise<Bench> {
  const server = startWorker<ServerCommands>({
    program: 'server-process',
    core: context.cores.server,
    nodeArguments: ['--expose-gc'],
  });
  const load = startWorker<LoadCommands>({ program: 'load-process', core: context.cores.load });
  const stop = async (): Promise<void> => {
    await Promise.all([server.stop(), load.stop()]);
  };
  try {
    const ports = await server.call('serve', { secret: randomBytes(32).toString('hex'), ...serving });
    return { server, load, ports, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** The result of one arm in one round. */
interface Turn {
  readonly cpuMicroseconds: number;
  readonly perSecond: number;
}

/** The results of one arm in all rounds, and their ratios to the bare arm. */
export interface ArmFigures {
  readonly cpuRatio: Spread;
  readonly throughputRatio: Spread;
  readonly cpuMicroseconds: Spread;
  readonly perSecond: Spread;
}

interface Comparison {
  readonly arms: readonly ArmName[];
  /** The tokens sent to each arm; all are known after the warm-up. */
  readonly tokens: (arm: ArmName) => readonly string[];
  readonly rounds: number;
  readonly callsPerTurn: (arm: ArmName) => number;
  readonly connections?: number;
  readonly inFlight?: number;
  readonly warmUpCalls?: number;
}

const random = createRandom(randomSeed());

/** A request of typical size. */
export const MESSAGE = Buffer.alloc(64, 'x');

/** Compares arms with `bare`, which must be one of them. */
export async function compare(
  context: BenchContext,
  bench: Bench,
  comparison: Comparison,
): Promise<ReadonlyMap<ArmName, ArmFigures>> {
  const { arms, rounds, connections = 4, inFlight = 32, warmUpCalls = 20_000 } = comparison;
  for (const arm of arms) {
    const port = bench.ports[arm];
    if (port === undefined) throw new TypeError(`${arm} is not served`);
    const message = Uint8Array.from(MESSAGE);
    await bench.load.call('prepare', {
      name: arm,
      path: UNARY_PATH,
      tokens: comparison.tokens(arm),
      message,
    });
    await bench.load.call('open', { name: arm, port, calls: arm, connections });
  }
  // In turns, so that V8's optimizations do not depend on which arm came first.
  for (let step = 0; step < 4; step += 1) {
    for (const arm of random.shuffle(arms)) {
      const calls = Math.max(1, Math.floor(Math.min(warmUpCalls, 4 * comparison.callsPerTurn(arm)) / 4));
      await turn(bench, arm, Math.max(calls, comparison.tokens(arm).length), inFlight);
    }
  }
  const turns = new Map<ArmName, Turn[]>(arms.map((arm) => [arm, []]));
  for (let round = 1; round <= rounds; round += 1) {
    context.signal.throwIfAborted();
    context.progress(`round ${round} of ${rounds}`);
    for (const arm of random.shuffle(arms)) {
      turns.get(arm)?.push(await turn(bench, arm, comparison.callsPerTurn(arm), inFlight));
    }
  }
  const bare = turns.get('bare') ?? [];
  return new Map([...turns].map(([arm, own]) => [arm, figuresOf(own, bare)]));
}

async function turn(bench: Bench, arm: ArmName, calls: number, inFlight: number): Promise<Turn> {
  const before = await bench.server.call('usage');
  const [result] = await bench.load.call('run', [
    { connections: arm, calls: arm, until: { calls }, inFlight },
  ]);
  const after = await bench.server.call('usage');
  if (result === undefined || result.refused > 0) {
    throw new Error(`${arm} refused ${result?.refused} of ${calls} valid calls`);
  }
  return {
    cpuMicroseconds: (after.cpuMicroseconds - before.cpuMicroseconds) / result.calls,
    perSecond: result.calls / result.seconds,
  };
}

function figuresOf(own: readonly Turn[], bare: readonly Turn[]): ArmFigures {
  const ratios = (value: (turn: Turn) => number): Spread =>
    spreadOf(
      own.map((turnOfArm, round) => {
        const turnOfBare = bare[round];
        return turnOfBare === undefined ? Number.NaN : value(turnOfArm) / value(turnOfBare);
      }),
    );
  return {
    cpuRatio: ratios(({ cpuMicroseconds }) => cpuMicroseconds),
    throughputRatio: ratios(({ perSecond }) => perSecond),
    cpuMicroseconds: spreadOf(own.map(({ cpuMicroseconds }) => cpuMicroseconds)),
    perSecond: spreadOf(own.map(({ perSecond }) => perSecond)),
  };
}
