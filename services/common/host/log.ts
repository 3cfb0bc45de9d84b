/**
 * The log: JSON lines on standard output. Credentials are redacted before they are written, the lines of one kind are
 * limited, and a log that cannot be written costs lines, never calls.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { setLogger } from '@grpc/grpc-js';
import { systemClock } from '@portcullis/guard';
import pino from 'pino';
import { LogBudget } from './log-budget.js';
import { LogOutput, standardOutput } from './log-output.js';
import { cutText, REDACTED, redactFields, redactText } from './redaction.js';

/** The logger of every part of a service. */
export type Log = pino.Logger;

/** A destination other than standard output. */
export type LogDestination = pino.DestinationStream;

/** What was not written, in lines since the start. */
export interface LogCounts {
  /** Could not be written: the disk is full, or the reader stands still. */
  readonly lost: number;
  /** Were more than the limit of their kind. */
  readonly suppressed: number;
}

export interface LogOptions {
  readonly service: string;
  readonly level: string;
  /** Lines of one kind; further ones are counted instead. No limit when undefined. */
  readonly linesPerMinute?: number;
  /** Lines that wait to be written; further ones are lost, and counted. */
  readonly bufferKib?: number;
}

const FLUSH_TIMEOUT_MS = 1_000;
const BUFFER_KIB_DEFAULT = 4_096;
/** How often the number of suppressed lines is logged, at most, for each kind. */
const SUPPRESSED_REPORT_MS = 10_000;
const SUPPRESSED_MESSAGE = 'suppressed lines of one kind';
/** The longest message, in characters; messages are constant texts, but for those of grpc-js. */
const MESSAGE_MAX = 2_048;
/** The longest line, in characters; redaction keeps lines far shorter. */
const LINE_MAX = 256 * 1024;
/** The longest name of a header that is logged, in characters. A caller may send names of 64 kB. */
const HEADER_NAME_MAX = 64;

interface LogState {
  readonly counts: () => LogCounts;
  readonly reportSuppressed: () => void;
}

const states = new WeakMap<Log, LogState>();

/**
 * A log for one service. Values under names such as `authorization`, `password` or `refreshToken` are redacted at any
 * depth, and so is any text that looks like a bearer token, a JWT or a private key. grpc-js, which by default prints
 * rejected header values to standard error, logs here as well.
 */
export function createLog(options: LogOptions, destination?: LogDestination): Log {
  const output = destination === undefined ? openOutput(options, reportLost) : undefined;
  const budget = new LogBudget(options.linesPerMinute ?? Number.POSITIVE_INFINITY, systemClock.monotonicMs);
  const settings: pino.LoggerOptions = {
    level: options.level,
    base: { service: options.service, pid: process.pid },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: {
      level: (label) => ({ level: label }),
      log: redactFields,
    },
    // `log` above has described errors by then, with all their causes.
    serializers: { err: (described: unknown) => described },
    hooks: { logMethod: limitedBy(budget, () => reports.soon()), streamWrite: boundedLine },
  };
  const log = pino(settings, output ?? destination ?? { write: () => {} });
  const reports = createSuppressionReports(log, budget);
  states.set(log, {
    counts: () => ({ lost: output?.lost ?? 0, suppressed: budget.suppressed }),
    reportSuppressed: reports.now,
  });
  redactChildren(log);
  sendGrpcMessagesTo(log);
  return log;

  function reportLost(lines: number): void {
    log.error({ lines }, 'lost lines of the log, which could not be written for a while');
  }
}

/** What this log has not written. */
export function logCounts(log: Log): LogCounts {
  return states.get(log)?.counts() ?? { lost: 0, suppressed: 0 };
}

/** Waits until the lines so far are written, for {@link FLUSH_TIMEOUT_MS} at most. */
export async function flushLog(log: Log): Promise<void> {
  states.get(log)?.reportSuppressed();
  const flushed = new Promise<void>((resolve) => log.flush(() => resolve()));
  await Promise.race([flushed, sleep(FLUSH_TIMEOUT_MS, undefined, { ref: false })]);
}

