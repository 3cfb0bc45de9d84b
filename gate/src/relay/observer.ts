/** What the relay reports: events that metrics count. */

/** The limits that can be reported, as in {@link RelayEvent}. The names are those of their settings. */
const REPORTED_LIMITS = [
  'connections',
  'streams',
  'header_list',
  'header_block',
  'continuation_frames',
  'undecided_bytes',
  'request_bytes',
  'resets',
  'refused_streams',
  'settings',
  'pings',
  'hints',
  'empty_data',
  'window_updates',
  'late_frames',
  'setup',
  'first_request',
  'connect',
  'frame_time',
  'stalled',
  'idle',
  'ping_answer',
] as const;

/** One of {@link REPORTED_LIMITS}. */
export type LimitedBy = (typeof REPORTED_LIMITS)[number];

/** What can happen, beside a limit that has ended a connection or refused a call (`limit_…`). */
const OTHER_EVENTS = [
  /** A client has violated the protocol, and its connection was ended. */
  'client_fault',
  /** The server has violated the protocol, and its connection was ended. */
  'server_fault',
  /** A request was malformed, and was reset. */
  'malformed_request',
  /** A response was malformed, and was replaced by a status. */
  'malformed_response',
  /** The server could not be reached. */
  'server_unreachable',
  /** The server's connection was lost while calls were in progress. */
  'server_lost',
  /** A call in progress was ended by the judge. */
  'call_cut',
  /** An error of the relay itself; its connection was ended. */
  'internal_error',
] as const;

/** What happened, once each. */
export type RelayEvent = `limit_${LimitedBy}` | (typeof OTHER_EVENTS)[number];

/** All events. */
export const RELAY_EVENTS: readonly RelayEvent[] = [
  ...OTHER_EVENTS,
  ...REPORTED_LIMITS.map((limit) => `limit_${limit}` as const),
];

/** Receives events. It must not throw. */
export interface RelayObserver {
  /** @param detail a fixed text of the relay, or the error of `internal_error` */
  event(event: RelayEvent, peer: string, detail?: unknown): void;
}
