/** The door of the gate: a process in front of a gRPC server of any language. */

export { type Address, formatAddress, parseAddress } from './addresses.js';
export type { ReadyStatus } from './engine-types.js';
export type { RequestHead } from './http2/request-head.js';
export {
  type HttpRefusal,
  httpStatusOf,
  type Protocol,
  protocolOf,
  type RequestForm,
  refusalOf,
} from './refusals.js';
export type {
  CutHandler,
  ForeignResponse,
  Header,
  Judge,
  RelayCall,
  RelayCaller,
  RelayStatus,
  Verdict,
} from './relay/judge.js';
export { type Rate, RELAY_LIMITS, type RelayClock, type RelayLimits } from './relay/limits.js';
export type { RelayEvent, RelayObserver } from './relay/observer.js';
export { type Relay, type RelayOptions, startRelay } from './relay/relay.js';
export type { RelayStatuses } from './relay/statuses.js';
