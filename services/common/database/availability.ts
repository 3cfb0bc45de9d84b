/** Whether the database can be reached: waiting for it at the start, and probing it when a connection has failed. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Log } from '../host/log.js';
import { NotMigratedError } from './migrations.js';
import { describeMissing, isAway } from './pg-errors.js';
import { createClient, setLimits } from './pool.js';

const RECONNECT_DELAY_MS_MIN = 100;
const RECONNECT_DELAY_MS_MAX = 2_000;
/** While the database stays away, the log repeats it once in this many attempts. */
const ATTEMPTS_PER_REMINDER = 10;
const PROBE_INTERVAL_MS = 500;

/** What is known about the database. */
export interface Availability {
  /** '' when the database answered last, else one phrase that says what is missing. */
  missing(): string;
  /** Whether the database was migrated once, so that queries make sense. */
  isMigrated(): boolean;
  /** Runs the migration, again and again while the database is away or has to be migrated by another role. @throws what waiting does not cure */
  waitUntilMigrated(signal: AbortSignal, migrate: (attempt: number) => Promise<void>): Promise<void>;
  /** Reports a failed connection. The database is probed first, because one broken connection is no outage. */
  suspect(): void;
  /** Calls the listener whenever `missing()` changes; returns a function that stops it. */
  onChange(listener: () => void): () => void;
}

/**
 * The availability of a database, not reached yet. The signal ends the probing.
 *
 * @param urls - one for each host of the database
 */
export function createAvailability(
  urls: readonly string[],
  { log, signal }: { log: Log; signal: AbortSignal },
): Availability {
  const listeners = new Set<() => void>();
  let migrated = false;
  let missing = 'the database was not reached yet';
  let probing = false;

  function setMissing(next: string): void {
    if (next === missing) return;
    missing = next;
    for (const listener of listeners) listener();
  }

  async function probeUntilReached(): Promise<void> {
    probing = true;
    for (let attempt = 0; probing && !signal.aborted; attempt += 1) {
      try {
        await probe(urls, attempt);
        if (missing !== '') log.info('the database answers again');
        setMissing('');
        probing = false;
      } catch (error) {
        if (missing === '') log.warn({ err: error, missing: describeMissing(error) }, 'the database is away');
        setMissing(describeMissing(error));
        await sleep(PROBE_INTERVAL_MS, undefined, { signal, ref: false }).catch(() => {});
      }
    }
  }

  return {
    missing: () => missing,
    isMigrated: () => migrated,
    waitUntilMigrated: async (stop, migrate) => {
      await retryWhileAway(stop, log, setMissing, migrate);
      migrated = true;
      setMissing('');
    },
    suspect: () => {
      if (migrated && !probing) void probeUntilReached();
    },
    onChange: (listener) => {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
}

/**
 * Connects as calls do. Uses a connection of its own, because a pool whose connections are all in use is no outage
 * either.
 */
async function probe(urls: readonly string[], attempt: number): Promise<void> {
  const client = createClient(urls, attempt);
  try {
    await client.connect();
    await setLimits(client);
  } finally {
    client.end().catch(() => {});
  }
}

/** Retries for as long as the database is away or not migrated, and logs what is missing. */
async function retryWhileAway(
  signal: AbortSignal,
  log: Log,
  onMissing: (missing: string) => void,
  attempt: (count: number) => Promise<void>,
): Promise<void> {
  let logged = '';
  for (let count = 0, delayMs = RECONNECT_DELAY_MS_MIN; ; count++) {
    signal.throwIfAborted();
    try {
      return await attempt(count);
    } catch (error) {
      signal.throwIfAborted();
      if (!isAway(error) && !(error instanceof NotMigratedError)) throw error;
      const missing = error instanceof NotMigratedError ? error.message : describeMissing(error);
      onMissing(missing);
      if (missing !== logged || count % ATTEMPTS_PER_REMINDER === 0) {
        log.warn({ missing }, 'waiting for the database');
      }
      logged = missing;
    }
    await sleep(delayMs, undefined, { signal }).catch(() => signal.throwIfAborted());
    delayMs = Math.min(delayMs * 2, RECONNECT_DELAY_MS_MAX);
  }
}
