/** The guard of a server: one interceptor that decides every call, and the feed behind it. */

import { randomBytes } from 'node:crypto';
import type {
  ChannelCredentials,
  Metadata,
  Server,
  ServerInterceptingCallInterface,
  ServerInterceptor,
  ServiceDefinition,
  UntypedServiceImplementation,
} from '@grpc/grpc-js';
import type { ClientKey } from '../client/client-key.js';
import { type Clock, systemClock, systemTimers } from '../clock.js';
import { GuardError, type GuardErrorCode, ServiceError } from '../errors.js';
import { ID_BYTES } from '../limits.js';
import type { GuardLog } from '../log.js';
import {
  createReportSender,
  type Reporting,
  type ReportingState,
  type SendReport,
  startReporting,
} from '../reports/report-sender.js';
import { ReportCollector } from '../reports/security-reports.js';
import type { BrokerFiles } from '../revocation/broker.js';
import { Feed } from '../revocation/feed.js';
import { FeedRunner, type RevocationSource } from '../revocation/feed-runner.js';
import { createRemoteSource } from '../revocation/source.js';
import type { CutReason, VerifiedToken } from '../revocation/verified-tokens.js';
import type { TokenClaims } from '../token/claims.js';
import { type AnyCall, stateOf } from '../token/principal.js';
import { createTrustedIssuers, type TrustedIssuer, type TrustedIssuers } from '../token/trusted-issuers.js';
import { addressOf, isPrivateConnection, type Plaintext } from '../wire/connection.js';
import { exposeRepeatedCredentials } from '../wire/repeated-credentials.js';
import { type CallStatus, statusOf } from '../wire/status.js';
import { type AccessRule, PUBLIC_RULE, readRules, type SchemaMetadata } from './access-rule.js';
import type { Caller } from './admission.js';
import { Enforcement } from './enforcement.js';
import { type Admission, type CallGuard, guardCall, sharedRefusal } from './guarded-call.js';

/** How often expired tokens are looked for, in milliseconds. */
const EXPIRY_INTERVAL_MS = 250;

/** How many log lines about refused tokens are written a second. */
const INVALID_TOKEN_LINES_PER_SECOND = 5;

/** What a guard needs. */
export interface GuardOptions {
  /** The issuer (`iss`) whose tokens are accepted, and whose revocation log is followed. */
  readonly issuer: string;
  /** This service's own audience (`aud`). */
  readonly audience: string;
  /** The issuer's gRPC address and this service's client there; or, in the issuer's own process, the log itself. */
  readonly auth:
    | {
        /** Where the issuer listens, as a grpc-js target. */
        readonly address: string;
        /** How the issuer is known: TLS with its CA; plaintext on loopback alone, unless `plaintext` allows it. */
        readonly credentials: ChannelCredentials;
        /** The client that this service is at the issuer. */
        readonly clientId: string;
        /** The client's private key: PKCS #8 PEM, or a KeyObject. */
        readonly clientKey: ClientKey;
      }
    | {
        readonly source: RevocationSource;
        /** Takes the reports of this process, which others send over the broker; nobody when absent. */
        readonly report?: SendReport | undefined;
      };
  /**
   * Other issuers whose tokens are accepted as well, each with its own keys. They can be revoked through the same log.
   * An issuer that is away keeps nobody from being served but those with tokens that only it can vouch for.
   */
  readonly trustedIssuers?: readonly TrustedIssuer[] | undefined;
  /**
   * The broker, with user and password in the URL if it wants them, and certificates where the URL begins with
   * `tls:`. Without a broker revocations arrive by syncs alone.
   */
  readonly nats?: { readonly url: string; readonly files?: BrokerFiles | undefined } | undefined;
  /**
   * Where access tokens may travel in plaintext, to this server and from it to the issuer: on loopback alone by
   * default. A token that arrives otherwise is refused with TLS_REQUIRED, unlooked at.
   */
  readonly plaintext?: Plaintext | undefined;
  /**
   * How many revocations this process may hold; some 20 million unless told otherwise. Nothing is
   * ever forgotten to make room: a process whose list is full answers UNAVAILABLE.
   */
  readonly listEntriesMax?: number | undefined;
  /** Methods without a rule that anyone may call, by full path: health checks, say. */
  readonly publicMethods?: Iterable<string>;
  readonly clock?: Clock;
  readonly log?: GuardLog;
  readonly observer?: GuardObserver;
}

