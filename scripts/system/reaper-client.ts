/** The launcher's connection to the reaper, which cleans up after a launcher that was killed. */

import { spawn } from 'node:child_process';
import type { Writable } from 'node:stream';
import type { EndingStep, ProcessIdentity } from './process-identity.js';
import { programArguments } from './project.js';

/** One line that the launcher sends to the reaper. */
export type ReaperMessage =
  | { readonly kind: 'watchProcess'; readonly process: WatchedProcess }
  | { readonly kind: 'unwatchProcess'; readonly process: ProcessIdentity }
  | { readonly kind: 'watchFolder'; readonly path: string }
  | { readonly kind: 'unwatchFolder'; readonly path: string };

/** A process, and the signals that end it. */
export interface WatchedProcess extends ProcessIdentity {
  readonly ending: readonly EndingStep[];
}

let pipe: Writable | undefined;
let pid: number | undefined;

/** The process number of the reaper; `undefined` before there is anything to clean up. */
export function reaperPid(): number | undefined {
  return pid;
}

/** Makes the reaper end this process as soon as the launcher is gone, even after SIGKILL. */
export function watchProcess({ pid, startTime, ending }: WatchedProcess): void {
  sendMessage({ kind: 'watchProcess', process: { pid, startTime, ending } });
}

/** Reports to the reaper that this process has ended. */
export function unwatchProcess({ pid, startTime }: ProcessIdentity): void {
  sendMessage({ kind: 'unwatchProcess', process: { pid, startTime } });
}

/** Makes the reaper remove this temporary folder, after the processes, as soon as the launcher is gone. */
export function watchFolder(path: string): void {
  sendMessage({ kind: 'watchFolder', path });
}

/** Reports to the reaper that this folder was removed or must be kept. */
export function unwatchFolder(path: string): void {
  sendMessage({ kind: 'unwatchFolder', path });
}

function sendMessage(message: ReaperMessage): void {
  pipe ??= startReaper();
  pipe.write(`${JSON.stringify(message)}\n`);
}

/**
 * The reaper reads a pipe that only the launcher holds open: the kernel closes it when the launcher dies, even by
 * SIGKILL. A session of its own keeps the reaper alive when the launcher's process group is killed.
 */
function startReaper(): Writable {
  const child = spawn(process.execPath, programArguments('scripts/system/reaper'), {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
    cwd: '/',
    env: { PATH: process.env['PATH'] },
  });
  pid = child.pid;
  child.unref();
  child.on('error', () => undefined);
  child.stdin.on('error', () => undefined);
  if ('unref' in child.stdin && typeof child.stdin.unref === 'function') child.stdin.unref();
  return child.stdin;
}
