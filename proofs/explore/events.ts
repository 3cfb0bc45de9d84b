/** The events of a world, and when each can happen. */

import type { Environment } from './guards.js';
import { REPLICAS } from './receipts-model.js';
import type { State } from './state.js';
import type { World } from './world.js';

/** The kinds of events. An event is a kind and a number: of a request, or of an entry. */
export const EVENTS = [
  'tick',
  'commit',
  'open-epoch',
  'change-keys',
  'purge',
  'restore',
  'ask',
  'read',
  'read-without-note',
  'read-old',
  'answer',
  'lose',
  'broadcast',
  'begin-pull',
  'read-pull',
  'read-old-pull',
  'end-pull',
  'break-pull',
  'crash',
  'clock-forward',
  'clock-back',
  'sleep',
  'look',
  'shorten-lease',
  'date-older-leases',
  'arrive',
  'commit-and-wait',
  'share',
  'read-others',
  'read-with-tail',
  'restart-auth',
  'verify',
] as const;

export type EventKind = (typeof EVENTS)[number];

/** An event as a number, so that many fit into little memory. */
export type EventCode = number;

const NUMBERS = 16;

/** Maximum number of former states of the database. */
export const PAST_MAX = NUMBERS / 2;

export function eventCode(kind: EventKind, number = 0): EventCode {
  return EVENTS.indexOf(kind) * NUMBERS + number;
}

/** The number of an event's kind. */
export function kindNumber(code: EventCode): number {
  return Math.floor(code / NUMBERS);
}

export function eventOf(code: EventCode): { readonly kind: EventKind; readonly number: number } {
  const kind = EVENTS[kindNumber(code)];
  if (kind === undefined) throw new RangeError(`there is no event ${code}`);
  return { kind, number: code % NUMBERS };
}

/** What decides beside the state which events are possible. */
interface Surroundings {
  readonly world: World;
  readonly environment: Environment;
  /** The rows that auth may drop, one bit each. */
  readonly expired: number;
  readonly keyChangesLeft: number;
  /** The tokens that can be verified. */
  readonly verifiable: readonly number[];
}

/** The events that can happen in a state. */
export function possibleEvents(state: State, surroundings: Surroundings): EventCode[] {
  const { world, environment } = surroundings;
  const { database, past, questions, pull } = state;
  const replicas = world.oneReplica === true ? 1 : REPLICAS;
  const codes: EventCode[] = [];
  const add = (condition: boolean, kind: EventKind, number = 0): void => {
    if (condition) codes.push(eventCode(kind, number));
  };
  add(true, 'tick');
  const originals = state.entries.filter(({ target }, index) => target === index).length;
  add(originals < world.entries.length, 'commit');
  add(state.epochs.length <= (world.epochs ?? 0), 'open-epoch');
  add(surroundings.keyChangesLeft > 0, 'change-keys');
  add(surroundings.expired !== 0, 'purge');
  for (const number of past.keys()) add(state.restoresLeft > 0, 'restore', number);
  add(questions.length < world.questions, 'ask');
  for (const [number, { answer, arrival }] of questions.entries()) {
    const hasArrived = world.receipts === undefined || arrival !== undefined;
    for (let replica = 0; replica < replicas; replica += 1) {
      add(!hasArrived, 'arrive', number * REPLICAS + replica);
    }
    add(answer === undefined && hasArrived, 'read', number);
    add(answer === undefined && state.tail !== undefined, 'read-with-tail', number);
    add(
      answer === undefined && hasArrived && (world.restores ?? 0) > 0 && (world.epochs ?? 0) > 0,
      'read-without-note',
      number,
    );
    for (const old of past.keys()) {
      add(answer === undefined && environment.oldReads === true, 'read-old', number * PAST_MAX + old);
    }
    add(answer !== undefined, 'answer', number);
    add(true, 'lose', number);
  }
  for (const [number, { target }] of state.entries.entries()) add(target === number, 'broadcast', number);
  add(state.pullWanted && pull === undefined && world.withoutPulls !== true, 'begin-pull');
  add(pull !== undefined && pull.rows === undefined, 'read-pull');
  for (const old of past.keys()) {
    add(pull !== undefined && pull.rows === undefined && world.oldStates === true, 'read-old-pull', old);
  }
  add(pull?.rows !== undefined, 'end-pull');
  add(pull !== undefined, 'break-pull');
  add(world.crashes === true, 'crash');
  add(state.forwardLeft > 0, 'clock-forward');
  add(state.backLeft > 0, 'clock-back');
  add(state.sleepsLeft > 0, 'sleep');
  add((world.forward ?? 0) + (world.back ?? 0) + (world.sleeps ?? 0) > 0, 'look');
  add(world.shorterLease !== undefined && database.lease === world.lease, 'shorten-lease');
  add(database.olderLease > 0, 'date-older-leases');
  for (const number of surroundings.verifiable) add(true, 'verify', number);
  add(state.tail !== undefined && state.tail.epoch > 0, 'restart-auth');
  if (state.receipts === undefined) return codes;
  const { watch, records } = state.receipts;
  for (let replica = 0; replica < replicas; replica += 1) {
    add(originals < world.entries.length && watch === undefined, 'commit-and-wait', replica);
    add(world.receipts === 'SLOW' && records[replica] !== undefined, 'share', replica);
  }
  add(watch !== undefined, 'read-others');
  return codes;
}

/** The events that a world is made for: in a world that reaches its fix point each has happened. */
export function eventsOf(world: World): EventKind[] {
  const kinds: EventKind[] = ['tick', 'ask', 'read', 'answer', 'lose', 'broadcast'];
  kinds.push(world.receipts === undefined ? 'commit' : 'commit-and-wait');
  const add = (condition: boolean | undefined, ...more: EventKind[]): void => {
    if (condition === true) kinds.push(...more);
  };
  add(world.withoutPulls !== true, 'begin-pull', 'read-pull', 'end-pull', 'break-pull');
  add((world.epochs ?? 0) > 0, 'open-epoch');
  add((world.keyChanges ?? 0) > 0, 'change-keys');
  add(world.keep !== undefined, 'purge');
  add((world.restores ?? 0) > 0, 'restore');
  add(world.oldStates, 'read-old-pull');
  add(world.crashes, 'crash');
  add((world.forward ?? 0) > 0, 'clock-forward', 'look');
  add((world.back ?? 0) > 0, 'clock-back', 'look');
  add((world.sleeps ?? 0) > 0, 'sleep', 'look');
  add(world.shorterLease !== undefined, 'shorten-lease', 'date-older-leases');
  add(world.cached, 'verify');
  add(world.tail, 'read-with-tail', 'restart-auth');
  add(world.receipts !== undefined, 'arrive', 'read-others');
  add(world.receipts === 'SLOW', 'share');
  return kinds;
}
