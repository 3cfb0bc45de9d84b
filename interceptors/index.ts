/** The server door: what a guarded service needs. */

export { type AccessRule, readRules, type SchemaMetadata } from './access-rule.js';
export { BROADCAST_SUBJECT, BROADCAST_TYPE } from './broadcasts.js';
export {
  BROKER_CONNECT_TIMEOUT_MS,
  BROKER_PING_INTERVAL_MS,
  BROKER_RECONNECT_WAIT_MS,
  type BrokerFiles,
  brokerConnection,
} from './broker.js';
export { type Clock, systemClock } from './clock.js';
export { type ErrorCode, type FieldViolation, invalidField, ServiceError } from './errors.js';
export { type GuardLog, QUESTIONS_PER_LEASE, type RevocationSource } from './feed-runner.js';
export { createGuard, type Guard, type GuardObserver, type GuardOptions, type GuardState } from './guard.js';
export { bidi, clientStream, serverStream, unary } from './handler-adapters.js';
export { SIGNATURE_ALGORITHMS } from './key-ring.js';
export type { Plaintext } from './plaintext.js';
export {
  bearerOf,
  certificateThumbprintOf,
  type Principal,
  principalOf,
  signalOf,
  stillAllowed,
} from './principal.js';
export { REPORT_SUBJECT, REPORT_TYPE, type ReportingState, type SendReport } from './report-sender.js';
export { REPORT_INTERVAL_MS } from './security-reports.js';
export { type CallStatus, statusOf } from './status.js';
export {
  ACCESS_TOKEN_LIFETIME_MAX_SECONDS,
  ACCESS_TOKEN_TYPE,
  ACTOR_CHAIN_LENGTH_MAX,
  CLOCK_SKEW_SECONDS,
  type TokenClaims,
} from './token-claims.js';
export {
  LEGACY_SECRET_BYTES_MIN,
  type TrustedIssuer,
  type TrustedIssuerFault,
  trustedIssuerFaults,
} from './trusted-issuers.js';
