/** The statuses that the relay itself gives to calls. */

import type { Header, RelayStatus } from './judge.js';

/** The statuses that end calls for other reasons than a decision. */
export interface RelayStatuses {
  /** The server cannot be reached, or its connection was lost (UNAVAILABLE). */
  readonly serverUnavailable: RelayStatus;
  /** The server's response violates HTTP/2 (INTERNAL). */
  readonly malformedResponse: RelayStatus;
  /** The headers of the request are too large (RESOURCE_EXHAUSTED). */
  readonly headersTooLarge: RelayStatus;
  /** No decision could be made (INTERNAL). */
  readonly noDecision: RelayStatus;
}

const RESOURCE_EXHAUSTED = 8;
const INTERNAL = 13;
const UNAVAILABLE = 14;

/** Statuses with a code and a message. */
export const RELAY_STATUSES: RelayStatuses = {
  serverUnavailable: plainStatus(UNAVAILABLE, 'the server is unavailable'),
  malformedResponse: plainStatus(INTERNAL, 'the server has sent an invalid response'),
  headersTooLarge: plainStatus(RESOURCE_EXHAUSTED, 'the headers of the request are too large'),
  noDecision: plainStatus(INTERNAL, 'internal error'),
};

/** A status without details. @param message plain ASCII, but for spaces */
export function plainStatus(code: number, message: string): RelayStatus {
  const headers: readonly Header[] = [
    ['grpc-status', String(code)],
    ['grpc-message', encodeURI(message)],
  ];
  const [status, text] = headers as [Header, Header];
  return {
    headers,
    trailersOnly: [[':status', '200'], status, text, ['content-type', 'application/grpc+proto']],
  };
}
