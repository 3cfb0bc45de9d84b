/** What an error of PostgreSQL, or of the connection to it, means. */

/** SQLSTATEs of a server that cannot serve any client now; class 08 is added to them. */
const AWAY_STATES = new Set([
  '25006', // a write on a standby, or on a primary that was deposed
  '28000', // refused by pg_hba.conf; an operator can mend that while the service runs
  '28P01', // wrong password: the same
  '3D000', // no such database yet
  '53100', // disk full
  '53200', // out of memory
  '53300', // too many connections
  '57P01', // shutting down
  '57P02', // another process of the server crashed
  '57P03', // starting up
  '58030', // the server cannot read or write its files
]);

/** SQLSTATEs of a transaction or statement that took too long. */
const TOO_SLOW_STATES = new Set(['25P03', '55P03', '57014']);

/** Network error codes of a server that cannot be reached. */
const AWAY_NETWORK = new Set([
  'EACCES',
  'EAI_AGAIN',
  'ECONNABORTED',
  'ECONNREFUSED',
  'ECONNRESET',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOENT',
  'ENOTFOUND',
  'EPIPE',
  'ETIMEDOUT',
]);

/** Node's codes for a server certificate that is not trusted; an operator can mend that while the service runs. */
const NOT_TRUSTED = new Set([
  'CERT_HAS_EXPIRED',
  'CERT_NOT_YET_VALID',
  'CERT_SIGNATURE_FAILURE',
  'CERT_UNTRUSTED',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'ERR_TLS_CERT_ALTNAME_INVALID',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
]);

/** Errors to which `pg` gives no code. */
const AWAY_MESSAGE =
  /^(Connection terminated|Client has encountered a connection error|Client was closed|timeout expired|timeout exceeded when trying to connect|Query read timeout)/;

const SQLSTATE = /^[0-9A-Z]{5}$/;

/** The SQLSTATE or network code of an error or of what caused it, if it has one. */
export function errorCodeOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  if ('code' in error && typeof error.code === 'string') {
    const { code } = error;
    const isKnown = SQLSTATE.test(code) || AWAY_NETWORK.has(code) || NOT_TRUSTED.has(code);
    return isKnown ? code : errorCodeOf(error.cause);
  }
  if (error instanceof AggregateError) return errorCodeOf(error.errors[0]);
  return errorCodeOf(error.cause);
}

/** The name of the constraint that a statement violated, if that is what went wrong. */
export function violatedConstraint(error: unknown): string | undefined {
  const violation = errorCodeOf(error)?.startsWith('23') === true;
  if (!violation || !(error instanceof Error) || !('constraint' in error)) return undefined;
  return typeof error.constraint === 'string' ? error.constraint : undefined;
}

/** Whether the database or the connection to it fails, so that the connection is of no more use. */
export function isAway(error: unknown): boolean {
  const code = errorCodeOf(error);
  if (code !== undefined) {
    const isAwayCode = AWAY_STATES.has(code) || AWAY_NETWORK.has(code) || NOT_TRUSTED.has(code);
    return isAwayCode || code.startsWith('08');
  }
  return error instanceof Error && AWAY_MESSAGE.test(error.message);
}

/** Whether the statement exceeded one of the time limits. */
export function isTooSlow(error: unknown): boolean {
  return TOO_SLOW_STATES.has(errorCodeOf(error) ?? '');
}

/**
 * Whether a statement that was prepared earlier is of no more use: a migration changed what it returns, or a
 * connection pooler switched to another session. A new connection prepares it anew.
 */
export function isPlanOutdated(error: unknown): boolean {
  const code = errorCodeOf(error);
  if (code !== '0A000') return code === '26000';
  // The message is in the language of the server, so it is known by where in the server it comes from.
  return error instanceof Error && 'routine' in error && error.routine === 'RevalidateCachedQuery';
}

/** What is missing, in one phrase for the log and for `/readyz`. */
export function describeMissing(error: unknown): string {
  const code = errorCodeOf(error);
  if (code === '3D000') return 'the database does not exist';
  if (code === '28P01' || code === '28000') return 'the database refuses our user or password';
  if (code === '57P03') return 'the database is starting up or shutting down';
  if (code === '53300') return 'the database has no connection left';
  if (code === '25006') return 'the database is read-only';
  if (code !== undefined && NOT_TRUSTED.has(code))
    return `the database's certificate is not trusted (${code})`;
  if (code !== undefined) return `the database does not answer (${code})`;
  return `the database does not answer (${error instanceof Error ? error.message : 'unknown error'})`;
}
