/**
 * A kit for the tests of guarded services: the real guard and its real feed, an issuer in memory, callers with real
 * signed tokens, and a clock that a test sets forward. No issuer process, no broker, no network but loopback.
 */

import { setImmediate as turn } from 'node:timers/promises';
import type { ServerOptions } from '@grpc/grpc-js';
import { type Clock, systemClock } from '../clock.js';
import type { Exchange } from '../server/caller-exchange.js';
import { CoreEngine, createEngine, type Engine } from '../server/engine.js';
import type { EngineCore } from '../server/engine-core.js';
import { createGuard, type Guard, ServerGuard } from '../server/guard.js';
import type { GuardLimits } from '../server/guard-limits.js';
import type { EngineOptions, GuardOptions } from '../server/options.js';
import { accessRulesOf } from '../server/rule-sources.js';
import { Accounts } from './accounts.js';
import { type BadTokens, createBadTokens } from './bad-tokens.js';
import { createKitExchange } from './exchange.js';
import { IssuerLog } from './issuer-log.js';
import { type Credential, decideMatrix, type Matrix, type ServiceRules } from './matrix.js';
import {
  createService,
  createUser,
  type Persona,
  type ServiceOptions,
  type UserOptions,
} from './personas.js';
import { type RevokeTarget, revokeIn } from './revoke.js';
import { type Served, type Setup, serveGuarded } from './serve.js';
import { signingKeys } from './signing.js';
import { TestClock } from './test-clock.js';

/**
 * The options of a guard that a test may set; issuer, clock and revocation log are those of the kit. Defaults that differ:
 * no log, and no limits in time, because calls do not hurry when the clock is set forward.
 */
export type TestGuardOptions = Omit<GuardOptions, 'issuer' | 'auth' | 'clock' | 'nats'>;

/** The same for an engine. */
export type TestEngineOptions = Omit<EngineOptions, 'issuer' | 'auth' | 'clock' | 'nats'>;

/** Options of {@link createTestKit}: those of its guard, and of its issuer. */
export interface TestKitOptions extends TestGuardOptions {
  /** The issuer's name (`iss`). Default: `https://issuer.test`. */
  readonly issuer?: string | undefined;
  /** Length of the lease of a revocation list, in milliseconds. Default: 5000, as the issuer's. */
  readonly leaseMs?: number | undefined;
}

/** What `serve` may be given. */
export interface ServeOptions extends Partial<ServerOptions> {
  /** The guard of the server. Default: that of the kit. */
  readonly guard?: Guard | undefined;
}

/** What `matrix` may be given. */
export interface MatrixOptions {
  /** The services whose methods are decided. Default: all that the guard protects. */
  readonly services?: readonly ServiceRules[] | undefined;
  /** Default: that of the kit. */
  readonly guard?: Guard | undefined;
}

