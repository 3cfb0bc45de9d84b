/**
 * Generated traffic: two hours of users, services and mistakes as they happen every day, with attacks planted in it.
 * The calls are summed up by the very code that sums them up in a guard.
 */

import { createHash } from 'node:crypto';
import { type GuardErrorCode, REPORT_INTERVAL_MS, type TokenClaims } from '@portcullis/guard';
import type { Clock } from '@portcullis/guard/clock';
import { ReportCollector, VerifiedToken } from '@portcullis/guard/internal';
import { reportOf } from '../../services/auth/adapters/report-messages.js';
import type { SecurityEvent } from '../../services/auth/records/security-events.js';
import type { Observation } from '../../services/auth/security/anomaly-rules.js';
import type { Random } from '../shared/random.js';
import type { PlantedAttack, Trace } from './trace.js';

const ISSUER = 'https://auth.example';
const START_MS = Date.UTC(2026, 0, 5, 8);
const HOURS = 2;
const LENGTH_MS = HOURS * 3_600_000;
/** Attacks begin when the rules have had time to learn what is usual. */
const ATTACKS_FROM_MS = 1_800_000;
const USERS = 240;
const INSTANCES = ['inventory-1', 'inventory-2', 'payment-1', 'auth-1'] as const;
/** Planted attacks of each kind. */
const PER_KIND = 5;

/** Everything that happens at one moment. */
interface Happening {
  readonly atMs: number;
  readonly happen: (world: World) => void;
}

/** Somebody with a session. */
interface Actor {
  readonly token: VerifiedToken;
  readonly address: string;
}

class World implements Clock {
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
      if (report === undefined) throw new TypeError('a report is not taken');
      this.observations.push({ time: report.endTime, report });
    }
  }
}

/** Makes the traffic that follows from a seed. */
export function generateTraffic(random: Random): Trace {
  const plan: Happening[] = [];
  const planted: PlantedAttack[] = [];
  let ordinaryCalls = 0;
  const at = (atMs: number, happen: Happening['happen']): void => void plan.push({ atMs, happen });
  const users = Array.from({ length: USERS }, (_, index) => userOf(random, index));

  for (const user of users) ordinaryCalls += ordinaryUser(random, user, at);
  ordinaryCalls += ordinaryService(random, at);
  ordinaryMistakes(random, users, at);
  for (let count = 0; count < PER_KIND; count += 1) {
    const beginMs = random.integer(ATTACKS_FROM_MS, LENGTH_MS - 300_000);
    planted.push(...plantAll({ random, users, at, beginMs, count }));
  }
  for (let atMs = REPORT_INTERVAL_MS; atMs <= LENGTH_MS; atMs += REPORT_INTERVAL_MS) {
    at(atMs, (world) => world.report());
  }

  const world = new World();
  for (const { atMs, happen } of plan.sort((one, other) => one.atMs - other.atMs)) {
    world.nowMs = START_MS + atMs;
    happen(world);
  }
  return { name: 'generated traffic', observations: world.observations, ordinaryCalls, planted };
}

type At = (atMs: number, happen: Happening['happen']) => void;

interface User {
  readonly userId: string;
  readonly actor: Actor;
  /** Calls a second, on average. */
  readonly rate: number;
}

function userOf(random: Random, index: number): User {
  const userId = idOf(`user ${index}`);
  // Half of them sit in one office, behind one address.
  const address = index % 2 === 0 ? '192.0.2.10' : addressOf(random);
  // Some are programs: always busy, and always alike.
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
    // Interest comes and goes, within an hour.
    const interest = 1 + 0.7 * Math.sin(phase + (atMs / 3_600_000) * Math.PI * 2);
    atMs += (-Math.log(1 - random.next()) / (user.rate * interest)) * 1000;
    if (atMs < LENGTH_MS) call(atMs);
  }
  // Now and then a page that asks for much, and a telephone that leaves the house.
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

/** A service that works for all of them, from the beginning on. */
function ordinaryService(random: Random, at: At): number {
  const actor = { token: tokenOf('payment', undefined), address: '192.0.2.30' };
  let calls = 0;
  for (let atMs = 0; atMs < LENGTH_MS; atMs += random.integer(50, 200)) {
    calls += 1;
    at(atMs, (world) => world.call(3, actor));
  }
  return calls;
}

/** Forgotten passwords, expired tokens, revoked sessions of people who were at work, and a program with an old token. */
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
      // Other roles: what was under way is refused, and refreshed.
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

function plantAll({
  random,
  users,
  at,
  beginMs,
  count,
}: {
  random: Random;
  users: readonly User[];
  at: At;
  beginMs: number;
  count: number;
}): PlantedAttack[] {
  const network = (kind: number): string => `203.0.113.${kind * 20 + count}`;
  /** Each attack has a victim of its own: of those who are not programs. */
  const victim = (kind: number): User => {
    const user = users[1 + kind * 30 + count * 2];
    if (user === undefined) throw new TypeError('there are too few users');
    return user;
  };
  const attack = (rule: PlantedAttack['rule'], subject: string, lengthMs: number): PlantedAttack => ({
    ...{ rule, subject },
    beginMs: START_MS + beginMs,
    endMs: START_MS + beginMs + lengthMs,
  });
  const often = (times: number, everyMs: number, happen: (world: World, time: number) => void): void => {
    for (let time = 0; time < times; time += 1) at(beginMs + time * everyMs, (world) => happen(world, time));
  };
  const [guessed, robbed, shared, revoked, busy] = [victim(0), victim(1), victim(2), victim(3), victim(4)];
  // Slowly and from many networks, so that no limit is reached.
  often(25, 10_000, (world, time) => failLogin(world, { userId: guessed.userId }, network(time % 3)));
  often(40, 5000, (world, time) => failLogin(world, { nameHash: `${count} ${time}` }, network(3)));
  often(3, 1000, (world) =>
    world.event({
      type: 'refresh-token-reused',
      subject: { userId: robbed.userId, sessionId: sessionOf(robbed) },
      network: network(4),
      details: {},
    }),
  );
  // A call now and then, at one instance after another.
  often(24, 4000, (world, time) => {
    world.call(time, { token: shared.actor.token, address: network(5 + (time % 5)) });
  });
  often(400, 200, (world, time) => world.refuse(time, 'TOKEN_REVOKED', revoked.actor.token, network(10)));
  often(400, 200, (world, time) => world.refuse(time, 'TOKEN_INVALID', undefined, network(11)));
  const everyMs = 1000 / random.integer(25, 60);
  often(Math.floor(90_000 / everyMs), everyMs, (world, time) => world.call(time, busy.actor));
  return [
    attack('name-guessed', guessed.userId, 250_000),
    attack('names-sprayed', network(3), 200_000),
    attack('refresh-reused', sessionOf(robbed), 3000),
    attack('session-in-many-networks', sessionOf(shared), 96_000),
    attack('revoked-token-hammered', sessionOf(revoked), 80_000),
    attack('invalid-tokens-hammered', network(11), 80_000),
    attack('far-above-usual', busy.userId, 90_000),
  ];
}

function login(world: World, { userId, actor }: User): void {
  world.event({
    type: 'session-established',
    subject: { userId, sessionId: actor.token.claims.sessionId ?? '' },
    network: actor.address,
    details: { clientId: 'direct' },
  });
}

function failLogin(world: World, subject: SecurityEvent['subject'], network: string): void {
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

/** The same UUID for the same name. */
function idOf(name: string): string {
  const hex = createHash('sha256').update(name).digest('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20, 32)].join(
    '-',
  );
}
