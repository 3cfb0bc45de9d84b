/** The server door: for services that are guarded. */

export { type Clock, systemClock } from './clock.js';
export {
  type CodeOf,
  declareErrors,
  type ErrorClass,
  type FieldViolation,
  GuardError,
  type GuardErrorCode,
  invalidField,
  type Reasons,
  ServiceError,
  type ServiceErrorOptions,
  type StatusName,
} from './errors.js';
export type { GuardLog } from './log.js';
export type { ReportingState, SendReport } from './reports/report-sender.js';
export type { BrokerFiles } from './revocation/broker.js';
export { type BrokerCredentialFiles, brokerCredentialFaults } from './revocation/broker-credentials.js';
export type { BrokerState, BrokerUse } from './revocation/broker-link.js';
export type { RevocationSource } from './revocation/feed-runner.js';
export { FENCE_TABLE, type FenceQuery } from './revocation/fence.js';
export type { FenceDatabase } from './revocation/fences.js';
export type { SchemaMetadata } from './server/access-rule.js';
export { currentCall } from './server/call-context.js';
export {
  type AnyCall,
  bearerOf,
  certificateThumbprintOf,
  passFence,
  principalOf,
  signalOf,
  stillAllowed,
} from './server/call-state.js';
export { descriptorRules } from './server/descriptor-rules.js';
export { createGuard, type Guard, type GuardState } from './server/guard.js';
export { DEFAULT_LIMITS, type GuardLimits, type LimitName } from './server/guard-limits.js';
export {
  bidi,
  clientStream,
  type MethodHandler,
  type NativeHandlers,
  native,
  type ServiceHandlers,
  serverStream,
  unary,
} from './server/handlers.js';
export type { GuardObserver, GuardOptions } from './server/options.js';
export { type AccessRules, type CodeRule, type CodeRules, codeRules } from './server/rule-sources.js';
export type { TokenClaims } from './token/claims.js';
export type { Principal } from './token/principal.js';
export { type TrustedIssuer, type TrustedIssuerFault, trustedIssuerFaults } from './token/trusted-issuers.js';
export type { Plaintext } from './wire/connection.js';
export { type CallStatus, statusOf } from './wire/status.js';
