/** What every guard is made of, whatever its wire: the list, its feed, the rules, the limits, the log and the reports. */

import { randomBytes } from 'node:crypto';
import { type Clock, systemClock, systemTimers } from '../clock.js';
import { GuardError, type GuardErrorCode, ServiceError } from '../errors.js';
import { ID_BYTES } from '../limits.js';
import type { GuardLog } from '../log.js';
import type { ReportingState } from '../reports/report-sender.js';
import type { BrokerUse } from '../revocation/broker-link.js';
import { Feed } from '../revocation/feed.js';
import { FeedRunner, type RevocationSource } from '../revocation/feed-runner.js';
import { Fences } from '../revocation/fences.js';
import { createRemoteSource } from '../revocation/source.js';
import type { DenialReason, VerifiedToken } from '../revocation/verified-tokens.js';
import type { TokenClaims } from '../token/claims.js';
import { createTrustedIssuers, type TrustedIssuers } from '../token/trusted-issuers.js';
import type { PlaintextUse } from '../wire/connection.js';
import { otherCopies } from '../wire/copies.js';
import { type AccessRule, addRules, PUBLIC_RULE, withRequestBytes } from './access-rule.js';
import type { Admission, Caller } from './admission.js';
import { CallLimits } from './call-limits.js';
import { ConnectionLimits } from './connection-limits.js';
import { createConsoleLog } from './console-log.js';
import type { CallEngine } from './decided-call.js';
import { Enforcement } from './enforcement.js';
import { type GuardLimits, guardLimitsOf, type LimitName } from './guard-limits.js';
import { GuardLines } from './guard-lines.js';
import { type Addressed, GuardReports } from './guard-reports.js';
import { instanceDescription } from './instance-description.js';
import type { GuardObserver, GuardOptions } from './options.js';
import { sharedRefusal } from './refusals.js';

/** The path of all methods without a rule, in metrics and reports: a caller can send any number of paths. */
export const UNKNOWN_METHOD = '/unknown';

/** How often expired tokens are dropped and their calls cut, in milliseconds. */
const EXPIRY_INTERVAL_MS = 250;

/** The state of an engine, for readiness and metrics. */
export interface EngineState {
  /** The revocation list has been complete once. */
  readonly ready: boolean;
  /** The revocation list is current: its lease is running. */
  readonly current: boolean;
  /** How long the lease still runs without another sync, in milliseconds; 0 when it is over. */
  readonly leaseMs: number;
  /** Number of entries in the revocation list. */
  readonly entries: number;
  /** Number of entries at which the list is full and calls are refused. */
  readonly entriesMax: number;
  /** Every entry of the log up to this sequence is in the list. */
  readonly applied: bigint;
  /** Number of cached tokens. */
  readonly tokens: number;
  /** Why the list is not current, in one phrase; empty when it is. */
  readonly staleReason: string;
  /** Whether the latest sync with the issuer succeeded. */
  readonly lastSyncSucceeded: boolean;
  /** The security reports to the issuer. */
  readonly reports: ReportingState;
  /** The connections to the broker; none without a broker. */
  readonly broker: readonly BrokerUse[];
  /** Number of open connections that the engine, or the guard on it, knows of. */
  readonly connections: number;
  /** Number of calls of public methods in progress, from networks that have shown no valid token lately. */
  readonly publicCalls: number;
  /** Number of bytes of requests that have not reached their handlers. */
  readonly bytesInFlight: number;
}

const SILENT_LOG: GuardLog = { info: () => {}, warn: () => {}, error: () => {} };

