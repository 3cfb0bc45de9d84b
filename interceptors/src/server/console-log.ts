/** The log of a guard that was given none: lines on standard error. */

import type { GuardLog } from '../log.js';

/** Maximum length of a line, in characters. */
const LINE_LENGTH_MAX = 2000;

/**
 * Writes every line to a stream, by default to standard error: level, message, and the fields as JSON.
 *
 * @param output - receives whole lines
 */
export function createConsoleLog(output: Pick<NodeJS.WritableStream, 'write'> = process.stderr): GuardLog {
  const write = (level: string, fields: object, message: string): void => {
    output.write(
      `portcullis ${level}: ${message} ${JSON.stringify(fields, readable)}`
        .slice(0, LINE_LENGTH_MAX)
        .concat('\n'),
    );
  };
  return {
    info: (fields, message) => write('info', fields, message),
    warn: (fields, message) => write('warn', fields, message),
    error: (fields, message) => write('error', fields, message),
  };
}

/** JSON has no form for errors and large integers. */
function readable(_key: string, value: unknown): unknown {
  if (value instanceof Error) return value.stack ?? value.message;
  return typeof value === 'bigint' ? value.toString() : value;
}
