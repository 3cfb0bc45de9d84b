/** What the relay reports: events that metrics count. */

/** What happened, once each. The names of limits are those of their settings. */
export type RelayEvent =
  /** A limit has ended a connection or refused a call. */
  | `limit_${LimitedBy}`
  /** A client has violated the protocol, and its connection was ended. */
  | 'client_fault'
  /** The server has violated the protocol, and its connection was ended. */
  | 'server_fault'
  /** A request was malformed, and was reset. */
  | 'malformed_request'
  /** A response was malformed, and was replaced by a status. */
  | 'malformed_response'
  /** The server could not be reached. */
  | 'server_unreachable'
  /** The server's connection was lost while calls were in progress. */
  | 'server_lost'
  /** A call in progress was ended by the judge. */
  | 'call_cut'
  /** An error of the relay itself; its connection was ended. */
  | 'internal_error';

/** The limits that can be reported, as in {@link RelayEvent}. */
export type LimitedBy =
  | 'connections'
  | 'streams'
  | 'header_list'
  | 'header_block'
  | 'continuation_frames'
  | 'undecided_bytes'
  | 'request_bytes'
  | 'resets'
  | 'refused_streams'
  | 'settings'
  | 'pings'
  | 'hints'
  | 'empty_data'
  | 'window_updates'
  | 'late_frames'
  | 'setup'
  | 'first_request'
  | 'connect'
  | 'frame_time'
  | 'stalled'
  | 'idle'
  | 'ping_answer';

/** Receives events. It must not throw. */
export interface RelayObserver {
  /** @param detail a fixed text of the relay, or the error of `internal_error` */
  event(event: RelayEvent, peer: string, detail?: unknown): void;
}
