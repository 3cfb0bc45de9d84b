/** Child processes: starting them, reading the end of their logs, and ending them. */

import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, open, rename, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type EndingStep, ORDINARY_ENDING, type ProcessIdentity, startTimeOf } from './process-identity.js';
import { unwatchProcess, watchProcess } from './reaper-client.js';
import { SystemError } from './system-error.js';

const LOG_TAIL_BYTES = 4_000;
const LOG_TAIL_LINES = 12;
/** A larger log is renamed before the process starts, and replaces the one renamed before. */
const LOG_BYTES_MAX = 20 * 1024 * 1024;

/** Is notified of every process when it runs and when it has ended. */
export interface ProcessRegistry {
  started(process: ProcessIdentity, ending: readonly EndingStep[]): Promise<void>;
  ended(process: ProcessIdentity): Promise<void>;
}

export interface LaunchOptions {
  /** The name of the process in messages. */
  readonly name: string;
  readonly command: string;
  readonly arguments: readonly string[];
  readonly cwd: string;
  readonly environment: NodeJS.ProcessEnv;
  /** The file that the output is appended to. A file outlives both processes; a pipe would not. */
  readonly logFile: string;
  /** The user that the process runs as; this process's user when absent. */
  readonly user?: { readonly uid: number; readonly gid: number } | undefined;
  /** The signals that end the process, sent by this process or, after its death, by the reaper. */
  readonly ending?: readonly EndingStep[];
  readonly registry?: ProcessRegistry | undefined;
}

export interface LaunchedProcess extends ProcessIdentity {
  readonly name: string;
  readonly logFile: string;
  /** Resolves when the process has ended, with its exit code or signal as text. */
  readonly ended: Promise<string>;
  /** The exit code or signal as text; `undefined` while the process runs. */
  hasEnded(): string | undefined;
  /** Sends a signal without waiting; does nothing when the process has ended. */
  kill(signal: NodeJS.Signals): void;
  /** Sends the ending signals one after another until the process is gone. */
  stop(): Promise<void>;
  /** The last lines that the process has written since it was started. */
  logTail(): Promise<string>;
}

/**
 * Starts a process in a process group of its own: Ctrl-C in a terminal then reaches only this process, which ends its
 * children in the right order.
 *
 * @throws SystemError when the process cannot be started
 */
export async function launch(options: LaunchOptions): Promise<LaunchedProcess> {
  const ending = options.ending ?? ORDINARY_ENDING;
  await mkdir(dirname(options.logFile), { recursive: true });
  if ((await sizeOf(options.logFile)) > LOG_BYTES_MAX)
    await rename(options.logFile, `${options.logFile}.old`);
  const log = await open(options.logFile, 'a', 0o600);
  const logStart = (await log.stat()).size;
  const child = spawn(options.command, options.arguments, {
    cwd: options.cwd,
    env: options.environment,
    stdio: ['ignore', log.fd, log.fd],
    detached: true,
    ...(options.user ?? {}),
  });
  const identity = await identityOfChild(child, options.name).finally(() => log.close());
  watchProcess({ ...identity, ending });
  let outcome: string | undefined;
  const ended = endOf(child).then(async (text) => {
    outcome = text;
    unwatchProcess(identity);
    await options.registry?.ended(identity);
    return text;
  });
  await options.registry?.started(identity, ending);
  return {
    ...identity,
    name: options.name,
    logFile: options.logFile,
    ended,
    hasEnded: () => outcome,
    kill: (signal) => void child.kill(signal),
    stop: () => endChild(child, ended, ending),
    logTail: () => tailOf(options.logFile, logStart),
  };
}

async function identityOfChild(child: ChildProcess, name: string): Promise<ProcessIdentity> {
  if (child.pid === undefined) {
    const [cause]: unknown[] = await once(child, 'error');
    throw new SystemError(`${name} could not be started: ${cause instanceof Error ? cause.message : cause}.`);
  }
  // A child that has already ended is a zombie or gone, and has no start time.
  return { pid: child.pid, startTime: (await startTimeOf(child.pid)) ?? 'ended' };
}

async function endOf(child: ChildProcess): Promise<string> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  return child.signalCode === null ? `exit code ${child.exitCode}` : `signal ${child.signalCode}`;
}

async function endChild(
  child: ChildProcess,
  ended: Promise<string>,
  ending: readonly EndingStep[],
): Promise<void> {
  for (const step of ending) {
    if (!child.kill(step.signal)) break;
    // A stopped process handles signals only after SIGCONT.
    child.kill('SIGCONT');
    const timer = new AbortController();
    const inTime = await Promise.race([
      ended.then(() => true),
      sleep(step.graceMs, false, { signal: timer.signal }).catch(() => false),
    ]);
    timer.abort();
    if (inTime) break;
  }
  await ended;
}

async function sizeOf(file: string): Promise<number> {
  return await stat(file).then(
    ({ size }) => size,
    () => 0,
  );
}

async function tailOf(file: string, start: number): Promise<string> {
  const log = await open(file, 'r').catch(() => undefined);
  if (log === undefined) return '';
  try {
    const { size } = await log.stat();
    const from = Math.max(start, size - LOG_TAIL_BYTES);
    const { buffer, bytesRead } = await log.read(Buffer.alloc(Math.max(0, size - from)), 0, null, from);
    return buffer.toString('utf8', 0, bytesRead).trimEnd().split('\n').slice(-LOG_TAIL_LINES).join('\n');
  } finally {
    await log.close();
  }
}
