/** The record of security events: writing without holding up a call, reading, and being told of what is new. */

import { randomUUID } from 'node:crypto';
import type { Clock } from '@portcullis/guard/clock';
import { invalidField, type ServiceError } from '@portcullis/guard/errors';
import { LRUCache } from 'lru-cache';
import { AuthError } from '../errors.js';
import type { PageRequest } from '../records/page.js';
import type {
  NewSecurityEvent,
  SecurityEvent,
  SecurityEventType,
  StreamPart,
} from '../records/security-events.js';
import type { ServiceReport } from '../records/service-reports.js';

/** Most events that wait to be recorded outside of a transaction; more are lost, and counted. */
export const EVENTS_WAITING_MAX = 1000;

/** Most events that are written at once. */
export const EVENTS_WRITTEN_MAX = 200;

/** How long events are gathered before they are written, in milliseconds. */
export const GATHERING_MS = 100;

/** The pause after the record could not be reached, in milliseconds. */
export const RECORD_RETRY_MS = 1000;

/** An event of which one in so many milliseconds is recorded, for each subject. */
export const SAMPLED_MS = 60_000;

/** Most subjects that sampling remembers; beyond, an event is recorded once too often. */
export const SAMPLED_SUBJECTS_MAX = 10_000;

/** Most networks that an event of refused calls names. */
export const REFUSED_NETWORKS_MAX = 5;

/** Events that a watcher reads at once. */
export const WATCH_READ_MAX = 200;

/** How often a watcher looks for new events, in milliseconds. */
export const WATCH_POLL_MS = 250;

/** Most watchers of one process. */
export const WATCHERS_MAX = 100;

/** Which events are meant; what is absent means all. */
export interface EventFilter {
  readonly types?: readonly SecurityEventType[] | undefined;
  /** An identifier anywhere in the subject. */
  readonly subject?: string | undefined;
  readonly beginTime?: Date | undefined;
  readonly endTime?: Date | undefined;
}

/** An event with its place in the order. */
export interface PlacedEvent {
  readonly position: bigint;
  readonly event: SecurityEvent;
}

/** The record, outside of transactions. */
export interface SecurityStore {
  /** Records events; answers for each whether it could be. Throws when the database is away. */
  record(events: readonly NewSecurityEvent[]): Promise<readonly boolean[]>;
  /** Records a report with the events that follow from it, all or nothing; false when it had come before. */
  recordReport(report: ServiceReport, events: readonly NewSecurityEvent[]): Promise<boolean>;
  /** A page of events, the newest first. Throws FIELD_INVALID. */
  list(
    filter: EventFilter,
    page: PageRequest,
  ): Promise<{ events: readonly SecurityEvent[]; nextPageToken: string }>;
  /** Gives positions to all that was recorded before this call, and answers the last one. */
  place(): Promise<bigint>;
  /** Events with a position after this one, in order, and the position up to which nothing was left out. */
  eventsAfter(
    position: bigint,
    filter: EventFilter,
    limit: number,
  ): Promise<{ readonly events: readonly PlacedEvent[]; readonly upTo: bigint }>;
  /** What the rules learn from, recorded after a moment and with a position after one and up to another. */
  itemsBetween(range: { since: Date; after: bigint; upTo: bigint; limit: number }): Promise<StreamPart>;
  /** Drops events whose time has passed, at most so many; answers how many. */
  dropExpired(limit: number): Promise<number>;
}

/** Told of what is recorded, and of what is not. */
export interface EventObserver {
  recorded(type: SecurityEventType): void;
  lost(events: number): void;
}

/** Where it is told when events cannot be recorded. */
export interface EventLog {
  warn(fields: object, message: string): void;
}

/** The record of this database. */
export interface SecurityLog {
  /** Records an event soon, or counts it as lost. Returns at once and never throws. */
  note(event: NewSecurityEvent): void;
  /** The same for what may come in floods: one a minute for each key. */
  noteSampled(key: string, event: NewSecurityEvent): void;
  /** Records what a service reports. Resolves when it is in the database; a report that comes again does nothing. */
  takeReport(report: ServiceReport): Promise<void>;
  /** Throws ServiceError FIELD_INVALID. */
  list(
    filter: EventFilter,
    page: PageRequest,
  ): Promise<{ events: readonly SecurityEvent[]; nextPageToken: string }>;
  /**
   * Events as they are recorded, until the signal is aborted, at the pace of the reader.
   *
   * @throws ServiceError FIELD_INVALID, DEPENDENCY_UNAVAILABLE
   */
  watch(
    request: { readonly filter: EventFilter; readonly resumeToken: string },
    signal: AbortSignal,
  ): AsyncGenerator<{ readonly event: SecurityEvent; readonly resumeToken: string }, void, undefined>;
  /** To be given to whoever records inside transactions. */
  readonly observer: EventObserver;
  /** What was counted since the start of this process. */
  counts(): EventCounts;
  /** Writes what waits, if the database can be reached, and stops. */
  close(): Promise<void>;
}

/** What a process has counted of events. */
export interface EventCounts {
  readonly recorded: ReadonlyMap<SecurityEventType, number>;
  readonly lost: number;
  readonly waiting: number;
}

/** What {@link createSecurityLog} needs. */
export interface SecurityLogDeps {
  readonly store: SecurityStore;
  readonly clock: Clock;
  readonly log: EventLog;
}

