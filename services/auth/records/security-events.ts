/** Security events: the closed list of types with their details, and their rows inside a transaction. */

import type { ServiceReport } from './service-reports.js';

/** Who initiated what an event describes (CAEP `initiating_entity`). */
export type Initiator = 'admin' | 'user' | 'system';

/** The details of each event type, beside the fields that all events have. */
interface EventDetails {
  // OpenID CAEP 1.0.
  'session-established': { readonly clientId: string };
  'session-revoked': {
    readonly initiator: Initiator;
    readonly revocations?: number;
    /** The tokens of another issuer that had this value in this claim. */
    readonly claim?: string;
    readonly value?: string;
  };
  'credential-change': { readonly credential: 'password'; readonly change: 'update' };
  'token-claims-change': { readonly roles: readonly string[] };
  // OpenID RISC 1.0.
  'account-disabled': Nothing;
  'account-enabled': Nothing;
  'account-purged': Nothing;
  'recovery-activated': Nothing;
  // Types of this project, which neither profile names.
  'account-unlocked': Nothing;
  'account-created': { readonly roles: readonly string[] };
  'login-failed': { readonly what: 'login' | 'change of password' };
  'login-limited': { readonly what: 'login' | 'change of password' };
  'token-refreshed': Nothing;
  'refresh-token-reused': Nothing;
  'token-revoked': { readonly revocations?: number };
  'client-revoked': Nothing;
  'key-revoked': Nothing;
  'key-rotated': { readonly purpose: string; readonly formerKeyId: string; readonly emergency: boolean };
  'epoch-opened': { readonly endedSessions: number };
  'log-changed': Nothing;
  'client-created': Nothing;
  'client-disabled': Nothing;
  'client-enabled': Nothing;
  'client-updated': { readonly fields: readonly string[]; readonly revoked: boolean };
  'client-deleted': Nothing;
  'client-credential-added': { readonly credentialId: string; readonly credential: 'public-key' | 'secret' };
  'client-credential-removed': {
    readonly credentialId: string;
    readonly credential: 'public-key' | 'secret';
    readonly revoked: boolean;
  };
  'policy-changed': {
    /** What was added and removed, one text each. Further events of the same request name what follows. */
    readonly changes: readonly string[];
    /** The number of changes of the request, which are those of all its events. */
    readonly count: number;
    /** The place of the first of `changes` among them, from 1. Missing in events of the version before. */
    readonly first?: number;
  };
  'key-encryption-key-replaced': { readonly keys: number };
  // By how many seconds a time was missed.
  'client-authentication-failed': { readonly fault: string; readonly seconds?: number };
  'calls-refused': { readonly calls: number; readonly networks: readonly string[] };
  'broadcasts-forged': { readonly messages: number };
  'events-lost': { readonly events: number };
  'anomaly-detected': AnomalyDetails;
}

/** The details of a finding of an anomaly rule. */
export interface AnomalyDetails {
  readonly rule: AnomalyRule;
  /** The count that reached the threshold. */
  readonly count: number;
  readonly threshold: number;
  readonly windowSeconds: number;
  /** Further observations, a few words each. */
  readonly evidence: readonly string[];
  readonly action: 'none' | 'session revoked';
}

/** The names of the anomaly rules. */
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

export type SecurityEventType = keyof EventDetails;

/** The subject of an event; only the members that apply are present. */
export interface Subject {
  readonly userId?: string | undefined;
  readonly sessionId?: string | undefined;
  readonly clientId?: string | undefined;
  readonly tokenId?: string | undefined;
  readonly keyId?: string | undefined;
  /** Keyed hash of the name that was typed: users sometimes type a password instead. */
  readonly nameHash?: string | undefined;
  readonly network?: string | undefined;
  /** The issuer of the other identifiers, when it is another one. */
  readonly issuer?: string | undefined;
  readonly service?: string | undefined;
}

interface Common {
  readonly subject: Subject;
  /** The subject of the caller, or the name of the part of auth that acted. */
  readonly actor: string;
  readonly reason: string;
  /** The network of the caller; empty when there was no call. */
  readonly network: string;
  /** The `request_id` of the call; absent when it had none. It is recorded with the details. */
  readonly requestId?: string | undefined;
}

/** An event to be recorded. */
export type NewSecurityEvent<Type extends SecurityEventType = SecurityEventType> = {
  [Each in Type]: Common & {
    readonly type: Each;
    readonly details: EventDetails[Each];
    /** The service that reports it; auth itself when absent. */
    readonly source?: string;
    /** Database time; the time of recording when absent. */
    readonly time?: Date;
    /** A UUID; a new one when absent. Recording the same id again has no effect. */
    readonly eventId?: string;
  };
}[Type];

/** A recorded event. */
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
   * Records an event in this transaction. It never fails: an event that cannot be recorded is counted as lost, and the
   * transaction continues.
   */
  record(event: NewSecurityEvent): Promise<void>;
  /** Like `record`, for many events with one statement. */
  recordAll(events: readonly NewSecurityEvent[]): Promise<void>;
}

/** An item of the ordered stream: an event, or a report that the anomaly rules evaluate. */
export type StreamItem = { readonly position: bigint; readonly time: Date } & (
  | { readonly event: SecurityEvent }
  | { readonly report: ServiceReport }
);

/** A part of the stream. It is complete up to position `upTo`; undefined when it reaches the end of the stream. */
export interface StreamPart {
  readonly items: readonly StreamItem[];
  readonly upTo: bigint | undefined;
}

/** The ordered stream of events, inside a transaction. */
export interface SecurityStreamRows {
  /**
   * Locks the end of the stream until the transaction ends, and assigns positions to items without one; undefined when
   * another transaction holds the lock and `wait` is false.
   */
  place(wait: boolean): Promise<{ readonly position: bigint; readonly processed: bigint } | undefined>;
  /** The items after this position, in order. */
  after(position: bigint, limit: number): Promise<StreamPart>;
  /** Records that the rules have evaluated all items up to this position. */
  setProcessed(position: bigint): Promise<void>;
}
