/** One instance of a guarded service: the guard of production without its wire, and the oracles that watch it. */

import type { RevocationSource } from '@portcullis/guard';
import {
  type AccessRule,
  type Admission,
  BROADCAST_TYPE,
  type Caller,
  type CompactToken,
  Enforcement,
  FeedRunner,
  Fences,
  type LiveCall,
  parseCompactToken,
  parseJsonObject,
  readClaims,
  type VerifiedToken,
} from '@portcullis/guard/internal';
import { BROADCAST_BYTES_MAX } from '@portcullis/guard/limits';
import type {
  Entry,
  PullRequest,
  PullResponse,
} from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { Checker } from '../spec/checker.js';
import { watchFeeds } from '../spec/feed-steps.js';
import type { Step } from '../spec/steps.js';
import type { Broker } from './broker.js';
import { createFeed, OnceCheckedFeed, type WatchedFeed } from './guards.js';
import { type Money, placeStep } from './money.js';
import type { RecordedToken } from './oracle.js';
import type { AuthService } from './replica.js';
import { ListedKeys } from './signatures.js';
import type { Process } from './time.js';
import { AUDIENCE, ISSUER, type World } from './world.js';

/** Interval of the search for expired tokens, in milliseconds. */
const EXPIRY_INTERVAL_MS = 1000;

const RULE: AccessRule = {
  isPublic: false,
  scopes: [],
  roles: [],
  caller: 'ANY',
  maxAuthAgeSeconds: undefined,
  allowStale: false,
  requestBytesMax: Number.POSITIVE_INFINITY,
};

/** Calls of the simulation have no connection, and its tokens are not bound to certificates. */
const CALLER: Caller = {
  isPrivate: true,
  certificateThumbprint: undefined,
  getPeer: () => 'peer',
  retireConnection: () => undefined,
};

/** The rule of methods with ON_STALE_ALLOW. */
const STALE_RULE: AccessRule = { ...RULE, allowStale: true };

/** The outcome of a call: admitted, or the code of the refusal. */
export type Outcome = 'ADMITTED' | string;

/** A reachable process of auth. */
export interface Reachable {
  readonly process: Process;
  readonly service: AuthService;
}

/** The environment of an instance. */
export interface InstanceOptions {
  readonly world: World;
  readonly process: Process;
  readonly broker: Broker;
  /** The database of the service; undefined without fences. */
  readonly money: Money | undefined;
  /** The replicas of auth, as they are now. */
  readonly replicas: () => readonly Reachable[];
  /** How long a verification takes at this moment, in milliseconds. */
  readonly verifyMs: () => number;
  /** An entry is in the list. */
  readonly onEntry: (entry: Entry) => void;
}

/** An instance from its start to its end. */
export class Instance {
  readonly process: Process;
  readonly #options: InstanceOptions;
  readonly #world: World;
  readonly #feed: WatchedFeed;
  readonly #enforcement: Enforcement;
  readonly #runner: FeedRunner;
  readonly #fences: Fences | undefined;
  /** Its random identifier at auth. */
  readonly id: Buffer;
  /** What it must refuse because it has acknowledged the revocation. */
  readonly acknowledged = new Map<RecordedToken, string>();
  #refusingSinceMs: number | undefined;
  #connectedTo = 0;

