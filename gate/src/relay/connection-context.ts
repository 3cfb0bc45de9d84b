/** What a connection is given when it begins. */

import type { Socket } from 'node:net';
import type { Judge, RelayCaller } from './judge.js';
import type { RelayClock, RelayLimits } from './limits.js';
import type { RelayObserver } from './observer.js';
import type { RelayStatuses } from './statuses.js';

/** What all connections of a relay share. */
export interface ConnectionContext {
  readonly judge: Judge;
  readonly limits: RelayLimits;
  readonly statuses: RelayStatuses;
  readonly forwardsToken: boolean;
  readonly observer: RelayObserver;
  /** Opens a connection to the server. */
  connectServer(): Socket;
  readonly clock: RelayClock;
}

/** What is known about a client from its socket. */
export type CallerFacts = Omit<RelayCaller, 'retireConnection'>;
