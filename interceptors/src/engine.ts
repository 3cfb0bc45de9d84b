/** The engine door: for programs that guard servers which do not run on grpc-js. */

export type {
  CallHandler,
  Decision,
  EngineCall,
  EngineCaller,
  MethodKind,
  VerifiedCaller,
} from './server/decision.js';
export { type ServiceRulesOptions, serviceRules } from './server/descriptor-rules.js';
export { createEngine, type Engine } from './server/engine.js';
export type { EngineState } from './server/engine-core.js';
export type { EngineOptions } from './server/options.js';
export type { PlaintextUse } from './wire/connection.js';
export type { AcceptedSocket, ConnectionListener } from './wire/grpc-js-internals.js';
export { type Header, type ReadyStatus, readyStatusOf } from './wire/ready-status.js';