/** Told of what a guard does, for metrics. Must not throw. */
export interface GuardObserver {
  /** A call was admitted, refused with a reason, or cut with one. */
  decided?(path: string, outcome: 'ADMITTED' | GuardErrorCode): void;
  /** A token was found bad, and why; the caller is not told. */
  tokenInvalid?(fault: string): void;
  /** A message on the broker was not the issuer's. */
  broadcastForged?(): void;
  /** A new token's signature was verified, and how many milliseconds that took, with the wait for a thread. */
  verified?(ms: number): void;
}

/** What a guard knows of itself. */
export interface GuardState {
  /** The revocation list has been complete once. */
  readonly ready: boolean;
  /** The revocation list may be trusted at this moment. */
  readonly current: boolean;
  /** For how long it may be trusted without another answer, in milliseconds. */
  readonly leaseMs: number;
  /** Entries in the revocation list. */
  readonly entries: number;
  /** Entries at which the list is full and the process stops serving. */
  readonly entriesMax: number;
  /** Everything up to this sequence of the log is in the list. */
  readonly applied: bigint;
  /** Verified tokens remembered. */
  readonly tokens: number;
  /** What keeps the list from being trusted, in one phrase; empty when nothing does. */
  readonly missing: string;
  /** Reports to the issuer of the calls that this process was asked for. */
  readonly reports: ReportingState;
}

/** Guards a server. */
export interface Guard {
  /** To be given to the server, after interceptors that only watch. */
  readonly interceptor: ServerInterceptor;
  /**
   * Adds a service whose methods all declare an access rule.
   *
   * @throws TypeError naming every method that declares none, or that has no handler
   */
  addService(
    server: Server,
    definition: ServiceDefinition,
    schema: SchemaMetadata,
    handlers: UntypedServiceImplementation,
  ): void;
  /** Resolves once the revocation list has been complete. */
  readonly ready: Promise<void>;
  state(): GuardState;
  /** Calls the listener whenever the list becomes trusted or stale. @returns a function that ends it */
  onStateChange(listener: () => void): () => void;
  /**
   * Examines a token that was not sent as a credential.
   *
   * @param audience - who the token must be for; anyone when absent
   * @throws ServiceError TOKEN_INVALID, TOKEN_EXPIRED or TOKEN_REVOKED
   */
  authenticateToken(token: string, audience?: string): Promise<TokenClaims>;
  /** Asks the issuer at once instead of waiting for the next regular question. */
  askNow(): void;
  /** Stops the feed. Calls that are admitted afterwards are few: the lease runs out. */
  close(): Promise<void>;
}

const SILENT_LOG: GuardLog = { info: () => {}, warn: () => {}, error: () => {} };

/**
 * Creates a guard. It returns at once; the revocation list is fetched in the background, for as
 * long as that takes, and until it is complete every method that is not public is UNAVAILABLE.
 */
export async function createGuard(options: GuardOptions): Promise<Guard> {
  if (options.issuer === '' || options.audience === '') {
    throw new TypeError('a guard needs the issuer it trusts and its own audience');
  }
  const source =
    'source' in options.auth
      ? options.auth.source
      : await createRemoteSource({ ...options.auth, issuer: options.issuer, plaintext: options.plaintext });
  return new ServerGuard(options, source);
}

class ServerGuard implements Guard, CallGuard {
  readonly interceptor: ServerInterceptor;
  readonly ready: Promise<void>;
  readonly #rules = new Map<string, AccessRule>();
  readonly #enforcement: Enforcement;
  readonly #feed: Feed;
  readonly #runner: FeedRunner;
  readonly #trusted: TrustedIssuers;
  readonly #log: GuardLog;
  readonly #clock: Clock;
  readonly #observer: GuardObserver;
  readonly #allowsPlaintext: boolean;
  readonly #listeners = new Set<() => void>();
  readonly #expiryTimer: NodeJS.Timeout;
  /** Absent where nobody takes reports: what is summed up for nobody would never be let go. */
  readonly #reports: ReportCollector | undefined;
  readonly #connected: (plaintext: 'none' | 'local' | 'remote') => void;
  readonly #reporting: Reporting | undefined;
  readonly #closeSender: () => Promise<void>;
  #invalidLines = 0;
  #invalidSecond = 0;