/** Opens the record. */
export function createSecurityLog({ store, clock, log }: SecurityLogDeps): SecurityLog {
  const recorded = new Map<SecurityEventType, number>();
  const sampled = new LRUCache<string, number>({ max: SAMPLED_SUBJECTS_MAX });
  let waiting: NewSecurityEvent[] = [];
  let lost = 0;
  /** Lost, and not yet said so in the record. */
  let untold = 0;
  let timer: NodeJS.Timeout | undefined;
  let writing: Promise<void> | undefined;
  let isAway = false;
  let watchers = 0;

  const observer: EventObserver = {
    recorded: (type) => void recorded.set(type, (recorded.get(type) ?? 0) + 1),
    lost: (events) => {
      lost += events;
      untold += events;
      plan(RECORD_RETRY_MS);
    },
  };
  const plan = (delayMs: number): void => {
    timer ??= setTimeout(() => {
      timer = undefined;
      writing = write().finally(() => {
        writing = undefined;
        if (waiting.length > 0 || untold > 0) plan(isAway ? RECORD_RETRY_MS : GATHERING_MS);
      });
    }, delayMs).unref();
  };
  const write = async (): Promise<void> => {
    const events = waiting.slice(0, EVENTS_WRITTEN_MAX);
    const told = untold;
    const all = told > 0 ? [...events, eventsLost(told)] : events;
    if (all.length === 0) return;
    try {
      const outcomes = await store.record(all);
      waiting = waiting.slice(events.length);
      outcomes.forEach((isRecorded, index) => {
        const event = events[index];
        if (event === undefined) untold -= isRecorded ? told : 0;
        else if (isRecorded) observer.recorded(event.type);
        else observer.lost(1);
      });
      setAway(outcomes.includes(false) ? new Error('the record refuses events') : undefined);
    } catch (error) {
      // What the database has not heard of is tried again.
      setAway(error);
    }
  };
  const setAway = (error: unknown): void => {
    const fields = { lost, waiting: waiting.length };
    if (error !== undefined && !isAway)
      log.warn({ ...fields, err: error }, 'security events cannot be recorded');
    if (error === undefined && isAway) log.warn(fields, 'security events are recorded again');
    isAway = error !== undefined;
  };
  const note = (event: NewSecurityEvent): void => {
    if (waiting.length >= EVENTS_WAITING_MAX) {
      observer.lost(1);
      return;
    }
    waiting.push({ ...event, eventId: randomUUID(), time: new Date(clock.wallMs()) });
    plan(GATHERING_MS);
  };

  return {
    observer,
    note,
    noteSampled: (key, event) => {
      const now = clock.monotonicMs();
      const lastMs = sampled.get(key);
      if (lastMs !== undefined && now - lastMs < SAMPLED_MS) return;
      sampled.set(key, now);
      note(event);
    },
    takeReport: async (report) => {
      const events = eventsOf(report);
      if (!(await store.recordReport(report, events))) return;
      for (const { type } of events) observer.recorded(type);
    },
    list: (filter, page) => store.list(filter, page),
    watch: async function* ({ filter, resumeToken }, signal) {
      if (watchers >= WATCHERS_MAX) throw tooManyWatchers();
      watchers += 1;
      try {
        const end = await store.place();
        let position = resumeToken === '' ? end : positionOf(resumeToken);
        // A database that was set back does not have the event; the events up to its position would be left out.
        if (position > end)
          throw invalidField('resume_token', 'is of a record that is no more: begin without');
        while (!signal.aborted) {
          const { events, upTo } = await store.eventsAfter(position, filter, WATCH_READ_MAX);
          for (const { position: at, event } of events) {
            position = at;
            yield { event, resumeToken: tokenOf(at) };
          }
          if (upTo > position) position = upTo;
          if (events.length < WATCH_READ_MAX) await pause(WATCH_POLL_MS, signal);
        }
      } finally {
        watchers -= 1;
      }
    },
    counts: () => ({ recorded, lost, waiting: waiting.length }),
    close: async () => {
      clearTimeout(timer);
      await writing;
      while (waiting.length > 0 && !isAway) await write();
      clearTimeout(timer);
    },
  };
}

/** The events that follow from a report. */
function eventsOf(report: ServiceReport): NewSecurityEvent[] {
  const { service, source, refused, forgedBroadcasts, lostReports } = report;
  const about = { subject: { service }, actor: source, source, network: '' };
  const byReason = new Map<string, { calls: number; networks: Set<string> }>();
  for (const { reason, calls, network } of refused) {
    const sum = byReason.get(reason) ?? { calls: 0, networks: new Set() };
    byReason.set(reason, sum);
    sum.calls += calls;
    if (sum.networks.size < REFUSED_NETWORKS_MAX) sum.networks.add(network);
  }
  const events: NewSecurityEvent[] = [...byReason].map(([reason, { calls, networks }]) => ({
    ...about,
    type: 'calls-refused',
    reason,
    details: { calls, networks: [...networks] },
  }));
  if (forgedBroadcasts > 0) {
    const reason = 'messages on the broker that the issuer has not signed';
    events.push({ ...about, type: 'broadcasts-forged', reason, details: { messages: forgedBroadcasts } });
  }
  if (lostReports > 0) {
    const reason = 'reports of a service were not acknowledged in time';
    events.push({ ...about, type: 'events-lost', reason, details: { events: lostReports } });
  }
  return events;
}

function eventsLost(events: number): NewSecurityEvent {
  return {
    type: 'events-lost',
    subject: { service: 'auth' },
    actor: 'auth',
    reason: 'events could not be recorded',
    network: '',
    details: { events },
  };
}

function tooManyWatchers(): ServiceError {
  return new AuthError('RATE_LIMITED', 'too many watch already', { retryAfterMs: 1000 });
}

function tokenOf(position: bigint): string {
  return Buffer.from(`event ${position}`, 'utf8').toString('base64url');
}

/** Throws FIELD_INVALID for what no event carried. */
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