/** Decides calls, and ends those that may not go on. `createGuard` and `createEngine` stand on it. */
export class EngineCore implements CallEngine {
  readonly ready: Promise<void>;
  readonly limits: CallLimits;
  readonly fences: Fences;
  readonly limitSettings: GuardLimits;
  readonly connections: ConnectionLimits;
  readonly observes: boolean;
  readonly log: GuardLog;
  readonly clock: Clock;
  readonly isKnownNetwork: (network: string) => boolean;
  readonly #publicMethods: readonly string[];
  #rules: Map<string, AccessRule>;
  readonly #enforcement: Enforcement;
  readonly #feed: Feed;
  readonly #runner: FeedRunner;
  readonly #trusted: TrustedIssuers;
  readonly #lines: GuardLines;
  readonly #observer: GuardObserver;
  readonly #allowsPlaintext: boolean;
  readonly #listeners = new Set<() => void>();
  readonly #expiryTimer: NodeJS.Timeout;
  readonly #reports: GuardReports;
  #resolveReady: () => void = () => {};

  constructor(options: GuardOptions, source: RevocationSource) {
    this.clock = options.clock ?? systemClock;
    this.log = logOf(options.log);
    this.#lines = new GuardLines(this.log, this.clock);
    this.observes = options.mode === 'observe';
    this.#observer = options.observer ?? {};
    this.#allowsPlaintext = options.plaintext === 'allow';
    const instance = randomBytes(ID_BYTES);
    this.#trusted = this.#createTrusted(options);
    this.#reports = new GuardReports({ ...options, log: this.log }, instance, this.clock);
    this.#enforcement = this.#createEnforcement(options, instance);
    this.#feed = this.#enforcement.feed;
    this.limitSettings = guardLimitsOf(options.limits);
    const { knownNetworks } = this.#enforcement.admissions;
    this.isKnownNetwork = (network) => knownNetworks.has(network);
    this.limits = new CallLimits(this.limitSettings, this.clock, this.isKnownNetwork);
    this.connections = new ConnectionLimits({
      limits: this.limitSettings,
      nowMs: () => this.clock.monotonicMs(),
      isKnownNetwork: this.isKnownNetwork,
      onLimit: (limit) => this.onLimit(limit),
    });
    this.ready = new Promise((resolve) => {
      this.#resolveReady = resolve;
    });
    this.fences = new Fences({
      databases: options.fences ?? [],
      feed: this.#feed,
      syncNow: () => this.syncNow(),
      timers: systemTimers,
      log: this.log,
    });
    this.#runner = this.#createRunner(options, source, instance);
    this.#publicMethods = [...(options.publicMethods ?? [])];
    this.#rules = this.#rulesWith([]);
    this.#expiryTimer = setInterval(() => this.endLate(), EXPIRY_INTERVAL_MS);
    this.#expiryTimer.unref();
    this.#warnAtStart();
    this.#runner.start();
  }

