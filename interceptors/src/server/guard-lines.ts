/** What a guard logs about calls, at most a few lines a second of each kind. */

import type { Clock } from '../clock.js';
import type { GuardErrorCode } from '../errors.js';
import type { GuardLog } from '../log.js';
import type { VerifiedToken } from '../revocation/verified-tokens.js';
import type { LimitName } from './guard-limits.js';
import { LogQuota } from './log-quota.js';

/** Maximum number of log lines per second: about rejected tokens, refused calls, limits, and unknown methods. */
const INVALID_TOKEN_LINES_PER_SECOND = 5;
const REFUSAL_LINES_PER_SECOND = 5;
const LIMIT_LINES_PER_SECOND = 1;
const UNKNOWN_METHOD_LINES_PER_SECOND = 1;

/** Maximum length of a path in a line, in characters: a caller may send any. */
const PATH_LENGTH_MAX = 200;

/** Refusals about which there is another line. */
const LOGGED_OTHERWISE: ReadonlySet<GuardErrorCode> = new Set([
  'TOKEN_INVALID',
  'TLS_REQUIRED',
  'RATE_LIMITED',
]);

/** The lines of a guard about calls. */
export class GuardLines {
  readonly #log: GuardLog;
  readonly #invalidTokens: LogQuota;
  readonly #refusals: LogQuota;
  readonly #limits: LogQuota;
  readonly #unknownMethods: LogQuota;

  constructor(log: GuardLog, clock: Clock) {
    this.#log = log;
    this.#invalidTokens = new LogQuota(INVALID_TOKEN_LINES_PER_SECOND, clock);
    this.#refusals = new LogQuota(REFUSAL_LINES_PER_SECOND, clock);
    this.#limits = new LogQuota(LIMIT_LINES_PER_SECOND, clock);
    this.#unknownMethods = new LogQuota(UNKNOWN_METHOD_LINES_PER_SECOND, clock);
  }

  /** A token was rejected; the caller does not learn the fault. */
  tokenInvalid(fault: string): void {
    const count = this.#invalidTokens.count();
    if (count === 0) return;
    this.#log.warn({ event: 'token_invalid', fault, count }, 'a token was rejected');
  }

  /** A method was called that has no access rule: it was not added through the guard, or a caller invented it. */
  unknownMethod(called: string): void {
    const count = this.#unknownMethods.count();
    if (count === 0) return;
    const path = called.slice(0, PATH_LENGTH_MAX);
    this.#log.error(
      { event: 'method_without_rule', path, count },
      'a method without an access rule was called',
    );
  }

  /** A limit has refused or ended a call or a connection. */
  limited(limit: LimitName): void {
    const count = this.#limits.count();
    if (count === 0) return;
    this.#log.warn({ event: 'limited', limit, count }, 'a limit refused or ended calls or connections');
  }

  /** A call was refused; `token` is the verified token, if there is one. */
  refused(path: string, reason: GuardErrorCode, token: VerifiedToken | undefined): void {
    if (LOGGED_OTHERWISE.has(reason)) return;
    const count = this.#refusals.count();
    if (count === 0) return;
    const caller = token && { kind: token.claims.kind, clientId: token.claims.clientId };
    this.#log.info({ event: 'refused', path, reason, ...caller, count }, 'a call was refused');
  }

  /** A call goes on, because the guard only observes. */
  observed(path: string, reason: GuardErrorCode): void {
    const count = this.#refusals.count();
    if (count === 0) return;
    this.#log.warn({ event: 'would_refuse', path, reason, count }, 'mode enforce would refuse this call');
  }
}
