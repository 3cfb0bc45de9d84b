/** Values of options, checked before a command begins. */

import { InvalidArgumentError } from 'commander';

/** Most rows that a list prints. More are for `--json` and a program that reads pages. */
const ROWS_MAX = 10_000;

/** Words between commas. */
export function listOf(text: string): readonly string[] {
  const words = text.split(',').map((word) => word.trim());
  if (words.some((word) => word === ''))
    throw new InvalidArgumentError('Expected names, separated by commas.');
  return words;
}

/** A number of rows. */
export function rowsOf(text: string): number {
  const rows = /^[0-9]{1,6}$/.test(text) ? Number(text) : 0;
  if (rows >= 1 && rows <= ROWS_MAX) return rows;
  throw new InvalidArgumentError(`Expected a number from 1 to ${ROWS_MAX}.`);
}

/** A time in seconds, with a fraction if wanted. */
export function secondsOf(text: string): number {
  const seconds = /^[0-9]{1,4}(?:\.[0-9]{1,3})?$/.test(text) ? Number(text) : 0;
  if (seconds >= SECONDS_MIN && seconds <= SECONDS_MAX) return seconds;
  throw new InvalidArgumentError(`Expected seconds, from ${SECONDS_MIN} to ${SECONDS_MAX}.`);
}

const SECONDS_MIN = 0.2;
const SECONDS_MAX = 3600;

/** A moment, as ISO 8601 with its zone: without one it would depend on the machine. */
export function timeOf(text: string): Date {
  const day = text.slice(0, 10);
  const time = /^\d{4}-\d{2}-\d{2}(?:T\d{2}:\d{2}(?::\d{2}(?:\.\d{1,3})?)?(?:Z|[+-]\d{2}:\d{2}))?$/.test(text)
    ? new Date(text)
    : undefined;
  // Date takes 30 February for 2 March.
  const isDay = new Date(`${day}T00:00:00Z`).toJSON()?.startsWith(day) === true;
  if (time !== undefined && isDay && !Number.isNaN(time.getTime())) return time;
  throw new InvalidArgumentError('Expected a time such as 2026-11-30T14:03:00Z, or a day in UTC.');
}

/** A text that is not empty: an empty variable of a script must not widen what a command does. */
export function nonEmpty(text: string): string {
  if (text.trim() !== '') return text;
  throw new InvalidArgumentError('Expected a value, got an empty text.');
}

/** A port of this machine. */
export function portOf(text: string): number {
  const port = /^[0-9]{1,5}$/.test(text) ? Number(text) : 0;
  if (port >= 1 && port <= PORT_MAX) return port;
  throw new InvalidArgumentError(`Expected a port from 1 to ${PORT_MAX}.`);
}

const PORT_MAX = 65_535;