/** A guard, its issuer and its callers. Create one for each test: nothing leaks from one test into the next. */
export interface TestKit {
  /** The guard, made by `createGuard`. Its revocation list is current. */
  readonly guard: Guard;
  /** The issuer's name. */
  readonly issuer: string;
  /** The clock of guard and issuer: the machine's, set forward by {@link advance}. */
  readonly clock: Clock;
  /** A user who has just logged in. */
  user(options?: UserOptions): Persona;
  /** A service that acts for itself, as a client of the issuer. */
  service(clientId: string, options?: ServiceOptions): Persona;
  /**
   * Token exchange for a service under test that acts for its callers: what `createExchange` of the client module is with an
   * issuer. It gives every scope that the caller's token has, for any audience: what a client may exchange is policy.
   *
   * @param clientId - the service that acts
   */
  exchange(clientId: string): Exchange;
  /** Bad tokens by name, made of the persona's token. Default: of a user without rights. */
  badTokens(persona?: Persona): BadTokens;
  /**
   * Starts a server on a free port of 127.0.0.1.
   *
   * @param setup - adds the services through the guard
   */
  serve(setup: Setup, options?: ServeOptions): Promise<Served>;
  /**
   * The verdict on a call of every method by every caller: `ADMITTED`, or the reason of the refusal. The guard decides as
   * it does for a call; no handler runs.
   *
   * @throws TypeError when there are no methods, or a method has no rule
   */
  matrix<Name extends string>(
    callers: Readonly<Record<Name, Credential>>,
    options?: MatrixOptions,
  ): Promise<Matrix<Name>>;
  /**
   * Revokes a token, a session, a user or a client. When it resolves, every guard of the kit refuses what was revoked, and
   * has cut its running calls; the status of a cut call may still be on its way to the client. While the issuer is
   * unreachable ({@link goStale}), the revocation takes effect with {@link recover}.
   *
   * @throws TypeError when the target does not exist
   */
  revoke(target: RevokeTarget): Promise<void>;
  /**
   * Sets the clock forward. When it resolves, what has expired is cut. Revocation lists stay current, because the guards
   * sync meanwhile; while the issuer is unreachable, they become stale when the lease is over.
   */
  advance(ms: number): Promise<void>;
  /**
   * Makes the issuer unreachable, and lets the leases run out. When it resolves, the lists are stale, and the running
   * calls of methods that require a current list are cut. No token expires by it.
   */
  goStale(): Promise<void>;
  /** Makes the issuer reachable again. When it resolves, the lists are current, with all that was revoked meanwhile. */
  recover(): Promise<void>;
  /** Another guard that trusts the same issuer, for a second service. Its revocation list is current. */
  createGuard(options: TestGuardOptions): Promise<Guard>;
  /** An engine that trusts the same issuer, for tests of a gate. Its revocation list is current. */
  createEngine(options: TestEngineOptions): Promise<Engine>;
  /** Closes the guards, the engines and the servers. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

const DEFAULT_ISSUER = 'https://issuer.test';
const DEFAULT_LEASE_MS = 5000;

/** Calls take no less time when the clock is set forward, so that a limit in time would end them. */
const NO_TIME_LIMITS: Partial<GuardLimits> = {
  requestMs: Number.POSITIVE_INFINITY,
  publicIdleMs: Number.POSITIVE_INFINITY,
  responseMs: Number.POSITIVE_INFINITY,
  connectionSetupMs: Number.POSITIVE_INFINITY,
  firstRequestMs: Number.POSITIVE_INFINITY,
};

/** How long the guards may take to follow a change, in milliseconds; they take less than one. */
const WAIT_MAX_MS = 5000;

/**
 * Creates a kit. It takes a few milliseconds.
 *
 * @throws TypeError when the options cannot be used
 */
export async function createTestKit(options: TestKitOptions): Promise<TestKit> {
  const { issuer = DEFAULT_ISSUER, leaseMs = DEFAULT_LEASE_MS, ...guardOptions } = options;
  if (!(leaseMs > 0)) throw new TypeError(`expected leaseMs above 0, got ${leaseMs}`);
  const clock = new TestClock();
  const { issuer: key } = signingKeys();
  const log = new IssuerLog({ key: key.published, leaseMs, clock });
  const accounts = new Accounts({ issuer, audience: options.audience, clock, key, log });
  const cores = new Map<EngineCore, Reported>();
  const guard = await startGuard({ cores, log, clock, issuer }, guardOptions);
  return new Kit({ guard, cores, log, clock, accounts, leaseMs });
}

/** What a guard has reported about its list. It notices the end of a lease by a timer, or when a sync fails. */
interface Reported {
  readonly isCurrent: boolean;
}

interface GuardDeps {
  /** The cores of the guards and engines that are open. */
  readonly cores: Map<EngineCore, Reported>;
  readonly log: IssuerLog;
  readonly clock: TestClock;
  readonly issuer: string;
}

async function startGuard(deps: GuardDeps, options: TestGuardOptions): Promise<ServerGuard> {
  return await startIn(deps, options, async (over) => {
    const guard = inner(await createGuard({ log: 'silent', ...options, ...over }));
    return [guard, guard.engine];
  });
}

async function startEngine(deps: GuardDeps, options: TestEngineOptions): Promise<Engine> {
  return await startIn(deps, options, async (over) => {
    const engine = await createEngine({ log: 'silent', ...options, ...over });
    return [engine, coreOf(engine)];
  });
}

/** Starts a guard or an engine with the clock and the log of the kit, and waits until its list is current. */
async function startIn<Started>(
  { cores, log, clock, issuer }: GuardDeps,
  options: TestEngineOptions,
  start: (
    over: Pick<EngineOptions, 'issuer' | 'auth' | 'clock' | 'limits'>,
  ) => Promise<readonly [Started, EngineCore]>,
): Promise<Started> {
  const onClosed = (): void => void cores.delete(core);
  const source = log.createSource(onClosed);
  const limits = { ...NO_TIME_LIMITS, ...options.limits };
  const [started, core] = await start({ limits, issuer, clock, auth: { source } });
  cores.set(core, { isCurrent: false });
  core.onStateChange(() => {
    if (cores.has(core)) cores.set(core, { isCurrent: core.state().current });
  });
  await core.ready;
  return started;
}

/** @throws TypeError for a guard of another copy of the package */
function inner(guard: Guard): ServerGuard {
  if (guard instanceof ServerGuard) return guard;
  throw new TypeError('expected a guard of this kit, got one of another copy of @portcullis/guard');
}

function coreOf(engine: Engine): EngineCore {
  if (engine instanceof CoreEngine) return engine.core;
  throw new TypeError('expected an engine of this kit, got one of another copy of @portcullis/guard');
}

interface KitParts {
  readonly guard: ServerGuard;
  readonly cores: Map<EngineCore, Reported>;
  readonly log: IssuerLog;
  readonly clock: TestClock;
  readonly accounts: Accounts;
  readonly leaseMs: number;
}

class Kit implements TestKit {
  readonly guard: Guard;
  readonly issuer: string;
  readonly clock: Clock;
  readonly #parts: KitParts;
  readonly #served: Served[] = [];

