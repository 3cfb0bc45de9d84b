/** Processes of the bench: each on a core of its own, told what to do over a channel. */

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { NODE_ARGUMENTS } from '../../scripts/system/node-arguments.js';

const PROJECT_FOLDER = fileURLToPath(new URL('../..', import.meta.url));

/** The cores to which processes are pinned; undefined where that is not possible. */
export interface Cores {
  readonly server: number | undefined;
  readonly load: number | undefined;
}

/** Chooses two cores; none where `taskset` is missing or there is but one. */
export function chooseCores(): Cores {
  const canPin = process.platform === 'linux' && spawnSync('taskset', ['--version']).status === 0;
  if (!canPin || availableParallelism() < 2) return { server: undefined, load: undefined };
  return { server: 0, load: 1 };
}

/** What a process can be told to do, by name. */
export type Commands = Readonly<Record<string, (argument: never) => unknown>>;

/** A process that does what it is told. */
export interface Worker<C extends Commands> {
  readonly pid: number;
  /** Has it done. Rejects with what the command threw, or when the process has ended. */
  call<K extends keyof C & string>(
    command: K,
    ...argument: Parameters<C[K]>
  ): Promise<Awaited<ReturnType<C[K]>>>;
  stop(): Promise<void>;
}

/** How to start a worker. */
export interface WorkerOptions {
  /** The file below `proofs/bench`. */
  readonly file: string;
  /** The core to which it is pinned. */
  readonly core: number | undefined;
  readonly nodeArguments?: readonly string[];
}

/** A command on its way to a worker. */
interface Question {
  readonly id: number;
  readonly command: string;
  readonly argument: unknown;
}

/** What came back. */
interface Answer {
  readonly id: number;
  readonly result?: unknown;
  readonly error?: string;
}

/** Starts a worker; it answers commands as soon as it has loaded. */
export function startWorker<C extends Commands>(options: WorkerOptions): Worker<C> {
  const { core } = options;
  const node = [
    process.execPath,
    ...NODE_ARGUMENTS,
    ...(options.nodeArguments ?? []),
    fileURLToPath(new URL(options.file, import.meta.url)),
  ];
  const [command = '', ...rest] = core === undefined ? node : ['taskset', '-c', String(core), ...node];
  const child = spawn(command, rest, {
    cwd: PROJECT_FOLDER,
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    serialization: 'advanced',
  });
  const waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  child.on('message', (message) => {
    const { id, result, error } = message as Answer;
    const asked = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) asked?.resolve(result);
    else asked?.reject(new Error(error));
  });
  const end = (why: string): void => {
    for (const { reject } of waiting.values()) reject(new Error(`${options.file} has ended: ${why}`));
    waiting.clear();
  };
  child.once('error', (error) => end(error.message));
  child.once('exit', (code, signal) => end(signal ?? `exit code ${code}`));
  let ids = 0;
  return {
    pid: child.pid ?? 0,
    call: (name, ...argument) => {
      ids += 1;
      const id = ids;
      return new Promise((resolve, reject) => {
        waiting.set(id, { resolve: resolve as (value: unknown) => void, reject });
        const question: Question = { id, command: name, argument: argument[0] };
        child.send(question, (error) => {
          if (error === null) return;
          waiting.delete(id);
          reject(error);
        });
      });
    },
    stop: () => stopChild(child),
  };
}

async function stopChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  await ended;
}

/** In a worker: does what it is told until it is stopped, or whoever started it has gone. */
export function answerCommands(commands: Commands): void {
  process.on('message', (message) => {
    const { id, command, argument } = message as Question;
    const run = commands[command] as ((argument: unknown) => unknown) | undefined;
    const answer = (rest: Omit<Answer, 'id'>): void => void process.send?.({ id, ...rest });
    Promise.resolve()
      .then(() => {
        if (run === undefined) throw new TypeError(`there is no command ${command}`);
        return run(argument);
      })
      .then((result) => answer({ result }))
      .catch((error: unknown) =>
        answer({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) }),
      );
  });
  process.once('disconnect', () => process.exit(0));
}
