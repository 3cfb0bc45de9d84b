/** What the review looks at, and what it finds. */

import type { SigningAlgorithm } from '../keys/keys.js';
import type { KeyPurpose, KeyState } from '../records/keys.js';
import type { Role } from '../records/users.js';
import type { ListedInstance } from '../revocation/instance-records.js';
import type { ThrottleLimits } from './throttle.js';

/** How much a finding matters. */
export type Grade = 'note' | 'weak' | 'critical';

/** One thing that is weak, or worth knowing. */
export interface ReviewFinding {
  readonly reason: string;
  readonly grade: Grade;
  readonly subject: string;
  readonly fact: string;
  readonly remedy: string;
}

/** Somewhere that this process listens, or a server that it uses. */
export interface Endpoint {
  /** Without user and password. */
  readonly address: string;
  readonly isLoopback: boolean;
  readonly isEncrypted: boolean;
}

/** How auth was configured. */
export interface ReviewSettings {
  readonly signingAlgorithm: SigningAlgorithm;
  readonly keyRotationDays: number;
  readonly accessTokenSeconds: number;
  readonly leaseMs: number;
  readonly loginLimits: ThrottleLimits;
  readonly reflection: boolean;
  readonly logLevel: string;
  readonly allowsPlaintext: boolean;
  /** Where gRPC and ops HTTP listen. */
  readonly listeners: readonly Endpoint[];
  readonly asksForCertificates: boolean;
  readonly broker: (Endpoint & { readonly hasPassword: boolean }) | undefined;
  readonly database: Endpoint;
  /** The other issuers whose tokens are taken. */
  readonly issuers: readonly {
    readonly issuer: string;
    /** A secret that both sides know, instead of keys of which one half is public. */
    readonly isSymmetric: boolean;
    readonly algorithms: readonly string[];
    readonly lifetimeMaxSeconds: number;
  }[];
  /** The users that the bootstrap file creates. */
  readonly bootstrapUsers: readonly string[];
}

/** A signing key, or the public key of a client. */
export interface KeyFacts {
  readonly algorithm: string;
  /** Of an RSA key; undefined for others, whose curve says it all. */
  readonly rsaBits: number | undefined;
}

/** Everything that the review looks at. */
export interface ReviewFacts {
  readonly settings: ReviewSettings;
  /** Database time. */
  readonly now: Date;
  /** This process's clock less the database's, in milliseconds, as far as a round trip can tell. */
  readonly clockDifferenceMs: number;
  readonly keys: readonly (KeyFacts & {
    readonly kid: string;
    readonly purpose: KeyPurpose;
    readonly state: KeyState;
    readonly signTime: Date | undefined;
  })[];
  readonly clients: readonly { readonly clientId: string; readonly proof: KeyFacts | 'secret' | 'none' }[];
  readonly users: readonly {
    readonly username: string;
    readonly roles: readonly Role[];
    /** It has never been changed. */
    readonly hasFirstPassword: boolean;
    /** It is one of those that are tried first. */
    readonly isGuessable: boolean;
  }[];
  readonly instances: readonly ListedInstance[];
  readonly reporting: readonly {
    readonly service: string;
    readonly instance: string;
    /** Its clock less the database's, in milliseconds, at least. */
    readonly clockDifferenceMs: number;
    readonly plaintext: boolean;
    readonly remotePlaintext: boolean;
  }[];
  /** Within the last day. */
  readonly lostEvents: number;
  readonly changedLogs: number;
}

/** Longest lifetime of an access token that counts as short, in seconds. */
export const ACCESS_TOKEN_SECONDS_GOOD = 900;

/** One finding if the condition holds, else none. */
export function found(
  isSo: boolean,
  reason: string,
  grade: Grade,
  rest: { subject: string; fact: string; remedy: string },
): readonly ReviewFinding[] {
  return isSo ? [{ reason, grade, ...rest }] : [];
}