  constructor(parts: KitParts) {
    this.guard = parts.guard;
    this.issuer = parts.accounts.issuer;
    this.clock = parts.clock;
    this.#parts = parts;
  }

  user(options?: UserOptions): Persona {
    return createUser(this.#parts.accounts, options);
  }

  service(clientId: string, options?: ServiceOptions): Persona {
    return createService(this.#parts.accounts, clientId, options);
  }

  exchange(clientId: string): Exchange {
    return createKitExchange(this.#parts.accounts, clientId);
  }

  badTokens(persona: Persona = this.user()): BadTokens {
    return createBadTokens(this.#parts.accounts, persona.token, persona.payload);
  }

  async serve(setup: Setup, { guard = this.guard, ...options }: ServeOptions = {}): Promise<Served> {
    const served = await serveGuarded(guard, setup, options);
    this.#served.push(served);
    return served;
  }

  async matrix<Name extends string>(
    callers: Readonly<Record<Name, Credential>>,
    { services, guard = this.guard }: MatrixOptions = {},
  ): Promise<Matrix<Name>> {
    const deciding = inner(guard);
    for (const { definition, rules } of services ?? []) {
      deciding.protect(accessRulesOf(definition, rules), pathsOf({ definition }));
    }
    const paths = services?.flatMap(pathsOf) ?? deciding.paths;
    if (paths.length === 0) {
      throw new TypeError('the matrix has no methods: serve a service before, or name it in `services`');
    }
    return await decideMatrix(deciding, paths, callers);
  }

  async revoke(target: RevokeTarget): Promise<void> {
    const { accounts, log } = this.#parts;
    this.#open();
    revokeIn(log, accounts, target);
    await this.#cut();
  }

  async advance(ms: number): Promise<void> {
    if (!(ms >= 0)) throw new TypeError(`expected a time from 0 on, got ${ms} ms`);
    const { clock, log } = this.#parts;
    clock.pass(ms);
    // Begun in the same turn of the event loop: no running call meets a list that is stale only for lack of a sync.
    if (log.isReachable) await this.#sync();
    await this.#settle();
  }

  async goStale(): Promise<void> {
    const { clock, log, leaseMs } = this.#parts;
    this.#open();
    log.isReachable = false;
    clock.passMonotonic(leaseMs);
    await this.#settle();
  }

  async recover(): Promise<void> {
    this.#parts.log.isReachable = true;
    await this.#sync();
  }

  createGuard(options: TestGuardOptions): Promise<Guard> {
    return startGuard({ ...this.#parts, issuer: this.issuer }, options);
  }

  createEngine(options: TestEngineOptions): Promise<Engine> {
    return startEngine({ ...this.#parts, issuer: this.issuer }, options);
  }

  async close(): Promise<void> {
    for (const served of this.#served.splice(0)) await served.close();
    for (const core of [...this.#parts.cores.keys()]) await core.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** @throws Error when the guard was closed, so that nothing can take effect at it any longer */
  #open(): readonly EngineCore[] {
    const { guard, cores } = this.#parts;
    if (!cores.has(guard.engine)) throw new Error('the guard of this kit was closed: create another kit');
    return [...cores.keys()];
  }

  /** Renews the leases of all guards. */
  async #sync(): Promise<void> {
    for (const core of this.#open()) core.syncNow();
    await until(() => this.#open().every((core) => core.state().current));
  }

  /** Waits until the guards have noticed what the clock has ended. */
  async #settle(): Promise<void> {
    const hasNoticed = (core: EngineCore): boolean =>
      this.#parts.cores.get(core)?.isCurrent === core.state().current;
    for (const core of this.#open()) {
      core.endLate();
      if (!hasNoticed(core)) core.syncNow();
    }
    await until(() => this.#open().every(hasNoticed));
    await this.#cut();
  }

  /** Waits until no call that must end is still running. */
  async #cut(): Promise<void> {
    await until(() => this.#open().every((core) => !core.isCutting));
  }
}

/** Waits for a state of the guards that takes some turns of the event loop. */
async function until(isReached: () => boolean): Promise<void> {
  const untilMs = systemClock.monotonicMs() + WAIT_MAX_MS;
  while (!isReached()) {
    if (systemClock.monotonicMs() > untilMs) {
      throw new Error(
        `the guards of the kit did not follow within ${WAIT_MAX_MS} ms: was one of them closed?`,
      );
    }
    await turn();
  }
}

function pathsOf({ definition }: Pick<ServiceRules, 'definition'>): readonly string[] {
  return Object.values(definition).map(({ path }) => path);
}
