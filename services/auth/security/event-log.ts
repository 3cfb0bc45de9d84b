/** The record of security events: writing without blocking calls, listing, and watching. */

import type { Clock } from '@portcullis/guard/clock';
import type { PageRequest } from '../records/page.js';
import type { ServiceReport } from '../records/service-reports.js';
import type { EventFilter, EventPage, SecurityStore } from './event-access.js';
import {
  createEventRecorder,
  type EventLog,
  type EventObserver,
  type EventRecorder,
} from './event-recorder.js';
import { createEventWatch, type WatchedEvent, type WatchRequest } from './event-watch.js';
import { eventsOfReport } from './report-events.js';

/** The record of this database. */
export interface SecurityLog extends EventRecorder {
  /** Records a service report. Resolves when it is in the database; a report that comes again changes nothing. */
  recordReport(report: ServiceReport): Promise<void>;
  /** @throws ServiceError FIELD_INVALID */
  list(filter: EventFilter, page: PageRequest, caller?: string): Promise<EventPage>;
  /**
   * Events as they are recorded, until the signal is aborted, at the pace of the reader.
   *
   * @throws ServiceError FIELD_INVALID, RATE_LIMITED, DEPENDENCY_UNAVAILABLE
   */
  watch(request: WatchRequest, signal: AbortSignal): AsyncGenerator<WatchedEvent, void, undefined>;
}

/** The collaborators of the record. */
export interface SecurityLogDeps {
  readonly store: SecurityStore;
  readonly clock: Clock;
  readonly log: EventLog;
}

/** Opens the record. */
export function createSecurityLog(deps: SecurityLogDeps): SecurityLog {
  const { store } = deps;
  const recorder = createEventRecorder(deps);
  return {
    ...recorder,
    recordReport: (report) => recordReport(store, recorder.observer, report),
    list: (filter, page, caller) => store.list(filter, page, caller),
    watch: createEventWatch(store),
  };
}

async function recordReport(
  store: Pick<SecurityStore, 'recordReport'>,
  observer: EventObserver,
  report: ServiceReport,
): Promise<void> {
  const events = eventsOfReport(report);
  if (!(await store.recordReport(report, events))) return;
  for (const { type } of events) observer.recorded(type);
}
