/** The stop of a service by a signal or an uncaught error. */
import closeWithGrace from 'close-with-grace';
import { flushLog, type Log } from './log.js';
import { takeOverSignals } from './run-main.js';

/** Beyond the drain of calls, the rest of a shutdown may take this long. */
const STOP_GRACE_MS = 5_000;

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
  // A signal to reload that came while the service was starting counts, too.
  if (takeOverSignals()) void reload?.();
}
