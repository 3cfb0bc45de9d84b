/** The log: JSON lines on standard output, with credentials redacted before they are written. */
import { setTimeout as sleep } from 'node:timers/promises';
import { setLogger } from '@grpc/grpc-js';
import pino from 'pino';

/** The logger of every part of a service. */
export type Log = pino.Logger;

/** A destination other than standard output. */
export type LogDestination = pino.DestinationStream;

/** Replaces a secret. */
export const REDACTED = '[redacted]';

/** Lines are dropped when this much is waiting for a reader that does not read. */
const UNWRITTEN_CHARACTERS_MAX = 16 * 1024 * 1024;
const FLUSH_TIMEOUT_MS = 1_000;
/** Deeper levels of a logged object are omitted. */
const DEPTH_MAX = 8;
/** Longer lists are truncated. */
const ITEMS_MAX = 100;

/**
 * A log for one service. Values under names such as `authorization`, `password` or `refreshToken` are redacted at any
 * depth, and so is any text that looks like a bearer token, a JWT or a private key. grpc-js, which by default prints
 * rejected header values to standard error, logs here as well.
 */
export function createLog(options: { service: string; level: string }, destination?: LogDestination): Log {
  const settings: pino.LoggerOptions = {
    level: options.level,
    base: { service: options.service, pid: process.pid },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: {
      level: (label) => ({ level: label }),
      log: (fields) => redactObject(fields, 0),
    },
    // `log` above has described errors by then, with all their causes.
    serializers: { err: (described: unknown) => described },
    hooks: { streamWrite: redactText },
  };
  const log = pino(settings, destination ?? standardOutput());
  redactChildren(log);
  sendGrpcMessagesTo(log);
  return log;
}

/** Waits until the lines so far are written, for {@link FLUSH_TIMEOUT_MS} at most. */
export async function flushLog(log: Log): Promise<void> {
  const flushed = new Promise<void>((resolve) => log.flush(() => resolve()));
  await Promise.race([flushed, sleep(FLUSH_TIMEOUT_MS, undefined, { ref: false })]);
}

/** The text without bearer tokens, JWTs, private keys and passwords in URLs. */
export function redactText(text: string): string {
  return text
    .replace(/\b(Bearer|Basic|DPoP)(\s+)[^\s"\\,]+/gi, `$1$2${REDACTED}`)
    .replace(/\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*/g, REDACTED)
    .replace(/-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(-----END [A-Z ]*PRIVATE KEY-----|$)/g, REDACTED)
    .replace(/(\b[a-z][a-z0-9+.-]*:\/\/[^\s:@/"]*):[^\s@/"]+@/gi, `$1:${REDACTED}@`);
}

/**
 * Writes without blocking, so that a reader that does not read cannot stop the service. With a minimal length of one
 * byte there is something to flush: with none, pino would write the last lines at the exit of the process, in another
 * order.
 */
function standardOutput(): LogDestination {
  return pino.destination({ dest: 1, sync: false, minLength: 1, maxLength: UNWRITTEN_CHARACTERS_MAX });
}

/** pino does not format the fields of a child log, so they are redacted when it is made; grandchildren inherit that. */
function redactChildren(log: Log): void {
  const { child } = log;
  const value = function redactingChild(this: Log, bindings: object, options?: object): Log {
    return Reflect.apply(child, this, [redactObject(bindings, 0), options]);
  };
  Object.defineProperty(log, 'child', { value });
}

/** Makes grpc-js log here, without header values; grpc-js has one logger for the whole process. */
function sendGrpcMessagesTo(log: Log): void {
  const write =
    (level: 'warn' | 'info' | 'debug') =>
    (message?: unknown, ...rest: unknown[]) => {
      const text = [message, ...rest].map(String).join(' ');
      log[level]({ source: 'grpc-js' }, redactText(redactHeaderValue(text)));
    };
  setLogger({ error: write('warn'), info: write('info'), debug: write('debug') });
}

/** The value of a rejected header may be a token with one wrong character. */
function redactHeaderValue(message: string): string {
  return message
    .replace(
      /(Failed to add metadata entry [^:]+: )[\s\S]*(\. [\s\S]*?(For more information|$))/,
      `$1${REDACTED}$2`,
    )
    .replace(/(Metadata string value )"[\s\S]*"/, `$1${REDACTED}`);
}

const SECRET_NAME =
  /(authorization|bearer|cookie|password|passwd|passphrase|secret|assertion|credentials?|token|pem|jwk|privatekey|encryptionkey|signingkey|clientkey|keymaterial)$|^(key|pwd|proofs?)$/;
/** The private members of a JSON Web Key. */
const PRIVATE_KEY_MEMBER = /^(d|p|q|dp|dq|qi|k|oth)$/;

function redactObject(fields: object, depth: number): Record<string, unknown> {
  const isJsonWebKey = 'kty' in fields;
  const out: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(fields)) {
    const secret = isSecretName(name) || (isJsonWebKey && PRIVATE_KEY_MEMBER.test(name));
    out[name] = secret && value !== undefined && value !== null ? REDACTED : redactValue(value, depth + 1);
  }
  return out;
}

function isSecretName(name: string): boolean {
  return SECRET_NAME.test(name.toLowerCase().replace(/[^a-z0-9]/g, ''));
}

function redactValue(value: unknown, depth: number): unknown {
  if (typeof value === 'bigint') return value.toString();
  if (typeof value !== 'object' || value === null) return value;
  if (depth > DEPTH_MAX) return '[deeper]';
  if (value instanceof Date) return value;
  if (value instanceof Error) return redactError(value, depth);
  // Bytes are keys, hashes or message bodies, which do not help a reader of the log.
  if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`;
  if (value instanceof Map) return redactObject(Object.fromEntries(value), depth);
  if (value instanceof Set || Array.isArray(value)) {
    return [...value].slice(0, ITEMS_MAX).map((item) => redactValue(item, depth + 1));
  }
  if ('toJSON' in value && typeof value.toJSON === 'function') return redactValue(value.toJSON(), depth + 1);
  return redactObject(value, depth);
}

function redactError(error: Error, depth: number): Record<string, unknown> {
  const { name, message, stack, cause } = error;
  const own = redactObject({ ...error }, depth);
  const described = { ...own, type: name, message, stack };
  return cause === undefined ? described : { ...described, cause: redactValue(cause, depth + 1) };
}
