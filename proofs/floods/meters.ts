/** What the services report about themselves, and what the kernel reports about them. */

import { closeSync, openSync, readFileSync, readSync, statSync } from 'node:fs';
import { Agent, get } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ServiceProcess } from '../../scripts/system/parts.js';
import type { HonestTraffic } from './honest-traffic.js';

const LOOK_INTERVAL_MS = 250;
const SCRAPE_TIMEOUT_MS = 5_000;
/** A thread that ran for this share of the time in which it could was busy throughout. */
const BUSY_SHARE = 0.8;
const BYTES_PER_MB = 1e6;
const PAGE_BYTES = 4_096;
const NANOSECONDS_PER_MILLISECOND = 1e6;
const CHUNK_BYTES = 1 << 16;
const LINE_FEED = 10;
const LEASE = /^portcullis_revocation_lease_seconds (\S+)/m;
const CURRENT = /^portcullis_revocation_current (\S+)/m;
const LAG_MAX = /^nodejs_eventloop_lag_max_seconds (\S+)/m;
const HEAP_USED = /^nodejs_heap_size_used_bytes (\S+)/m;
const EXTERNAL = /^nodejs_external_memory_bytes (\S+)/m;
const FULL_COLLECTIONS = /^nodejs_gc_duration_seconds_sum\{kind="major"\} (\S+)/m;

/** What one service did since the last reset. */
export interface Reading {
  readonly service: string;
  /** Growth of resident memory from the reset to its highest value, in MB. */
  readonly rssGrowthMb: number;
  readonly rssMb: number;
  /**
   * The longest time for which the event loop ran without a turn, in ms. Time without a processor does not count, nor do
   * full collections of the heap: no request causes those.
   */
  readonly blockMs: number;
  /** The longest time that full collections took between two looks, in ms. */
  readonly collectionMs: number;
  /**
   * Growth of what was in use right after a full collection of the heap, from the last one before the reset to the last one
   * since, in MB. Undefined when there was none on either side: then it is not known what is garbage.
   */
  readonly heldGrowthMb: number | undefined;
  readonly logLines: number;
  /** Looks at which its revocation list was not to be trusted. */
  readonly stale: number;
  readonly exits: number;
  /** The share of the time in which its main thread could run and had no processor; 0 without `/proc`. */
  readonly starved: number;
}

/** Meters of all services. */
export interface Meters {
  /** Starts a new measurement. */
  reset(): Promise<void>;
  readings(): readonly Reading[];
  /** Whether every list may be trusted at this moment. */
  current(): boolean;
  stop(): Promise<void>;
}

/**
 * Starts to look at the services, four times a second.
 *
 */
export function startMeters(services: readonly ServiceProcess[], traffic: HonestTraffic): Meters {
  const stopping = new AbortController();
  const meters = services.map((service) => new ServiceMeter(service, traffic));
  const loops = meters.map(async (meter) => {
    while (!stopping.signal.aborted) {
      await meter.look();
      await sleep(LOOK_INTERVAL_MS, undefined, { signal: stopping.signal }).catch(() => undefined);
    }
    meter.close();
  });
  return {
    reset: async () => void (await Promise.all(meters.map((meter) => meter.reset()))),
    readings: () => meters.map((meter) => meter.reading),
    current: () => meters.every((meter) => meter.current),
    stop: async () => {
      stopping.abort();
      await Promise.all(loops);
    },
  };
}

