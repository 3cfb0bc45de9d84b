/** Programs of this project as child processes, with only the environment variables that a test sets. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { programArguments } from '../../scripts/system/project.js';
import { PROJECT_FOLDER } from './project-copy.js';

const SAYS_WITHIN_MS = 60_000;
/** The variables with which a program finds the binaries and caches of this machine. */
const INHERITED = ['PATH', 'HOME', 'XDG_CACHE_HOME'];

/** Options of a start. */
export interface ProgramOptions {
  /** Default: this project. */
  readonly cwd?: string;
  /** Variables beside PATH, HOME and XDG_CACHE_HOME. */
  readonly env?: Readonly<Record<string, string>>;
}

/** How a program ended, and what it wrote. */
export interface Ended {
  /** Null when a signal ended it. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  /** Both, in the order in which they arrived. */
  readonly output: string;
}

/** A running program. */
export interface Program {
  readonly child: ChildProcess;
  /** The output so far. */
  stdout(): string;
  stderr(): string;
  output(): string;
  /** Resolves when it has ended and its output is read to the end. */
  readonly ended: Promise<Ended>;
  /**
   * Waits until it has written a text.
   *
   * @throws Error with its output when it ends before, or does not write the text within a minute
   */
  said(text: string): Promise<void>;
  /** Waits in the same way for a line of its log, and returns that line. */
  logged(message: string): Promise<Record<string, unknown>>;
}

const running = new Set<ChildProcess>();

/** Kills every program that a test has left running; called once, after the last test. */
export async function killPrograms(): Promise<void> {
  const exits = [...running].map((child) => once(child, 'exit'));
  for (const child of running) child.kill('SIGKILL');
  await Promise.all(exits);
}

/** Arguments of Node that run a TypeScript file of the tests, with the library's sources. */
export const SOURCE_ARGUMENTS: readonly string[] = ['--conditions=portcullis-source', '--import', 'tsx'];

/**
 * Starts a program of this project, compiled, or a TypeScript file of the tests, with arguments:
 * `startProgram(['scripts/tour'])`. In another folder, a copy of the project, the program is compiled there first.
 */
export function startProgram(words: readonly string[], options: ProgramOptions = {}): Program {
  const inherited = INHERITED.map((name) => [name, process.env[name]]);
  const child = spawn(process.execPath, [...nodeArguments(words, options)], {
    cwd: options.cwd ?? PROJECT_FOLDER,
    env: { ...Object.fromEntries(inherited), ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  running.add(child);
  child.once('exit', () => running.delete(child));
  const written = { stdout: '', stderr: '', output: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      written[name] += text;
      written.output += text;
    });
  }
  const ended = new Promise<Ended>((resolve) => {
    child.once('close', (code, signal) => resolve({ code, signal, ...written }));
  });
  return {
    child,
    stdout: () => written.stdout,
    stderr: () => written.stderr,
    output: () => written.output,
    ended,
    said: async (text) => {
      await firstFound(`"${text}"`, () => written.output.includes(text) || undefined);
    },
    logged: (message) => firstFound(`the log line "${message}"`, () => logLine(written.stdout, message)),
  };

  /** Calls `look` after each output until it returns a value. */
  function firstFound<T>(what: string, look: () => T | undefined): Promise<T> {
    return new Promise((resolve, reject) => {
      const stop = (): void => {
        clearTimeout(timer);
        child.stdout.off('data', onData);
        child.stderr.off('data', onData);
      };
      const fail = (how: string): void => {
        stop();
        reject(new Error(`${words.join(' ')} ${how} ${what}:\n${written.output}`));
      };
      const onData = (): void => {
        const found = look();
        if (found === undefined) return;
        stop();
        resolve(found);
      };
      const timer = setTimeout(() => fail(`did not, within ${SAYS_WITHIN_MS} ms, write`), SAYS_WITHIN_MS);
      child.stdout.on('data', onData);
      child.stderr.on('data', onData);
      void ended.then(() => fail('ended without writing'));
      onData();
    });
  }
}

function nodeArguments(
  [program = '', ...words]: readonly string[],
  { cwd }: ProgramOptions,
): readonly string[] {
  if (program.endsWith('.ts')) return [...SOURCE_ARGUMENTS, program, ...words];
  if (cwd !== undefined) return ['scripts/run.js', program, ...words];
  return [...programArguments(program), ...words];
}

/** The first complete line of a log with a message; undefined when there is none. */
function logLine(log: string, message: string): Record<string, unknown> | undefined {
  const complete = log.split('\n').slice(0, -1);
  const line = complete.find((one) => one.includes(`"msg":${JSON.stringify(message)}`));
  return line === undefined ? undefined : (JSON.parse(line) as Record<string, unknown>);
}

/** Runs a program to its end. */
export async function runProgram(words: readonly string[], options: ProgramOptions = {}): Promise<Ended> {
  return await startProgram(words, options).ended;
}
