/** Attacks of the kinds that auth looks for: each must raise its event with the right subject, once, and nothing else any. */

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { credentials, status } from '@grpc/grpc-js';
import { REPORT_INTERVAL_MS } from '@portcullis/guard';
import { LoginRequest, RefreshRequest } from '../../proto/gen/auth/v1/auth_service.js';
import {
  type SecurityEvent,
  SecurityEventType,
  SecurityServiceClient,
  type SecuritySubject,
} from '../../proto/gen/auth/v1/security_service.js';
import { ask } from '../../scripts/system/calls.js';
import { forEach, underWatch } from './attempts.js';
import type { Range, Target } from './environment.js';
import { claimsIn } from './forge.js';
import { createPeer } from './wire.js';

const LOGIN = '/auth.v1.AuthService/Login';
const REFRESH = '/auth.v1.AuthService/Refresh';

/** Guesses at one name: more than are tolerated, and fewer than are answered. */
const GUESSES = 30;
/** Names that are tried once each. */
const NAMES = 40;
/** Calls with one bad token: more than are tolerated. */
const HAMMERED = 200;
/** Ordinary calls of each customer and instance, unless told otherwise. */
export const ORDINARY_CALLS_DEFAULT = 2000;
/** How long after an attack its event may come: a report, the rules, and a busy machine. */
const FOUND_WITHIN_MS = 3 * REPORT_INTERVAL_MS + 5000;
const POLL_MS = 250;

/** An attack that was planted, and what auth must say of it. */
interface Planted {
  readonly rule: string;
  readonly subject: Partial<SecuritySubject>;
}

/** Plants the attacks. */
export async function attackUnderWatch(range: Range, ordinaryCalls: number): Promise<void> {
  const client = new SecurityServiceClient(range.system.auth.address, credentials.createInsecure());
  try {
    await ordinary(range, client, ordinaryCalls);
    const planted = [
      await guessOneName(range),
      await sprayNames(range),
      await reuseRefreshToken(range),
      await useFromManyNetworks(range),
      await hammerRevokedToken(range),
      await hammerInvalidTokens(range),
    ];
    await judge(range, client, planted);
  } finally {
    client.close();
  }
}

/** At the end of everything: whatever else was found was found once. */
export async function judgeAlarms(range: Range): Promise<void> {
  const className = 'alarms: none twice';
  const client = new SecurityServiceClient(range.system.auth.address, credentials.createInsecure());
  const seen = new Map<string, number>();
  for (const event of await anomaliesOf(range, client)) {
    const key = keyOf(event.reason, event.subject ?? {});
    seen.set(key, (seen.get(key) ?? 0) + 1);
  }
  client.close();
  for (const [key, count] of seen) range.board.holds(className, count === 1, `${count} times: ${key}`);
}

async function ordinary(range: Range, client: SecurityServiceClient, calls: number): Promise<void> {
  const className = 'alarms: ordinary calls';
  await underWatch(range, className, async () => {
    const tokens = [range.alice.accessToken, range.bob.accessToken];
    const targets = range.targets.filter(({ audience }) => audience === 'inventory');
    let done = 0;
    await forEach(Array.from({ length: calls }), async () => {
      done += 1;
      const target = targets[done % targets.length];
      if (target === undefined) return;
      const authorization = [`Bearer ${tokens[done % tokens.length]}`];
      const answer = await range.fire(target, { authorization });
      if (answer.status !== status.OK) range.board.crashed(className, `an honest call: ${answer.fields}`);
      if (done % 500 === 0) range.progress(className, done, calls);
    });
    await sleep(REPORT_INTERVAL_MS + 1000);
    const alarms = await anomaliesOf(range, client);
    range.board.holds(className, alarms.length === 0, JSON.stringify(alarms[0]?.details));
  });
}

async function guessOneName(range: Range): Promise<Planted> {
  const target = from(range.target.auth, '127.0.0.11');
  const { username } = range.system.users.alice;
  for (let count = 0; count < GUESSES; count += 1) {
    await range.fire(target, { path: LOGIN, message: loginMessage(username, randomUUID()) });
  }
  target.peer.close();
  return { rule: 'name-guessed', subject: { userId: subjectOf(range.alice.accessToken) } };
}

async function sprayNames(range: Range): Promise<Planted> {
  const network = '127.0.0.12';
  const target = from(range.target.auth, network);
  for (let count = 0; count < NAMES; count += 1) {
    const message = loginMessage(`nobody-${randomUUID()}`, 'Summer2026!');
    await range.fire(target, { path: LOGIN, message });
  }
  target.peer.close();
  return { rule: 'names-sprayed', subject: { network } };
}