function openOutput(
  { bufferKib = BUFFER_KIB_DEFAULT }: LogOptions,
  onRestored: (lines: number) => void,
): LogOutput {
  return new LogOutput(standardOutput(), bufferKib * 1024, onRestored);
}

type LogMethodHook = NonNullable<NonNullable<pino.LoggerOptions['hooks']>['logMethod']>;

/** Drops the lines of a kind that are too many, before anything is spent on them, and cuts messages. */
function limitedBy(budget: LogBudget, onSuppressed: () => void): LogMethodHook {
  return function limited(inputs, method) {
    const at = typeof inputs[0] === 'string' ? 0 : 1;
    const message: unknown = inputs[at];
    const kind = kindOf(inputs[0], message);
    if (kind !== SUPPRESSED_MESSAGE && !budget.take(kind)) {
      onSuppressed();
      return;
    }
    if (typeof message === 'string') inputs[at] = cutText(message, MESSAGE_MAX);
    Reflect.apply(method, this, inputs);
  };
}

/** The message, which is a constant text; the messages of grpc-js quote what callers send, and are one kind. */
function kindOf(fields: unknown, message: unknown): string {
  if (typeof fields === 'object' && fields !== null && 'source' in fields) return String(fields.source);
  return typeof message === 'string' ? cutText(message, HEADER_NAME_MAX) : 'without a message';
}

/** Logs how many lines of each kind were suppressed, a while after the first of them. */
function createSuppressionReports(log: Log, budget: LogBudget): { soon(): void; now(): void } {
  let timer: NodeJS.Timeout | undefined;
  const now = (): void => {
    clearTimeout(timer);
    timer = undefined;
    for (const counts of budget.takeSuppressed()) log.warn(counts, SUPPRESSED_MESSAGE);
  };
  return {
    soon: () => {
      timer ??= setTimeout(now, SUPPRESSED_REPORT_MS).unref();
    },
    now,
  };
}

/** The line as it is written. Everything in it is redacted already; this search is the second one. */
function boundedLine(line: string): string {
  if (line.length <= LINE_MAX) return redactText(line);
  return `${JSON.stringify({ level: 'error', msg: `left out a line of ${line.length} characters` })}\n`;
}

/** pino does not format the fields of a child log, so they are redacted when it is made; grandchildren inherit that. */
function redactChildren(log: Log): void {
  const { child } = log;
  const value = function redactingChild(this: Log, bindings: object, options?: object): Log {
    return Reflect.apply(child, this, [redactFields(bindings), options]);
  };
  Object.defineProperty(log, 'child', { value });
}

/** Makes grpc-js log here, without header values; grpc-js has one logger for the whole process. */
function sendGrpcMessagesTo(log: Log): void {
  const write =
    (level: 'warn' | 'info' | 'debug') =>
    (message?: unknown, ...rest: unknown[]) => {
      const text = [message, ...rest].map((part) => cutText(String(part), MESSAGE_MAX)).join(' ');
      log[level]({ source: 'grpc-js' }, withoutHeaderValue(text));
    };
  setLogger({ error: write('warn'), info: write('info'), debug: write('debug') });
}

const REJECTED_HEADER = 'Failed to add metadata entry ';

/** The value of a rejected header may be a token with one wrong character; its name comes from the caller, too. */
function withoutHeaderValue(message: string): string {
  if (!message.startsWith(REJECTED_HEADER)) return message;
  const rest = message.slice(REJECTED_HEADER.length);
  const end = rest.indexOf(': ');
  const name = end < 0 ? '' : rest.slice(0, Math.min(end, HEADER_NAME_MAX));
  return `${REJECTED_HEADER}${name}: ${REDACTED}`;
}
