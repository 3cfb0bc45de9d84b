/** Streams events as they are recorded, from now on or from where a client left off. */

import { invalidField } from '@portcullis/guard/errors';
import { AuthError } from '../errors.js';
import type { SecurityEvent } from '../records/security-events.js';
import type { EventFilter, SecurityStore } from './event-access.js';

/** Maximum number of events that a watcher reads at once. */
const WATCH_READ_MAX = 200;

/** How often a watcher reads new events, in milliseconds. */
const WATCH_POLL_MS = 250;

/** Maximum number of watchers of one process. */
const WATCHERS_MAX = 100;

/** The part of them that one user may have. */
const WATCHERS_PER_USER_MAX = 10;

/** A request to watch; an empty token begins with the next event. */
export interface WatchRequest {
  /** The user who watches. */
  readonly caller: string;
  readonly filter: EventFilter;
  readonly resumeToken: string;
}

/** An event, and the token with which a client resumes after it. */
export interface WatchedEvent {
  readonly event: SecurityEvent;
  readonly resumeToken: string;
}

/** Lowest position of an event: positions are times in microseconds. Records of earlier versions counted from 1. */
const POSITION_MIN = 1_000_000_000_000_000n;

type WatchEvents = (
  request: WatchRequest,
  signal: AbortSignal,
) => AsyncGenerator<WatchedEvent, void, undefined>;

/** Creates the function that watches; it bounds the watchers of this process. */
export function createEventWatch(store: Pick<SecurityStore, 'place' | 'eventsAfter'>): WatchEvents {
  let watchers = 0;
  const ofUsers = new Map<string, number>();
  return async function* (request, signal) {
    const { caller } = request;
    const own = ofUsers.get(caller) ?? 0;
    if (watchers >= WATCHERS_MAX || own >= WATCHERS_PER_USER_MAX) {
      const which = own >= WATCHERS_PER_USER_MAX ? 'watches of this user' : 'watches';
      throw new AuthError('RATE_LIMITED', `too many ${which}`, { retryAfterMs: 1000 });
    }
    watchers += 1;
    ofUsers.set(caller, own + 1);
    try {
      yield* watch(store, request, signal);
    } finally {
      watchers -= 1;
      const left = (ofUsers.get(caller) ?? 1) - 1;
      if (left === 0) ofUsers.delete(caller);
      else ofUsers.set(caller, left);
    }
  };
}

async function* watch(
  store: Pick<SecurityStore, 'place' | 'eventsAfter'>,
  { caller, filter, resumeToken }: WatchRequest,
  signal: AbortSignal,
): AsyncGenerator<WatchedEvent, void, undefined> {
  const end = await store.place(caller);
  let position = resumeToken === '' ? end : positionOf(resumeToken);
  // A database that was restored does not have the event. The client would miss events up to its position.
  if (position > end || (resumeToken !== '' && position < POSITION_MIN))
    throw invalidField('resume_token', 'is of a record that is no more: begin without');
  while (!signal.aborted) {
    const { events, upTo } = await store.eventsAfter(position, filter, WATCH_READ_MAX, caller);
    for (const { position: at, event } of events) {
      position = at;
      yield { event, resumeToken: tokenOf(at) };
    }
    if (upTo > position) position = upTo;
    if (events.length < WATCH_READ_MAX) await pause(WATCH_POLL_MS, signal);
  }
}

function tokenOf(position: bigint): string {
  return Buffer.from(`event ${position}`, 'utf8').toString('base64url');
}

/** @throws ServiceError FIELD_INVALID for a token that no event carried */
function positionOf(token: string): bigint {
  const text = token.length > 64 ? '' : Buffer.from(token, 'base64url').toString('utf8');
  const position = /^event ([1-9][0-9]{0,17})$/.exec(text)?.[1];
  if (position === undefined || tokenOf(BigInt(position)) !== token) {
    throw invalidField('resume_token', 'must be the resume_token of an event');
  }
  return BigInt(position);
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener('abort', end, { once: true });
    if (signal.aborted) end();
  });
}
