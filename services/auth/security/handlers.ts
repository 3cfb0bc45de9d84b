/** The handlers of SecurityService: they translate between messages and the domain. */

import { invalidField, principalOf, type ServiceHandlers, signalOf } from '@portcullis/guard';
import {
  FindingGrade,
  type SecurityEventFilter,
  type SecurityEvent as SecurityEventMessage,
  type SecurityServiceService,
  SecurityEventType as TypeMessage,
} from '../../../proto/gen/auth/v1/security_service.js';
import type { SecurityEvent, SecurityEventType } from '../records/security-events.js';
import type { EventFilter } from './event-access.js';
import type { SecurityLog } from './event-log.js';
import { detailTextsOf, typeUriOf } from './events.js';
import type { SecurityReview } from './review.js';
import type { Grade } from './review-findings.js';

/** Longest identifier in a filter, in characters. */
const SUBJECT_CHARACTERS_MAX = 255;

export interface SecurityHandlersDeps {
  readonly events: Pick<SecurityLog, 'list' | 'watch'>;
  readonly review: SecurityReview;
}

/** Creates the handlers of SecurityService. */
export function createSecurityHandlers({
  events,
  review,
}: SecurityHandlersDeps): ServiceHandlers<SecurityServiceService> {
  return {
    listSecurityEvents: async ({ filter, ...page }, call) => {
      const found = await events.list(filterOf(filter), page, principalOf(call).subject);
      return { events: found.events.map(messageOf), nextPageToken: found.nextPageToken };
    },
    async *watchSecurityEvents({ filter, resumeToken }, call) {
      const { types, subject } = filterOf(filter);
      const request = { caller: principalOf(call).subject, filter: { types, subject }, resumeToken };
      for await (const watched of events.watch(request, signalOf(call))) {
        yield { event: messageOf(watched.event), resumeToken: watched.resumeToken };
      }
    },
    reviewSecurity: async () => {
      const { findings, reviewTime, lookedAt } = await review.run();
      return {
        findings: findings.map((finding) => ({ ...finding, grade: GRADES[finding.grade] })),
        reviewTime,
        lookedAt: [...lookedAt],
      };
    },
  };
}

const GRADES = {
  note: FindingGrade.FINDING_GRADE_NOTE,
  weak: FindingGrade.FINDING_GRADE_WEAK,
  critical: FindingGrade.FINDING_GRADE_CRITICAL,
} as const satisfies Record<Grade, FindingGrade>;

