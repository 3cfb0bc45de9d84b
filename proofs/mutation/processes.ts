/** Worker processes of a mutation run, in the instrumented copy of the project. */

import { type ChildProcess, spawn } from 'node:child_process';
import type { Order, Report } from './orders.js';

/** How long a worker may take to load its tests, in milliseconds. */
const LOADING_MS_MAX = 180_000;

/** A worker that has loaded its tests. */
export interface Worker {
  /** Sends an order; undefined when the worker ended, or gave no report in time and was killed. */
  ask(order: Order, timeoutMs: number): Promise<Report | undefined>;
  readonly isAlive: () => boolean;
  stop(): void;
}

export interface WorkerOptions {
  /** The copy of the project. */
  readonly folder: string;
  /** Test files, from the root. */
  readonly tests: readonly string[];
  readonly environment: NodeJS.ProcessEnv;
  /** A mutant that is on while the tests are loaded. */
  readonly loadedMutant?: string | undefined;
}

/** Starts a worker; undefined when it could not load its tests, which a mutant can cause. */
export async function startWorker(options: WorkerOptions): Promise<Worker | undefined> {
  const { folder, tests, environment, loadedMutant } = options;
  const child = spawn(
    process.execPath,
    ['--conditions=portcullis-source', '--import', 'tsx', 'proofs/mutation/worker.ts'],
    {
      cwd: folder,
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
      env: {
        ...environment,
        MUTATION_TESTS: JSON.stringify(tests),
        ...(loadedMutant === undefined ? {} : { MUTATION_STATIC: loadedMutant }),
      },
    },
  );
  const reports = reportsOf(child);
  const loaded = await reports.next(LOADING_MS_MAX);
  if (loaded?.kind !== 'loaded') {
    child.kill('SIGKILL');
    return undefined;
  }
  return {
    ask: async (order, timeoutMs) => {
      child.send(order);
      const report = await reports.next(timeoutMs);
      if (report === undefined) child.kill('SIGKILL');
      return report;
    },
    isAlive: () => child.connected,
    stop: () => void child.kill('SIGKILL'),
  };
}

/** The next report of a process; undefined when it ended first, or took too long. */
function reportsOf(child: ChildProcess): { next(timeoutMs: number): Promise<Report | undefined> } {
  let deliver: (report: Report | undefined) => void = () => {};
  child.on('message', (report: Report) => deliver(report));
  child.on('exit', () => deliver(undefined));
  child.on('error', () => deliver(undefined));
  return {
    next: (timeoutMs) =>
      new Promise((resolve) => {
        const timer = setTimeout(() => deliver(undefined), timeoutMs);
        deliver = (report) => {
          clearTimeout(timer);
          deliver = () => {};
          resolve(report);
        };
        if (!child.connected) deliver(undefined);
      }),
  };
}