  constructor(options: GuardOptions, source: RevocationSource) {
    this.#clock = options.clock ?? systemClock;
    this.#log = options.log ?? SILENT_LOG;
    this.#observer = options.observer ?? {};
    this.#allowsPlaintext = options.plaintext === 'allow';
    const instance = randomBytes(ID_BYTES);
    this.#trusted = createTrustedIssuers({
      issuers: options.trustedIssuers ?? [],
      ownIssuer: options.issuer,
      audience: options.audience,
      plaintext: options.plaintext,
      clock: this.#clock,
      timers: systemTimers,
      log: this.#log,
      onKeys: (issuer) => this.#enforcement.foreignKeysChanged(issuer),
    });
    const { send, close } = reportsOf(options);
    const collector =
      send && new ReportCollector({ service: options.audience, instance, clock: this.#clock });
    this.#reports = collector;
    this.#connected = (plaintext) => collector?.connected(plaintext);
    this.#reporting = send && collector && startReporting({ collector, send });
    this.#closeSender = close;
    this.#enforcement = new Enforcement({
      issuer: options.issuer,
      audience: options.audience,
      clock: this.#clock,
      timers: systemTimers,
      createFeed: (listener) =>
        new Feed({
          service: options.audience,
          instance,
          listener,
          listEntriesMax: options.listEntriesMax,
        }),
      trusted: this.#trusted,
      onTokenInvalid: (fault) => this.#tokenInvalid(fault),
      onVerified: (ms) => this.#observer.verified?.(ms),
      onCutFailed: (error) =>
        this.#log.error({ event: 'cut_failed', err: error }, 'a handler failed while its call was cut'),
    });
    this.#feed = this.#enforcement.feed;
    let resolveReady: () => void = () => {};
    this.ready = new Promise((resolve) => {
      resolveReady = resolve;
    });
    this.#runner = new FeedRunner({
      feed: this.#feed,
      source,
      service: options.audience,
      instance,
      nats: options.nats && {
        url: options.nats.url,
        files: options.nats.files,
        name: `portcullis ${options.audience}`,
        // The issuer itself waits for nobody: without its answers no other process could start.
        awaited: !('source' in options.auth),
      },
      clock: this.#clock,
      log: this.#log,
      onKeys: (keys) => this.#enforcement.useKeys(keys),
      onCurrentChange: (isCurrent) => {
        if (isCurrent) resolveReady();
        else this.#enforcement.recheckAll();
        for (const listener of this.#listeners) listener();
      },
      onForgery: () => {
        this.#reports?.broadcastForged();
        this.#observer.broadcastForged?.();
      },
    });
    for (const path of options.publicMethods ?? []) this.#rules.set(path, PUBLIC_RULE);
    this.interceptor = (method, call) => guardCall(method, call, this);
    this.#expiryTimer = setInterval(() => this.#enforcement.dropExpired(), EXPIRY_INTERVAL_MS);
    this.#expiryTimer.unref();
    this.#runner.start();
  }

  addService(
    server: Server,
    definition: ServiceDefinition,
    schema: SchemaMetadata,
    handlers: UntypedServiceImplementation,
  ): void {
    const rules = readRules(definition, schema);
    const missing = Object.entries(definition).filter(([name]) => typeof handlers[name] !== 'function');
    if (missing.length > 0) {
      throw new TypeError(`no handler for ${missing.map(([, method]) => method.path).join(', ')}`);
    }
    for (const [path, rule] of rules) this.#rules.set(path, rule);
    exposeRepeatedCredentials(server);
    server.addService(definition, onlyGuarded(definition, handlers));
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
      missing: this.#runner.missing,
      reports: this.#reporting?.state() ?? NO_REPORTS,
    };
  }

  onStateChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  async authenticateToken(token: string, audience?: string): Promise<TokenClaims> {
    const result = await this.#enforcement.admissions.examine(token, audience);
    if (result instanceof ServiceError) throw result;
    return result;
  }

  askNow(): void {
    this.#runner.askNow();
  }

  async close(): Promise<void> {
    clearInterval(this.#expiryTimer);
    this.#trusted.close();
    await this.#reporting?.close();
    await this.#closeSender();
    await this.#runner.close();
  }

  // What a guarded call asks.

  admit(
    path: string,
    metadata: Metadata,
    call: ServerInterceptingCallInterface & Caller,
  ): Admission | Promise<Admission> {
    const rule = this.#rules.get(path);
    // A method that nobody added through the guard has no rule: it is closed, not open.
    if (rule === undefined) {
      this.#log.error({ event: 'method_without_rule', path }, 'a method was called that has no access rule');
      return { kind: 'refused', error: new GuardError('NOT_FOUND', 'no such method') };
    }
    if (!rule.isPublic && !this.#allowsPlaintext && !isPrivateConnection(call) && hasBearer(metadata)) {
      // Others on the way may have it by now; its caller is to notice, and to stop.
      this.#tokenInvalid('plaintext');
      return { kind: 'refused', error: sharedRefusal('TLS_REQUIRED') };
    }
    return this.#enforcement.admissions.decide(rule, metadata, call);
  }

  objectionTo(token: VerifiedToken, allowStale: boolean): CutReason | undefined {
    return this.#enforcement.admissions.objectionTo(token, allowStale);
  }

  reliableMs(token: VerifiedToken, allowStale: boolean): number {
    return this.#enforcement.admissions.reliableMs(token, allowStale);
  }

  wasAdmitted(token: VerifiedToken, call: ServerInterceptingCallInterface): void {
    this.#reports?.admitted(token, addressOf(call, this.#connected));
  }

  wasRefused(
    reason: GuardErrorCode,
    token: VerifiedToken | undefined,
    call: ServerInterceptingCallInterface,
  ): void {
    this.#reports?.refused(reason, token, addressOf(call, this.#connected));
  }

  handlerFailed(path: string, error: unknown): void {
    this.#log.error({ event: 'handler_failed', path, err: error }, 'a handler failed');
  }

  decided(path: string, outcome: 'ADMITTED' | GuardErrorCode): void {
    this.#observer.decided?.(path, outcome);
  }

  #tokenInvalid(fault: string): void {
    this.#observer.tokenInvalid?.(fault);
    const second = Math.floor(this.#clock.monotonicMs() / 1000);
    if (second !== this.#invalidSecond) {
      this.#invalidSecond = second;
      this.#invalidLines = 0;
    }
    this.#invalidLines += 1;
    // Bounded, so that a storm of forged tokens does not become a storm of log lines.
    if (this.#invalidLines <= INVALID_TOKEN_LINES_PER_SECOND) {
      this.#log.warn({ event: 'token_invalid', fault }, 'a token was refused');
    }
  }
}

