/**
 * The door to the library's inner parts, for auth, which feeds its own list and issues tokens, for the proofs and for tests. Not
 * public: it changes without notice.
 */

export {
  createReportSender,
  REPORT_SUBJECT,
  REPORT_TYPE,
  REPORTS_WAITING_MAX,
  startReporting,
} from './reports/report-sender.js';
export { REPORT_INTERVAL_MS, ReportCollector } from './reports/security-reports.js';
export {
  BROADCAST_SUBJECT,
  BROADCAST_TYPE,
  BroadcastReader,
  subscribeToBroadcasts,
} from './revocation/broadcasts.js';
export { brokerConnection } from './revocation/broker.js';
export { type BrokerLink, keepConnected } from './revocation/broker-link.js';
export {
  type BroadcastOutcome,
  Feed,
  type Moment,
  type SyncOutcome,
  type SyncTicket,
} from './revocation/feed.js';
export { FeedRunner } from './revocation/feed-runner.js';
export { Fences } from './revocation/fences.js';
export { RevocationList, uuidOf } from './revocation/list.js';
export { createRemoteSource } from './revocation/source.js';
export { type LiveCall, VerifiedToken } from './revocation/verified-tokens.js';
export { type AccessRule, describeViolation, violationOf } from './server/access-rule.js';
export type { Admission, Admissions, Caller } from './server/admission.js';
export { attachState } from './server/call-state.js';
export { methodsOfDescriptorSet } from './server/descriptor-rules.js';
export { Enforcement } from './server/enforcement.js';
export { readRules } from './server/rule-sources.js';
export { answerPull, answerSync, type LogState, nextEntry } from './testing/issuer-log.js';
export { TestClock } from './testing/test-clock.js';
export { readClaims } from './token/claims.js';
export { type CompactToken, parseCompactToken } from './token/compact.js';
export { KeyRing, type VerificationKeys } from './token/key-ring.js';
export { claimIdOf, pointerOf } from './token/revocable-claims.js';
export { parseJsonObject } from './token/strict-json.js';
export { createTrustedIssuers, issuerNamedIn } from './token/trusted-issuers.js';
export { MalformedMessageError } from './wire/protobuf-fields.js';
