/** The launcher's side of the warden, a process that ends what we started when we cannot do so ourselves. */

import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import type { Writable } from 'node:stream';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { EndingStep, ProcessIdentity } from './processes.js';

/** One line of what the launcher tells the warden. */
export type ReaperMessage =
  | { readonly kind: 'entrust'; readonly process: WatchedProcess }
  | { readonly kind: 'release'; readonly process: ProcessIdentity }
  | { readonly kind: 'entrustFolder'; readonly path: string }
  | { readonly kind: 'releaseFolder'; readonly path: string };

/** A process, and how it is to be ended. */
export interface WatchedProcess extends ProcessIdentity {
  readonly ending: readonly EndingStep[];
}

let pipe: Writable | undefined;
let pid: number | undefined;

/** The warden's process; `undefined` before there is anything to watch over. */
export function reaperPid(): number | undefined {
  return pid;
}

/** Has the warden end this process as soon as ours is gone, however it went. */
export function watchProcess({ pid, startTime, ending }: WatchedProcess): void {
  sendMessage({ kind: 'entrust', process: { pid, startTime, ending } });
}

/** Tells the warden that this process has ended. */
export function unwatchProcess({ pid, startTime }: ProcessIdentity): void {
  sendMessage({ kind: 'release', process: { pid, startTime } });
}

/** Has the warden remove this temporary folder, after the processes, as soon as our process is gone. */
export function watchFolder(path: string): void {
  sendMessage({ kind: 'entrustFolder', path });
}

/** Tells the warden that this folder has been removed, or is to stay. */
export function unwatchFolder(path: string): void {
  sendMessage({ kind: 'releaseFolder', path });
}

function sendMessage(message: ReaperMessage): void {
  pipe ??= startReaper();
  pipe.write(`${JSON.stringify(message)}\n`);
}

/**
 * The warden reads a pipe that only our process holds open. The kernel closes it when we die, even
 * by SIGKILL; a session of its own keeps the warden out of reach of what kills our process group.
 */
function startReaper(): Writable {
  const program = fileURLToPath(new URL('reaper.ts', import.meta.url));
  const loader = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;
  const child = spawn(process.execPath, ['--import', loader, program], {
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
