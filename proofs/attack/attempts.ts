/** Sends attempts, and checks and counts the responses. */

import { setTimeout as sleep } from 'node:timers/promises';
import { DEFAULT_LIMITS } from '@portcullis/guard';
import type { Answer } from '../shared/wire.js';
import { type Environment, IN_FLIGHT_MAX, type RequestChanges, type Target } from './environment.js';

const UNAUTHENTICATED = 16;
const OK = 0;
/** How long a process may be busy with a class of attempts. */
const BUSY_MS = 500;

/** Runs the work for each item, at most so many at a time. */
export async function forEach<T>(
  items: Iterable<T>,
  work: (item: T) => Promise<void>,
  inFlight: number = IN_FLIGHT_MAX,
): Promise<void> {
  const source = items[Symbol.iterator]();
  const worker = async (): Promise<void> => {
    for (let next = source.next(); !next.done; next = source.next()) await work(next.value);
  };
  await Promise.all(Array.from({ length: inFlight }, worker));
}

/** Sends a bad token and expects the one response that all bad tokens get. */
export async function sendBadToken(
  environment: Environment,
  target: Target,
  attempt: {
    readonly className: string;
    readonly what: string;
    readonly value: string;
    readonly path?: string;
  },
): Promise<void> {
  const { className, what, value, path } = attempt;
  const changes: RequestChanges = { authorization: [value], ...(path !== undefined && { path }) };
  const answer = await environment.send(target, changes);
  const attempted = `${target.process.name}: ${what}`;
  if (answer.kind === 'answered' && answer.fields === environment.refusals.invalid)
    environment.board.refused(className);
  else if (!isSendable(value)) expectUnsendable(environment, className, attempted, answer);
  else expectRefusal(environment, className, attempted, answer, []);
}

/**
 * Expects one of the given responses, byte for byte. Another UNAUTHENTICATED response counts as differing, because it
 * reveals something; any other status counts as accepted.
 */
export function expectRefusal(
  environment: Environment,
  className: string,
  what: string,
  answer: Answer,
  expected: readonly string[],
): void {
  const { board } = environment;
  if (answer.kind === 'silent') countSilent(environment, className, what, answer);
  else if (answer.kind === 'answered' && expected.includes(answer.fields)) board.refused(className);
  else if (answer.kind !== 'answered') board.differs(className, `${what}: ${answer.kind} ${answer.fields}`);
  else if (answer.status === UNAUTHENTICATED) board.differs(className, `${what}: ${answer.fields}`);
  else board.accepted(className, `${what}: ${answer.fields}`);
}

/** Expects any error, without a response message. */
export function expectNotServed(
  environment: Environment,
  className: string,
  what: string,
  answer: Answer,
): void {
  const { board } = environment;
  if (answer.kind === 'silent') countSilent(environment, className, what, answer);
  else if (environment.isServed(answer)) board.accepted(className, `${what}: ${answer.fields}`);
  else board.refused(className);
}

/** Counts a request that did not end: without headers as a crash, with headers as an accepted stream. */
function countSilent(environment: Environment, className: string, what: string, answer: Answer): void {
  if (answer.fields === '') environment.board.crashed(className, `${what}: no answer`);
  else environment.board.accepted(className, `${what}: a stream that stays open, ${answer.fields}`);
}

/** HTTP/2 servers drop or reject long values, and those with control characters, Latin-1, or spaces at either end. */
export function isSendable(value: string): boolean {
  return value.length < DEFAULT_LIMITS.headerBytes && /^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/.test(value);
}

/** Expects that the server dropped the header or the stream; either way the guard saw no token. */
function expectUnsendable(environment: Environment, className: string, what: string, answer: Answer): void {
  if (answer.kind === 'reset' || answer.kind === 'closed') environment.board.refused(className);
  else expectRefusal(environment, className, what, answer, [environment.refusals.missing]);
}

/** Runs a class of attempts, then checks that the same processes still serve legitimate callers. */
export async function runClass(
  environment: Environment,
  className: string,
  work: () => Promise<void>,
): Promise<void> {
  environment.progress(className, 0, 0);
  await work();
  for (const target of environment.targets) {
    const { process, pid } = target;
    if (!process.isRunning() || process.pid !== pid) {
      environment.board.crashed(className, `${process.name} has ended`);
      continue;
    }
    const answer = await honestCall(environment, target);
    if (answer.status !== OK) {
      environment.board.crashed(
        className,
        `${process.name} refuses a legitimate caller: ${answer.kind} ${answer.fields}`,
      );
    }
  }
}

/** Calls with a valid token; repeats the call once, because the process may still be busy with the attempts. */
async function honestCall(environment: Environment, target: Target): Promise<Answer> {
  const ask = (): Promise<Answer> => {
    environment.honest.calls += 1;
    return environment.send(target, { authorization: [`Bearer ${environment.bob.accessToken}`] });
  };
  const answer = await ask();
  if (answer.status === OK) return answer;
  await sleep(BUSY_MS);
  return await ask();
}

/** How many calls to these methods got past the guard between two readings, by method and code. */
export function servedCalls(
  before: ReadonlyMap<string, number>,
  after: ReadonlyMap<string, number>,
  paths: readonly string[],
): ReadonlyMap<string, number> {
  const more = new Map<string, number>();
  for (const [key, count] of after) {
    const [path = '', code = ''] = key.split(' ');
    const difference = count - (before.get(key) ?? 0);
    if (difference > 0 && paths.includes(path) && code !== 'Unauthenticated') more.set(key, difference);
  }
  return more;
}
