/** The identity of a process: how to recognise it later, and how to end it and no other. */

import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { SystemError } from './system-error.js';

const POLL_MS = 20;

/** Identifies one process, even after its number was reused. */
export interface ProcessIdentity {
  readonly pid: number;
  /** The start time as the kernel counts it; a process that reuses the number has another one. */
  readonly startTime: string;
}

/** A signal, and the time that the process has to exit before the next signal is sent. */
export interface EndingStep {
  readonly signal: NodeJS.Signals;
  readonly graceMs: number;
}

/** The signals that end an ordinary process, in order. */
export const ORDINARY_ENDING: readonly EndingStep[] = [
  { signal: 'SIGTERM', graceMs: 20_000 },
  { signal: 'SIGKILL', graceMs: 10_000 },
];

/** The identity of this process. */
export async function ownIdentity(): Promise<ProcessIdentity> {
  const startTime = await startTimeOf(process.pid);
  if (startTime === undefined) throw new SystemError('The start time of this process cannot be determined.');
  return { pid: process.pid, startTime };
}

/** Returns true when exactly this process runs. */
export async function isRunning(identity: ProcessIdentity): Promise<boolean> {
  return (await startTimeOf(identity.pid)) === identity.startTime;
}

/** The start time of a process; `undefined` when no process has this number. A zombie counts as ended. */
export async function startTimeOf(pid: number): Promise<string | undefined> {
  if (process.platform !== 'linux') return await startTimeFromPs(pid);
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  const fields = fieldsOf(text);
  const state = fields[0];
  const ticksSinceBoot = fields[19];
  if (state === 'Z' || state === 'X' || ticksSinceBoot === undefined) return undefined;
  return `${await bootId()}/${ticksSinceBoot}`;
}

/** The fields of `/proc/PID/stat` from the state on. The name before it may contain spaces and parentheses. */
function fieldsOf(stat: string): string[] {
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
}

/** The command line of a process, and its parent; `undefined` when no process has this number. */
export async function parentOf(pid: number): Promise<{ parent: number; command: string } | undefined> {
  try {
    if (process.platform === 'linux') {
      // Small images have no ps.
      const [stat, words] = await Promise.all(
        ['stat', 'cmdline'].map((file) => readFile(`/proc/${pid}/${file}`, 'utf8')),
      );
      const [, parent] = fieldsOf(stat ?? '');
      return { parent: Number(parent), command: (words ?? '').replaceAll('\0', ' ') };
    }
    const { stdout } = await promisify(execFile)('ps', ['-o', 'ppid=,args=', '-p', String(pid)]);
    const [, parent, command = ''] = /^\s*(\d+)\s+(.*)/.exec(stdout) ?? [];
    return parent === undefined ? undefined : { parent: Number(parent), command };
  } catch {
    return undefined;
  }
}

/** The start time is counted in ticks since boot, so the boot is part of the identity. */
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

/**
 * Ends a process that is not a child of this one. Does nothing when the process is gone, even if another process has
 * its number now.
 *
 * @throws SystemError when the process survives every signal
 */
export async function endProcess(
  identity: ProcessIdentity,
  ending: readonly EndingStep[] = ORDINARY_ENDING,
): Promise<void> {
  for (const step of ending) {
    if (!(await isRunning(identity))) return;
    sendSignal(identity.pid, step.signal);
    // A stopped process handles signals only after SIGCONT.
    sendSignal(identity.pid, 'SIGCONT');
    const deadline = performance.now() + step.graceMs;
    while (performance.now() < deadline) {
      if (!(await isRunning(identity))) return;
      await sleep(POLL_MS);
    }
  }
  if (await isRunning(identity)) throw new SystemError(`Process ${identity.pid} could not be ended.`);
}

function sendSignal(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
}