  constructor(options: InstanceOptions) {
    const { world, process, broker } = options;
    this.#options = options;
    this.#world = world;
    this.process = process;
    const { clock } = process;
    const instance = world.random.bytes(16);
    this.id = instance;
    const now = () => ({ monotonicMs: clock.monotonicMs(), wallMs: clock.wallMs() });
    let feed: WatchedFeed | undefined;
    this.#enforcement = new Enforcement({
      issuer: ISSUER,
      audience: AUDIENCE,
      clock,
      timers: process,
      createFeed: (listener) => {
        const entryAdded = (entry: Entry): void => {
          listener.entryAdded(entry);
          options.onEntry(entry);
        };
        feed = createFeed(
          { service: AUDIENCE, instance, listener: { ...listener, entryAdded } },
          world.without,
          now,
        );
        if (world.comparesTables) this.#compare(feed);
        return feed;
      },
      onTokenInvalid: () => {},
      onCutFailed: (error) => {
        throw error;
      },
    });
    if (feed === undefined) throw new TypeError('the guard made no feed');
    this.#feed = feed;
    this.#fences =
      options.money &&
      new Fences({
        databases: [options.money.fenceFor(process, instance.toString('hex'), feed)],
        feed,
        syncNow: () => this.#runner.syncNow(),
        timers: process,
        log: { info: () => {}, warn: () => {}, error: () => {} },
      });
    this.#runner = new FeedRunner({
      feed,
      source: this.#source(),
      service: AUDIENCE,
      instance,
      nats: { url: '', name: process.name, awaited: true },
      clock,
      timers: process,
      random: () => world.random.next(),
      subscribe: (handlers) => {
        const stop = broker.listen({ process, ...handlers });
        return { close: () => Promise.resolve(stop()) };
      },
      importKeys: (keys) => Promise.resolve(new ListedKeys(keys, (token) => this.#verify(token))),
      log: {
        info: () => {},
        warn: (fields, message) => world.tell(process.name, () => `${message}: ${JSON.stringify(fields)}`),
        error: () => {},
      },
      fences: this.#fences && this.#reporting(this.#fences, options.money),
      onKeys: (keys) => this.#enforcement.replaceKeys(keys),
      onCurrentChange: (isCurrent) => {
        world.tell(process.name, () => (isCurrent ? 'is current' : 'is stale'));
        if (!isCurrent) this.#enforcement.recheckLiveCalls();
      },
      onForgery: () => {},
    });
    this.#runner.start();
    this.#dropExpired();
  }

  /** Compares every decision of a feed with the tables of the specification, up to the first that differs. */
  #compare(feed: WatchedFeed): void {
    const { measures, violations, scheduler } = this.#world;
    const checker = new Checker();
    let isEqual = true;
    const onStep = (step: Step): void => {
      if (!isEqual) return;
      measures.comparedSteps += 1;
      const mismatch = checker.check(step);
      if (mismatch === undefined) return;
      isEqual = false;
      const what = `${this.process.name} and the tables of the specification differ: ${mismatch.what}`;
      violations.push({ oracle: 'tables', atMs: scheduler.nowMs, what });
    };
    watchFeeds(feed, () => ({ onStep }));
  }

  /** Fences whose reports, and what is raised, are compared with the rows of the specification. */
  #reporting(fences: Fences, money: Money | undefined): Pick<Fences, 'positions' | 'granted'> {
    const instance = this.id.toString('hex');
    return {
      granted: () => fences.granted(),
      positions: () => {
        const positions = fences.positions();
        const [known] = positions;
        money?.compare({ do: 'report', instance, expect: known === undefined ? null : placeStep(known) });
        return positions;
      },
    };
  }

  /** Both clocks are read. @returns true */
  readClocks(): true {
    this.#runner.isCurrent();
    return true;
  }

  get isCurrent(): boolean {
    return this.#runner.isCurrent();
  }

  get applied(): bigint {
    return this.#feed.applied;
  }

  /** A call with the token arrives; the outcome is reported later. */
  call(
    token: RecordedToken,
    options: { allowStale?: boolean; told?: (outcome: Outcome, call?: Call) => void } = {},
  ): void {
    const { allowStale = false, told = () => {} } = options;
    token.authorizations ??= [`Bearer ${token.text}`];
    const rule = allowStale ? STALE_RULE : RULE;
    const decision = this.#enforcement.admissions.decide(rule, token.authorizations, CALLER);
    const decided = (admission: Admission): void => {
      this.#world.measures.checks += 1;
      if (admission.kind === 'refused') {
        this.#refused(token, admission.error.code);
        told(admission.error.code);
      } else if (admission.kind === 'admitted') {
        this.#admitted(token, 'a call', allowStale);
        told('ADMITTED', new Call(this, token, admission.token, allowStale));
      }
    };
    if (decision instanceof Promise) void decision.then(decided);
    else decided(decision);
  }

  /** A call whose handler commits a transaction, some time after the call was admitted. */
  pay(token: RecordedToken): void {
    this.call(token, {
      told: (_outcome, call) => {
        if (call === undefined) return;
        void this.#pay(token, call.token)
          .catch(() => undefined)
          .finally(() => call.end());
      },
    });
  }

  /** @throws Error when the transaction must not be committed */
  async #pay(token: RecordedToken, verified: VerifiedToken): Promise<void> {
    const { money, process, world } = this.#options;
    if (money === undefined) throw new TypeError('there is no database');
    const { measures, oracle, random, scheduler, violations, without } = world;
    const pause = () => new Promise<void>((resolve) => process.after(random.exponential(30), resolve));
    const check = (): void => {
      const objection = this.#enforcement.admissions.denialReason(verified, false);
      if (objection !== undefined) throw new Error(objection);
    };
    await money.transaction(process, async ({ name, query, onDurable }) => {
      if (without === 'fence-list') check();
      const passes = await this.#fences?.pass(query);
      this.#comparePass(money, name, verified, passes === true || without === 'fence-position');
      if (passes !== true && without !== 'fence-position') throw new Error('behind the fence');
      if (without !== 'fence-list') check();
      onDurable(() => {
        measures.commits += 1;
        const by = oracle.fencedOf(token);
        if (by === undefined) return;
        const what = `${process.name} committed a transaction with ${token.label} after ${by} had returned FENCED`;
        violations.push({ oracle: 'late', atMs: scheduler.nowMs, what });
      });
      await pause();
    });
  }

  /** Compares whether a transaction passes its fence with the rows of the specification. */
  #comparePass(money: Money, transaction: string, token: VerifiedToken, passes: boolean): void {
    if (!this.#world.comparesTables) return;
    const objection = passes ? this.#enforcement.admissions.denialReason(token, false) : undefined;
    const isStale = objection === 'REVOCATION_STATE_STALE';
    const passed = passes && (objection === undefined || this.#world.without === 'fence-list');
    money.compare({
      do: 'pass',
      transaction,
      place: placeStep(this.#feed.place),
      lease: !isStale,
      refused: objection !== undefined && !isStale,
      expect: passed ? 'passed' : 'failed',
    });
  }

  /** Whether an admitted call may continue; the oracles check each message that passes. */
  mayGoOn(
    token: RecordedToken,
    verified: VerifiedToken,
    options: { allowStale: boolean; isMessage: boolean },
  ): boolean {
    const { allowStale, isMessage } = options;
    const objection = this.#enforcement.admissions.denialReason(verified, allowStale);
    if (objection !== undefined) this.#refused(token, objection);
    else if (isMessage) this.#admitted(token, 'a message of a live call', allowStale);
    return objection === undefined;
  }

  #admitted(token: RecordedToken, what: string, allowStale: boolean): void {
    const { measures, oracle, violations, scheduler } = this.#world;
    if (!allowStale) this.#serves();
    const acknowledged = this.acknowledged.get(token);
    if (acknowledged !== undefined && oracle.isHitBy(token, acknowledged)) {
      const told = `${this.process.name} let pass ${what} with ${token.label}, although it had acknowledged ${acknowledged}`;
      violations.push({ oracle: 'late', atMs: scheduler.nowMs, what: told });
    }
    const lost = allowStale ? undefined : oracle.unnoticedAmong(this.#feed.followedEpochs);
    if (lost !== undefined) {
      const told = `${this.process.name} let pass ${what}, although it had followed epoch ${lost.slice(0, 8)}, which the database has lost`;
      violations.push({ oracle: 'unnoticed', atMs: scheduler.nowMs, what: told });
    }
    const { overdueMs, sinceConfirmedMs, by } = oracle.lateness(token);
    if (allowStale || sinceConfirmedMs < 0) return;
    measures.maxLateMs = Math.max(measures.maxLateMs, sinceConfirmedMs);
    if (overdueMs <= 0) return;
    violations.push({
      oracle: 'late',
      atMs: scheduler.nowMs,
      what: `${this.process.name} let pass ${what} with ${token.label}, ${Math.round(sinceConfirmedMs)} ms after ${by} had returned`,
    });
  }

  #refused(token: RecordedToken, code: string): void {
    const { oracle, violations, scheduler } = this.#world;
    if (code === 'REVOCATION_STATE_STALE') this.#refusingSinceMs ??= scheduler.nowMs;
    if (code !== 'TOKEN_REVOKED') return;
    this.#serves();
    if (!oracle.revocationsOf(token).next().done || oracle.isUnsettled(this.#feed.followedEpoch)) return;
    violations.push({
      oracle: 'innocent',
      atMs: scheduler.nowMs,
      what: `${this.process.name} rejected ${token.label} as revoked, but it was never revoked`,
    });
  }

  #serves(): void {
    if (this.#refusingSinceMs === undefined) return;
    this.#world.measures.unavailableMs.push(this.#world.scheduler.nowMs - this.#refusingSinceMs);
    this.#refusingSinceMs = undefined;
  }

  /** The replica of the connection. It changes when the connection fails, and rarely otherwise. */
  get connectedTo(): Reachable {
    const replicas = this.#options.replicas();
    const replica = replicas[this.#connectedTo % replicas.length];
    if (replica === undefined) throw new RangeError('there is no replica');
    return replica;
  }

  #source(): RevocationSource {
    const { world, process } = this.#options;
    this.#connectedTo = world.random.integer(0, 5);
    return {
      sync: async (request, signal) => {
        if (world.random.chance(0.03)) this.#connectedTo += 1;
        const connectedTo = this.#connectedTo;
        const { process: auth, service } = this.connectedTo;
        try {
          return await world.network.call(process, auth, () => service.sync(request), { signal });
        } catch (error) {
          if (this.#connectedTo === connectedTo) this.#connectedTo += 1;
          throw error;
        }
      },
      pull: (request, signal) => this.#pull(request, signal),
    };
  }

  /** The parts of a stream arrive in order; a lost part breaks the stream. */
  async *#pull(request: PullRequest, signal: AbortSignal): AsyncGenerator<PullResponse> {
    const { world, process } = this.#options;
    const { process: auth, service } = this.connectedTo;
    const parts = service.pull(request)[Symbol.asyncIterator]();
    try {
      for (;;) {
        const next = await world.network.call(process, auth, () => parts.next(), { signal });
        if (next.done === true) return;
        yield next.value;
      }
    } finally {
      auth.run(() => void parts.return?.());
    }
  }

  #verify(token: CompactToken): Promise<boolean> {
    const { world, process, verifyMs } = this.#options;
    if (this.#feed instanceof OnceCheckedFeed)
      noteBeginning(this.#feed, token, process.clock.wallMs() / 1000);
    const isGood = world.signatures.isSigned(token) || (world.without === 'signature' && isBroadcast(token));
    return new Promise((resolve) => process.after(verifyMs(), () => resolve(isGood)));
  }

  #dropExpired(): void {
    this.process.after(EXPIRY_INTERVAL_MS, () => {
      this.#enforcement.dropExpired();
      this.#dropExpired();
    });
  }
}

function isBroadcast(token: CompactToken): boolean {
  return parseCompactToken(token.text, BROADCAST_TYPE, BROADCAST_BYTES_MAX) !== undefined;
}

function noteBeginning(feed: OnceCheckedFeed, token: CompactToken, nowSeconds: number): void {
  const payload = parseJsonObject(token.payload);
  const claims =
    payload && readClaims(payload, token.keyId, { issuer: ISSUER, audience: undefined, nowSeconds });
  if (claims !== undefined && !('fault' in claims)) feed.verificationBegins(claims);
}

/** A live call: it repeats the check with every message, and when its token is revoked. */
export class Call implements LiveCall {
  previousLive: LiveCall | undefined;
  nextLive: LiveCall | undefined;
  readonly #instance: Instance;
  readonly #oracle: RecordedToken;
  readonly #token: VerifiedToken;
  readonly #allowStale: boolean;
  #open = true;

  constructor(instance: Instance, oracle: RecordedToken, token: VerifiedToken, allowStale: boolean) {
    this.#instance = instance;
    this.#oracle = oracle;
    this.#token = token;
    this.#allowStale = allowStale;
    token.link(this);
  }

  get isOpen(): boolean {
    return this.#open;
  }

  get token(): VerifiedToken {
    return this.#token;
  }

  /** A message passes, in either direction. */
  message(): void {
    this.#check(true);
  }

  recheck(): void {
    this.#check(false);
  }

  end(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#token.unlink(this);
  }

  #check(isMessage: boolean): void {
    if (!this.#open) return;
    const allowStale = this.#allowStale;
    if (!this.#instance.mayGoOn(this.#oracle, this.#token, { allowStale, isMessage })) this.end();
  }
}
