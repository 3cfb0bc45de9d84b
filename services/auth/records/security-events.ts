/** Security events: the closed list of types with their details, and their rows inside a transaction. */

import type { ServiceReport } from './service-reports.js';
import type { Role } from './users.js';
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

export type Nothing = Readonly<Record<never, never>>;

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
export interface Common {
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

/** The rows of events, inside a transaction. */
export interface SecurityEventRows {
  /**
   * Records an event together with what the transaction does. It never fails: an event that cannot be recorded is
   * counted as lost, and the transaction goes on.
   */
  record(event: NewSecurityEvent): Promise<void>;
}

/** One thing of the order: an event, or a report from which the rules learn. */
export type StreamItem = { readonly position: bigint; readonly time: Date } & (
  | { readonly event: SecurityEvent }
  | { readonly report: ServiceReport }
);

/** A part of the order, and the position up to which nothing was left out; undefined when it reaches the end. */
export interface StreamPart {
  readonly items: readonly StreamItem[];
  readonly upTo: bigint | undefined;
}

/** The order of events, inside a transaction. */
export interface SecurityStreamRows {
  /**
   * Locks the end of the order until the transaction ends, and gives positions to what has none; undefined when
   * another transaction holds it and `wait` is not set.
   */
  place(wait: boolean): Promise<{ readonly position: bigint; readonly judged: bigint } | undefined>;
  /** What has a position after this one, in order. */
  after(position: bigint, limit: number): Promise<StreamPart>;
  /** Notes that the rules have judged everything up to this position. */
  setJudged(position: bigint): Promise<void>;
}
