/** The guard of a server: an interceptor that decides every call, and the feed that keeps its revocation list current. */

import { randomBytes } from 'node:crypto';
import type {
  Metadata,
  Server,
  ServerInterceptingCallInterface,
  ServerInterceptor,
  ServiceDefinition,
} from '@grpc/grpc-js';
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
import { otherCopies, requireOwnServer } from '../wire/copies.js';
import { readDeadlinesOf } from '../wire/deadlines.js';
import { sessionUnder, setHttp2SettingsOf } from '../wire/grpc-js-internals.js';
import { exposeRepeatedCredentials, exposeRepeatedCredentialsOf } from '../wire/repeated-credentials.js';
import {
  type AccessRule,
  addRules,
  PUBLIC_RULE,
  type SchemaMetadata,
  withRequestBytes,
} from './access-rule.js';
import type { Admission, Caller } from './admission.js';
import { CallLimits } from './call-limits.js';
import { ConnectionLimits } from './connection-limits.js';
import { createConsoleLog } from './console-log.js';
import { Enforcement } from './enforcement.js';
import { type GuardLimits, guardLimitsOf, type LimitName } from './guard-limits.js';
import { GuardLines } from './guard-lines.js';
import { GuardReports } from './guard-reports.js';
import { type CallGuard, guardCall } from './guarded-call.js';
import { type NativeHandlers, nativeHandlersOf, onlyGuarded, type ServiceHandlers } from './handlers.js';
import type { GuardObserver, GuardOptions } from './options.js';
import { sharedRefusal } from './refusals.js';
import { type AccessRules, readRules } from './rule-sources.js';
import { StreamLimits } from './stream-limits.js';

/** The largest value of an HTTP/2 setting. */
const UINT32_MAX = 2 ** 32 - 1;

/** How often expired tokens are dropped and their calls cut, in milliseconds. */
const EXPIRY_INTERVAL_MS = 250;

/** The state of a guard, for readiness and metrics. */
export interface GuardState {
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
  /** Number of open connections to the servers whose services were added through the guard. */
  readonly connections: number;
  /** Number of calls of public methods in progress, from networks that have shown no valid token lately. */
  readonly publicCalls: number;
  /** Number of open HTTP/2 streams on connections on which no call was admitted with a token so far. */
  readonly newStreams: number;
  /** Number of HTTP/2 streams whose calls have not begun, because too many arrived at once. */
  readonly waitingStreams: number;
  /** Number of bytes of requests that have not reached their handlers. */
  readonly bytesInFlight: number;
}

/** Guards a server. */
export interface Guard {
  /** Give it to the server as the last interceptor, after those that only observe. */
  readonly interceptor: ServerInterceptor;
  /**
   * Adds a service whose methods all have an access rule.
   *
   * @param rules - ts-proto's `protoMetadata`, or the result of `codeRules` or `descriptorRules`
   * @param handlers - a function for each method; handlers in the form of grpc-js are wrapped with `native`
   * @throws TypeError naming every method without a rule, or without a handler, or with another rule at this guard
   */
  addService<Definition extends ServiceDefinition>(
    server: Server,
    definition: Definition,
    rules: SchemaMetadata | AccessRules,
    handlers: ServiceHandlers<Definition> | NativeHandlers,
  ): void;
  /**
   * Sets the rules of methods that a framework adds to its server itself. The server must have {@link interceptor} among
   * its interceptors; without it these methods are open. Limits on connections do not apply to such a server. Call this
   * before the server accepts connections: of several `authorization` headers Node would show the guard the first one only,
   * and a proxy in front may have decided by another.
   *
   * @param rules - the rules; of all methods in it, or of those that are named
   * @param paths - full paths, such as `/greeter.v1.GreeterService/SayHello`
   * @throws TypeError naming every method without a rule, with a contradictory one, or with another one at this guard
   */
  protect(rules: AccessRules, paths?: Iterable<string>): void;
  /** Resolves when the revocation list has been complete once. */
  readonly ready: Promise<void>;
  state(): GuardState;
  /** Calls the listener when the list becomes current or stale. @returns a function that removes the listener */
  onStateChange(listener: () => void): () => void;
  /**
   * Verifies a token that is not this call's credential.
   *
   * @param audience - the audience that the token must have; default: any
   * @throws ServiceError TOKEN_INVALID, TOKEN_EXPIRED or TOKEN_REVOKED
   */
  authenticateToken(token: string, audience?: string): Promise<TokenClaims>;
  /** Syncs with the issuer now instead of waiting for the next regular sync. */
  syncNow(): void;
  /** Stops the feed and the reports. The interceptor keeps working until the lease is over. */
  close(): Promise<void>;
}

