/** The workload of users, services and operators at random moments: logins, refreshes, exchanges, revocations, and mainly calls. */

import type { InstanceReceipt } from '../../services/auth/revocation/enforcement-watch.js';
import type { ForeignTarget } from '../../services/auth/revocation/log.js';
import type { Target } from '../../services/auth/revocation/revoke-targets.js';
import type { TokenPair } from '../../services/auth/sessions/session-tokens.js';
import type { Call } from './instance.js';
import type { RecordedToken } from './oracle.js';
import type { Host, Replica, System } from './system.js';
import { AUDIENCE } from './world.js';

/** A session that is kept alive by refreshes. */
interface Login {
  readonly userId: string;
  readonly sessionId: string;
  refreshToken: string;
  readonly token: RecordedToken;
}

/** Called just before a revocation: faults prefer that moment. */
export type OnRevoke = () => void;

const ACTIONS = ['login', 'refresh', 'exchange', 'stream', 'relogin', 'roles'] as const;

/** The callers of one run. */
export class Workload {
  readonly #system: System;
  readonly #onRevoke: OnRevoke;
  readonly #tokens: RecordedToken[] = [];
  readonly #logins: Login[] = [];
  readonly #suspects: RecordedToken[] = [];
  #serviceToken: RecordedToken | undefined;
  #revocations = 0;
  #requests = 0;

  constructor(system: System, onRevoke: OnRevoke) {
    this.#system = system;
    this.#onRevoke = onRevoke;
  }

