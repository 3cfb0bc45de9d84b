/**
 * Several processes that share the ports of a gate. Each has its own list and its own connections; the first process
 * decides nothing: it starts the others, and answers for them on the ops port and the health port.
 */

import cluster, { type Worker } from 'node:cluster';
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { AggregatorRegistry } from 'prom-client';
import { type Address, portError } from './addresses.js';
import type { OpenPort } from './ext-authz.js';
import { type HealthPort, type Missing, openHealth } from './health.js';
import { createIdentity } from './identity.js';
import type { GateLog } from './log.js';
import { openOps } from './ops.js';
import type { GateSettings, RawSettings } from './settings.js';

/** What the first process tells a worker. */
export type WorkerCommand =
  | {
      readonly kind: 'start';
      readonly flags: RawSettings;
      readonly configFile: string | undefined;
      /** Ed25519, PKCS #8 PEM: all workers sign identities with one key. */
      readonly identityKey: string | undefined;
      /** Whether it replaces another: it takes connections only when it can decide calls. */
      readonly opensWhenReady: boolean;
    }
  | { readonly kind: 'reload' }
  | { readonly kind: 'stop' }
  /** Calls are waited for no longer. */
  | { readonly kind: 'hurry' };

/** What a worker tells the first process. */
export type WorkerReport =
  /** Its listener is there: a command that came earlier would be lost. */
  | { readonly kind: 'listening' }
  | { readonly kind: 'state'; readonly missing: Missing }
  | { readonly kind: 'failed'; readonly message: string };

/** Pause before a worker that has died is started again, in milliseconds. */
const RESTART_DELAY_MS = 1_000;

/** How much longer than its drain a worker may take to stop, in milliseconds. */
const STOP_GRACE_MS = 5_000;

/** Several processes, running. */
export interface Workers {
  readonly ops: Address | undefined;
  /** Resolves when every worker has opened its ports. */
  readonly opened: Promise<void>;
  /** Tells the workers, and does not wait for them. */
  reload(): Promise<void>;
  close(): Promise<void>;
}

/** Starts the workers, and the ports that answer for all of them. */
export async function startWorkers(options: {
  readonly settings: GateSettings;
  readonly flags: RawSettings;
  readonly configFile: string | undefined;
  readonly log: GateLog;
}): Promise<Workers> {
  const workers = new WorkerSet(options);
  await workers.open();
  return workers;
}

class WorkerSet implements Workers {
  readonly opened: Promise<void>;
  readonly #options: Parameters<typeof startWorkers>[0];
  readonly #reported = new Map<Worker, Missing>();
  readonly #workers = new Set<Worker>();
  readonly #ports: OpenPort[] = [];
  readonly #key: KeyObject | undefined;
  #ops: Address | undefined;
  #health: HealthPort | undefined;
  #isStopping = false;
  /** Whether all workers have been ready at once. */
  #hasBeenReady = false;
  #resolveOpened: () => void = () => {};
  #rejectOpened: (error: Error) => void = () => {};

  constructor(options: Parameters<typeof startWorkers>[0]) {
    this.#options = options;
    const { mode, key } = options.settings.identity;
    this.#key = mode === 'signed' ? (key ?? generateKeyPairSync('ed25519').privateKey) : undefined;
    this.opened = new Promise((resolve, reject) => {
      this.#resolveOpened = resolve;
      this.#rejectOpened = reject;
    });
    // Nobody may be waiting for it.
    this.opened.catch(() => {});
  }

  get ops(): Address | undefined {
    return this.#ops;
  }

  async open(): Promise<void> {
    const { settings, log } = this.#options;
    const aggregator = new AggregatorRegistry();
    const identity = createIdentity({ ...settings.identity, key: this.#key });
    if (settings.opsListen !== undefined) {
      const content = {
        missing: () => this.#missing(),
        metrics: () => aggregator.clusterMetrics(),
        keys: () => identity.keys,
      };
      const { opsListen } = settings;
      const port = await openOps(opsListen, content, log).catch((error: unknown) => {
        throw portError('ops-listen', opsListen, error);
      });
      this.#ports.push(port);
      this.#ops = port.address;
    }
    if (settings.healthListen !== undefined) {
      const { healthListen } = settings;
      this.#health = await openHealth(healthListen, log).catch((error: unknown) => {
        throw portError('health-listen', healthListen, error);
      });
      this.#ports.push(this.#health);
    }
    cluster.setupPrimary({ exec: fileURLToPath(import.meta.resolve('./worker-process.js')), args: [] });
    for (let count = 0; count < settings.workers; count++) this.#start();
  }

