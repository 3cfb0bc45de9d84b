/** Child processes by identity: starting them, knowing them again later, and ending them and no others. */

import type { ChildProcess } from 'node:child_process';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, open, readFile, rename, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { unwatchProcess, watchProcess } from './reaper-client.js';
import { SystemError } from './system-error.js';

const POLL_MS = 20;
const LOG_TAIL_BYTES = 4_000;
const LOG_TAIL_LINES = 12;
/** A log that has grown beyond this is set aside, in place of the one before it. */
const LOG_BYTES_MAX = 20 * 1024 * 1024;

/** One process, told apart from every other that ever had or will have its number. */
export interface ProcessIdentity {
  readonly pid: number;
  /** When it began, as the kernel counts; a number that is used again begins at another time. */
  readonly startTime: string;
}

/** A signal, and how long the process has to end before the next one is sent. */
export interface EndingStep {
  readonly signal: NodeJS.Signals;
  readonly graceMs: number;
}

/** What is sent to an ordinary process, in turn, until it has ended. */
export const ORDINARY_ENDING: readonly EndingStep[] = [
  { signal: 'SIGTERM', graceMs: 20_000 },
  { signal: 'SIGKILL', graceMs: 10_000 },
];

/** Is told of every process as soon as it runs, and when it has ended. */
export interface ProcessRegistry {
  started(process: ProcessIdentity, ending: readonly EndingStep[]): Promise<void>;
  ended(process: ProcessIdentity): Promise<void>;
}

/** How to start a process. */
export interface LaunchOptions {
  /** What it is called in messages. */
  readonly name: string;
  readonly command: string;
  readonly arguments: readonly string[];
  readonly cwd: string;
  readonly environment: NodeJS.ProcessEnv;
  /** Where its output is appended; kept in a file so that it outlives both of us. */
  readonly logFile: string;
  /** The user it runs as, when that is another one than ours. */
  readonly user?: { readonly uid: number; readonly gid: number } | undefined;
  /** How it is ended, by us or, when we are gone, by the warden. */
  readonly ending?: readonly EndingStep[];
  readonly registry?: ProcessRegistry | undefined;
}

/** A process that we started. */
export interface LaunchedProcess extends ProcessIdentity {
  readonly name: string;
  readonly logFile: string;
  /** Resolves when it has ended, with how it ended in words. */
  readonly ended: Promise<string>;
  /** How it ended; `undefined` while it runs. */
  hasEnded(): string | undefined;
  /** Sends a signal, without waiting; nothing happens when it has ended. */
  kill(signal: NodeJS.Signals): void;
  /** Ends it, step by step until it is gone. */
  stop(): Promise<void>;
  /** The last lines that it wrote since it was started. */
  logTail(): Promise<string>;
}

/**
 * Starts a process in a group of its own, so that Ctrl-C in a terminal reaches us alone and we end
 * our parts in the right order.
 *
 * @throws SystemError when it cannot be started at all
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

/** Our own identity. */
export async function ownIdentity(): Promise<ProcessIdentity> {
  const startTime = await startTimeOf(process.pid);
  if (startTime === undefined) throw new SystemError('This process cannot find out when it was started.');
  return { pid: process.pid, startTime };
}

/** Tells whether exactly this process still runs. */
export async function isRunning(identity: ProcessIdentity): Promise<boolean> {
  return (await startTimeOf(identity.pid)) === identity.startTime;
}

/** When a process began, or `undefined` when none has this number; a zombie counts as none. */
export async function startTimeOf(pid: number): Promise<string | undefined> {
  if (process.platform !== 'linux') return await startTimeFromPs(pid);
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  // The command's name stands in brackets and may hold blanks and brackets itself.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const state = fields[0];
  const ticksSinceBoot = fields[19];
  if (state === 'Z' || state === 'X' || ticksSinceBoot === undefined) return undefined;
  return `${await bootId()}/${ticksSinceBoot}`;
}

/**
 * Ends a process that is not our child, or not any more, and nobody else if it is gone already.
 *
 * @throws SystemError when it survives every step
 */
export async function endProcess(
  identity: ProcessIdentity,
  ending: readonly EndingStep[] = ORDINARY_ENDING,
): Promise<void> {
  for (const step of ending) {
    if (!(await isRunning(identity))) return;
    sendSignal(identity.pid, step.signal);
    // A frozen process would leave the signal lying.
    sendSignal(identity.pid, 'SIGCONT');
    const deadline = performance.now() + step.graceMs;
    while (performance.now() < deadline) {
      if (!(await isRunning(identity))) return;
      await sleep(POLL_MS);
    }
  }
  if (await isRunning(identity)) throw new SystemError(`Process ${identity.pid} could not be ended.`);
}

async function identityOfChild(child: ChildProcess, name: string): Promise<ProcessIdentity> {
  if (child.pid === undefined) {
    const [cause]: unknown[] = await once(child, 'error');
    throw new SystemError(`${name} could not be started: ${cause instanceof Error ? cause.message : cause}.`);
  }
  // A child that ended at once is a zombie until Node has reaped it, and has no start time any more.
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
    // A frozen process would leave the signal lying.
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

function sendSignal(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
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

/** Ticks are counted from boot, so the boot belongs to the identity. */
async function bootId(): Promise<string> {
  return (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
}

async function startTimeFromPs(pid: number): Promise<string | undefined> {
  try {
    const { stdout } = await promisify(execFile)('ps', ['-o', 'stat=,lstart=', '-p', String(pid)]);
    const text = stdout.trim();
    return text === '' || text.startsWith('Z') ? undefined : text.replace(/^\S+\s+/, '');
  } catch {
    return undefined;
  }
}
