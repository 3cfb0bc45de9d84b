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
export {
  ACCESS_TOKEN_LIFETIME_MAX_SECONDS,
  ACCESS_TOKEN_TYPE,
  ACTOR_CHAIN_LENGTH_MAX,
  CLOCK_SKEW_SECONDS,
  LEGACY_SECRET_BYTES_MIN,
  SIGNATURE_ALGORITHMS,
} from './limits.js';
export type { GuardLog } from './log.js';
export {
  REPORT_SUBJECT,
  REPORT_TYPE,
  type ReportingState,
  type SendReport,
} from './reports/report-sender.js';
export { REPORT_INTERVAL_MS } from './reports/security-reports.js';
export { BROADCAST_SUBJECT, BROADCAST_TYPE } from './revocation/broadcasts.js';
export {
  BROKER_CONNECT_TIMEOUT_MS,
  BROKER_PING_INTERVAL_MS,
  BROKER_RECONNECT_WAIT_MS,
  type BrokerFiles,
  brokerConnection,
} from './revocation/broker.js';
export { type RevocationSource, SYNCS_PER_LEASE } from './revocation/feed-runner.js';
export { type AccessRule, readRules, type SchemaMetadata } from './server/access-rule.js';
export {
  bearerOf,
  certificateThumbprintOf,
  principalOf,
  signalOf,
  stillAllowed,
} from './server/call-state.js';
export { createGuard, type Guard, type GuardState } from './server/guard.js';
export { bidi, clientStream, serverStream, unary } from './server/handlers.js';
export type { GuardObserver, GuardOptions } from './server/options.js';
export type { TokenClaims } from './token/claims.js';
export type { Principal } from './token/principal.js';
export { type TrustedIssuer, type TrustedIssuerFault, trustedIssuerFaults } from './token/trusted-issuers.js';
export type { Plaintext } from './wire/connection.js';
export { type CallStatus, statusOf } from './wire/status.js';
