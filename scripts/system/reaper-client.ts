/** The launcher's side of the warden, a process that ends what we started when we cannot do so ourselves. */

import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import type { Writable } from 'node:stream';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { EndingStep, ProcessIdentity } from './processes.js';

/** One line of what the launcher tells the warden. */
export type WardenMessage =
  | { readonly kind: 'entrust'; readonly process: EntrustedProcess }
  | { readonly kind: 'release'; readonly process: ProcessIdentity }
  | { readonly kind: 'entrustFolder'; readonly path: string }
  | { readonly kind: 'releaseFolder'; readonly path: string };

/** A process, and how it is to be ended. */
export interface EntrustedProcess extends ProcessIdentity {
  readonly ending: readonly EndingStep[];
}

let pipe: Writable | undefined;
let pid: number | undefined;

/** The warden's process; `undefined` before there is anything to watch over. */
export function wardenPid(): number | undefined {
  return pid;
}

/** Has the warden end this process as soon as ours is gone, however it went. */
export function entrust({ pid, startTime, ending }: EntrustedProcess): void {
  tell({ kind: 'entrust', process: { pid, startTime, ending } });
}

/** Tells the warden that this process has ended. */
export function release({ pid, startTime }: ProcessIdentity): void {
  tell({ kind: 'release', process: { pid, startTime } });
}

/** Has the warden remove this temporary folder, after the processes, as soon as our process is gone. */
export function entrustFolder(path: string): void {
  tell({ kind: 'entrustFolder', path });
}

/** Tells the warden that this folder has been removed, or is to stay. */
export function releaseFolder(path: string): void {
  tell({ kind: 'releaseFolder', path });
}

function tell(message: WardenMessage): void {
  pipe ??= startWarden();
  pipe.write(`${JSON.stringify(message)}\n`);
}

/**
 * The warden reads a pipe that only our process holds open. The kernel closes it when we die, even
 * by SIGKILL; a session of its own keeps the warden out of reach of what kills our process group.
 */
function startWarden(): Writable {
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
