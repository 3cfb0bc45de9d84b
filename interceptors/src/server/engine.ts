/**
 * The engine: the guard without a wire, for programs that stand in front of servers which do not run on grpc-js. It keeps
 * the revocation list current, decides calls by their path, credentials and caller, and ends those that may not go on.
 */

import type { RevocationSource } from '../revocation/feed-runner.js';
import type { TokenClaims } from '../token/claims.js';
import type { PlaintextUse } from '../wire/connection.js';
import type { ConnectionListener } from '../wire/grpc-js-internals.js';
import { unimplementedStatus } from '../wire/ready-status.js';
import type { Decision, EngineCaller, MethodKind } from './decision.js';
import { DecidedEngineCall } from './engine-call.js';
import { EngineCore, type EngineState, sourceOf, UNKNOWN_METHOD } from './engine-core.js';
import type { GuardLimits, LimitName } from './guard-limits.js';
import type { EngineOptions } from './options.js';
import type { AccessRules } from './rule-sources.js';

/** Decides the calls of any wire. */
export interface Engine {
  /**
   * Sets the rules of methods. A method without a rule is closed: its calls fail with NOT_FOUND.
   *
   * @param rules - the rules; of all methods in it, or of those that are named
   * @param paths - full paths, such as `/greeter.v1.GreeterService/SayHello`
   * @throws TypeError naming every method without a rule or with a contradictory one
   */
  addRules(rules: AccessRules, paths?: Iterable<string>): void;
  /**
   * Replaces the rules of all methods, for programs that read them again. A method that no part names is closed, unless the
   * options name it as public. Calls in progress go on under the rule by which they were admitted.
   *
   * @param parts - rules, each with the full paths of those that are used; default: all
   * @throws TypeError naming every method without a rule, or with two; the former rules stay
   */
  replaceRules(parts: Iterable<{ readonly rules: AccessRules; readonly paths?: Iterable<string> }>): void;
  /** The full paths of all methods that have a rule, and of the public ones. */
  readonly paths: readonly string[];
  /**
   * Decides a call, and counts it. A promise only while the signature of a new token is being verified. Unless the call is
   * refused, its `unlink` must be called when it ends.
   *
   * @param path - the `:path` of the request, as it is: it is compared, never normalized
   * @param authorizations - the values of all `authorization` headers, in their order; more than one is refused
   */
  admit(path: string, authorizations: readonly string[], caller: EngineCaller): Decision | Promise<Decision>;
  /** The limits, with the defaults of those that the options leave out. */
  readonly limits: GuardLimits;
  /**
   * Counts connections, and destroys those beyond the limits: {@link GuardLimits.connections}, `connectionsPerAddress`,
   * `connectionSetupMs` and `firstRequestMs`. Its user reports each connection that it accepts.
   */
  readonly connections: ConnectionListener;
  /** Counts a connection for the security reports: whether it is plaintext, and if so whether its peer is on this machine. */
  recordConnection(plaintext: PlaintextUse): void;
  /** Counts that a limit has refused or ended something that is no call, and logs it. */
  recordLimit(limit: LimitName): void;
  /** Resolves when the revocation list has been complete once. */
  readonly ready: Promise<void>;
  state(): EngineState;
  /** Calls the listener when the list becomes current or stale. @returns a function that removes the listener */
  onStateChange(listener: () => void): () => void;
  /**
   * Verifies a token that is not a call's credential.
   *
   * @param audience - the audience that the token must have; default: any
   * @throws ServiceError TOKEN_INVALID, TOKEN_EXPIRED or TOKEN_REVOKED
   */
  authenticateToken(token: string, audience?: string): Promise<TokenClaims>;
  /** Syncs with the issuer now instead of waiting for the next regular sync. */
  syncNow(): void;
  /** Stops the feed and the reports. Calls are decided until the lease is over. */
  close(): Promise<void>;
}

/**
 * Creates an engine. The revocation list is fetched in the background; until it is complete, calls of methods that are not
 * public are refused with REVOCATION_STATE_STALE.
 *
 * @throws TypeError when an option cannot be used, or tokens would travel in plaintext where that is not allowed
 */
export async function createEngine(options: EngineOptions): Promise<Engine> {
  return new CoreEngine(options, await sourceOf(options));
}

/** The engine that {@link createEngine} creates. The kit for tests reaches more of it than a wire does. */
export class CoreEngine implements Engine {
  readonly core: EngineCore;
  #kinds = new Map<string, MethodKind>();

  constructor(options: EngineOptions, source: RevocationSource) {
    this.core = new EngineCore(options, source);
  }

  addRules(rules: AccessRules, paths?: Iterable<string>): void {
    this.core.setRules(rules.read(paths));
    // Also those of public methods, which need no rule.
    for (const [path, kind] of rules.kinds) this.#kinds.set(path, kind);
  }

  replaceRules(parts: Iterable<{ readonly rules: AccessRules; readonly paths?: Iterable<string> }>): void {
    const all = [...parts];
    this.core.replaceRules(all.map(({ rules, paths }) => rules.read(paths)));
    this.#kinds = new Map(all.flatMap(({ rules }) => [...rules.kinds]));
  }

  get paths(): readonly string[] {
    return this.core.paths;
  }

  admit(path: string, authorizations: readonly string[], caller: EngineCaller): Decision | Promise<Decision> {
    const { core } = this;
    const isKnown = core.hasRule(path);
    const call = new DecidedEngineCall(isKnown ? path : UNKNOWN_METHOD, this.#kinds.get(path), core, caller);
    const admission = core.decide(path, authorizations, call);
    if (admission instanceof Promise) return admission.then((decided) => call.beginLate(decided));
    const decision = call.begin(admission);
    return decision.kind === 'refused' && !isKnown
      ? { kind: 'refused', status: unimplementedStatus(path) }
      : decision;
  }

  get limits(): GuardLimits {
    return this.core.limitSettings;
  }

  get connections(): ConnectionListener {
    return this.core.connections;
  }

  recordConnection(plaintext: PlaintextUse): void {
    this.core.recordConnection(plaintext);
  }

  recordLimit(limit: LimitName): void {
    this.core.onLimit(limit);
  }

  get ready(): Promise<void> {
    return this.core.ready;
  }

  state(): EngineState {
    return this.core.state();
  }

  onStateChange(listener: () => void): () => void {
    return this.core.onStateChange(listener);
  }

  authenticateToken(token: string, audience?: string): Promise<TokenClaims> {
    return this.core.authenticateToken(token, audience);
  }

  syncNow(): void {
    this.core.syncNow();
  }

  close(): Promise<void> {
    return this.core.close();
  }
}
