/** How attempts are made and judged. */

import { setTimeout as sleep } from 'node:timers/promises';
import { type Environment, IN_FLIGHT_MAX, type RequestChanges, type Target } from './environment.js';
import type { Answer } from './wire.js';

const UNAUTHENTICATED = 16;
const OK = 0;

/** Does the work for each item, a bounded number at a time. */
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

/** Fires with a bad token and expects the one answer to all bad tokens. */
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
  const aim: RequestChanges = { authorization: [value], ...(path !== undefined && { path }) };
  const answer = await environment.send(target, aim);
  const told = `${target.process.name}: ${what}`;
  if (answer.kind === 'answered' && answer.fields === environment.refusals.invalid)
    environment.board.refused(className);
  else if (!isSendable(value)) expectUnsendable(environment, className, told, answer);
  else expectRefusal(environment, className, told, answer, []);
}

/**
 * Judges an answer that must be one of a few exact ones: anything else that is UNAUTHENTICATED tells something, and
 * whatever is not UNAUTHENTICATED has come too far.
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

/** What must not be served, however it is refused. */
export function expectNotServed(
  environment: Environment,
  className: string,
  what: string,
  answer: Answer,
): void {
  const { board } = environment;
  if (answer.kind === 'silent') countSilent(environment, className, what, answer);
  else if (answer.status === OK || answer.body.length > 0)
    board.accepted(className, `${what}: ${answer.fields}`);
  else board.refused(className);
}

/** A stream that has been opened says something and does not end. */
function countSilent(environment: Environment, className: string, what: string, answer: Answer): void {
  if (answer.fields === '') environment.board.crashed(className, `${what}: no answer`);
  else environment.board.accepted(className, `${what}: a stream that goes on, ${answer.fields}`);
}

/** HTTP/2 takes a value with control characters, Latin-1 or spaces at its ends for no header at all. */
function isSendable(value: string): boolean {
  return /^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/.test(value);
}

/** Whether the header is dropped or the stream is, nobody has been shown a token. */
function expectUnsendable(environment: Environment, className: string, what: string, answer: Answer): void {
  if (answer.kind === 'reset' || answer.kind === 'closed') environment.board.refused(className);
  else expectRefusal(environment, className, what, answer, [environment.refusals.missing]);
}

/** Runs a class of attempts, and sees afterwards that the same processes still serve honest callers. */
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
        `${process.name} refuses an honest caller: ${answer.kind} ${answer.fields}`,
      );
    }
  }
}

/** A process that is busy with what was just done to it gets a moment. */
async function honestCall(environment: Environment, target: Target): Promise<Answer> {
  const ask = (): Promise<Answer> => {
    environment.honest.calls += 1;
    return environment.send(target, { authorization: [`Bearer ${environment.bob.accessToken}`] });
  };
  const answer = await ask();
  if (answer.status === OK) return answer;
  await sleep(500);
  return await ask();
}

/** By how much the calls that a handler has answered have become more, for these methods. */
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
