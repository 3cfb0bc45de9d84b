/** How attempts are made and judged. */

import { setTimeout as sleep } from 'node:timers/promises';
import { type Aim, IN_FLIGHT_MAX, type Range, type Target } from './environment.js';
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
export async function fireBadToken(
  range: Range,
  target: Target,
  attempt: {
    readonly className: string;
    readonly what: string;
    readonly value: string;
    readonly path?: string;
  },
): Promise<void> {
  const { className, what, value, path } = attempt;
  const aim: Aim = { authorization: [value], ...(path !== undefined && { path }) };
  const answer = await range.fire(target, aim);
  const told = `${target.process.name}: ${what}`;
  if (answer.kind === 'answered' && answer.fields === range.refusals.invalid) range.board.refused(className);
  else if (!isSendable(value)) judgeUnsendable(range, className, told, answer);
  else judge(range, className, told, answer, []);
}

/**
 * Judges an answer that must be one of a few exact ones: anything else that is UNAUTHENTICATED tells something, and
 * whatever is not UNAUTHENTICATED has come too far.
 */
export function judge(
  range: Range,
  className: string,
  what: string,
  answer: Answer,
  expected: readonly string[],
): void {
  const { board } = range;
  if (answer.kind === 'silent') judgeSilent(range, className, what, answer);
  else if (answer.kind === 'answered' && expected.includes(answer.fields)) board.refused(className);
  else if (answer.kind !== 'answered') board.differs(className, `${what}: ${answer.kind} ${answer.fields}`);
  else if (answer.status === UNAUTHENTICATED) board.differs(className, `${what}: ${answer.fields}`);
  else board.accepted(className, `${what}: ${answer.fields}`);
}

/** What must not be served, however it is refused. */
export function judgeNotServed(range: Range, className: string, what: string, answer: Answer): void {
  const { board } = range;
  if (answer.kind === 'silent') judgeSilent(range, className, what, answer);
  else if (answer.status === OK || answer.body.length > 0)
    board.accepted(className, `${what}: ${answer.fields}`);
  else board.refused(className);
}

/** A stream that has been opened says something and does not end. */
function judgeSilent(range: Range, className: string, what: string, answer: Answer): void {
  if (answer.fields === '') range.board.crashed(className, `${what}: no answer`);
  else range.board.accepted(className, `${what}: a stream that goes on, ${answer.fields}`);
}

/** HTTP/2 takes a value with control characters, Latin-1 or spaces at its ends for no header at all. */
function isSendable(value: string): boolean {
  return /^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/.test(value);
}

/** Whether the header is dropped or the stream is, nobody has been shown a token. */
function judgeUnsendable(range: Range, className: string, what: string, answer: Answer): void {
  if (answer.kind === 'reset' || answer.kind === 'closed') range.board.refused(className);
  else judge(range, className, what, answer, [range.refusals.missing]);
}

/** Runs a class of attempts, and sees afterwards that the same processes still serve honest callers. */
export async function underWatch(range: Range, className: string, work: () => Promise<void>): Promise<void> {
  range.progress(className, 0, 0);
  await work();
  for (const target of range.targets) {
    const { process, pid } = target;
    if (!process.isRunning() || process.pid !== pid) {
      range.board.crashed(className, `${process.name} has ended`);
      continue;
    }
    const answer = await honestAnswer(range, target);
    if (answer.status !== OK) {
      range.board.crashed(
        className,
        `${process.name} refuses an honest caller: ${answer.kind} ${answer.fields}`,
      );
    }
  }
}

/** A process that is busy with what was just done to it gets a moment. */
async function honestAnswer(range: Range, target: Target): Promise<Answer> {
  const ask = (): Promise<Answer> => {
    range.honest.calls += 1;
    return range.fire(target, { authorization: [`Bearer ${range.bob.accessToken}`] });
  };
  const answer = await ask();
  if (answer.status === OK) return answer;
  await sleep(500);
  return await ask();
}

/** By how much the calls that a handler has answered have become more, for these methods. */
export function servedBetween(
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
