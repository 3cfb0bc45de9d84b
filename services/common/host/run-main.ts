/**
 * The first moments of a process, and faults of the start. It imports next to nothing, and `main` loads everything else
 * through it: signals are handled before the service's own code is loaded, which takes a second on a small machine.
 * Until then, SIGHUP would kill the process, and the kernel would drop a SIGTERM to the first process of a container.
 */
import { OperatorError } from './operator-error.js';

const STOP_SIGNALS = ['SIGTERM', 'SIGINT'] as const;

let hasBeenToldToReload = false;

/**
 * Runs the start of a service. If it fails, the fault is written to standard error, as one message if an operator can
 * act on it, and the process exits with code 1, whatever is open. A signal to stop ends the process with code 0 at once,
 * until the service handles signals itself.
 */
export async function runMain(start: () => Promise<void>): Promise<void> {
  for (const signal of STOP_SIGNALS) process.on(signal, stopAtOnce);
  process.on('SIGHUP', remember);
  // What cannot be written must not end the process; without a listener, it would.
  process.stderr.on('error', () => {});
  try {
    await start();
  } catch (error) {
    exitWith(error);
  }
}

/** Leaves the signals to the caller. @returns whether a SIGHUP has arrived so far */
export function takeOverSignals(): boolean {
  for (const signal of STOP_SIGNALS) process.off(signal, stopAtOnce);
  process.off('SIGHUP', remember);
  return hasBeenToldToReload;
}

/** Exits because of a fault, as {@link runMain} does; for what fails after the start. */
export function exitWith(error: unknown): never {
  process.stderr.write(`${describeFault(error)}\n`);
  process.exit(1);
}

/** Nothing is served yet, so there is nothing to drain. */
function stopAtOnce(): never {
  process.exit(0);
}

function remember(): void {
  hasBeenToldToReload = true;
}

function describeFault(error: unknown): string {
  if (error instanceof OperatorError) return error.message;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
