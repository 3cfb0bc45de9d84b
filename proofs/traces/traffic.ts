/**
 * Generated traffic: two hours of users, a service and ordinary mistakes, with planted attacks. The guard's own code
 * aggregates the calls into reports.
 */

import { createHash } from 'node:crypto';
import type { GuardErrorCode, TokenClaims } from '@portcullis/guard';
import type { Clock } from '@portcullis/guard/clock';
import { REPORT_INTERVAL_MS, ReportCollector, VerifiedToken } from '@portcullis/guard/internal';
import { reportOf } from '../../services/auth/adapters/report-messages.js';
import type { SecurityEvent } from '../../services/auth/records/security-events.js';
import type { Observation } from '../../services/auth/security/anomaly-rules.js';
import type { Random } from '../shared/random.js';
import type { PlantedAttack, Trace } from './trace.js';

const ISSUER = 'https://auth.example';
const START_MS = Date.UTC(2026, 0, 5, 8);
const HOURS = 2;
const LENGTH_MS = HOURS * 3_600_000;
/** When attacks begin, so that the rules have time to learn the usual rates. */
const ATTACKS_FROM_MS = 1_800_000;
const USERS = 240;
const INSTANCES = ['inventory-1', 'inventory-2', 'payment-1', 'auth-1'] as const;
/** The number of attacks of each kind. */
const PER_KIND = 5;

/** Something that happens at one moment of the traffic. */
interface PlannedStep {
  readonly atMs: number;
  readonly run: (world: TrafficWorld) => void;
}

/** A caller: a token, and the address that it is used from. */
interface Actor {
  readonly token: VerifiedToken;
  readonly address: string;
}

class TrafficWorld implements Clock {
  nowMs = START_MS;
  readonly observations: Observation[] = [];
  readonly collectors = INSTANCES.map(
    (name) =>
      new ReportCollector({
        service: name.replace(/-\d$/, ''),
        instance: createHash('sha256').update(name).digest().subarray(0, 16),
        clock: this,
      }),
  );
  admitted = 0;
  #events = 0;

  wallMs(): number {
    return this.nowMs;
  }

  monotonicMs(): number {
    return this.nowMs;
  }

  call(instance: number, { token, address }: Actor): void {
    this.admitted += 1;
    this.collectors[instance % INSTANCES.length]?.recordAdmitted(token, address);
  }

  refuse(instance: number, reason: GuardErrorCode, token: VerifiedToken | undefined, address: string): void {
    this.collectors[instance % INSTANCES.length]?.recordRefused(reason, token, address);
  }

