/** Attacks that the anomaly rules detect: each must raise exactly one event with the right subject. */

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { credentials, status } from '@grpc/grpc-js';
import { REPORT_INTERVAL_MS } from '@portcullis/guard/internal';
import { LoginRequest, RefreshRequest } from '../../proto/gen/auth/v1/auth_service.js';
import {
  type SecurityEvent,
  SecurityEventType,
  SecurityServiceClient,
  type SecuritySubject,
} from '../../proto/gen/auth/v1/security_service.js';
import { ask } from '../../scripts/system/calls.js';
import { createPeer } from '../shared/wire.js';
import { forEach, runClass } from './attempts.js';
import type { Environment, Target } from './environment.js';
import { claimsIn } from './forge.js';

const LOGIN = '/auth.v1.AuthService/Login';
const REFRESH = '/auth.v1.AuthService/Refresh';

/** Password guesses at one name: above the threshold of the rule, below the rate limit. */
const GUESSES = 30;
/** Names that are tried once each; above the threshold of the rule. */
const NAMES = 40;
/** Calls with one bad token; above the threshold of the rules. */
const HAMMERED = 200;
/** The default number of ordinary calls, over all customers and instances. */
export const ORDINARY_CALLS_DEFAULT = 2000;
/** The longest time from an attack to its event: reports, evaluation, and a busy machine. */
const FOUND_WITHIN_MS = 6 * REPORT_INTERVAL_MS + 5000;
const POLL_MS = 250;

/** The rule and the subject of the event that an attack must raise. */
interface AnomalyAttack {
  readonly rule: string;
  readonly subject: Partial<SecuritySubject>;
}

/** Makes ordinary calls, then the attacks, and checks the events that they raised. */
export async function attackAnomalyRules(environment: Environment, ordinaryCalls: number): Promise<void> {
  const client = new SecurityServiceClient(environment.system.auth.address, credentials.createInsecure());
  try {
    await makeOrdinaryCalls(environment, client, ordinaryCalls);
    const attacks = [
      await guessOneName(environment),
      await sprayNames(environment),
      await reuseRefreshToken(environment),
      await useFromManyNetworks(environment),
      await hammerRevokedToken(environment),
      await hammerInvalidTokens(environment),
    ];
    await checkFindings(environment, client, attacks);
  } finally {
    client.close();
  }
}

/** After all attacks: no rule may have fired twice for one subject. */
export async function checkNoRepetition(environment: Environment): Promise<void> {
  const className = 'alarms: none twice';
  const client = new SecurityServiceClient(environment.system.auth.address, credentials.createInsecure());
  const seen = new Map<string, number>();
  for (const event of await anomaliesOf(environment, client)) {
    const key = describeFinding(event.reason, event.subject ?? {});
    seen.set(key, (seen.get(key) ?? 0) + 1);
  }
  client.close();
  for (const [key, count] of seen) environment.board.holds(className, count === 1, `${count} times: ${key}`);
}

async function makeOrdinaryCalls(
  environment: Environment,
  client: SecurityServiceClient,
  calls: number,
): Promise<void> {
  const className = 'alarms: ordinary calls';
  await runClass(environment, className, async () => {
    const tokens = [environment.alice.accessToken, environment.bob.accessToken];
    const targets = environment.targets.filter(({ audience }) => audience === 'inventory');
    let done = 0;
    await forEach(Array.from({ length: calls }), async () => {
      done += 1;
      const target = targets[done % targets.length];
      if (target === undefined) return;
      const authorization = [`Bearer ${tokens[done % tokens.length]}`];
      const answer = await environment.send(target, { authorization });
      if (answer.status !== status.OK)
        environment.board.crashed(className, `an ordinary call: ${answer.fields}`);
      if (done % 500 === 0) environment.progress(className, done, calls);
    });
    await sleep(REPORT_INTERVAL_MS + 1000);
    const alarms = await anomaliesOf(environment, client);
    environment.board.holds(className, alarms.length === 0, JSON.stringify(alarms[0]?.details));
  });
}

async function guessOneName(environment: Environment): Promise<AnomalyAttack> {
  const target = fromAddress(environment.target.auth, '127.0.0.11');
  const { username } = environment.system.users.alice;
  for (let count = 0; count < GUESSES; count += 1) {
    await environment.send(target, { path: LOGIN, message: loginMessage(username, randomUUID()) });
  }
  target.peer.close();
  return { rule: 'name-guessed', subject: { userId: subjectOf(environment.alice.accessToken) } };
}

async function sprayNames(environment: Environment): Promise<AnomalyAttack> {
  const network = '127.0.0.12';
  const target = fromAddress(environment.target.auth, network);
  for (let count = 0; count < NAMES; count += 1) {
    const message = loginMessage(`nobody-${randomUUID()}`, 'Summer2026!');
    await environment.send(target, { path: LOGIN, message });
  }
  target.peer.close();
  return { rule: 'names-sprayed', subject: { network } };
}

