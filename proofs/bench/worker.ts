/** Processes of the bench, each pinned to a core, which execute commands from a channel. */

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { availableParallelism } from 'node:os';
import { PROJECT_FOLDER, programArguments } from '../../scripts/system/project.js';

/** The cores to which processes are pinned; `undefined` where pinning is not possible. */
export interface Cores {
  readonly server: number | undefined;
  readonly load: number | undefined;
}

/** Chooses two cores; none when `taskset` is missing or the machine has a single core. */
export function chooseCores(): Cores {
  const canPin = process.platform === 'linux' && spawnSync('taskset', ['--version']).status === 0;
  if (!canPin || availableParallelism() < 2) return { server: undefined, load: undefined };
  return { server: 0, load: 1 };
}

/** A command that runs on one core; on any core when it is `undefined`. */
export function pinned(command: readonly string[], core: number | undefined): readonly string[] {
  return core === undefined ? command : ['taskset', '-c', String(core), ...command];
}

/** The commands of a worker, by name. */
type Commands = Readonly<Record<string, (argument: never) => unknown>>;

/** A process that executes commands. */
export interface Worker<C extends Commands> {
  readonly pid: number;
  /** Executes a command. Rejects with the error of the command, or when the process has ended. */
  call<K extends keyof C & string>(
    command: K,
    ...argument: Parameters<C[K]>
  ): Promise<Awaited<ReturnType<C[K]>>>;
  stop(): Promise<void>;
}

interface WorkerOptions {
  /** The file below `proofs/bench`. */
  readonly program: string;
  /** The core to pin it to. */
  readonly core: number | undefined;
  readonly nodeArguments?: readonly string[];
}

interface CommandMessage {
  readonly id: number;
  readonly command: string;
  readonly argument: unknown;
}

interface ReplyMessage {
  readonly id: number;
  readonly result?: unknown;
  readonly error?: string;
}

/** Starts a worker; commands wait until it has loaded. */
export function startWorker<C extends Commands>(options: WorkerOptions): Worker<C> {
  const { program, core, nodeArguments = [] } = options;
  const words = [...nodeArguments, ...programArguments(`proofs/bench/${program}`)];
  return startNode(words, { name: program, core, output: 'inherit' });
}

/**
 * Starts Node with these arguments; what it runs must execute commands.
 *
 * @param options.output - what becomes of its standard output
 */
export function startNode<C extends Commands>(
  words: readonly string[],
  options: {
    readonly name: string;
    readonly core: number | undefined;
    readonly output: 'inherit' | 'ignore';
  },
): Worker<C> {
  const { name: program, core, output } = options;
  const [command = '', ...rest] = pinned([process.execPath, ...words], core);
  const child = spawn(command, rest, {
    cwd: PROJECT_FOLDER,
    stdio: ['ignore', output, 'inherit', 'ipc'],
    serialization: 'advanced',
  });
  const waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  child.on('message', (message) => {
    const { id, result, error } = message as ReplyMessage;
    const waiter = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) waiter?.resolve(result);
    else waiter?.reject(new Error(error));
  });
  const end = (why: string): void => {
    for (const { reject } of waiting.values()) reject(new Error(`${program} has ended: ${why}`));
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
        const message: CommandMessage = { id, command: name, argument: argument[0] };
        child.send(message, (error) => {
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

/** In a worker: executes commands until the worker is stopped or its parent process has ended. */
export function executeCommands(commands: Commands): void {
  process.on('message', (message) => {
    const { id, command, argument } = message as CommandMessage;
    const run = commands[command] as ((argument: unknown) => unknown) | undefined;
    const reply = (rest: Omit<ReplyMessage, 'id'>): void => void process.send?.({ id, ...rest });
    Promise.resolve()
      .then(() => {
        if (run === undefined) throw new TypeError(`there is no command ${command}`);
        return run(argument);
      })
      .then((result) => reply({ result }))
      .catch((error: unknown) =>
        reply({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) }),
      );
  });
  process.once('disconnect', () => process.exit(0));
}
