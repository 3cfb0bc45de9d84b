/** Worker processes of a mutation run, in the instrumented copy of the project. */

import { type ChildProcess, spawn } from 'node:child_process';
import type { Order, Report } from './orders.js';

/** How long a worker may take to load its tests, in milliseconds. */
const LOADING_MS_MAX = 180_000;

/** How long a report may take, and how long a worker may be silent meanwhile, in milliseconds. */
interface Patience {
  readonly reportMs: number;
  readonly silenceMs: number;
}

/** A worker that has loaded its tests. */
export interface Worker {
  /** Sends an order; undefined when the worker ended, or was killed because it gave no report in time or hung in a loop. */
  ask(order: Order, patience: Patience): Promise<Report | undefined>;
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
  const loaded = await reports.next({ reportMs: LOADING_MS_MAX, silenceMs: LOADING_MS_MAX });
  if (loaded?.kind !== 'loaded') {
    child.kill('SIGKILL');
    return undefined;
  }
  return {
    ask: async (order, patience) => {
      child.send(order);
      const report = await reports.next(patience);
      if (report === undefined) child.kill('SIGKILL');
      return report;
    },
    isAlive: () => child.connected,
    stop: () => void child.kill('SIGKILL'),
  };
}

/** The next report of a process; undefined when it ended first, took too long, or was silent for too long. */
function reportsOf(child: ChildProcess): { next(patience: Patience): Promise<Report | undefined> } {
  let hear: (report: Report | undefined) => void = () => {};
  child.on('message', (report: Report) => hear(report));
  child.on('exit', () => hear(undefined));
  child.on('error', () => hear(undefined));
  return {
    next: ({ reportMs, silenceMs }) =>
      new Promise((resolve) => {
        const deadline = setTimeout(() => hear(undefined), reportMs);
        let silence = setTimeout(() => hear(undefined), silenceMs);
        hear = (report) => {
          clearTimeout(silence);
          if (report?.kind === 'alive') {
            silence = setTimeout(() => hear(undefined), silenceMs);
            return;
          }
          clearTimeout(deadline);
          hear = () => {};
          resolve(report);
        };
        if (!child.connected) hear(undefined);
      }),
  };
}
