/** What the parts of one connection share: both outputs, and what was said in both directions. */

import type { Output } from '../http2/output.js';
import type { ClientWindows } from './client-windows.js';
import type { Judge, RelayCaller } from './judge.js';
import { Budget, type RelayLimits } from './limits.js';
import type { LimitedBy, RelayEvent } from './observer.js';
import type { RelayStatuses } from './statuses.js';

/** The budgets of a client. */
export interface Budgets {
  readonly resets: Budget;
  readonly refusedStreams: Budget;
  readonly settings: Budget;
  readonly pings: Budget;
  readonly hints: Budget;
  readonly emptyData: Budget;
  readonly windowUpdates: Budget;
  readonly lateFrames: Budget;
}

/** One connection, as its parts see it. */
export interface ConnectionPort {
  readonly toClient: Output;
  /** Undefined before the server is connected, and after it was lost. */
  readonly toServer: Output | undefined;
  readonly judge: Judge;
  readonly caller: RelayCaller;
  readonly limits: RelayLimits;
  readonly budgets: Budgets;
  readonly statuses: RelayStatuses;
  readonly forwardsToken: boolean;
  /** SETTINGS of the gate itself that the client has not acknowledged yet. */
  ownSettingsUnacknowledged: number;
  /** SETTINGS of the server that were passed on, and are not acknowledged yet. */
  serverSettingsUnacknowledged: number;
  /** Acknowledgements of the client that wait until what it sent before has been decided. */
  heldSettingsAcks: number;
  /** PING frames that were passed on, and are not answered yet. */
  clientPings: number;
  serverPings: number;
  /** What the client has room for. */
  readonly windows: ClientWindows;
  /** The client has reduced its header table: the next block must begin with a size update (RFC 7541 §4.2). */
  owesTableUpdate: boolean;
  /** Streams above this id are ignored: the client was told so with GOAWAY. */
  lastAcceptedId: number;
  /** Milliseconds since the Unix epoch. */
  wallMs(): number;
  /** Takes one from a budget. @throws ExcessFault when none is left */
  spend(budget: Budget, limit: LimitedBy): void;
  /** When this turn ends: writes what was collected, and goes on, or closes, as the calls in progress need. */
  scheduleFlush(): void;
  /** The client has answered a PING of the gate. */
  ownPingAnswered(): void;
  event(event: RelayEvent, detail?: unknown): void;
}

/** Full budgets. */
export function createBudgets(limits: RelayLimits, nowMs: number): Budgets {
  return {
    resets: new Budget(limits.resets, nowMs),
    refusedStreams: new Budget(limits.refusedStreams, nowMs),
    settings: new Budget(limits.settings, nowMs),
    pings: new Budget(limits.pings, nowMs),
    hints: new Budget(limits.hints, nowMs),
    emptyData: new Budget(limits.emptyData, nowMs),
    windowUpdates: new Budget(limits.windowUpdates, nowMs),
    lateFrames: new Budget(limits.lateFrames, nowMs),
  };
}