async function reuseRefreshToken(environment: Environment): Promise<AnomalyAttack> {
  const { refreshToken, accessToken } = await environment.logIn('bob');
  for (let count = 0; count < 5; count += 1) {
    const message = RefreshRequest.encode({ refreshToken, requestId: randomUUID() }).finish();
    await environment.send(environment.target.auth, { path: REFRESH, message });
  }
  return { rule: 'refresh-reused', subject: { sessionId: sessionOf(accessToken) } };
}

/** From two networks at each of two instances, so that only auth, which receives all reports, can see four. */
async function useFromManyNetworks(environment: Environment): Promise<AnomalyAttack> {
  const { accessToken } = await environment.logIn('alice');
  const instances = environment.targets.filter(({ audience }) => audience === 'inventory');
  const networks = ['127.0.0.21', '127.0.0.22', '127.0.0.23', '127.0.0.24'];
  for (const [index, network] of networks.entries()) {
    const instance = instances[index % instances.length];
    if (instance === undefined) throw new TypeError('the system has no inventory instance');
    const target = fromAddress(instance, network);
    for (let count = 0; count < 3; count += 1) {
      await environment.send(target, { authorization: [`Bearer ${accessToken}`] });
    }
    target.peer.close();
  }
  return { rule: 'session-in-many-networks', subject: { sessionId: sessionOf(accessToken) } };
}

async function hammerRevokedToken(environment: Environment): Promise<AnomalyAttack> {
  const { accessToken } = await environment.logIn('bob');
  await ask(environment.auth.logout.bind(environment.auth), {}, { token: accessToken });
  const target = fromAddress(environment.target.payment, '127.0.0.13');
  const authorization = [`Bearer ${accessToken}`];
  await forEach(Array.from({ length: HAMMERED }), async () => {
    await environment.send(target, { authorization });
  });
  target.peer.close();
  return { rule: 'revoked-token-hammered', subject: { sessionId: sessionOf(accessToken) } };
}

async function hammerInvalidTokens(environment: Environment): Promise<AnomalyAttack> {
  const network = '127.0.0.14';
  const target = fromAddress(environment.target.inventory, network);
  await forEach(Array.from({ length: HAMMERED }), async () => {
    await environment.send(target, {
      authorization: [`Bearer ${environment.bob.accessToken.slice(0, -2)}AA`],
    });
  });
  target.peer.close();
  return { rule: 'invalid-tokens-hammered', subject: { network } };
}

async function checkFindings(
  environment: Environment,
  client: SecurityServiceClient,
  attacks: readonly AnomalyAttack[],
): Promise<void> {
  const deadlineMs = performance.now() + FOUND_WITHIN_MS;
  const isOf = (event: SecurityEvent, { rule, subject }: AnomalyAttack): boolean =>
    event.reason === rule &&
    Object.entries(subject).every(([name, id]) => event.subject?.[name as keyof SecuritySubject] === id);
  let alarms: readonly SecurityEvent[] = [];
  do {
    await sleep(POLL_MS);
    alarms = await anomaliesOf(environment, client);
  } while (
    !attacks.every((attack) => alarms.some((event) => isOf(event, attack))) &&
    performance.now() < deadlineMs
  );
  // After another round of reports, no rule may have fired again.
  await sleep(REPORT_INTERVAL_MS + 1000);
  alarms = await anomaliesOf(environment, client);
  for (const attack of attacks) {
    const count = alarms.filter((event) => isOf(event, attack)).length;
    environment.board.holds(
      `alarms: ${attack.rule}`,
      count === 1,
      `${count} events of ${JSON.stringify(attack)}`,
    );
  }
  for (const event of alarms) {
    const isExpected = attacks.some((attack) => isOf(event, attack));
    environment.board.holds(
      'alarms: nothing else',
      isExpected,
      describeFinding(event.reason, event.subject ?? {}),
    );
  }
}

async function anomaliesOf(
  environment: Environment,
  client: SecurityServiceClient,
): Promise<SecurityEvent[]> {
  const types = [SecurityEventType.SECURITY_EVENT_TYPE_ANOMALY_DETECTED];
  const filter = { types, subject: '', beginTime: undefined, endTime: undefined };
  const found: SecurityEvent[] = [];
  for (let pageToken = ''; ; ) {
    const page = await ask(
      client.listSecurityEvents.bind(client),
      { pageSize: 200, pageToken, filter },
      { token: environment.olga.accessToken },
    );
    found.push(...page.events);
    pageToken = page.nextPageToken;
    if (pageToken === '') return found;
  }
}

/** The target, called from another loopback address. */
function fromAddress(target: Target, address: string): Target {
  return { ...target, peer: createPeer(target.process.address, address) };
}

function loginMessage(username: string, password: string): Uint8Array {
  const request = { username, password, audiences: [], scopes: [], deviceName: 'attack' };
  return LoginRequest.encode(request).finish();
}

function subjectOf(token: string): string {
  return String(claimsIn(token)['sub']);
}

function sessionOf(token: string): string {
  return String(claimsIn(token)['sid']);
}

function describeFinding(rule: string, subject: Partial<SecuritySubject>): string {
  return `${rule} ${Object.values(subject)
    .filter((id) => id !== '')
    .join(' ')}`;
}
