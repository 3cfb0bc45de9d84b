/** Records events outside of transactions: in batches, in the background, within a bound. */

import { randomUUID } from 'node:crypto';
import type { Clock } from '@portcullis/guard/clock';
import { LRUCache } from 'lru-cache';
import type { NewSecurityEvent, SecurityEventType } from '../records/security-events.js';
import type { SecurityStore } from './event-access.js';

/** Maximum number of events that wait to be recorded; more are lost, and counted. */
export const EVENTS_WAITING_MAX = 1000;

/** Maximum number of events that one statement records. */
const EVENTS_WRITTEN_MAX = 200;

/** How long events are gathered before they are written, in milliseconds. */
const GATHERING_MS = 100;

/** The pause after a failed write, in milliseconds. */
const RECORD_RETRY_MS = 1000;

/** A sampled event is recorded once in this time for each key, in milliseconds. */
const SAMPLED_MS = 60_000;

/** Maximum number of keys that sampling remembers; beyond it, an event may be recorded twice in {@link SAMPLED_MS}. */
const SAMPLED_SUBJECTS_MAX = 10_000;

/** Counts the events that were recorded, and those that were lost. */
export interface EventObserver {
  recorded(type: SecurityEventType): void;
  lost(events: number): void;
}

/** The log for failures of the record. */
export interface EventLog {
  warn(fields: object, message: string): void;
}

/** What a process has counted of events since its start. */
export interface EventCounts {
  readonly recorded: ReadonlyMap<SecurityEventType, number>;
  readonly lost: number;
  readonly waiting: number;
}

/** Records events in the background. */
export interface EventRecorder {
  /** Records an event soon, or counts it as lost. Returns at once and never throws. */
  note(event: NewSecurityEvent): void;
  /** Like `note`, for events that may come in floods: one in {@link SAMPLED_MS} for each key. */
  noteSampled(key: string, event: NewSecurityEvent): void;
  readonly observer: EventObserver;
  counts(): EventCounts;
  /** Writes the waiting events if the database is reachable, and stops. */
  close(): Promise<void>;
}

/** Creates the recorder of one process. */
export function createEventRecorder(deps: {
  readonly store: Pick<SecurityStore, 'record'>;
  readonly clock: Clock;
  readonly log: EventLog;
}): EventRecorder {
  const { store, clock, log } = deps;
  const recorded = new Map<SecurityEventType, number>();
  let waiting: NewSecurityEvent[] = [];
  let lost = 0;
  /** Lost events that no event in the record reports yet. */
  let unreported = 0;
  const failing = createFailingState(log, () => ({ lost, waiting: waiting.length }));

  const observer: EventObserver = {
    recorded: (type) => void recorded.set(type, (recorded.get(type) ?? 0) + 1),
    lost: (events) => {
      lost += events;
      unreported += events;
      writer.plan(RECORD_RETRY_MS);
    },
  };
  const write = async (): Promise<void> => {
    const events = waiting.slice(0, EVENTS_WRITTEN_MAX);
    const reported = unreported;
    const all = reported > 0 ? [...events, eventsLost(reported)] : events;
    if (all.length === 0) return;
    try {
      const outcomes = await store.record(all);
      waiting = waiting.slice(events.length);
      for (const [index, isRecorded] of outcomes.entries()) {
        const event = events[index];
        if (event === undefined) unreported -= isRecorded ? reported : 0;
        else if (isRecorded) observer.recorded(event.type);
        else observer.lost(1);
      }
      const isRefused = outcomes.includes(false);
      failing.set(isRefused ? new Error('the record refuses events') : undefined);
    } catch (error) {
      // The events stay in the queue for the next attempt.
      failing.set(error);
    }
  };
  const writer = createWriter({
    write,
    nextDelayMs: () => {
      if (waiting.length === 0 && unreported === 0) return undefined;
      return failing.is() ? RECORD_RETRY_MS : GATHERING_MS;
    },
  });
  const note = (event: NewSecurityEvent): void => {
    if (waiting.length >= EVENTS_WAITING_MAX) {
      observer.lost(1);
      return;
    }
    waiting.push({ ...event, eventId: randomUUID(), time: new Date(clock.wallMs()) });
    writer.plan(GATHERING_MS);
  };

  return {
    observer,
    note,
    noteSampled: createSampler(clock, note),
    counts: () => ({ recorded, lost, waiting: waiting.length }),
    close: async () => {
      await writer.stop();
      while (waiting.length > 0 && !failing.is()) await write();
      await writer.stop();
    },
  };
}

/** Remembers whether the record fails, and logs each change. */
function createFailingState(
  log: EventLog,
  fields: () => { readonly lost: number; readonly waiting: number },
) {
  let isFailing = false;
  return {
    is: () => isFailing,
    /** Takes the error of the last write; undefined when it succeeded. */
    set: (error: unknown): void => {
      if (error !== undefined && !isFailing) {
        log.warn({ ...fields(), err: error }, 'security events cannot be recorded');
      }
      if (error === undefined && isFailing) log.warn(fields(), 'security events are recorded again');
      isFailing = error !== undefined;
    },
  };
}

/** Runs one write at a time, after a delay. */
function createWriter(options: {
  readonly write: () => Promise<void>;
  /** The delay until the next write; undefined when there is nothing to write. */
  readonly nextDelayMs: () => number | undefined;
}) {
  const { write, nextDelayMs } = options;
  let timer: NodeJS.Timeout | undefined;
  let writing: Promise<void> | undefined;
  const plan = (delayMs: number): void => {
    timer ??= setTimeout(() => {
      timer = undefined;
      writing = write().finally(() => {
        writing = undefined;
        const next = nextDelayMs();
        if (next !== undefined) plan(next);
      });
    }, delayMs).unref();
  };
  return {
    plan,
    stop: async () => {
      clearTimeout(timer);
      await writing;
      clearTimeout(timer);
    },
  };
}

function createSampler(clock: Clock, note: (event: NewSecurityEvent) => void) {
  const lastMs = new LRUCache<string, number>({ max: SAMPLED_SUBJECTS_MAX });
  return (key: string, event: NewSecurityEvent): void => {
    const now = clock.monotonicMs();
    const last = lastMs.get(key);
    if (last !== undefined && now - last < SAMPLED_MS) return;
    lastMs.set(key, now);
    note(event);
  };
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
