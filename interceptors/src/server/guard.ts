/** The guard of a server of grpc-js: an interceptor that lets the engine decide every call. */

import type {
  Metadata,
  Server,
  ServerInterceptingCallInterface,
  ServerInterceptor,
  ServiceDefinition,
} from '@grpc/grpc-js';
import type { GuardErrorCode } from '../errors.js';
import type { RevocationSource } from '../revocation/feed-runner.js';
import type { Fences } from '../revocation/fences.js';
import type { TokenClaims } from '../token/claims.js';
import { addressOf, type PlaintextUse } from '../wire/connection.js';
import { requireOwnServer } from '../wire/copies.js';
import { readDeadlinesOf } from '../wire/deadlines.js';
import { observeConnectionsOf, sessionUnder, setHttp2SettingsOf } from '../wire/grpc-js-internals.js';
import { exposeRepeatedCredentials, exposeRepeatedCredentialsOf } from '../wire/repeated-credentials.js';
import type { SchemaMetadata } from './access-rule.js';
import type { Admission, Caller } from './admission.js';
import { EngineCore, type EngineState, sourceOf } from './engine-core.js';
import { type CallGuard, guardCall } from './guarded-call.js';
import {
  type ExactHandlers,
  type NativeHandlers,
  nativeHandlersOf,
  onlyGuarded,
  type ServiceHandlers,
} from './handlers.js';
import type { GuardOptions } from './options.js';
import { type AccessRules, readRules } from './rule-sources.js';
import { StreamLimits } from './stream-limits.js';

/** The largest value of an HTTP/2 setting. */
const UINT32_MAX = 2 ** 32 - 1;

/** The state of a guard, for readiness and metrics. */
export interface GuardState extends EngineState {
  /** Number of open HTTP/2 streams on connections on which no call was admitted with a token so far. */
  readonly newStreams: number;
  /** Number of HTTP/2 streams whose calls have not begun, because too many arrived at once. */
  readonly waitingStreams: number;
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
  addService<Definition extends ServiceDefinition, Handlers extends ServiceHandlers<Definition>>(
    server: Server,
    definition: Definition,
    rules: SchemaMetadata | AccessRules,
    handlers: (Handlers & ExactHandlers<Definition, Handlers>) | NativeHandlers,
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

/**
 * Creates a guard. The revocation list is fetched in the background; until it is complete, every method that is not
 * public fails with REVOCATION_STATE_STALE.
 *
 * @throws TypeError when an option cannot be used, or tokens would travel in plaintext where that is not allowed
 */
export async function createGuard(options: GuardOptions): Promise<Guard> {
  return new ServerGuard(options, await sourceOf(options));
}

/** The guard that {@link createGuard} creates. The kit for tests reaches more of it than services do. */
export class ServerGuard implements Guard, CallGuard {
  readonly interceptor: ServerInterceptor;
  readonly engine: EngineCore;
  readonly keepsContext: boolean;
  readonly #streamLimits: StreamLimits;
  readonly #prepared = new WeakSet<Server>();
  /** A field, because a closure for each call would cost too much. */
  readonly #onConnection = (plaintext: PlaintextUse): void => this.engine.recordConnection(plaintext);

  constructor(options: GuardOptions, source: RevocationSource) {
    const engine = new EngineCore(options, source);
    this.engine = engine;
    this.keepsContext = options.callContext === true;
    this.#streamLimits = new StreamLimits({
      limits: engine.limitSettings,
      isKnownNetwork: engine.isKnownNetwork,
      onLimit: (limit) => engine.onLimit(limit),
    });
    this.interceptor = (method, call) => guardCall(method, call, this);
  }

  get ready(): Promise<void> {
    return this.engine.ready;
  }

  /** The full paths of all methods that have a rule. */
  get paths(): readonly string[] {
    return this.engine.paths;
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
    this.engine.setRules(read);
    this.#prepare(server);
    server.addService(definition, guarded);
  }

  protect(rules: AccessRules, paths?: Iterable<string>): void {
    const read = rules.read(paths);
    this.engine.setRules(read);
    // The server is not at hand: it belongs to a framework.
    exposeRepeatedCredentialsOf(read.keys());
  }

  /** Sets up, once for each server, what happens to connections and headers before a call exists. */
  #prepare(server: Server): void {
    if (this.#prepared.has(server)) return;
    this.#prepared.add(server);
    const { streamsPerConnection, headerBytes } = this.engine.limitSettings;
    setHttp2SettingsOf(server, {
      maxConcurrentStreams: Math.min(streamsPerConnection, UINT32_MAX),
      maxHeaderListSize: Math.min(headerBytes, UINT32_MAX),
    });
    exposeRepeatedCredentials(server);
    readDeadlinesOf(server, () => this.engine.clock.wallMs());
    observeConnectionsOf(server, this.engine.connections);
    this.#streamLimits.watch(server);
  }

  state(): GuardState {
    return {
      ...this.engine.state(),
      newStreams: this.#streamLimits.open,
      waitingStreams: this.#streamLimits.waiting,
    };
  }

  onStateChange(listener: () => void): () => void {
    return this.engine.onStateChange(listener);
  }

  authenticateToken(token: string, audience?: string): Promise<TokenClaims> {
    return this.engine.authenticateToken(token, audience);
  }

  syncNow(): void {
    this.engine.syncNow();
  }

  close(): Promise<void> {
    return this.engine.close();
  }

  // CallGuard.

  get fences(): Fences {
    return this.engine.fences;
  }

  addressOf(call: ServerInterceptingCallInterface): string {
    return addressOf(call, this.#onConnection);
  }

  admit(path: string, metadata: Metadata, caller: Caller): Admission | Promise<Admission> {
    return this.engine.decide(path, metadata.get('authorization'), caller);
  }

  trust(call: ServerInterceptingCallInterface): void {
    this.#streamLimits.trust(sessionUnder(call));
  }

  onFenceRefused(reason: GuardErrorCode): void {
    this.engine.onFenceRefused(reason);
  }

  handlerFailed(path: string, error: unknown): void {
    this.engine.log.error({ event: 'handler_failed', path, err: error }, 'a handler failed');
  }
}
