/** The security events: the closed list of what is recorded, and for how long it is kept. */

import type { Role } from '../accounts/roles.js';

/** For how long what is out of the ordinary is kept, in days. */
export const EVENT_KEPT_DAYS = 365;

/** For how long what happens all day long is kept, in days. */
export const ROUTINE_EVENT_KEPT_DAYS = 30;

/** For how long the reports of services are kept: the rules look back no further, in hours. */
export const REPORT_KEPT_HOURS = 2;

/** Longest reason, name or detail of an event, in characters; what is longer is cut. */
export const EVENT_TEXT_CHARACTERS_MAX = 255;

/** Who began what an event tells, as CAEP has it (`initiating_entity`). */
export type Initiator = 'admin' | 'user' | 'system';

/** The facts that events of each type have, beside those that all have. */
export interface EventDetails {
  // OpenID CAEP 1.0.
  'session-established': { readonly clientId: string };
  'session-revoked': { readonly initiator: Initiator };
  'credential-change': { readonly credential: 'password'; readonly change: 'update' };
  'token-claims-change': { readonly roles: readonly Role[] };
  // OpenID RISC 1.0.
  'account-disabled': Nothing;
  'account-enabled': Nothing;
  // Our own: neither profile has a name for them.
  'account-created': { readonly roles: readonly Role[] };
  'login-failed': { readonly what: 'login' | 'change of password' };
  'login-limited': { readonly what: 'login' | 'change of password' };
  'token-refreshed': Nothing;
  'refresh-token-reused': Nothing;
  'token-revoked': Nothing;
  'client-revoked': Nothing;
  'key-revoked': Nothing;
  'key-rotated': { readonly purpose: string; readonly formerKeyId: string; readonly emergency: boolean };
  'epoch-opened': { readonly endedSessions: number };
  'log-changed': Nothing;
  'client-created': Nothing;
  'client-disabled': Nothing;
  'client-enabled': Nothing;
  'client-authentication-failed': Nothing;
  'calls-refused': { readonly calls: number; readonly networks: readonly string[] };
  'broadcasts-forged': { readonly messages: number };
  'events-lost': { readonly events: number };
  'anomaly-detected': AnomalyDetails;
}

/** What a rule has found. */
export interface AnomalyDetails {
  readonly rule: AnomalyRule;
  /** What was counted, and reached the threshold. */
  readonly count: number;
  readonly threshold: number;
  readonly windowSeconds: number;
  /** What else was seen, in a few words each. */
  readonly evidence: readonly string[];
  /** What was done about it. */
  readonly action: 'none' | 'session revoked';
}

/** The rules for anomalies. */
export const ANOMALY_RULES = [
  'name-guessed',
  'names-sprayed',
  'refresh-reused',
  'session-in-many-networks',
  'revoked-token-hammered',
  'invalid-tokens-hammered',
  'far-above-usual',
] as const;

/** One of {@link ANOMALY_RULES}. */
export type AnomalyRule = (typeof ANOMALY_RULES)[number];

type Nothing = Readonly<Record<never, never>>;

/** What happened. */
export type SecurityEventType = keyof EventDetails;

/** Whom or what an event is about; what does not apply is absent. */
export interface Subject {
  readonly userId?: string | undefined;
  readonly sessionId?: string | undefined;
  readonly clientId?: string | undefined;
  readonly tokenId?: string | undefined;
  readonly keyId?: string | undefined;
  /** A keyed hash: where a name belongs, people type passwords. */
  readonly nameHash?: string | undefined;
  readonly network?: string | undefined;
  /** The issuer of the rest, when it is another one. */
  readonly issuer?: string | undefined;
  readonly service?: string | undefined;
}

/** What all events have. */
interface Common {
  readonly subject: Subject;
  /** The subject of a caller, or the name of the part of auth that acted by itself. */
  readonly actor: string;
  readonly reason: string;
  /** Where the call came from; empty when there was none. */
  readonly network: string;
}

/** An event that is about to be recorded. */
export type NewSecurityEvent<Type extends SecurityEventType = SecurityEventType> = {
  [Each in Type]: Common & {
    readonly type: Each;
    readonly details: EventDetails[Each];
    /** The service that tells of it; auth itself when absent. */
    readonly source?: string;
    /** By database time; the moment of recording when absent. */
    readonly time?: Date;
    /** A UUID; a new one when absent. The same event recorded twice is one. */
    readonly eventId?: string;
  };
}[Type];

/** An event as it is recorded. */
export type SecurityEvent<Type extends SecurityEventType = SecurityEventType> = {
  [Each in Type]: Common & {
    readonly type: Each;
    readonly details: EventDetails[Each];
    readonly source: string;
    readonly time: Date;
    readonly eventId: string;
  };
}[Type];

const CAEP = 'https://schemas.openid.net/secevent/caep/event-type/';
const RISC = 'https://schemas.openid.net/secevent/risc/event-type/';
const OWN = 'urn:portcullis:event-type:';

/** What is particular to each type. */
const TYPES: Readonly<Record<SecurityEventType, { readonly profile: string; readonly isRoutine?: true }>> = {
  'session-established': { profile: CAEP, isRoutine: true },
  'session-revoked': { profile: CAEP },
  'credential-change': { profile: CAEP },
  'token-claims-change': { profile: CAEP },
  'account-disabled': { profile: RISC },
  'account-enabled': { profile: RISC },
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
  'client-authentication-failed': { profile: OWN },
  'calls-refused': { profile: OWN, isRoutine: true },
  'broadcasts-forged': { profile: OWN },
  'events-lost': { profile: OWN },
  'anomaly-detected': { profile: OWN },
};

/** The types there are. */
export const SECURITY_EVENT_TYPES = Object.keys(TYPES) as SecurityEventType[];

/** Whether the text is the name of a type. */
export function isSecurityEventType(text: string): text is SecurityEventType {
  return Object.hasOwn(TYPES, text);
}

/** The URI of a type: that of OpenID where there is one (RFC 8417 §2.2, `events`). */
export function typeUriOf(type: SecurityEventType): string {
  return TYPES[type].profile + type;
}

/** For how many days an event of this type is kept. */
export function keptDaysOf(type: SecurityEventType): number {
  return TYPES[type].isRoutine ? ROUTINE_EVENT_KEPT_DAYS : EVENT_KEPT_DAYS;
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
 * What others have written, made fit to be stored and read: cut, without control characters, and without what looks
 * like a credential, which callers paste into reasons.
 */
export function plainText(text: string): string {
  return text
    .toWellFormed()
    .replaceAll(/\p{Cc}/gu, ' ')
    .replaceAll(/eyJ[\w-]{5,}(?:\.[\w-]*){0,2}/g, '[token]')
    .replaceAll(/pcr_[\w-]{16,}/g, '[token]')
    .slice(0, EVENT_TEXT_CHARACTERS_MAX)
    .toWellFormed();
}

/** The rows of events, inside a transaction. */
export interface SecurityEventRows {
  /**
   * Records an event together with what the transaction does. It never fails: an event that cannot be recorded is
   * counted as lost, and the transaction goes on.
   */
  record(event: NewSecurityEvent): Promise<void>;
}
