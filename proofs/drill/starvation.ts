/** Detects processes that wait for a processor, so that the drill does not blame its faults for that. */

import { readFileSync } from 'node:fs';
import type { ServiceProcess } from '../../scripts/system/parts.js';
import { nowMs } from '../shared/waiting.js';
import type { Environment, InstanceName } from './environment.js';

const LOOK_INTERVAL_MS = 50;
const NANOSECONDS_PER_MILLISECOND = 1e6;

/** Measures how long the instances are runnable without running. */
export interface Starvation {
  /** Time that an instance and auth have waited for a processor so far, in milliseconds. */
  waitedMs(instance: InstanceName): number;
  /** Whether it waited so long before that moment that its lease may have run out. */
  isCause(instance: InstanceName, atMs: number): boolean;
  /** The longest time for which the drill itself was not scheduled, in milliseconds. */
  worstDelayMs(): number;
  stop(): void;
}

interface Sample {
  readonly atMs: number;
  readonly waitedMs: ReadonlyMap<InstanceName, number>;
}

/**
 * Begins to measure. Only Linux reports how long a process waits; elsewhere the result is always zero.
 *
 * @param options.withinMs - how far back a wait can be a cause, in milliseconds
 * @param options.muchMs - how long a wait within that time must be, in milliseconds
 */
export function watchStarvation(
  environment: Environment,
  options: { withinMs: number; muchMs: number },
): Starvation {
  const counters = new Map(
    environment.instances.map((name) => [name, createCounter(environment.processOf(name))]),
  );
  const samples: Sample[] = [];
  let worstDelayMs = 0;
  let lastMs = nowMs();

  const waitedMs = (instance: InstanceName): number => {
    const own = counters.get(instance)?.() ?? 0;
    return instance === 'auth' ? own : own + (counters.get('auth')?.() ?? 0);
  };
  const look = (): void => {
    const atMs = nowMs();
    worstDelayMs = Math.max(worstDelayMs, atMs - lastMs - LOOK_INTERVAL_MS);
    lastMs = atMs;
    samples.push({ atMs, waitedMs: new Map(environment.instances.map((name) => [name, waitedMs(name)])) });
    while ((samples[0]?.atMs ?? atMs) < atMs - 2 * options.withinMs) samples.shift();
  };
  const timer = setInterval(look, LOOK_INTERVAL_MS);
  return {
    waitedMs,
    isCause(instance, atMs) {
      const before = samples.findLast((sample) => sample.atMs <= atMs - options.withinMs) ?? samples[0];
      return waitedMs(instance) - (before?.waitedMs.get(instance) ?? 0) >= options.muchMs;
    },
    worstDelayMs: () => worstDelayMs,
    stop: () => clearInterval(timer),
  };
}

/** Waiting time of the processes of one part, the current one and earlier ones. */
function createCounter(proc: ServiceProcess): () => number {
  let pid = 0;
  let seenMs = 0;
  let totalMs = 0;
  return () => {
    const waitedMs = waitedMsOf(proc.pid);
    if (waitedMs === undefined) return totalMs;
    totalMs += proc.pid === pid ? Math.max(0, waitedMs - seenMs) : waitedMs;
    pid = proc.pid;
    seenMs = waitedMs;
    return totalMs;
  };
}

/** How long a process's main thread, which runs the event loop, was runnable without running. */
function waitedMsOf(pid: number): number | undefined {
  try {
    const [, nanoseconds] = readFileSync(`/proc/${pid}/schedstat`, 'utf8').split(' ');
    return Number(nanoseconds) / NANOSECONDS_PER_MILLISECOND;
  } catch {
    return undefined;
  }
}
