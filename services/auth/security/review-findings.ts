/** What the review looks at, and what it finds. */

import type { SigningAlgorithm } from '../keys/new-keys.js';
import type { KeyPurpose, KeyState } from '../records/keys.js';
import type { ListedInstance } from '../revocation/instance-records.js';
import type { ThrottleLimits } from './throttle.js';

/** The severity of a finding. */
export type Grade = 'note' | 'weak' | 'critical';

/** One weakness, or one fact worth knowing. */
export interface ReviewFinding {
  readonly reason: string;
  readonly grade: Grade;
  readonly subject: string;
  readonly fact: string;
  readonly remedy: string;
}

/** A listener of this process, or a server that it uses. */
export interface Endpoint {
  /** Without user name and password. */
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
  /** The other issuers whose tokens are accepted. */
  readonly issuers: readonly {
    readonly issuer: string;
    /** Its tokens are verified with the secret that signs them. */
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
  /** Undefined for keys other than RSA, whose strength follows from the curve, and for keys with a fault. */
  readonly rsaBits: number | undefined;
  /** What the key must be and is not, by the check that all new keys pass; undefined when it is good. */
  readonly fault: string | undefined;
}

/** The input of the review. */
export interface ReviewFacts {
  readonly settings: ReviewSettings;
  /** Database time. */
  readonly now: Date;
  /** This process's clock minus the database's, in milliseconds, as far as a round trip can measure it. */
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
    /** A role of the user grants more of auth than the user's own affairs. */
    readonly isPrivileged: boolean;
    /** The password was never changed. */
    readonly hasFirstPassword: boolean;
    /** The password is among those that attackers try first. */
    readonly isGuessable: boolean;
  }[];
  /** The enabled administrators: all if there are fewer than two, else two of them. */
  readonly admins: readonly string[];
  readonly instances: readonly ListedInstance[];
  readonly reporting: readonly {
    readonly service: string;
    readonly instance: string;
    /** A lower bound of its clock minus the database's, in milliseconds. */
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