async function reuseRefreshToken(range: Range): Promise<Planted> {
  const { refreshToken, accessToken } = await range.logIn('bob');
  for (let count = 0; count < 5; count += 1) {
    const message = RefreshRequest.encode({ refreshToken, requestId: randomUUID() }).finish();
    await range.fire(range.target.auth, { path: REFRESH, message });
  }
  return { rule: 'refresh-reused', subject: { sessionId: sessionOf(accessToken) } };
}

/** From two networks at each of two instances: only who sees all of them sees that they are many. */
async function useFromManyNetworks(range: Range): Promise<Planted> {
  const { accessToken } = await range.logIn('alice');
  const instances = range.targets.filter(({ audience }) => audience === 'inventory');
  const networks = ['127.0.0.21', '127.0.0.22', '127.0.0.23', '127.0.0.24'];
  for (const [index, network] of networks.entries()) {
    const instance = instances[index % instances.length];
    if (instance === undefined) throw new TypeError('there is no inventory');
    const target = from(instance, network);
    for (let count = 0; count < 3; count += 1) {
      await range.fire(target, { authorization: [`Bearer ${accessToken}`] });
    }
    target.peer.close();
  }
  return { rule: 'session-in-many-networks', subject: { sessionId: sessionOf(accessToken) } };
}

async function hammerRevokedToken(range: Range): Promise<Planted> {
  const { accessToken } = await range.logIn('bob');
  await ask(range.auth.logout.bind(range.auth), {}, { token: accessToken });
  const target = from(range.target.payment, '127.0.0.13');
  const authorization = [`Bearer ${accessToken}`];
  await forEach(Array.from({ length: HAMMERED }), async () => {
    await range.fire(target, { authorization });
  });
  target.peer.close();
  return { rule: 'revoked-token-hammered', subject: { sessionId: sessionOf(accessToken) } };
}

async function hammerInvalidTokens(range: Range): Promise<Planted> {
  const network = '127.0.0.14';
  const target = from(range.target.inventory, network);
  await forEach(Array.from({ length: HAMMERED }), async () => {
    await range.fire(target, { authorization: [`Bearer ${range.bob.accessToken.slice(0, -2)}AA`] });
  });
  target.peer.close();
  return { rule: 'invalid-tokens-hammered', subject: { network } };
}

async function judge(
  range: Range,
  client: SecurityServiceClient,
  planted: readonly Planted[],
): Promise<void> {
  const deadlineMs = performance.now() + FOUND_WITHIN_MS;
  const isOf = (event: SecurityEvent, { rule, subject }: Planted): boolean =>
    event.reason === rule &&
    Object.entries(subject).every(([name, id]) => event.subject?.[name as keyof SecuritySubject] === id);
  let alarms: readonly SecurityEvent[] = [];
  do {
    await sleep(POLL_MS);
    alarms = await anomaliesOf(range, client);
  } while (
    !planted.every((attack) => alarms.some((event) => isOf(event, attack))) &&
    performance.now() < deadlineMs
  );
  // One more round of reports: what has been found must not be found again.
  await sleep(REPORT_INTERVAL_MS + 1000);
  alarms = await anomaliesOf(range, client);
  for (const attack of planted) {
    const count = alarms.filter((event) => isOf(event, attack)).length;
    range.board.holds(`alarms: ${attack.rule}`, count === 1, `${count} events of ${JSON.stringify(attack)}`);
  }
  for (const event of alarms) {
    const isPlanted = planted.some((attack) => isOf(event, attack));
    range.board.holds('alarms: nothing else', isPlanted, keyOf(event.reason, event.subject ?? {}));
  }
}

async function anomaliesOf(range: Range, client: SecurityServiceClient): Promise<SecurityEvent[]> {
  const types = [SecurityEventType.SECURITY_EVENT_TYPE_ANOMALY_DETECTED];
  const filter = { types, subject: '', beginTime: undefined, endTime: undefined };
  const found: SecurityEvent[] = [];
  for (let pageToken = ''; ; ) {
    const page = await ask(
      client.listSecurityEvents.bind(client),
      { pageSize: 200, pageToken, filter },
      { token: range.olga.accessToken },
    );
    found.push(...page.events);
    pageToken = page.nextPageToken;
    if (pageToken === '') return found;
  }
}

/** The same process, called from another address of this machine. */
function from(target: Target, address: string): Target {
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

function keyOf(rule: string, subject: Partial<SecuritySubject>): string {
  return `${rule} ${Object.values(subject)
    .filter((id) => id !== '')
    .join(' ')}`;
}
