/** The process of a service: its start, its stop by a signal, and error messages that an operator can act on. */
import closeWithGrace from 'close-with-grace';
import { ConfigurationError } from '../config/env.js';
import { MigrationError } from '../database/migrations.js';
import { flushLog, type Log } from './log.js';
import { ListenError } from './ports.js';

/** Beyond the drain of calls, the rest of a shutdown may take this long. */
const STOP_GRACE_MS = 5_000;

/**
 * Runs the start of a service. If it fails, the fault is written to standard error, as one message if an operator can
 * act on it, and the process exits with code 1, whatever is open.
 */
export async function runMain(start: () => Promise<void>): Promise<void> {
  try {
    await start();
  } catch (error) {
    exitWith(error);
  }
}

/** Exits because of a fault, as {@link runMain} does; for what fails after the start. */
export function exitWith(error: unknown): never {
  process.stderr.write(`${describeFault(error)}\n`);
  process.exit(1);
}

/**
 * Stops the service on SIGTERM and SIGINT, with code 0, and on an uncaught error, with code 1. A second signal, or a
 * stop that takes longer than the drain and a grace period, ends the process at once with code 1.
 */
export function runUntilSignal(options: {
  log: Log;
  drainMs: number;
  stop: () => Promise<void>;
  /** The effect of SIGHUP; when absent, SIGHUP stops the service, too. */
  reload?: () => Promise<void>;
}): void {
  const { log, drainMs, stop, reload } = options;
  if (reload !== undefined) process.on('SIGHUP', () => void reload());
  const logger = { error: (message?: unknown) => log.error({ err: message }, 'while stopping') };
  const skip: 'SIGHUP'[] = reload === undefined ? [] : ['SIGHUP'];
  closeWithGrace({ delay: drainMs + STOP_GRACE_MS, logger, skip }, async ({ signal, err }) => {
    if (err !== undefined) log.fatal({ err }, 'stopping because of an uncaught error');
    else log.info({ signal }, 'stopping');
    await stop();
    log.info('stopped');
    await flushLog(log);
  });
}

function describeFault(error: unknown): string {
  const known = [ConfigurationError, ListenError, MigrationError].some((kind) => error instanceof kind);
  if (known && error instanceof Error) return error.message;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