  #start(): void {
    const { flags, configFile, log } = this.#options;
    const worker = cluster.fork();
    this.#workers.add(worker);
    const identityKey = this.#key?.export({ type: 'pkcs8', format: 'pem' }).toString();
    worker.on('message', (report: WorkerReport | { readonly type: string }) => {
      if (!('kind' in report)) return;
      if (report.kind === 'listening') {
        const opensWhenReady = this.#hasBeenReady;
        // What it was told before it listened is lost.
        if (this.#isStopping) this.#tell(worker, { kind: 'stop' });
        else this.#tell(worker, { kind: 'start', flags, configFile, identityKey, opensWhenReady });
      } else if (report.kind === 'state') {
        this.#reported.set(worker, report.missing);
      } else {
        log.error({ event: 'worker_failed', pid: worker.process.pid, why: report.message }, 'a worker fails');
        this.#rejectOpened(new Error(report.message));
      }
      if (this.#reported.size === this.#options.settings.workers) this.#resolveOpened();
      this.#changed();
    });
    worker.on('exit', (code, signal) => this.#ended(worker, { code, signal }));
    // A process that could not be started, or was killed while it was told something.
    worker.on('error', (error) => {
      log.error({ event: 'worker_failed', pid: worker.process.pid, why: error.message }, 'a worker fails');
      if (worker.process.pid === undefined) this.#ended(worker, { code: null, signal: null });
    });
  }

  #ended(worker: Worker, how: { readonly code: number | null; readonly signal: string | null }): void {
    if (!this.#workers.delete(worker)) return;
    this.#reported.delete(worker);
    this.#changed();
    if (this.#isStopping) return;
    this.#options.log.error(
      { event: 'worker_ended', pid: worker.process.pid, ...how },
      'a worker has ended: starting another',
    );
    setTimeout(() => {
      if (!this.#isStopping) this.#start();
    }, RESTART_DELAY_MS);
  }

  /** A worker that was killed cannot be told anything; its end is noticed by itself. */
  #tell(worker: Worker, command: WorkerCommand): void {
    if (worker.isConnected()) worker.send(command, () => undefined);
  }

  /**
   * Ready when all workers are, the first time: connections go to each in turn. From then on while one is, so that one
   * that dies does not take the others out of service. What each worker lacks is part of the answer.
   */
  #missing(): Missing {
    if (this.#isStopping) return { process: 'shutting down' };
    const reported = [...this.#reported.values()];
    const ready = reported.filter(isReady).length;
    if (this.#hasBeenReady && ready > 0) return {};
    const { workers } = this.#options.settings;
    if (reported.length === 0) return { workers: 'none is running yet' };
    return Object.assign({ workers: `${ready} of ${workers} are ready` }, ...reported) as Missing;
  }

  #changed(): void {
    const reported = [...this.#reported.values()];
    this.#hasBeenReady ||= reported.length === this.#options.settings.workers && reported.every(isReady);
    this.#health?.setReady(Object.keys(this.#missing()).length === 0);
  }

  async reload(): Promise<void> {
    for (const worker of this.#workers) this.#tell(worker, { kind: 'reload' });
  }

  /** Stops all workers, which wait for their calls until `hurry` is aborted. */
  async close(hurry?: AbortSignal): Promise<void> {
    this.#isStopping = true;
    this.#changed();
    const limitMs = this.#options.settings.drainMs + STOP_GRACE_MS;
    const onHurry = (): void => {
      for (const worker of this.#workers) this.#tell(worker, { kind: 'hurry' });
    };
    hurry?.addEventListener('abort', onHurry);
    const stopped = Promise.all([...this.#workers].map((worker) => this.#stop(worker, limitMs)));
    if (hurry?.aborted === true) onHurry();
    await stopped;
    hurry?.removeEventListener('abort', onHurry);
    for (const port of this.#ports) await port.close();
  }

  #stop(worker: Worker, limitMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => worker.process.kill('SIGKILL'), limitMs);
      worker.once('exit', () => {
        clearTimeout(timer);
        resolve();
      });
      this.#tell(worker, { kind: 'stop' });
    });
  }
}

function isReady(missing: Missing): boolean {
  return Object.keys(missing).length === 0;
}