class ServiceMeter {
  readonly #service: ServiceProcess;
  readonly #traffic: HonestTraffic;
  /** One connection, as a collector of metrics keeps it. */
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 });
  #pid: number;
  #waitedMs = 0;
  #leaseMs = 0;
  #current = true;
  #start = { atMs: 0, waitedMs: 0, rssMb: 0, logBytes: 0 };
  #highest = { rssMb: 0, blockMs: 0, collectionMs: 0 };
  #collectionsMs = 0;
  /** What was in use after the last full collection, before the reset and since. */
  #held: { before: number | undefined; since: number | undefined } = { before: undefined, since: undefined };
  #stale = 0;
  #exits = 0;

  constructor(service: ServiceProcess, traffic: HonestTraffic) {
    this.#service = service;
    this.#traffic = traffic;
    this.#pid = service.pid;
  }

  get current(): boolean {
    return this.#current;
  }

  get reading(): Reading {
    const { name, logFile } = this.#service;
    return {
      service: name,
      rssGrowthMb: this.#highest.rssMb - this.#start.rssMb,
      rssMb: this.#highest.rssMb,
      blockMs: this.#highest.blockMs,
      collectionMs: this.#highest.collectionMs,
      heldGrowthMb: this.#heldGrowthMb(),
      logLines: linesFrom(logFile, this.#start.logBytes),
      stale: this.#stale,
      exits: this.#exits,
      starved: this.#starvedShare(),
    };
  }

  /** A restart on purpose is no exit. */
  async reset(): Promise<void> {
    this.#pid = this.#service.pid;
    await this.look();
    const rssMb = rssMbOf(this.#pid);
    this.#start = {
      atMs: performance.now(),
      waitedMs: threadTimesOf(this.#pid).waitedMs,
      rssMb,
      logBytes: sizeOf(this.#service.logFile),
    };
    this.#highest = { rssMb, blockMs: 0, collectionMs: 0 };
    this.#held = { before: this.#held.since ?? this.#held.before, since: undefined };
    this.#stale = 0;
    this.#exits = 0;
  }

  async look(): Promise<void> {
    if (this.#service.pid === this.#pid && !this.#service.isRunning()) this.#exits = 1;
    this.#highest.rssMb = Math.max(this.#highest.rssMb, rssMbOf(this.#pid));
    const began = { atMs: performance.now(), thread: threadTimesOf(this.#pid) };
    const text = await scrape(this.#service.opsAddress, this.#agent).catch(() => undefined);
    const thread = threadTimesOf(this.#pid);
    if (text === undefined) {
      // A loop that computed all the time and did not answer was blocked; one that was idle was not.
      const ranMs = thread.ranMs - began.thread.ranMs;
      const couldRunMs = performance.now() - began.atMs - (thread.waitedMs - began.thread.waitedMs);
      if (ranMs > BUSY_SHARE * couldRunMs) this.#noteBlock(ranMs);
      return;
    }
    // The gauge starts again with each scrape. Waiting for a processor also makes the loop late, and is no block.
    const collectionsMs = 1_000 * gaugeIn(text, FULL_COLLECTIONS);
    const collectionMs = collectionsMs - this.#collectionsMs;
    this.#noteBlock(1_000 * gaugeIn(text, LAG_MAX) - (thread.waitedMs - this.#waitedMs) - collectionMs);
    this.#highest.collectionMs = Math.max(this.#highest.collectionMs, collectionMs);
    if (collectionMs > 0) {
      this.#held.since = (gaugeIn(text, HEAP_USED) + gaugeIn(text, EXTERNAL)) / BYTES_PER_MB;
    }
    this.#collectionsMs = collectionsMs;
    this.#waitedMs = thread.waitedMs;
    this.#current = gaugeIn(text, CURRENT) === 1;
    if (!this.#current) this.#stale += 1;
    this.#noteSync(1_000 * gaugeIn(text, LEASE));
  }

  #heldGrowthMb(): number | undefined {
    const { before, since } = this.#held;
    return before === undefined || since === undefined ? undefined : since - before;
  }

  #starvedShare(): number {
    const { atMs, waitedMs } = this.#start;
    return Math.max(0, threadTimesOf(this.#pid).waitedMs - waitedMs) / (performance.now() - atMs);
  }

  #noteBlock(ms: number): void {
    this.#highest.blockMs = Math.max(this.#highest.blockMs, ms);
  }

  close(): void {
    this.#agent.destroy();
  }

  /** The lease counts down from its full length, so the longest one seen tells the age of the others. */
  #noteSync(leaseMs: number): void {
    this.#leaseMs = Math.max(this.#leaseMs, leaseMs);
    const ms = this.#leaseMs - leaseMs;
    this.#traffic.record({ kind: 'sync', startedMs: performance.now(), ms });
  }
}

async function scrape(opsAddress: string, agent: Agent): Promise<string> {
  return await new Promise((resolve, reject) => {
    const asking = get(
      `http://${opsAddress}/metrics`,
      { agent, signal: AbortSignal.timeout(SCRAPE_TIMEOUT_MS) },
      (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (part: string) => {
          text += part;
        });
        response.on('error', reject);
        response.on('end', () => resolve(text));
      },
    );
    asking.on('error', reject);
  });
}

function gaugeIn(metrics: string, pattern: RegExp): number {
  return Number(pattern.exec(metrics)?.[1] ?? 0);
}

/** Resident memory, in MB; 0 without `/proc` or without the process. */
function rssMbOf(pid: number): number {
  try {
    const [, pages] = readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ');
    return (Number(pages) * PAGE_BYTES) / BYTES_PER_MB;
  } catch {
    return 0;
  }
}

/** How long the main thread, which runs the event loop, ran, and how long it was runnable without running. */
function threadTimesOf(pid: number): { readonly ranMs: number; readonly waitedMs: number } {
  try {
    const [ran, waited] = readFileSync(`/proc/${pid}/schedstat`, 'utf8').split(' ');
    return {
      ranMs: Number(ran) / NANOSECONDS_PER_MILLISECOND,
      waitedMs: Number(waited) / NANOSECONDS_PER_MILLISECOND,
    };
  } catch {
    return { ranMs: 0, waitedMs: 0 };
  }
}

function sizeOf(file: string): number {
  try {
    return statSync(file).isFile() ? statSync(file).size : 0;
  } catch {
    return 0;
  }
}

/** Lines after an offset; 0 when the file is a device or a pipe. */
function linesFrom(file: string, offset: number): number {
  if (sizeOf(file) === 0) return 0;
  const descriptor = openSync(file, 'r');
  try {
    const chunk = Buffer.alloc(CHUNK_BYTES);
    let [at, lines] = [offset, 0];
    for (;;) {
      const read = readSync(descriptor, chunk, 0, chunk.length, at);
      if (read === 0) return lines;
      for (let index = 0; index < read; index += 1) if (chunk[index] === LINE_FEED) lines += 1;
      at += read;
    }
  } finally {
    closeSync(descriptor);
  }
}
