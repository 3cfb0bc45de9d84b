/** The log of the gate: JSON lines on standard output. It never has tokens; the redaction is the second line. */

import { setLogger } from '@grpc/grpc-js';
import type { GuardLog } from '@portcullis/guard';
import pino from 'pino';

/** The log of every part of the gate. */
export type GateLog = GuardLog;

/** The longest message of grpc-js that is logged, in characters. */
const FOREIGN_MESSAGE_MAX = 500;

/** What looks like a JWT or a bearer token. */
const CREDENTIAL = /eyJ[\w-]{8,4096}(?:\.[\w-]{0,8192}){1,2}|bearer [^\s"]{8,8192}/gi;

const REJECTED_HEADER = 'Failed to add metadata entry ';

/** Lines on standard output. grpc-js, which would print rejected header values to standard error, logs here as well. */
export function createGateLog(level: string, destination?: pino.DestinationStream): GateLog {
  const settings: pino.LoggerOptions = {
    level,
    base: { service: 'gate', pid: process.pid },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    hooks: { streamWrite: (line) => line.replace(CREDENTIAL, '[redacted]') },
  };
  const log = destination === undefined ? pino(settings, standardOutput()) : pino(settings, destination);
  const write = (...parts: readonly unknown[]): void => {
    const text = parts.map(String).join(' ').slice(0, FOREIGN_MESSAGE_MAX);
    // Name and value of the header come from the caller.
    log.warn({ source: 'grpc-js' }, text.startsWith(REJECTED_HEADER) ? 'rejected a header' : text);
  };
  setLogger({ error: write, info: () => {}, debug: () => {} });
  return log;
}

/** Standard output without blocking: a reader that stands still costs lines in memory, and a closed one nothing. */
function standardOutput(): pino.DestinationStream {
  process.stdout.on('error', () => {});
  return { write: (line) => void process.stdout.write(line) };
}
