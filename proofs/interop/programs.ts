/** Programs under test: started, asked for their ports, and stopped. */

import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { waitUntil } from '../shared/waiting.js';

/** How long a program may take to start, in milliseconds. */
const START_TIMEOUT_MS = 30_000;
const POLL_MS = 50;

/** A running program. */
export interface Program {
  /** Lines of standard output so far. */
  readonly lines: readonly string[];
  readonly pid: number | undefined;
  /** The first line for which this is true. @throws Error with the output when the program ends before */
  line(matches: (line: string) => boolean): Promise<string>;
  signal(name: NodeJS.Signals): void;
  readonly isRunning: boolean;
  /** Ends the program, and waits for that. */
  stop(): Promise<void>;
}

/** Starts a program. Its standard input is a pipe, whose end tells it that this process is gone. */
export function startProgram(
  program: string,
  words: readonly string[],
  options: { readonly cwd?: string; readonly environment?: NodeJS.ProcessEnv } = {},
): Program {
  const child = spawn(program, words, {
    cwd: options.cwd,
    env: { ...process.env, ...options.environment },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  // Without the words: a URL may have a password.
  return new RunningProgram(child, [program, ...words.slice(0, 2)].join(' '));
}

class RunningProgram implements Program {
  readonly lines: string[] = [];
  readonly #child: ChildProcess;
  readonly #command: string;
  readonly #errors: string[] = [];
  readonly #ended: Promise<void>;
  isRunning = true;

  constructor(child: ChildProcess, command: string) {
    this.#child = child;
    this.#command = command;
    if (child.stdout !== null) createInterface(child.stdout).on('line', (line) => this.lines.push(line));
    if (child.stderr !== null) createInterface(child.stderr).on('line', (line) => this.#errors.push(line));
    child.stdin?.on('error', () => {});
    this.#ended = new Promise((resolve) => {
      child.once('error', (error) => {
        this.#errors.push(String(error));
        this.isRunning = false;
        resolve();
      });
      child.once('exit', () => {
        this.isRunning = false;
        resolve();
      });
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  async line(matches: (line: string) => boolean): Promise<string> {
    await waitUntil(() => this.lines.some(matches) || !this.isRunning, {
      timeoutMs: START_TIMEOUT_MS,
      pollMs: POLL_MS,
      failure: () => `${this.#command} is silent: ${this.#output()}`,
    });
    const found = this.lines.find(matches);
    if (found === undefined) throw new Error(`${this.#command} has ended: ${this.#output()}`);
    return found;
  }

  #output(): string {
    return [...this.lines.slice(-5), ...this.#errors.slice(-10)].join(' | ');
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  async stop(): Promise<void> {
    this.#child.stdin?.end();
    this.#child.kill('SIGTERM');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 10_000);
    await this.#ended;
    clearTimeout(timer);
  }
}

/** Waits until something accepts connections at an address. */
export async function waitForPort(port: number, program: Program): Promise<void> {
  const { connect } = await import('node:net');
  await waitUntil(
    () =>
      new Promise<boolean>((resolve) => {
        if (!program.isRunning) {
          resolve(true);
          return;
        }
        const socket = connect({ host: '127.0.0.1', port });
        socket.once('connect', () => {
          socket.destroy();
          resolve(true);
        });
        socket.once('error', () => resolve(false));
      }),
    { timeoutMs: START_TIMEOUT_MS, pollMs: POLL_MS, failure: `nothing listens on port ${port}` },
  );
  if (!program.isRunning) await program.line(() => false);
}