const TYPES: Readonly<Record<SecurityEventType, TypeMessage>> = {
  'session-established': TypeMessage.SECURITY_EVENT_TYPE_SESSION_ESTABLISHED,
  'session-revoked': TypeMessage.SECURITY_EVENT_TYPE_SESSION_REVOKED,
  'credential-change': TypeMessage.SECURITY_EVENT_TYPE_CREDENTIAL_CHANGE,
  'token-claims-change': TypeMessage.SECURITY_EVENT_TYPE_TOKEN_CLAIMS_CHANGE,
  'account-disabled': TypeMessage.SECURITY_EVENT_TYPE_ACCOUNT_DISABLED,
  'account-enabled': TypeMessage.SECURITY_EVENT_TYPE_ACCOUNT_ENABLED,
  'account-purged': TypeMessage.SECURITY_EVENT_TYPE_ACCOUNT_PURGED,
  'account-unlocked': TypeMessage.SECURITY_EVENT_TYPE_ACCOUNT_UNLOCKED,
  'recovery-activated': TypeMessage.SECURITY_EVENT_TYPE_RECOVERY_ACTIVATED,
  'account-created': TypeMessage.SECURITY_EVENT_TYPE_ACCOUNT_CREATED,
  'login-failed': TypeMessage.SECURITY_EVENT_TYPE_LOGIN_FAILED,
  'login-limited': TypeMessage.SECURITY_EVENT_TYPE_LOGIN_LIMITED,
  'token-refreshed': TypeMessage.SECURITY_EVENT_TYPE_TOKEN_REFRESHED,
  'refresh-token-reused': TypeMessage.SECURITY_EVENT_TYPE_REFRESH_TOKEN_REUSED,
  'token-revoked': TypeMessage.SECURITY_EVENT_TYPE_TOKEN_REVOKED,
  'client-revoked': TypeMessage.SECURITY_EVENT_TYPE_CLIENT_REVOKED,
  'key-revoked': TypeMessage.SECURITY_EVENT_TYPE_KEY_REVOKED,
  'key-rotated': TypeMessage.SECURITY_EVENT_TYPE_KEY_ROTATED,
  'epoch-opened': TypeMessage.SECURITY_EVENT_TYPE_EPOCH_OPENED,
  'log-changed': TypeMessage.SECURITY_EVENT_TYPE_LOG_CHANGED,
  'client-created': TypeMessage.SECURITY_EVENT_TYPE_CLIENT_CREATED,
  'client-disabled': TypeMessage.SECURITY_EVENT_TYPE_CLIENT_DISABLED,
  'client-enabled': TypeMessage.SECURITY_EVENT_TYPE_CLIENT_ENABLED,
  'client-updated': TypeMessage.SECURITY_EVENT_TYPE_CLIENT_UPDATED,
  'client-deleted': TypeMessage.SECURITY_EVENT_TYPE_CLIENT_DELETED,
  'client-credential-added': TypeMessage.SECURITY_EVENT_TYPE_CLIENT_CREDENTIAL_ADDED,
  'client-credential-removed': TypeMessage.SECURITY_EVENT_TYPE_CLIENT_CREDENTIAL_REMOVED,
  'policy-changed': TypeMessage.SECURITY_EVENT_TYPE_POLICY_CHANGED,
  'key-encryption-key-replaced': TypeMessage.SECURITY_EVENT_TYPE_KEY_ENCRYPTION_KEY_REPLACED,
  'client-authentication-failed': TypeMessage.SECURITY_EVENT_TYPE_CLIENT_AUTHENTICATION_FAILED,
  'calls-refused': TypeMessage.SECURITY_EVENT_TYPE_CALLS_REFUSED,
  'broadcasts-forged': TypeMessage.SECURITY_EVENT_TYPE_BROADCASTS_FORGED,
  'events-lost': TypeMessage.SECURITY_EVENT_TYPE_EVENTS_LOST,
  'anomaly-detected': TypeMessage.SECURITY_EVENT_TYPE_ANOMALY_DETECTED,
};

const NAMES = new Map(Object.entries(TYPES).map(([name, type]) => [type, name as SecurityEventType]));

function filterOf(filter: SecurityEventFilter | undefined): EventFilter {
  if (filter === undefined) return {};
  const { types, subject, beginTime, endTime } = filter;
  if (subject.length > SUBJECT_CHARACTERS_MAX || subject.includes('\0')) {
    throw invalidField(
      'filter.subject',
      `must have at most ${SUBJECT_CHARACTERS_MAX} characters, none of them NUL`,
    );
  }
  const names = types.map((type, index) => {
    const name = NAMES.get(type);
    if (name === undefined) throw invalidField(`filter.types[${index}]`, 'must be a known type');
    return name;
  });
  return {
    types: names.length === 0 ? undefined : [...new Set(names)],
    subject: subject === '' ? undefined : subject,
    beginTime,
    endTime,
  };
}

function messageOf(event: SecurityEvent): SecurityEventMessage {
  const { eventId, type, time, subject, actor, reason, network, source } = event;
  return {
    eventId,
    actor,
    reason,
    network,
    source,
    type: TYPES[type],
    typeUri: typeUriOf(type),
    eventTime: time,
    subject: {
      userId: subject.userId ?? '',
      sessionId: subject.sessionId ?? '',
      clientId: subject.clientId ?? '',
      tokenId: subject.tokenId ?? '',
      keyId: subject.keyId ?? '',
      nameHash: subject.nameHash ?? '',
      network: subject.network ?? '',
      issuer: subject.issuer ?? '',
      service: subject.service ?? '',
    },
    details: detailTextsOf(event),
  };
}
