/** What a process reports to its issuer about the calls it received: sums over an interval, never single calls. */

import { randomBytes } from 'node:crypto';
import type { Caller, RefusedCalls, Report } from '../../gen/portcullis/security/v1/report.js';
import type { Clock } from '../clock.js';
import type { GuardErrorCode } from '../errors.js';
import { ID_BYTES } from '../limits.js';
import type { VerifiedToken } from '../revocation/verified-tokens.js';
import type { TokenClaims } from '../token/claims.js';

/** How often a process reports, in milliseconds. */
export const REPORT_INTERVAL_MS = 5000;

/** Maximum number of rows of refused calls in one report; the rest is reported as a sum. */
export const REFUSED_ROWS_MAX = 500;

/** Maximum number of principals in one report, the busiest ones; the rest is reported as a number. */
export const PRINCIPALS_MAX = 500;

/** Maximum number of addresses that are reported for one token. */
export const ADDRESSES_MAX = 8;

/** Sums up the decisions of a guard. */
export class ReportCollector {
  readonly #service: string;
  readonly #instance: Uint8Array;
  readonly #clock: Clock;
  #beganMs: number;
  #active: VerifiedToken[] = [];
  #refused = new Map<string, RefusedCalls>();
  #refusedLeftOut = 0n;
  #forged = 0n;
  #plaintext = false;
  #remotePlaintext = false;

  constructor(options: { service: string; instance: Uint8Array; clock: Clock }) {
    this.#service = options.service;
    this.#instance = options.instance;
    this.#clock = options.clock;
    this.#beganMs = options.clock.wallMs();
  }

  recordAdmitted(token: VerifiedToken, address: string): void {
    if (token.calls === 0) this.#active.push(token);
    token.calls += 1;
    if (token.address !== address) this.#moved(token, address);
  }

  recordRefused(reason: GuardErrorCode, token: VerifiedToken | undefined, address: string): void {
    const caller = token === undefined ? undefined : callerOf(token.claims);
    const key = `${reason} ${address} ${caller?.issuer} ${caller?.subject} ${caller?.sessionId}`;
    const row = this.#refused.get(key);
    if (row !== undefined) row.calls += 1n;
    else if (this.#refused.size < REFUSED_ROWS_MAX) {
      this.#refused.set(key, { reason, address, caller, calls: 1n });
    } else this.#refusedLeftOut += 1n;
  }

  recordForgedBroadcast(): void {
    this.#forged += 1n;
  }

  /** Plaintext use is reported from then on, because a connection may outlive many intervals. */
  recordConnection(plaintext: 'none' | 'local' | 'remote'): void {
    if (plaintext !== 'none') this.#plaintext = true;
    if (plaintext === 'remote') this.#remotePlaintext = true;
  }

  /** The sums since the last call; undefined when nothing happened. @param lostReports - reports dropped since then */
  collect(lostReports: number): Report | undefined {
    const [active, refused] = [this.#active, this.#refused];
    const isEmpty = active.length + refused.size + lostReports === 0 && this.#forged === 0n;
    const [beganMs, endedMs] = [this.#beganMs, this.#clock.wallMs()];
    this.#beganMs = endedMs;
    if (isEmpty) return undefined;
    const admitted = sumUp(active);
    const report: Report = {
      reportId: randomBytes(ID_BYTES),
      service: this.#service,
      instance: Buffer.from(this.#instance),
      beginTime: new Date(beganMs),
      endTime: new Date(endedMs),
      refused: [...refused.values()],
      refusedLeftOut: this.#refusedLeftOut,
      admitted: admitted.slice(0, PRINCIPALS_MAX),
      principalsLeftOut: BigInt(Math.max(0, admitted.length - PRINCIPALS_MAX)),
      forgedBroadcasts: this.#forged,
      lostReports: BigInt(lostReports),
      plaintext: this.#plaintext,
      remotePlaintext: this.#remotePlaintext,
    };
    this.#active = [];
    this.#refused = new Map();
    this.#refusedLeftOut = 0n;
    this.#forged = 0n;
    return report;
  }

  #moved(token: VerifiedToken, address: string): void {
    if (token.address !== '') {
      token.otherAddresses ??= new Set();
      if (token.otherAddresses.size < ADDRESSES_MAX) token.otherAddresses.add(token.address);
    }
    token.address = address;
  }
}

/** The calls of each principal and session, and resets the counters of the tokens. */
function sumUp(active: readonly VerifiedToken[]): Report['admitted'] {
  const rows = new Map<string, Report['admitted'][number]>();
  for (const token of active) {
    const caller = callerOf(token.claims);
    const key = `${caller.issuer} ${caller.subject} ${caller.clientId} ${caller.sessionId}`;
    const row = rows.get(key) ?? { caller, calls: 0n, addresses: [] };
    rows.set(key, row);
    row.calls += BigInt(token.calls);
    for (const address of [token.address, ...(token.otherAddresses ?? [])]) {
      if (row.addresses.length < ADDRESSES_MAX && !row.addresses.includes(address))
        row.addresses.push(address);
    }
    token.calls = 0;
    token.otherAddresses = undefined;
  }
  // Those with several addresses first: they are few, and the anomaly rules look for them. Then the busiest.
  return [...rows.values()].sort(
    (one, other) => other.addresses.length - one.addresses.length || Number(other.calls - one.calls),
  );
}

function callerOf(claims: TokenClaims): Caller {
  return {
    issuer: claims.issuer,
    subject: claims.subject,
    clientId: claims.clientId,
    sessionId: claims.sessionId ?? '',
    delegated: claims.actors.length > 0,
  };
}
