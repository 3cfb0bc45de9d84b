/** The record of security events outside of transactions, as the domain needs it. */

import type { PageRequest } from '../records/page.js';
import type {
  NewSecurityEvent,
  SecurityEvent,
  SecurityEventType,
  StreamPart,
} from '../records/security-events.js';
import type { ServiceReport } from '../records/service-reports.js';

/** Selects events; an absent criterion selects all. */
export interface EventFilter {
  readonly types?: readonly SecurityEventType[] | undefined;
  /** An identifier anywhere in the subject. */
  readonly subject?: string | undefined;
  readonly beginTime?: Date | undefined;
  readonly endTime?: Date | undefined;
}

/** An event with its position in the order. */
export interface PlacedEvent {
  readonly position: bigint;
  readonly event: SecurityEvent;
}

/** A page of events. */
export interface EventPage {
  readonly events: readonly SecurityEvent[];
  readonly nextPageToken: string;
}

/** The record outside of transactions. */
export interface SecurityStore {
  /** Records events, and returns for each whether it was recorded. Throws when the database is unreachable. */
  record(events: readonly NewSecurityEvent[]): Promise<readonly boolean[]>;
  /** Records a report with the events that follow from it, all or nothing; false when it was recorded before. */
  recordReport(report: ServiceReport, events: readonly NewSecurityEvent[]): Promise<boolean>;
  /** A page of events, newest first, for a user who takes turns with others. Throws FIELD_INVALID. */
  list(filter: EventFilter, page: PageRequest, caller?: string): Promise<EventPage>;
  /** Gives positions to all events recorded before this call, and returns the last position. */
  place(caller?: string): Promise<bigint>;
  /** Events after a position, in order, and the position up to which none is missing. */
  eventsAfter(
    position: bigint,
    filter: EventFilter,
    limit: number,
    caller?: string,
  ): Promise<{ readonly events: readonly PlacedEvent[]; readonly upTo: bigint }>;
  /** The input of the anomaly rules: recorded since a time, after one position and up to another. */
  itemsBetween(range: { since: Date; after: bigint; upTo: bigint; limit: number }): Promise<StreamPart>;
  /**
   * Creates the partitions of the coming time, and drops those whose events have all expired. Returns how many it
   * dropped.
   */
  keepPartitions(): Promise<number>;
}