  event(event: Pick<SecurityEvent, 'type' | 'subject' | 'network' | 'details'>): void {
    this.#events += 1;
    const rest = { eventId: String(this.#events), actor: '', reason: '', source: 'auth' };
    const time = new Date(this.nowMs);
    this.observations.push({ time, event: { ...event, ...rest, time } as SecurityEvent });
  }

  report(): void {
    for (const collector of this.collectors) {
      const message = collector.collect(0);
      if (message === undefined) continue;
      const report = reportOf(message, { source: message.service, issuer: ISSUER, wallMs: () => this.nowMs });
      if (report === undefined) throw new TypeError('a report was rejected');
      this.observations.push({ time: report.endTime, report });
    }
  }
}

/** Generates traffic; the same seed gives the same traffic. */
export function generateTraffic(random: Random): Trace {
  const plan: PlannedStep[] = [];
  const planted: PlantedAttack[] = [];
  let ordinaryCalls = 0;
  const at = (atMs: number, run: PlannedStep['run']): void => void plan.push({ atMs, run });
  const users = Array.from({ length: USERS }, (_, index) => userOf(random, index));

  for (const user of users) ordinaryCalls += ordinaryUser(random, user, at);
  ordinaryCalls += ordinaryService(random, at);
  ordinaryMistakes(random, users, at);
  for (let count = 0; count < PER_KIND; count += 1) {
    const beginMs = random.integer(ATTACKS_FROM_MS, LENGTH_MS - 300_000);
    planted.push(...plantAttacks({ random, users, at, beginMs, count }));
  }
  for (let atMs = REPORT_INTERVAL_MS; atMs <= LENGTH_MS; atMs += REPORT_INTERVAL_MS) {
    at(atMs, (world) => world.report());
  }

  const world = new TrafficWorld();
  for (const { atMs, run } of plan.sort((one, other) => one.atMs - other.atMs)) {
    world.nowMs = START_MS + atMs;
    run(world);
  }
  return { name: 'generated traffic', observations: world.observations, ordinaryCalls, planted };
}

type At = (atMs: number, run: PlannedStep['run']) => void;

interface User {
  readonly userId: string;
  readonly actor: Actor;
  /** The mean number of calls a second. */
  readonly rate: number;
}

function userOf(random: Random, index: number): User {
  const userId = idOf(`user ${index}`);
  // Half of the users share one address, as in an office.
  const address = index % 2 === 0 ? '192.0.2.10' : addressOf(random);
  // Some are programs with a high, steady rate.
  const rate = index % 60 === 0 ? 4 : 0.02 + 0.1 * random.next() ** 2;
  return { userId, actor: { token: tokenOf(userId, `session ${index}`), address }, rate };
}

function ordinaryUser(random: Random, user: User, at: At): number {
  let calls = 0;
  const call = (atMs: number, actor: Actor = user.actor): void => {
    calls += 1;
    at(atMs, (world) => world.call(random.integer(0, 2), actor));
  };
  const phase = random.next() * Math.PI * 2;
  at(random.integer(0, 60_000), (world) => login(world, user));
  for (let atMs = 0; atMs < LENGTH_MS; ) {
    // The rate goes up and down within an hour.
    const interest = 1 + 0.7 * Math.sin(phase + (atMs / 3_600_000) * Math.PI * 2);
    atMs += (-Math.log(1 - random.next()) / (user.rate * interest)) * 1000;
    if (atMs < LENGTH_MS) call(atMs);
  }
  // Occasional bursts, such as a page with many requests, and phones that change networks.
  for (let count = random.integer(0, 3); count > 0; count -= 1) {
    const beginMs = random.integer(0, LENGTH_MS - 60_000);
    for (let burst = random.integer(20, 150); burst > 0; burst -= 1)
      call(beginMs + random.integer(0, 20_000));
  }
  if (random.next() < 0.3) {
    const beginMs = random.integer(0, LENGTH_MS - 60_000);
    for (const network of [addressOf(random), addressOf(random)]) {
      for (let count = 0; count < 5; count += 1) {
        call(beginMs + random.integer(0, 50_000), { ...user.actor, address: network });
      }
    }
  }
  return calls;
}

/** A service that calls throughout, for all users. */
function ordinaryService(random: Random, at: At): number {
  const actor = { token: tokenOf('payment', undefined), address: '192.0.2.30' };
  let calls = 0;
  for (let atMs = 0; atMs < LENGTH_MS; atMs += random.integer(50, 200)) {
    calls += 1;
    at(atMs, (world) => world.call(3, actor));
  }
  return calls;
}

/** Mistyped passwords, expired tokens, tokens revoked in the middle of work, and a program with an old token. */
function ordinaryMistakes(random: Random, users: readonly User[], at: At): void {
  for (const user of users) {
    const moment = (): number => random.integer(0, LENGTH_MS - 60_000);
    if (random.next() < 0.4) {
      const beginMs = moment();
      for (let count = random.integer(1, 5); count > 0; count -= 1) {
        at(beginMs + count * 8000, (world) => failLogin(world, { userId: user.userId }, user.actor.address));
      }
    }
    for (let count = random.integer(0, 6); count > 0; count -= 1) {
      at(moment(), (world) => world.refuse(0, 'TOKEN_EXPIRED', user.actor.token, user.actor.address));
    }
    if (random.next() < 0.1) {
      // After a change of roles, calls in progress are refused until the client refreshes.
      const beginMs = moment();
      for (let count = random.integer(1, 12); count > 0; count -= 1) {
        at(beginMs + count, (world) =>
          world.refuse(1, 'TOKEN_REVOKED', user.actor.token, user.actor.address),
        );
      }
    }
  }
  for (let atMs = 0; atMs < LENGTH_MS; atMs += 5000) {
    at(atMs, (world) => world.refuse(2, 'TOKEN_INVALID', undefined, '198.18.0.1'));
  }
}

/** Where and when one attack of each kind is planted. */
interface Planting {
  readonly random: Random;
  readonly users: readonly User[];
  readonly at: At;
  readonly beginMs: number;
  /** The number of the planting; each one has victims and networks of its own. */
  readonly count: number;
}

/** Plants one attack of each kind. @returns what the rules must find */
function plantAttacks(planting: Planting): PlantedAttack[] {
  return [
    plantGuessing(planting),
    plantSpraying(planting),
    plantReuse(planting),
    plantSharing(planting),
    plantRevokedToken(planting),
    plantInvalidTokens(planting),
    plantUnusualRate(planting),
  ];
}

/** Slow guesses at one name from several networks, below every rate limit. */
function plantGuessing(planting: Planting): PlantedAttack {
  const { userId } = victimOf(planting, 0);
  repeat(planting, 25, 10_000, (world, time) => failLogin(world, { userId }, networkOf(planting, time % 3)));
  return attackOf(planting, 'name-guessed', userId, 250_000);
}

function plantSpraying(planting: Planting): PlantedAttack {
  const network = networkOf(planting, 3);
  repeat(planting, 40, 5000, (world, time) =>
    failLogin(world, { nameHash: `${planting.count} ${time}` }, network),
  );
  return attackOf(planting, 'names-sprayed', network, 200_000);
}

function plantReuse(planting: Planting): PlantedAttack {
  const robbed = victimOf(planting, 1);
  const sessionId = sessionOf(robbed);
  repeat(planting, 3, 1000, (world) =>
    world.event({
      type: 'refresh-token-reused',
      subject: { userId: robbed.userId, sessionId },
      network: networkOf(planting, 4),
      details: {},
    }),
  );
  return attackOf(planting, 'refresh-reused', sessionId, 3000);
}

/** Few calls from many networks, at one instance after another. */
function plantSharing(planting: Planting): PlantedAttack {
  const shared = victimOf(planting, 2);
  repeat(planting, 24, 4000, (world, time) => {
    world.call(time, { token: shared.actor.token, address: networkOf(planting, 5 + (time % 5)) });
  });
  return attackOf(planting, 'session-in-many-networks', sessionOf(shared), 96_000);
}

function plantRevokedToken(planting: Planting): PlantedAttack {
  const revoked = victimOf(planting, 3);
  const network = networkOf(planting, 10);
  repeat(planting, 400, 200, (world, time) =>
    world.refuse(time, 'TOKEN_REVOKED', revoked.actor.token, network),
  );
  return attackOf(planting, 'revoked-token-hammered', sessionOf(revoked), 80_000);
}

function plantInvalidTokens(planting: Planting): PlantedAttack {
  const network = networkOf(planting, 11);
  repeat(planting, 400, 200, (world, time) => world.refuse(time, 'TOKEN_INVALID', undefined, network));
  return attackOf(planting, 'invalid-tokens-hammered', network, 80_000);
}

function plantUnusualRate(planting: Planting): PlantedAttack {
  const busy = victimOf(planting, 4);
  const everyMs = 1000 / planting.random.integer(25, 60);
  repeat(planting, Math.floor(90_000 / everyMs), everyMs, (world, time) => world.call(time, busy.actor));
  return attackOf(planting, 'far-above-usual', busy.userId, 90_000);
}

/** Each attack has another victim, none of them a program. */
function victimOf({ users, count }: Planting, kind: number): User {
  const user = users[1 + kind * 30 + count * 2];
  if (user === undefined) throw new TypeError('there are too few users');
  return user;
}

function networkOf({ count }: Planting, kind: number): string {
  return `203.0.113.${kind * 20 + count}`;
}

function repeat(
  { at, beginMs }: Planting,
  times: number,
  everyMs: number,
  step: (world: TrafficWorld, time: number) => void,
): void {
  for (let time = 0; time < times; time += 1) at(beginMs + time * everyMs, (world) => step(world, time));
}

function attackOf(
  { beginMs }: Planting,
  rule: PlantedAttack['rule'],
  subject: string,
  lengthMs: number,
): PlantedAttack {
  return { rule, subject, beginMs: START_MS + beginMs, endMs: START_MS + beginMs + lengthMs };
}

function login(world: TrafficWorld, { userId, actor }: User): void {
  world.event({
    type: 'session-established',
    subject: { userId, sessionId: actor.token.claims.sessionId ?? '' },
    network: actor.address,
    details: { clientId: 'direct' },
  });
}

function failLogin(world: TrafficWorld, subject: SecurityEvent['subject'], network: string): void {
  world.event({ type: 'login-failed', subject, network, details: { what: 'login' } });
}

function tokenOf(subject: string, session: string | undefined): VerifiedToken {
  const isUser = session !== undefined;
  const claims: TokenClaims = {
    issuer: ISSUER,
    subject,
    clientId: isUser ? 'direct' : subject,
    tokenId: idOf(`token of ${subject}`),
    sessionId: isUser ? idOf(session) : undefined,
    kind: isUser ? 'USER' : 'SERVICE',
    scopes: new Set(),
    roles: new Set(),
    audiences: [],
    actors: [],
    authTimeSeconds: undefined,
    expiresAtSeconds: (START_MS + LENGTH_MS) / 1000,
    generation: undefined,
    clients: [],
    ancestors: [],
    origin: undefined,
    issuedAtSeconds: START_MS / 1000,
    keyId: 'key',
    certificateThumbprint: undefined,
    isForeign: false,
    id: subject,
  };
  return new VerifiedToken(claims.tokenId, claims);
}

function sessionOf({ actor }: User): string {
  return actor.token.claims.sessionId ?? '';
}

function addressOf(random: Random): string {
  return `100.${random.integer(64, 127)}.${random.integer(0, 255)}.${random.integer(1, 254)}`;
}

/** A UUID derived from a name. */
function idOf(name: string): string {
  const hex = createHash('sha256').update(name).digest('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20, 32)].join(
    '-',
  );
}