const SILENT_LOG: GuardLog = { info: () => {}, warn: () => {}, error: () => {} };

/**
 * Creates a guard. The revocation list is fetched in the background; until it is complete, every method that is not
 * public fails with REVOCATION_STATE_STALE.
 *
 * @throws TypeError when an option cannot be used, or tokens would travel in plaintext where that is not allowed
 */
export async function createGuard(options: GuardOptions): Promise<Guard> {
  if (options.issuer === '' || options.audience === '') {
    throw new TypeError('expected an issuer and an audience, got an empty string');
  }
  const source =
    'source' in options.auth
      ? options.auth.source
      : await createRemoteSource({ ...options.auth, issuer: options.issuer, plaintext: options.plaintext });
  return new ServerGuard(options, source);
}

/** The guard that {@link createGuard} creates. The kit for tests reaches more of it than services do. */
export class ServerGuard implements Guard, CallGuard {
  readonly interceptor: ServerInterceptor;
  readonly ready: Promise<void>;
  readonly limits: CallLimits;
  readonly fences: Fences;
  readonly #limitSettings: GuardLimits;
  readonly #connectionLimits: ConnectionLimits;
  readonly #streamLimits: StreamLimits;
  readonly #prepared = new WeakSet<Server>();
  readonly #rules = new Map<string, AccessRule>();
  readonly #enforcement: Enforcement;
  readonly #feed: Feed;
  readonly #runner: FeedRunner;
  readonly #trusted: TrustedIssuers;
  readonly #log: GuardLog;
  readonly #lines: GuardLines;
  readonly #clock: Clock;
  readonly #observer: GuardObserver;
  readonly #allowsPlaintext: boolean;
  readonly #listeners = new Set<() => void>();
  readonly #expiryTimer: NodeJS.Timeout;
  readonly #reports: GuardReports;
  readonly observes: boolean;
  readonly keepsContext: boolean;
  #resolveReady: () => void = () => {};