  /** Schedules everything until the end of the active time. */
  start(): void {
    const { settings } = this.#world;
    const { leaseMs, activeMs } = settings;
    this.#scheduler.after(20, () => {
      for (const _ of this.#system.userIds) this.#login();
      this.#renewServiceToken();
    });
    this.#repeat(activeMs / 24, () => this.#act());
    this.#repeat(activeMs / 90, () => this.#call(this.#pickToken(), this.#pickHost()));
    if (settings.fences) {
      this.#repeat(activeMs / 60, () => this.#pay(this.#pickToken(), this.#pickHost()));
    }
    this.#repeat(Math.max(activeMs / 8, leaseMs / 2), () => this.revokeSomething());
    this.#repeat(settings.accessTokenSeconds * 500, () => this.#renewServiceToken());
  }

  /** A new token of a user who was not revoked since; undefined when none could be issued. */
  freshToken(then: (token: RecordedToken) => void): void {
    this.#login(then);
  }

  get #world() {
    return this.#system.world;
  }

  get #scheduler() {
    return this.#world.scheduler;
  }

  get #random() {
    return this.#world.random;
  }

  #repeat(meanMs: number, work: () => void): void {
    this.#scheduler.after(this.#random.exponential(meanMs), () => {
      if (this.#scheduler.nowMs >= this.#world.settings.activeMs) return;
      work();
      this.#repeat(meanMs, work);
    });
  }

  #act(): void {
    switch (this.#random.pick(ACTIONS)) {
      case 'login':
      case 'relogin':
        this.#login();
        return;
      case 'refresh':
        if (this.#logins.length > 0) this.#refresh(this.#random.pick(this.#logins));
        return;
      case 'exchange':
        if (this.#tokens.length > 0) this.#exchange(this.#recent(this.#tokens));
        return;
      case 'roles':
        if (this.#random.chance(0.4)) this.#changeRoles();
        return;
      case 'stream':
        if (this.#tokens.length > 0) this.#stream(this.#recent(this.#tokens), this.#pickHost());
        return;
    }
  }

  /** Runs an operation at a running replica; failures are not retried. */
  #atReplica(work: (replica: Replica) => Promise<unknown>): void {
    const replica = this.#system.anyReplica();
    if (replica === undefined) return;
    replica.process.run(() => void work(replica).catch(() => undefined));
  }

  #login(then: (token: RecordedToken) => void = () => {}, userIndex = this.#random.integer(0, 2)): void {
    const userId = this.#system.userIds[userIndex] ?? '';
    const name = `user-${userIndex + 1}`;
    this.#atReplica(async ({ service }) => {
      const attempt = {
        username: name,
        password: name,
        audiences: [],
        scopes: [],
        deviceName: '',
        peer: 'peer',
      };
      const { session, ...pair } = await service.sessions.login(attempt);
      const token = this.#obtained(pair);
      this.#logins.push({ userId, sessionId: session.sessionId, refreshToken: pair.refreshToken, token });
      this.#world.tell(name, () => `has logged in, and has ${token.label}`);
      then(token);
    });
  }

  #refresh(login: Login): void {
    this.#requests += 1;
    const requestId = `00000000-0000-4000-8000-${String(this.#requests).padStart(12, '0')}`;
    this.#atReplica(async ({ service }) => {
      const pair = await service.sessions.refresh({ refreshToken: login.refreshToken, requestId });
      login.refreshToken = pair.refreshToken;
      const token = this.#obtained(pair);
      this.#world.tell(
        'a user',
        () => `has refreshed the session of ${login.token.label}, and has ${token.label}`,
      );
      if (this.#world.oracle.revocationsOf(token).next().done !== true) this.#watch(token);
    });
  }

  #exchange(subject: RecordedToken): void {
    const caller = this.#serviceToken;
    if (caller === undefined || !subject.audiences.includes('payment')) return;
    this.#atReplica(async ({ service }) => {
      const minted = await service.exchange.exchange({
        callerToken: caller.text,
        subjectToken: subject.text,
        audience: AUDIENCE,
        scopes: [],
      });
      const token = this.#world.oracle.byText(minted.token);
      this.#tokens.push(token);
      this.#world.tell('payment', () => `has exchanged ${subject.label} for ${token.label}`);
    });
  }

  #renewServiceToken(): void {
    this.#atReplica(async ({ service }) => {
      const { token } = await service.issueServiceToken();
      this.#serviceToken = this.#world.oracle.byText(token);
    });
  }

  #obtained({ access }: Pick<TokenPair, 'access'>): RecordedToken {
    const token = this.#world.oracle.byText(access.token);
    this.#tokens.push(token);
    return token;
  }

  // --- Calls

  #pickHost(): Host {
    return this.#random.pick(this.#system.hosts);
  }

  /** Usually a token that was or will be revoked; sometimes any token, including expired ones. */
  #pickToken(): RecordedToken | undefined {
    if (this.#suspects.length > 0 && this.#random.chance(0.5)) return this.#recent(this.#suspects);
    if (this.#tokens.length === 0) return undefined;
    return this.#random.chance(0.7) ? this.#recent(this.#tokens) : this.#random.pick(this.#tokens);
  }

  #recent<T>(from: readonly T[]): T {
    return this.#random.pick(from.slice(-8));
  }

  #call(token: RecordedToken | undefined, host: Host): void {
    if (token === undefined || !token.audiences.includes(AUDIENCE)) return;
    const { instance } = host;
    const allowStale = this.#random.chance(0.1);
    instance.process.run(() =>
      instance.call(token, {
        allowStale,
        told: (outcome, call) => {
          this.#world.tell(
            instance.process.name,
            () => `${token.label} is answered ${outcome} (applied ${instance.applied})`,
          );
          call?.end();
        },
      }),
    );
  }

  /** A call that moves money. */
  #pay(token: RecordedToken | undefined, { instance }: Host): void {
    if (token === undefined || !token.audiences.includes(AUDIENCE)) return;
    instance.process.run(() => instance.pay(token));
  }

  /** Moves money with tokens around the moment at which they are revoked. */
  #payAround(hit: readonly RecordedToken[]): void {
    for (const token of hit) {
      for (const host of this.#system.hosts) {
        for (let count = 0; count < 6; count += 1) {
          this.#scheduler.after(this.#random.exponential(150), () => this.#pay(token, host));
        }
      }
    }
  }

  /** A live call with occasional messages. */
  #stream(token: RecordedToken, host: Host): void {
    if (!token.audiences.includes(AUDIENCE)) return;
    const { instance } = host;
    const everyMs = this.#world.settings.leaseMs / 3;
    const talk = (call: Call): void => {
      this.#scheduler.after(this.#random.exponential(everyMs), () => {
        if (!call.isOpen || this.#scheduler.nowMs >= this.#world.settings.activeMs) return;
        instance.process.run(() => call.message());
        talk(call);
      });
    };
    instance.process.run(() =>
      instance.call(token, {
        told: (_outcome, call) => {
          if (call !== undefined) talk(call);
        },
      }),
    );
  }

  /** Presents a token repeatedly around the moment from which no instance may admit it, and long after. */
  #watch(token: RecordedToken): void {
    this.#suspects.push(token);
    const { leaseMs } = this.#world.settings;
    const boundMs = leaseMs * 1.01 + 100;
    for (const host of this.#system.hosts) {
      for (const afterMs of [
        this.#random.next() * 20,
        this.#random.next() * boundMs,
        boundMs + this.#random.next() * 150,
        boundMs + this.#random.next() * leaseMs,
        boundMs + this.#random.next() * 4 * leaseMs,
      ]) {
        this.#scheduler.after(afterMs, () => {
          if (this.#scheduler.nowMs < this.#world.settings.activeMs) this.#call(token, host);
        });
      }
    }
  }

  // --- Revocations

  /** Revokes a random target. */
  revokeSomething(): void {
    const random = this.#random;
    if (this.#logins.length === 0 || this.#tokens.length === 0) return;
    const login = this.#recent(this.#logins);
    const token = this.#recent(this.#tokens);
    const draw = random.next();
    if (draw < 0.28) this.#revoke({ kind: 'token-id', tokenId: token.tokenId }, [token]);
    else if (draw < 0.36) this.#revoke({ kind: 'token', token: token.text }, [token]);
    else if (draw < 0.56) this.#revoke({ kind: 'session', sessionId: login.sessionId }, [login.token]);
    else if (draw < 0.78) this.#revokeUser(login);
    else if (draw < 0.9) this.#revokeClient();
    else if (draw < 0.95) this.#revoke({ kind: 'key', keyId: token.keyId }, [token]);
    else this.#revokeForeign(login);
  }

  /** Revokes the next key: the key set changes, and every token stays valid. */
  revokeNextKey(): void {
    const keyId = this.#system.nextTokenKey();
    if (keyId !== undefined) this.#revoke({ kind: 'key', keyId }, []);
  }

  /** Calls one instance with recently revoked tokens. */
  presentSuspects(host: Host): void {
    this.present(this.#suspects.slice(-8), host);
  }

  revokeToken(token: RecordedToken): void {
    this.#revoke({ kind: 'token-id', tokenId: token.tokenId }, [token]);
  }

  present(tokens: readonly RecordedToken[], host: Host): void {
    for (const token of tokens) this.#call(token, host);
  }

  #revokeUser(login: Login): void {
    const index = this.#system.userIds.indexOf(login.userId);
    this.#revoke({ kind: 'user', userId: login.userId }, [login.token], () => {
      // A user whose session was ended logs in again at once, usually within the same second.
      if (this.#random.chance(0.6)) {
        this.#scheduler.after(this.#random.exponential(150), () =>
          this.#login((fresh) => this.#presentEverywhere(fresh), index),
        );
      }
      if (this.#random.chance(0.5))
        this.#scheduler.after(this.#random.exponential(200), () => this.#refresh(login));
    });
  }

  #revokeClient(): void {
    const clientId = this.#random.chance(0.6) ? 'direct' : 'payment';
    const hit = this.#tokens
      .filter(({ links }) => links.some((link) => link.clientId === clientId))
      .slice(-2);
    this.#revoke({ kind: 'client', clientId }, hit, () => {
      if (clientId !== 'direct') this.#renewServiceToken();
      else
        for (const login of this.#logins.slice(-2))
          this.#scheduler.after(this.#random.exponential(300), () => this.#refresh(login));
      if (this.#random.chance(0.6)) {
        this.#scheduler.after(this.#random.exponential(200), () =>
          this.#login((fresh) => this.#presentEverywhere(fresh)),
        );
      }
    });
  }

  /** Identifiers of another issuer may equal ours; they do not name ours. */
  #revokeForeign(login: Login): void {
    const issuer = 'https://other.example';
    const foreign = this.#random.pick<ForeignTarget>([
      { issuer, what: 'TOKEN', id: login.token.tokenId },
      { issuer, what: 'SESSION', id: login.sessionId },
      { issuer, what: 'USER', id: login.userId },
      { issuer, what: 'CLAIM', claim: '/tenant', id: login.userId },
    ]);
    this.#revoke({ kind: 'foreign', foreign }, []);
    this.#scheduler.after(500, () => this.#presentEverywhere(login.token));
  }

  #presentEverywhere(token: RecordedToken): void {
    for (const host of this.#system.hosts) {
      this.#scheduler.after(this.#random.exponential(200), () => this.#call(token, host));
    }
  }

  /** Other roles: the user's tokens are revoked, the sessions stay open. */
  #changeRoles(): void {
    if (this.#logins.length === 0) return;
    const login = this.#recent(this.#logins);
    this.#revocations += 1;
    const label = `revocation-${this.#revocations}`;
    const roles = [this.#random.pick(['customer', 'operator'])];
    this.#suspects.push(login.token);
    this.#atReplica(async ({ service }) => {
      await service.accountChanges.setRoles({ actor: label, userId: login.userId, requestId: label, roles });
      this.#world.oracle.confirmed(label);
      this.#world.measures.revocations += 1;
      this.#world.tell(
        'admin',
        () => `${label} has returned OK: other roles for the user of ${login.token.label}`,
      );
      this.#watch(login.token);
      this.#scheduler.after(this.#random.exponential(200), () => this.#refresh(login));
    });
  }

  /** @param then - done once Revoke has returned OK */
  #revoke(target: Target, hit: readonly RecordedToken[], then: () => void = () => {}): void {
    this.#revocations += 1;
    const label = `revocation-${this.#revocations}`;
    this.#suspects.push(...hit);
    // A new token is being verified when its revocation arrives.
    if (this.#random.chance(0.6)) {
      for (const token of hit) {
        this.#scheduler.after(this.#random.next() * 12, () => this.#call(token, this.#pickHost()));
      }
    }
    const isFenced = this.#world.settings.fences && this.#random.chance(0.6);
    const wait = isFenced
      ? 'FENCED'
      : this.#world.settings.waits
        ? this.#random.pick(['KNOWN_INSTANCES', 'EVERYWHERE', 'NONE'] as const)
        : 'NONE';
    if (this.#world.settings.fences) this.#payAround(hit);
    this.#onRevoke();
    this.#atReplica(async ({ process, service }) => {
      this.#world.tell(
        process.name,
        () => `begins ${label}: ${target.kind} ${hit.map((token) => token.label).join(' ')}`,
      );
      const receipt = await service.revocations.revoke({
        target,
        reason: '',
        actor: label,
        wait,
        fences: isFenced ? [AUDIENCE] : [],
        signal: new AbortController().signal,
      });
      this.#world.oracle.confirmed(label, wait === 'EVERYWHERE');
      if (receipt.fences.some(({ state }) => state === 'FENCED')) {
        this.#world.oracle.fenced(label);
        this.#world.measures.fenced += 1;
        this.#payAround(hit);
      }
      this.#noteReceipts(receipt.instances, label, hit);
      this.#world.measures.revocations += 1;
      this.#world.tell(process.name, () => `${label} has returned OK`);
      for (const token of hit) this.#watch(token);
      then();
    });
  }

  /** An instance that has acknowledged a revocation must enforce it from then on. */
  #noteReceipts(receipts: readonly InstanceReceipt[], label: string, hit: readonly RecordedToken[]): void {
    for (const { instance: id, state } of receipts) {
      if (state !== 'ENFORCED') continue;
      const host = this.#system.hosts.find(({ instance }) => instance.id.equals(id));
      for (const token of hit) {
        if (this.#world.oracle.isHitBy(token, label)) host?.instance.acknowledged.set(token, label);
      }
    }
  }
}
