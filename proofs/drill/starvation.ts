/** Notices when processes are kept waiting for a processor: then what the drill sees is not the work of its faults. */

import { readFileSync } from 'node:fs';
import type { ServiceProcess } from '../../scripts/system/parts.js';
import { nowMs } from '../shared/waiting.js';
import { type Arena, INSTANCES, type InstanceName } from './environment.js';

const LOOK_INTERVAL_MS = 50;
const NANOSECONDS_PER_MILLISECOND = 1e6;

/** Watches how long the instances are ready to run and do not. */
export interface Starvation {
  /** For how long an instance, with auth that it asks, has waited for a processor so far, in milliseconds. */
  waitedMs(instance: InstanceName): number;
  /** Whether it waited so much of the time before that moment that its lease may have run out. */
  isCause(instance: InstanceName, atMs: number): boolean;
  /** The longest time for which the drill itself was kept from looking, in milliseconds. */
  worstDelayMs(): number;
  stop(): void;
}

interface Sample {
  readonly atMs: number;
  readonly waitedMs: ReadonlyMap<InstanceName, number>;
}

/**
 * Begins to watch. Only Linux tells how long a process waits; elsewhere nothing is ever excused.
 *
 * @param options.withinMs - how far back a wait can be the cause of something
 * @param options.muchMs - how long a wait must be for that, within that time
 */
export function watchStarvation(arena: Arena, options: { withinMs: number; muchMs: number }): Starvation {
  const counters = new Map(INSTANCES.map((name) => [name, createCounter(arena.processes[name])]));
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
    samples.push({ atMs, waitedMs: new Map(INSTANCES.map((name) => [name, waitedMs(name)])) });
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

/** How long the processes of one part have waited, the one that runs now and those before it. */
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

/** How long a process's first thread, which runs its event loop, was ready to run and did not. */
function waitedMsOf(pid: number): number | undefined {
  try {
    const [, nanoseconds] = readFileSync(`/proc/${pid}/schedstat`, 'utf8').split(' ');
    return Number(nanoseconds) / NANOSECONDS_PER_MILLISECOND;
  } catch {
    return undefined;
  }
}
