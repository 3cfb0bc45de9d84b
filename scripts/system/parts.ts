/** The parts of a running system: each can be stopped, killed and started again under the same address. */

import { readFile } from 'node:fs/promises';
import { type ClientRequest, type IncomingMessage, request } from 'node:http';
import { request as requestHttps } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { type LaunchedProcess, type LaunchOptions, launch } from './processes.js';
import { SystemError } from './system-error.js';

const READY_TIMEOUT_MS = 60_000;
const READY_POLL_MS = 30;
const PROBE_TIMEOUT_MS = 2_000;

/** A part of the system that runs as a process. */
export interface Part {
  /** The name in messages. */
  readonly name: string;
  /** The process number; that of the last process when none runs. */
  readonly pid: number;
  readonly logFile: string;
  isRunning(): boolean;
  /** Sends a signal without waiting. */
  kill(signal: NodeJS.Signals): void;
  /** Resolves when the current process has ended, with its exit code or signal as text. */
  ended(): Promise<string>;
  /** Ends the process; resolves when it has ended. */
  stop(): Promise<void>;
  /** Starts the process again on the same port, and waits until it is ready. */
  restart(): Promise<void>;
}

/** The process of a service. */
export interface ServiceProcess extends Part {
  /** The gRPC address, such as `127.0.0.1:50051`. */
  readonly address: string;
  /** The address of `/livez`, `/readyz` and `/metrics`. */
  readonly opsAddress: string;
  /** Starts the process without waiting; what it depends on need not run yet. */
  launch(): Promise<void>;
  /** Waits until `/readyz` reports ready. @throws SystemError when the process ends or takes too long */
  ready(options?: ReadyOptions): Promise<void>;
  /** Requests `/readyz`; `undefined` when there is no response. */
  readiness(): Promise<{ ready: boolean; text: string } | undefined>;
}

interface ReadyOptions {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal | undefined;
}

interface ServiceProcessOptions {
  readonly address: string;
  readonly opsAddress: string;
  /** The CA of its ops port; plain HTTP when undefined. */
  readonly caFile?: string | undefined;
  readonly launch: LaunchOptions;
}

/** Prepares the process of a service; `launch` starts it. */
export function createServiceProcess(options: ServiceProcessOptions): ServiceProcess {
  const { address, opsAddress, caFile } = options;
  const { name, logFile } = options.launch;
  let running: LaunchedProcess | undefined;
  const proc: ServiceProcess = {
    name,
    address,
    opsAddress,
    logFile,
    get pid() {
      return running?.pid ?? 0;
    },
    isRunning: () => running !== undefined && running.hasEnded() === undefined,
    kill: (signal) => running?.kill(signal),
    ended: async () => (await running?.ended) ?? 'was never started',
    stop: async () => await running?.stop(),
    async launch() {
      await running?.stop();
      running = await launch(options.launch);
    },
    async ready({ timeoutMs = READY_TIMEOUT_MS, signal } = {}) {
      if (running === undefined) throw new TypeError(`${name} has not been launched`);
      await waitUntilReady({ proc, process: running, timeoutMs, signal });
    },
    async restart() {
      await proc.launch();
      await proc.ready();
    },
    readiness: () => probe(opsAddress, caFile),
  };
  return proc;
}

async function waitUntilReady(waiting: {
  proc: ServiceProcess;
  process: LaunchedProcess;
  timeoutMs: number;
  signal: AbortSignal | undefined;
}): Promise<void> {
  const { proc, process, timeoutMs, signal } = waiting;
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    signal?.throwIfAborted();
    const ended = process.hasEnded();
    if (ended !== undefined) throw await failure(proc, process, `has ended (${ended})`);
    const answer = await proc.readiness();
    if (answer?.ready === true) return;
    if (performance.now() > deadline) {
      const missing = answer === undefined ? 'it does not respond' : `it reports: ${answer.text.trim()}`;
      throw await failure(proc, process, `is not ready after ${timeoutMs / 1_000} seconds; ${missing}`);
    }
    await sleep(READY_POLL_MS, undefined, signal === undefined ? {} : { signal });
  }
}

async function failure(proc: ServiceProcess, process: LaunchedProcess, what: string): Promise<SystemError> {
  return new SystemError(
    `${proc.name} ${what}. The end of its log, ${proc.logFile}:\n${await process.logTail()}`,
  );
}

async function probe(
  opsAddress: string,
  caFile: string | undefined,
): Promise<{ ready: boolean; text: string } | undefined> {
  const options = { agent: false, timeout: PROBE_TIMEOUT_MS } as const;
  const ca = caFile === undefined ? undefined : await readFile(caFile);
  const send = (answered: (response: IncomingMessage) => void): ClientRequest =>
    ca === undefined
      ? request(`http://${opsAddress}/readyz`, options, answered)
      : requestHttps(`https://${opsAddress}/readyz`, { ...options, ca }, answered);
  return await new Promise((resolve) => {
    const probing = send((response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', () => resolve(undefined));
      response.on('end', () =>
        resolve({ ready: response.statusCode === 200, text: Buffer.concat(chunks).toString() }),
      );
    });
    probing.on('timeout', () => probing.destroy());
    probing.on('error', () => resolve(undefined));
    probing.end();
  });
}
