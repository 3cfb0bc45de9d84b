/** The processor time of the gate for one call, beside proxies: all arms take turns in random order. */

import { createRandom, randomSeed } from '../shared/random.js';
import { UNARY_PATH } from './echo.js';
import type { GateArm, GateArmName } from './gate-arms.js';
import type { LoadCommands } from './load-process.js';
import { preciseTimeMs, withChildren } from './processor-time.js';
import type { BenchContext } from './section.js';
import type { Worker } from './worker.js';

/** A kind of load, for which all arms are compared. */
export interface GateLoad {
  readonly name: 'busy' | 'tokens' | 'idle' | 'idle-connections' | 'large';
  readonly title: string;
  /** Size of the request and of its response, in bytes. */
  readonly bytes: number;
  readonly connections: number;
  /** Concurrent calls, over all connections. */
  readonly inFlight: number;
  /** Different tokens, all of which come on every connection. */
  readonly tokens: number;
  readonly rounds: number;
  readonly callsPerTurn: number;
}

/** The result of one arm in one round. */
export interface GateTurn {
  /** Processor time of the arm's processes for one call; NaN without a process. */
  readonly cpuMicroseconds: number;
  /** The same of the server behind it. */
  readonly upstreamMicroseconds: number;
  readonly perSecond: number;
  /** The median time from a request to the end of its response, in milliseconds. */
  readonly p50Ms: number;
}

/** The turns of all arms, round by round. */
export type GateTurns = ReadonlyMap<GateArmName, readonly GateTurn[]>;

const WARM_UP_STEPS = 4;
const MICROSECONDS_PER_MILLISECOND = 1_000;

const random = createRandom(randomSeed());

/** Compares all arms under one kind of load. */
export async function compareArms(
  context: BenchContext,
  options: {
    readonly load: Worker<LoadCommands>;
    readonly arms: readonly GateArm[];
    readonly upstreamPid: number;
    readonly kind: GateLoad;
    readonly tokens: readonly string[];
  },
): Promise<GateTurns> {
  const { load, arms, kind, upstreamPid } = options;
  const tokens = options.tokens.slice(0, kind.tokens);
  const message = Uint8Array.from(Buffer.alloc(kind.bytes, 'x'));
  for (const { name, port } of arms) {
    await load.call('prepare', { name, path: UNARY_PATH, tokens, message });
    await load.call('open', { name, port, calls: name, connections: kind.connections });
  }
  // In turns, so that V8's optimizations do not depend on which arm came first.
  for (let step = 0; step < WARM_UP_STEPS; step += 1) {
    context.signal.throwIfAborted();
    context.progress(`${kind.title}: warming up`);
    for (const { name } of random.shuffle(arms)) {
      await runCalls(load, name, kind, Math.max(kind.callsPerTurn, kind.tokens));
    }
  }
  // By now they have all their processes.
  const processes = new Map<GateArmName, readonly number[]>();
  for (const { name, pid } of arms) processes.set(name, pid === undefined ? [] : await withChildren([pid]));
  const turns = new Map<GateArmName, GateTurn[]>(arms.map(({ name }) => [name, []]));
  for (let round = 1; round <= kind.rounds; round += 1) {
    context.signal.throwIfAborted();
    context.progress(`${kind.title}: round ${round} of ${kind.rounds}`);
    for (const { name } of random.shuffle(arms)) {
      const pids = processes.get(name) ?? [];
      const before = { own: await preciseTimeMs(pids), upstream: await preciseTimeMs([upstreamPid]) };
      const { calls, seconds, p50Ms } = await runCalls(load, name, kind, kind.callsPerTurn);
      const after = { own: await preciseTimeMs(pids), upstream: await preciseTimeMs([upstreamPid]) };
      const perCall = MICROSECONDS_PER_MILLISECOND / calls;
      turns.get(name)?.push({
        cpuMicroseconds: pids.length === 0 ? Number.NaN : (after.own - before.own) * perCall,
        upstreamMicroseconds: (after.upstream - before.upstream) * perCall,
        perSecond: calls / seconds,
        p50Ms,
      });
    }
  }
  for (const { name } of arms) await load.call('close', name);
  return turns;
}

async function runCalls(
  load: Worker<LoadCommands>,
  name: GateArmName,
  { inFlight }: GateLoad,
  calls: number,
): Promise<{ calls: number; seconds: number; p50Ms: number }> {
  const [result] = await load.call('run', [{ connections: name, calls: name, until: { calls }, inFlight }]);
  if (result === undefined || result.refused > 0) {
    throw new Error(`${name} refused ${result?.refused} of ${calls} valid calls`);
  }
  return result;
}
