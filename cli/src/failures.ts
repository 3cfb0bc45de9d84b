/** Failures that end a command, and the exit codes. */

import { status } from '@grpc/grpc-js';
import { errorOf } from '@portcullis/guard/client';

/** Exit codes, as the documentation lists them. */
export const EXIT = {
  /** The command did what it should. */
  done: 0,
  /** The command failed: it was refused, or something could not be reached. */
  failed: 1,
  /** The command line cannot be used. */
  usage: 2,
  /** Nobody is logged in, or the session has ended. */
  loggedOut: 3,
  /** The wait for the instances was interrupted. The revocation stands. */
  waitInterrupted: 4,
  /** A check found a fault: `receipt verify`, `review`, `doctor`, and `explain` for a call that would be refused. */
  checkFailed: 5,
  /** Interrupted by a signal. */
  interrupted: 130,
} as const;

/** What each exit code means, for the help and the documentation. */
export const EXIT_MEANINGS: readonly (readonly [code: ExitCode, meaning: string])[] = [
  [EXIT.done, 'the command did what it should'],
  [EXIT.failed, 'auth refused, or something could not be reached or written'],
  [EXIT.usage, 'the command line cannot be used, or a file that it names'],
  [EXIT.loggedOut, 'no session, or the session has ended: log in again'],
  [EXIT.waitInterrupted, 'the wait for the instances has ended early; the revocation stands'],
  [EXIT.checkFailed, 'a check found a fault: receipt verify, review, doctor, explain'],
  [EXIT.interrupted, 'interrupted'],
];

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** A failure whose message is meant for the person at the terminal. */
export class CommandError extends Error {
  readonly exitCode: ExitCode;

  constructor(
    message: string,
    { exitCode = EXIT.failed, cause }: { readonly exitCode?: ExitCode; readonly cause?: unknown } = {},
  ) {
    super(message, { cause });
    this.name = 'CommandError';
    this.exitCode = exitCode;
  }
}

/** What to tell about any error, in one line or one for each fault. */
export function describeFailure(error: unknown): { readonly text: string; readonly exitCode: ExitCode } {
  const { text, exitCode } = failureOf(error);
  return { text: printable(text), exitCode };
}

/** Text that may come from auth, without what could move the cursor of a terminal. */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, '�');
}

/** Controls but the line break, and those that turn the direction of the text around. */
const UNPRINTABLE = /[^\P{Cc}\n]|[\u202a-\u202e\u2066-\u2069]/gu;

/** JSON with escapes for the same characters: JSON itself requires them for some only. */
export function printableJson(json: string): string {
  return json.replace(UNPRINTABLE, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

function failureOf(error: unknown): { readonly text: string; readonly exitCode: ExitCode } {
  if (error instanceof CommandError) return { text: error.message, exitCode: error.exitCode };
  const { code, reason, message, violations } = errorOf(error);
  if (reason === '' && message === '') return { text: String(error), exitCode: EXIT.failed };
  if (reason === '' && error instanceof Error && 'details' in error) {
    const advice = connectionAdvice(message);
    return {
      text: `${connectionFault(code, message)}${advice === undefined ? '' : `\n${advice}`}`,
      exitCode: EXIT.failed,
    };
  }
  // The message has the first fault only.
  const faults = violations.map(({ field, description }) => `\n  ${field}: ${description}`).join('');
  const advice = ADVICE[reason] ?? connectionAdvice(message);
  return {
    text: `${reason === '' ? '' : `${reason}: `}${violations.length === 0 ? message : faults}${advice === undefined ? '' : `\n${advice}`}`,
    exitCode: LOGGED_OUT.has(reason) ? EXIT.loggedOut : EXIT.failed,
  };
}

const LOGGED_OUT: ReadonlySet<string> = new Set([
  'TOKEN_MISSING',
  'TOKEN_EXPIRED',
  'TOKEN_REVOKED',
  'TOKEN_INVALID',
  'REFRESH_INVALID',
]);

const ADVICE: Readonly<Record<string, string>> = {
  TOKEN_REVOKED: 'The session was ended: log in again with portcullis login.',
  REFRESH_INVALID: 'The session has ended: log in again with portcullis login.',
  LOGIN_TOO_OLD: 'Log in again with portcullis login.',
  ETAG_MISMATCH: 'Somebody else has changed the policy: look at portcullis policy plan again.',
  SCOPE_MISSING: 'A role of yours would have to grant it: ask an administrator.',
  LOGIN_FAILED: 'The user name or the password is wrong, or the user may not log in.',
  ROLE_MISSING: 'Ask an administrator.',
};

/** What grpc-js says about a connection, in words for people; the name of the fault is for those who search for it. */
function connectionFault(code: number, message: string): string {
  const name = /\b(?:E[A-Z]{4,}|[A-Z]+(?:_[A-Z]+)+)\b/.exec(message)?.[0];
  const named = name === undefined ? '' : ` (${name})`;
  switch (code) {
    case status.UNAVAILABLE:
      return `The server cannot be reached, or has closed the connection${named}.`;
    case status.DEADLINE_EXCEEDED:
      return `The server has not answered in time${named}.`;
    case status.UNIMPLEMENTED:
      return 'The server does not have this method: is it of another version, or another program?';
    default:
      return /RST_STREAM/.test(message)
        ? 'The call has failed: the server, or something on the way, has broken it off.'
        : `${status[code] ?? code}: ${message}`;
  }
}

/** What to do about a connection that cannot be made, by the text of the TLS library. */
function connectionAdvice(message: string): string | undefined {
  if (/self[- ]signed|unable to (?:get|verify)|UNABLE_TO|unknown ca/i.test(message)) {
    return 'The certificate of auth is not signed by a known authority: name its CA certificate with login --ca.';
  }
  if (/certificate has expired|CERT_HAS_EXPIRED|not yet valid/i.test(message)) {
    return "The certificate of auth is not valid now: check its dates and this machine's clock.";
  }
  if (/certificate required|handshake failure|bad certificate/i.test(message)) {
    return 'Auth asks for a client certificate: log in with --cert and --key.';
  }
  if (/ECONNREFUSED|ENOTFOUND|No connection established|EHOSTUNREACH|Name resolution/i.test(message)) {
    return 'Nothing answers there: check the address with portcullis doctor, and that auth runs.';
  }
  return undefined;
}
