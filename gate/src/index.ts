/** The door of the gate: a process in front of a gRPC server of any language. */

export { describeMethod, gateRules, type RulesOptions, runGate } from './command.js';
export { type Gate, type GateParts, startGate } from './gate.js';
export type { RequestHead } from './http2/request-head.js';
export type { GateLog } from './log.js';
export { type HttpRefusal, protocolOf, type RequestForm, refusalOf } from './refusals.js';
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
export { ruledDescriptorSet } from './ruled-set.js';
export { RulesError } from './rules.js';
export { type GateSettings, type RawSettings, readSettings, SettingsError } from './settings.js';