  #warnAtStart(): void {
    const copies = otherCopies();
    if (copies !== '') this.log.warn({ event: 'several_copies' }, copies);
    if (this.observes)
      this.log.warn({ event: 'observing' }, 'mode observe: no call is refused because of its token');
  }

  #createTrusted(options: GuardOptions): TrustedIssuers {
    return createTrustedIssuers({
      issuers: options.trustedIssuers ?? [],
      ownIssuer: options.issuer,
      audience: options.audience,
      plaintext: options.plaintext,
      clock: this.clock,
      timers: systemTimers,
      log: this.log,
      onKeys: (issuer) => this.#enforcement.foreignKeysChanged(issuer),
    });
  }

  #createEnforcement(options: GuardOptions, instance: Uint8Array): Enforcement {
    const { issuer, audience, listEntriesMax } = options;
    return new Enforcement({
      issuer,
      audience,
      clock: this.clock,
      timers: systemTimers,
      createFeed: (listener) =>
        new Feed({ service: audience, instance, listener, listEntriesMax, claimIds: this.#trusted.claimIds }),
      trusted: this.#trusted,
      onTokenInvalid: (fault) => this.#tokenInvalid(fault),
      onVerified: (ms) => this.#observer.verified?.(ms),
      onLimit: (limit) => this.onLimit(limit),
      onCutFailed: (error) =>
        this.log.error({ event: 'cut_failed', err: error }, 'a handler threw while its call was cut'),
    });
  }

  #createRunner(options: GuardOptions, source: RevocationSource, instance: Uint8Array): FeedRunner {
    const { audience, nats } = options;
    return new FeedRunner({
      feed: this.#feed,
      source,
      service: audience,
      instance,
      description: instanceDescription(this.clock.wallMs()),
      nats: nats && {
        url: nats.url,
        files: nats.files,
        name: `portcullis ${audience}`,
        // The issuer's own process does not wait for the broker: without its syncs no other process could start.
        awaited: !('source' in options.auth),
      },
      clock: this.clock,
      log: this.log,
      fences: this.fences,
      onKeys: (keys) => this.#enforcement.replaceKeys(keys),
      onCurrentChange: (isCurrent) => this.#currentChanged(isCurrent),
      onForgery: () => {
        this.#reports.recordForgedBroadcast();
        this.#observer.broadcastForged?.();
      },
    });
  }

  /**
   * Sets the rules of methods.
   *
   * @throws TypeError naming every method that has another rule already
   */
  setRules(rules: ReadonlyMap<string, AccessRule>): void {
    addRules(this.#rules, rules, this.limitSettings);
  }

  /**
   * Replaces the rules of all methods. A method that is not named is closed, unless the options name it as public.
   *
   * @throws TypeError naming every method with two rules; the former rules stay
   */
  replaceRules(parts: Iterable<ReadonlyMap<string, AccessRule>>): void {
    this.#rules = this.#rulesWith(parts);
  }

  #rulesWith(parts: Iterable<ReadonlyMap<string, AccessRule>>): Map<string, AccessRule> {
    const publicRule = withRequestBytes(PUBLIC_RULE, this.limitSettings);
    const rules = new Map(this.#publicMethods.map((path) => [path, publicRule]));
    for (const part of parts) addRules(rules, part, this.limitSettings);
    return rules;
  }

  /** The full paths of all methods that have a rule. */
  get paths(): readonly string[] {
    return [...this.#rules.keys()];
  }

  hasRule(path: string): boolean {
    return this.#rules.has(path);
  }

  /** Calls of tokens that are no longer valid wait to be cut. */
  get isCutting(): boolean {
    return this.#enforcement.isCutting;
  }

  state(): EngineState {
    const leaseMs = this.#feed.leaseLeftMs(this.clock.monotonicMs(), this.clock.wallMs());
    return {
      ready: this.#feed.hydrated,
      current: leaseMs > 0,
      leaseMs: Math.max(0, leaseMs),
      entries: this.#feed.list.size,
      entriesMax: this.#feed.list.max,
      applied: this.#feed.applied,
      tokens: this.#enforcement.admissions.tokens.size,
      staleReason: this.#runner.staleReason,
      lastSyncSucceeded: this.#runner.lastSyncSucceeded,
      reports: this.#reports.state(),
      broker: this.#brokerUses(),
      connections: this.connections.count,
      ...this.limits.state(),
    };
  }

  onStateChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  async authenticateToken(token: string, audience?: string): Promise<TokenClaims> {
    const result = await this.#enforcement.admissions.introspect(token, audience);
    if (result instanceof ServiceError) throw result;
    return result;
  }

  syncNow(): void {
    this.#runner.syncNow();
  }

  async close(): Promise<void> {
    clearInterval(this.#expiryTimer);
    this.#trusted.close();
    this.fences.close();
    await this.#reports.close();
    await this.#runner.close();
  }

  #brokerUses(): readonly BrokerUse[] {
    const revocations = this.#runner.broker?.state;
    const reports = this.#reports.brokerState();
    return [
      ...(revocations === undefined ? [] : [{ use: 'revocations', state: revocations }]),
      ...(reports === undefined ? [] : [{ use: 'reports', state: reports }]),
    ];
  }

  /** Decides a call by the values of its `authorization` headers. A promise only while a new token is being verified. */
  decide(path: string, authorizations: readonly unknown[], caller: Caller): Admission | Promise<Admission> {
    const admission = this.#decide(path, authorizations, caller);
    if (!this.observes) return admission;
    return admission instanceof Promise
      ? admission.then((decision) => this.#letThrough(path, decision))
      : this.#letThrough(path, admission);
  }

  #letThrough(path: string, admission: Admission): Admission {
    if (admission.kind !== 'refused') return admission;
    this.onObserved(this.hasRule(path) ? path : UNKNOWN_METHOD, admission.error.code);
    const { requestBytesMax } = this.#rules.get(path) ?? withRequestBytes(PUBLIC_RULE, this.limitSettings);
    return { kind: 'observed', reason: admission.error.code, token: admission.token, requestBytesMax };
  }

  #decide(path: string, authorizations: readonly unknown[], caller: Caller): Admission | Promise<Admission> {
    const rule = this.#rules.get(path);
    // A method that was not added through the guard has no rule: it is closed, not open.
    if (rule === undefined) {
      this.#lines.unknownMethod(path);
      return { kind: 'refused', error: new GuardError('NOT_FOUND', 'no such method') };
    }
    if (!rule.isPublic && !this.#allowsPlaintext && !caller.isPrivate && authorizations.length > 0) {
      // The token may have been read on the network. The caller must notice, so it is refused.
      this.#tokenInvalid('plaintext');
      return { kind: 'refused', error: sharedRefusal('TLS_REQUIRED') };
    }
    return this.#enforcement.admissions.decide(rule, authorizations, caller);
  }

  /** Ends what is over by the clock: expired tokens with their calls, and calls and connections beyond their limits. */
  endLate(): void {
    this.#enforcement.dropExpired();
    this.limits.sweep();
    this.connections.sweep();
  }

  /** Counts a connection for the security reports. */
  recordConnection(plaintext: PlaintextUse): void {
    this.#reports.recordConnection(plaintext);
  }

  onFenceRefused(reason: GuardErrorCode): void {
    this.#observer.fenceRefused?.(reason);
  }

  // CallEngine.

  onLimit(limit: LimitName): void {
    this.#observer.limited?.(limit);
    this.#lines.limited(limit);
  }

  denialReason(token: VerifiedToken, allowStale: boolean): DenialReason | undefined {
    return this.#enforcement.admissions.denialReason(token, allowStale);
  }

  validForMs(token: VerifiedToken, allowStale: boolean): number {
    return this.#enforcement.admissions.validForMs(token, allowStale);
  }

  reportAdmitted(token: VerifiedToken, call: Addressed): void {
    this.#reports.recordAdmitted(token, call);
  }

  reportRefused(
    path: string,
    reason: GuardErrorCode,
    token: VerifiedToken | undefined,
    call: Addressed,
  ): void {
    this.#reports.recordRefused(reason, token, call);
    this.#lines.refused(path, reason, token);
  }

  onDecision(path: string, outcome: 'ADMITTED' | GuardErrorCode): void {
    this.#observer.decided?.(path, outcome);
  }

  onObserved(path: string, reason: GuardErrorCode): void {
    this.#observer.observed?.(path, reason);
    this.#lines.observed(path, reason);
  }

  #currentChanged(isCurrent: boolean): void {
    if (isCurrent) this.#resolveReady();
    else this.#enforcement.recheckLiveCalls();
    for (const listener of this.#listeners) listener();
  }

  #tokenInvalid(fault: string): void {
    this.#observer.tokenInvalid?.(fault);
    this.#lines.tokenInvalid(fault);
  }
}

/**
 * Creates the source of revocations that the options name.
 *
 * @throws TypeError when an option cannot be used, or tokens would travel in plaintext where that is not allowed
 */
export async function sourceOf(options: GuardOptions): Promise<RevocationSource> {
  if (options.issuer === '' || options.audience === '') {
    throw new TypeError('expected an issuer and an audience, got an empty string');
  }
  if ('source' in options.auth) return options.auth.source;
  return await createRemoteSource({
    ...options.auth,
    issuer: options.issuer,
    plaintext: options.auth.plaintext ?? options.plaintext,
  });
}

function logOf(log: GuardOptions['log']): GuardLog {
  if (log === 'silent') return SILENT_LOG;
  return log ?? createConsoleLog();
}