const NO_REPORTS: ReportingState = { sent: 0, lost: 0, waiting: 0 };

/** How this process brings its reports to the issuer: not at all without a broker, or a client's key to sign with. */
function reportsOf({ auth, nats, audience }: GuardOptions): {
  send: SendReport | undefined;
  close: () => Promise<void>;
} {
  if ('source' in auth) return { send: auth.report, close: () => Promise.resolve() };
  if (nats === undefined) return { send: undefined, close: () => Promise.resolve() };
  const { clientId, clientKey } = auth;
  return createReportSender({ ...nats, service: audience, clientId, clientKey });
}

function hasBearer(metadata: Metadata): boolean {
  return metadata.get('authorization').length > 0;
}

interface UnguardedCall extends AnyCall {
  emit(event: 'error', error: CallStatus): boolean;
}

/**
 * Handlers that answer only calls which a guard has decided: a server that was made without the guard's
 * interceptor is closed, not open.
 */
function onlyGuarded(
  definition: ServiceDefinition,
  handlers: UntypedServiceImplementation,
): UntypedServiceImplementation {
  const guarded: UntypedServiceImplementation = {};
  for (const [name, { path, responseStream }] of Object.entries(definition)) {
    const handle = handlers[name] as (call: UnguardedCall, callback?: (error: CallStatus) => void) => void;
    guarded[name] = (call: UnguardedCall, callback?: (error: CallStatus) => void) => {
      if (stateOf(call) !== undefined) {
        handle(call, callback);
        return;
      }
      const status = statusOf(new TypeError(`${path} was called without a guard`));
      if (responseStream) call.emit('error', status);
      else callback?.(status);
    };
  }
  return guarded;
}
