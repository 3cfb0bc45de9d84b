/** The types of security events, their URIs, and how long events are kept. */

import type { SecurityEvent, SecurityEventType, Subject } from '../records/security-events.js';

/** For how many days events are kept that are not routine, by default. */
export const EVENT_KEPT_DAYS = 365;

/** The bounds of that number. */
export const EVENT_DAYS_MIN = 31;
export const EVENT_DAYS_MAX = 1825;

/** How long routine events are kept, in days. */
export const ROUTINE_EVENT_KEPT_DAYS = 30;

/** How long service reports are kept, in hours; the rules look back no further. */
export const REPORT_KEPT_HOURS = 2;

/** Longest reason, name or detail of an event, in characters; longer text is cut. */
const EVENT_TEXT_CHARACTERS_MAX = 255;
const CAEP = 'https://schemas.openid.net/secevent/caep/event-type/';
const RISC = 'https://schemas.openid.net/secevent/risc/event-type/';
const OWN = 'urn:portcullis:event-type:';

/** The profile of each type, and whether it is routine. */
const TYPES: Readonly<Record<SecurityEventType, { readonly profile: string; readonly isRoutine?: true }>> = {
  'session-established': { profile: CAEP, isRoutine: true },
  'session-revoked': { profile: CAEP },
  'credential-change': { profile: CAEP },
  'token-claims-change': { profile: CAEP },
  'account-disabled': { profile: RISC },
  'account-enabled': { profile: RISC },
  'account-purged': { profile: RISC },
  'recovery-activated': { profile: RISC },
  'account-unlocked': { profile: OWN },
  'account-created': { profile: OWN },
  'login-failed': { profile: OWN },
  'login-limited': { profile: OWN },
  'token-refreshed': { profile: OWN, isRoutine: true },
  'refresh-token-reused': { profile: OWN },
  'token-revoked': { profile: OWN },
  'client-revoked': { profile: OWN },
  'key-revoked': { profile: OWN },
  'key-rotated': { profile: OWN },
  'epoch-opened': { profile: OWN },
  'log-changed': { profile: OWN },
  'client-created': { profile: OWN },
  'client-disabled': { profile: OWN },
  'client-enabled': { profile: OWN },
  'client-updated': { profile: OWN },
  'client-deleted': { profile: OWN },
  'client-credential-added': { profile: OWN },
  'client-credential-removed': { profile: OWN },
  'policy-changed': { profile: OWN },
  'key-encryption-key-replaced': { profile: OWN },
  'client-authentication-failed': { profile: OWN },
  'calls-refused': { profile: OWN, isRoutine: true },
  'broadcasts-forged': { profile: OWN },
  'events-lost': { profile: OWN },
  'anomaly-detected': { profile: OWN },
};

/** All types. */
export const SECURITY_EVENT_TYPES = Object.keys(TYPES) as SecurityEventType[];

/** Whether the text is the name of a type. */
export function isSecurityEventType(text: string): text is SecurityEventType {
  return Object.hasOwn(TYPES, text);
}

/** The URI of a type; OpenID's URI where one exists (RFC 8417 §2.2, `events`). */
export function typeUriOf(type: SecurityEventType): string {
  return TYPES[type].profile + type;
}

/** Whether events of this type are routine, and kept for a shorter time. */
export function isRoutine(type: SecurityEventType): boolean {
  return TYPES[type].isRoutine === true;
}

/** Every identifier of a subject. */
export function identifiersOf(subject: Subject): string[] {
  return [...new Set(Object.values(subject).filter((id): id is string => id !== undefined && id !== ''))];
}

/** The facts of an event by name, as text. */
export function detailTextsOf(event: SecurityEvent): Record<string, string> {
  return Object.fromEntries(
    Object.entries(event.details).map(([name, value]) => [
      name,
      Array.isArray(value) ? value.join(', ') : String(value),
    ]),
  );
}

/**
 * Makes text from callers fit for the record: cuts it, and removes control characters and what looks like a credential,
 * because callers paste tokens into reasons.
 */
export function sanitizeText(text: string): string {
  return text
    .toWellFormed()
    .replaceAll(/\p{Cc}/gu, ' ')
    .replaceAll(/eyJ[\w-]{5,}(?:\.[\w-]*){0,2}/g, '[token]')
    .replaceAll(/pc[prs]_[\w-]{16,}/g, '[token]')
    .slice(0, EVENT_TEXT_CHARACTERS_MAX)
    .toWellFormed();
}