  constructor(options: GuardOptions, source: RevocationSource) {
    this.#clock = options.clock ?? systemClock;
    this.#log = logOf(options.log);
    this.#lines = new GuardLines(this.#log, this.#clock);
    this.observes = options.mode === 'observe';
    this.keepsContext = options.callContext === true;
    this.#observer = options.observer ?? {};
    this.#allowsPlaintext = options.plaintext === 'allow';
    const instance = randomBytes(ID_BYTES);
    this.#trusted = this.#createTrusted(options);
    this.#reports = new GuardReports({ ...options, log: this.#log }, instance, this.#clock);
    this.#enforcement = this.#createEnforcement(options, instance);
    this.#feed = this.#enforcement.feed;
    this.#limitSettings = guardLimitsOf(options.limits);
    const { knownNetworks } = this.#enforcement.admissions;
    const isKnownNetwork = (network: string) => knownNetworks.has(network);
    this.limits = new CallLimits(this.#limitSettings, this.#clock, isKnownNetwork);
    this.#connectionLimits = new ConnectionLimits({
      limits: this.#limitSettings,
      nowMs: () => this.#clock.monotonicMs(),
      isKnownNetwork,
      onLimit: (limit) => this.onLimit(limit),
    });
    this.#streamLimits = new StreamLimits({
      limits: this.#limitSettings,
      isKnownNetwork,
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
      log: this.#log,
    });
    this.#runner = this.#createRunner(options, source, instance);
    const publicRule = withRequestBytes(PUBLIC_RULE, this.#limitSettings);
    for (const path of options.publicMethods ?? []) this.#rules.set(path, publicRule);
    this.interceptor = (method, call) => guardCall(method, call, this);
    this.#expiryTimer = setInterval(() => this.endLate(), EXPIRY_INTERVAL_MS);
    this.#expiryTimer.unref();
    this.#warnAtStart();
    this.#runner.start();
  }

  #warnAtStart(): void {
    const copies = otherCopies();
    if (copies !== '') this.#log.warn({ event: 'several_copies' }, copies);
    if (this.observes)
      this.#log.warn({ event: 'observing' }, 'mode observe: no call is refused because of its token');
  }

  #createTrusted(options: GuardOptions): TrustedIssuers {
    return createTrustedIssuers({
      issuers: options.trustedIssuers ?? [],
      ownIssuer: options.issuer,
      audience: options.audience,
      plaintext: options.plaintext,
      clock: this.#clock,
      timers: systemTimers,
      log: this.#log,
      onKeys: (issuer) => this.#enforcement.foreignKeysChanged(issuer),
    });
  }

  #createEnforcement(options: GuardOptions, instance: Uint8Array): Enforcement {
    const { issuer, audience, listEntriesMax } = options;
    return new Enforcement({
      issuer,
      audience,
      clock: this.#clock,
      timers: systemTimers,
      createFeed: (listener) =>
        new Feed({ service: audience, instance, listener, listEntriesMax, claimIds: this.#trusted.claimIds }),
      trusted: this.#trusted,
      onTokenInvalid: (fault) => this.#tokenInvalid(fault),
      onVerified: (ms) => this.#observer.verified?.(ms),
      onLimit: (limit) => this.onLimit(limit),
      onCutFailed: (error) =>
        this.#log.error({ event: 'cut_failed', err: error }, 'a handler threw while its call was cut'),
    });
  }

  #createRunner(options: GuardOptions, source: RevocationSource, instance: Uint8Array): FeedRunner {
    const { audience, nats } = options;
    return new FeedRunner({
      feed: this.#feed,
      source,
      service: audience,
      instance,
      nats: nats && {
        url: nats.url,
        files: nats.files,
        name: `portcullis ${audience}`,
        // The issuer's own process does not wait for the broker: without its syncs no other process could start.
        awaited: !('source' in options.auth),
      },
      clock: this.#clock,
      log: this.#log,
      fences: this.fences,
      onKeys: (keys) => this.#enforcement.replaceKeys(keys),
      onCurrentChange: (isCurrent) => this.#currentChanged(isCurrent),
      onForgery: () => {
        this.#reports.recordForgedBroadcast();
        this.#observer.broadcastForged?.();
      },
    });
  }

  addService<Definition extends ServiceDefinition>(
    server: Server,
    definition: Definition,
    rules: SchemaMetadata | AccessRules,
    handlers: ServiceHandlers<Definition> | NativeHandlers,
  ): void {
    requireOwnServer(server);
    const read = readRules(definition, rules);
    const guarded = onlyGuarded(definition, nativeHandlersOf(definition, handlers));
    this.#addRules(read);
    this.#prepare(server);
    server.addService(definition, guarded);
  }

  protect(rules: AccessRules, paths?: Iterable<string>): void {
    const read = rules.read(paths);
    this.#addRules(read);
    // The server is not at hand: it belongs to a framework.
    exposeRepeatedCredentialsOf(read.keys());
  }

  #addRules(rules: ReadonlyMap<string, AccessRule>): void {
    addRules(this.#rules, rules, this.#limitSettings);
  }

  /** The full paths of all methods that have a rule. */
  get paths(): readonly string[] {
    return [...this.#rules.keys()];
  }

  /** Calls of tokens that are no longer valid wait to be cut. */
  get isCutting(): boolean {
    return this.#enforcement.isCutting;
  }

  /** Sets up, once for each server, what happens to connections and headers before a call exists. */
  #prepare(server: Server): void {
    if (this.#prepared.has(server)) return;
    this.#prepared.add(server);
    const { streamsPerConnection, headerBytes } = this.#limitSettings;
    setHttp2SettingsOf(server, {
      maxConcurrentStreams: Math.min(streamsPerConnection, UINT32_MAX),
      maxHeaderListSize: Math.min(headerBytes, UINT32_MAX),
    });
    exposeRepeatedCredentials(server);
    readDeadlinesOf(server, () => this.#clock.wallMs());
    this.#connectionLimits.watch(server);
    this.#streamLimits.watch(server);
  }

  state(): GuardState {
    const leaseMs = this.#feed.leaseLeftMs(this.#clock.monotonicMs(), this.#clock.wallMs());
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
      connections: this.#connectionLimits.count,
      newStreams: this.#streamLimits.open,
      waitingStreams: this.#streamLimits.waiting,
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

  // CallGuard.

  addressOf(call: ServerInterceptingCallInterface): string {
    return this.#reports.addressOf(call);
  }

  onFenceRefused(reason: GuardErrorCode): void {
    this.#observer.fenceRefused?.(reason);
  }

  onLimit(limit: LimitName): void {
    this.#observer.limited?.(limit);
    this.#lines.limited(limit);
  }

  admit(path: string, metadata: Metadata, caller: Caller): Admission | Promise<Admission> {
    const admission = this.#decide(path, metadata, caller);
    if (!this.observes) return admission;
    return admission instanceof Promise
      ? admission.then((decision) => this.#letThrough(path, decision))
      : this.#letThrough(path, admission);
  }

  #letThrough(path: string, admission: Admission): Admission {
    if (admission.kind !== 'refused') return admission;
    this.onObserved(path, admission.error.code);
    const { requestBytesMax } = this.#rules.get(path) ?? withRequestBytes(PUBLIC_RULE, this.#limitSettings);
    return { kind: 'observed', token: admission.token, requestBytesMax };
  }

  #decide(path: string, metadata: Metadata, caller: Caller): Admission | Promise<Admission> {
    const rule = this.#rules.get(path);
    // A method that was not added through the guard has no rule: it is closed, not open.
    if (rule === undefined) {
      this.#log.error({ event: 'method_without_rule', path }, 'a method without an access rule was called');
      return { kind: 'refused', error: new GuardError('NOT_FOUND', 'no such method') };
    }
    if (!rule.isPublic && !this.#allowsPlaintext && !caller.isPrivate && hasCredential(metadata)) {
      // The token may have been read on the network. The caller must notice, so it is refused.
      this.#tokenInvalid('plaintext');
      return { kind: 'refused', error: sharedRefusal('TLS_REQUIRED') };
    }
    return this.#enforcement.admissions.decide(rule, metadata, caller);
  }

  denialReason(token: VerifiedToken, allowStale: boolean): DenialReason | undefined {
    return this.#enforcement.admissions.denialReason(token, allowStale);
  }

  validForMs(token: VerifiedToken, allowStale: boolean): number {
    return this.#enforcement.admissions.validForMs(token, allowStale);
  }

  reportAdmitted(token: VerifiedToken, call: ServerInterceptingCallInterface): void {
    this.#streamLimits.trust(sessionUnder(call));
    this.#reports.recordAdmitted(token, call);
  }

  reportRefused(
    path: string,
    reason: GuardErrorCode,
    token: VerifiedToken | undefined,
    call: ServerInterceptingCallInterface,
  ): void {
    this.#reports.recordRefused(reason, token, call);
    this.#lines.refused(path, reason, token);
  }

  handlerFailed(path: string, error: unknown): void {
    this.#log.error({ event: 'handler_failed', path, err: error }, 'a handler failed');
  }

  onDecision(path: string, outcome: 'ADMITTED' | GuardErrorCode): void {
    this.#observer.decided?.(path, outcome);
  }

  onObserved(path: string, reason: GuardErrorCode): void {
    this.#observer.observed?.(path, reason);
    this.#lines.observed(path, reason);
  }

  /** Ends what is over by the clock: expired tokens with their calls, and calls and connections beyond their limits. */
  endLate(): void {
    this.#enforcement.dropExpired();
    this.limits.sweep();
    this.#connectionLimits.sweep();
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

function logOf(log: GuardOptions['log']): GuardLog {
  if (log === 'silent') return SILENT_LOG;
  return log ?? createConsoleLog();
}

function hasCredential(metadata: Metadata): boolean {
  return metadata.get('authorization').length > 0;
}
