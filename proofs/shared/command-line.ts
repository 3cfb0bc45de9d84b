/** What the command lines of the proofs have in common: numbers, and interruption by a signal. */

import { InvalidArgumentError } from 'commander';

/** Parses an option whose value is an integer between two bounds, both included. */
export function integerBetween(min: number, max: number): (text: string) => number {
  return (text) => {
    const number = Number(text);
    if (Number.isInteger(number) && number >= min && number <= max) return number;
    throw new InvalidArgumentError(`Expected an integer from ${min} to ${max}.`);
  };
}

/** A signal that is aborted when the process is asked to stop (SIGINT, SIGTERM, SIGHUP). */
export function stopSignal(): AbortSignal {
  const interrupted = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => interrupted.abort());
  return interrupted.signal;
}
