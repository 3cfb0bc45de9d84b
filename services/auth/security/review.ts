/** The review: what is weak about how the system is set up, by stated rules over what is true at this moment. */

import type { SigningAlgorithm } from '../keys/keys.js';
import type { KeyPurpose, KeyState } from '../records/keys.js';
import type { Role } from '../records/users.js';
import type { ListedInstance } from '../revocation/instance-records.js';
import type { ThrottleLimits } from './throttle.js';

/** Bits of an RSA key below which it is weak: 128 bits of strength (NIST SP 800-57 part 1, table 2). */
export const RSA_BITS_STRONG = 3072;

/** Bits of an RSA key below which it can be broken by those who can afford it. */
export const RSA_BITS_MIN = 2048;

/** The longest time that a key should sign, in days. */
export const KEY_ROTATION_DAYS_GOOD = 90;

/** By how much a rotation may be late before it is told, in days. */
export const KEY_ROTATION_LATE_DAYS = 1;

/** The longest life of an access token that is short, in seconds. */
export const ACCESS_TOKEN_SECONDS_GOOD = 900;

/** The longest lease that is short, in milliseconds. */
export const LEASE_MS_GOOD = 30_000;

/** Most guesses at one name within a day that the limits should let through. */
export const GUESSES_PER_NAME_AND_DAY_GOOD = 20_000;

/** Most guesses from one network within a day that the limits should let through. */
export const GUESSES_PER_PEER_AND_DAY_GOOD = 1_000_000;

/** By how much clocks may differ before it is told, in milliseconds. */
export const CLOCK_DIFFERENCE_MS_GOOD = 1000;

/** By how much clocks may differ before good tokens are refused, in milliseconds. */
export const CLOCK_DIFFERENCE_MS_MAX = 5000;

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

/** What a review has found. */
export interface ReviewReport {
  readonly findings: readonly ReviewFinding[];
  readonly reviewTime: Date;
  readonly lookedAt: readonly string[];
}

/** Reviews. */
export interface SecurityReview {
  /** Looks at everything; who asks while somebody else's review is under way gets that one. */
  run(): Promise<ReviewReport>;
}

/** Makes the review; `gather` looks at what is. */
export function createSecurityReview(gather: () => Promise<ReviewFacts>): SecurityReview {
  let underWay: Promise<ReviewReport> | undefined;
  const review = async (): Promise<ReviewReport> => {
    const facts = await gather();
    return { findings: findingsOf(facts), reviewTime: facts.now, lookedAt: Object.keys(CHECKS) };
  };
  return {
    run: () => {
      underWay ??= review().finally(() => {
        underWay = undefined;
      });
      return underWay;
    },
  };
}

const ORDER: Readonly<Record<Grade, number>> = { critical: 0, weak: 1, note: 2 };

/** What is weak, or worth knowing, the gravest first. */
export function findingsOf(facts: ReviewFacts): readonly ReviewFinding[] {
  return Object.values(CHECKS)
    .flatMap((check) => check(facts))
    .sort((one, other) => ORDER[one.grade] - ORDER[other.grade]);
}

type Check = (facts: ReviewFacts) => readonly ReviewFinding[];

const CHECKS: Readonly<Record<string, Check>> = {
  'signing algorithms': checkAlgorithms,
  'signing keys': checkKeys,
  lifetimes: checkLifetimes,
  'limits on guessing': checkLimits,
  'plaintext listeners': checkListeners,
  'broker and database': checkServers,
  'what is shown': checkShown,
  clients: checkClients,
  'other issuers': checkIssuers,
  passwords: checkPasswords,
  clocks: checkClocks,
  instances: checkInstances,
  'the record': checkRecord,
};

function found(
  isSo: boolean,
  reason: string,
  grade: Grade,
  rest: { subject: string; fact: string; remedy: string },
): readonly ReviewFinding[] {
  return isSo ? [{ reason, grade, ...rest }] : [];
}

function checkAlgorithms({ settings, keys }: ReviewFacts): readonly ReviewFinding[] {
  const signing = keys.filter(({ purpose, state }) => purpose === 'token' && state === 'signing');
  const inUse = new Set([settings.signingAlgorithm, ...signing.map(({ algorithm }) => algorithm)]);
  return [
    ...found(inUse.has('RS256'), 'ALGORITHM_WEAK', 'weak', {
      subject: 'RS256',
      fact: 'access tokens are signed with RS256, whose padding (PKCS #1 v1.5) FAPI 2.0 no longer admits',
      remedy:
        'set PORTCULLIS_SIGNING_ALGORITHM to EdDSA, ES256 or PS256, start auth again and rotate the key',
    }),
    ...signing.flatMap(({ kid, algorithm }) =>
      found(algorithm !== settings.signingAlgorithm, 'ALGORITHM_NOT_YET_IN_USE', 'note', {
        subject: kid,
        fact: `${algorithm} signs until the next rotation, then ${settings.signingAlgorithm}`,
        remedy: 'call KeyService.RotateKey when that is too late',
      }),
    ),
  ];
}

function checkKeys({ settings, keys, now }: ReviewFacts): readonly ReviewFinding[] {
  const used = keys.filter(({ state }) => state !== 'retired');
  const oldest = (signTime: Date): number => (now.getTime() - signTime.getTime()) / DAY_MS;
  return [
    ...used.flatMap((key) =>
      checkSize(key.kid, `key ${key.kid}`, key, 'rotate it away with KeyService.RotateKey'),
    ),
    ...used.flatMap(({ kid, purpose, state, signTime }) => {
      const days = state === 'signing' && signTime !== undefined ? oldest(signTime) : 0;
      return found(days > settings.keyRotationDays + KEY_ROTATION_LATE_DAYS, 'KEY_OLD', 'weak', {
        subject: kid,
        fact: `the ${purpose} key has signed for ${Math.floor(days)} days, which is longer than ${settings.keyRotationDays}`,
        remedy: 'see in the log of auth why the schedule does not rotate it, or call KeyService.RotateKey',
      });
    }),
    ...(['token', 'broadcast'] as const).flatMap((purpose) =>
      found(
        !used.some((key) => key.purpose === purpose && key.state === 'next'),
        'KEY_NEXT_MISSING',
        'weak',
        {
          subject: purpose,
          fact: `there is no next ${purpose} key: in an emergency one would have to be made first`,
          remedy: 'see in the log of auth why none can be made',
        },
      ),
    ),
    ...found(settings.keyRotationDays > KEY_ROTATION_DAYS_GOOD, 'KEY_ROTATION_SELDOM', 'weak', {
      subject: 'PORTCULLIS_KEY_ROTATION_DAYS',
      fact: `a key signs for ${settings.keyRotationDays} days`,
      remedy: `set it to ${KEY_ROTATION_DAYS_GOOD} or less`,
    }),
  ];
}

const DAY_MS = 86_400_000;

function checkSize(subject: string, name: string, key: KeyFacts, remedy: string): readonly ReviewFinding[] {
  const bits = key.rsaBits ?? RSA_BITS_STRONG;
  return found(bits < RSA_BITS_STRONG, 'KEY_SMALL', bits < RSA_BITS_MIN ? 'critical' : 'weak', {
    subject,
    fact: `${name} is an RSA key of ${bits} bits`,
    remedy,
  });
}

function checkLifetimes({ settings }: ReviewFacts): readonly ReviewFinding[] {
  const { accessTokenSeconds, leaseMs } = settings;
  return [
    ...found(accessTokenSeconds > ACCESS_TOKEN_SECONDS_GOOD, 'ACCESS_TOKEN_LONG', 'weak', {
      subject: 'PORTCULLIS_ACCESS_TOKEN_SECONDS',
      fact: `an access token lives for ${accessTokenSeconds} seconds`,
      remedy: `set it to ${ACCESS_TOKEN_SECONDS_GOOD} or less: verifiers outside learn of no revocation`,
    }),
    ...found(leaseMs > LEASE_MS_GOOD, 'LEASE_LONG', 'weak', {
      subject: 'PORTCULLIS_LEASE_MS',
      fact: `when everything fails, a revocation bites after ${leaseMs} ms`,
      remedy: `set it to ${LEASE_MS_GOOD} or less`,
    }),
  ];
}

function checkLimits({ settings }: ReviewFacts): readonly ReviewFinding[] {
  const { failuresPerName, failuresPerPeer, windowSeconds } = settings.loginLimits;
  const perDay = (failures: number): number => Math.floor((failures * 86_400) / windowSeconds);
  const remedy = 'lower it, or make PORTCULLIS_LOGIN_WINDOW_SECONDS longer';
  return [
    ...found(perDay(failuresPerName) > GUESSES_PER_NAME_AND_DAY_GOOD, 'LOGIN_LIMIT_LOOSE', 'weak', {
      subject: 'PORTCULLIS_LOGIN_FAILURES_PER_NAME',
      fact: `${perDay(failuresPerName)} passwords a day can be tried against one name`,
      remedy,
    }),
    ...found(perDay(failuresPerPeer) > GUESSES_PER_PEER_AND_DAY_GOOD, 'LOGIN_LIMIT_LOOSE', 'weak', {
      subject: 'PORTCULLIS_LOGIN_FAILURES_PER_PEER',
      fact: `${perDay(failuresPerPeer)} passwords a day can be tried from one network`,
      remedy,
    }),
  ];
}

function checkListeners({ settings, reporting }: ReviewFacts): readonly ReviewFinding[] {
  const { listeners, allowsPlaintext, asksForCertificates } = settings;
  const remedy = 'set PORTCULLIS_TLS_CERT_FILE and PORTCULLIS_TLS_KEY_FILE';
  return [
    ...listeners.flatMap(({ address, isLoopback, isEncrypted }) =>
      found(!isEncrypted, 'PLAINTEXT_LISTENER', isLoopback ? 'note' : 'critical', {
        subject: `auth ${address}`,
        fact: `auth listens on ${address} without TLS${isLoopback ? ', for this machine alone' : ''}`,
        remedy,
      }),
    ),
    ...reporting
      .filter(({ service }) => service !== 'auth')
      .flatMap(({ service, instance, plaintext, remotePlaintext }) =>
        found(plaintext, 'PLAINTEXT_LISTENER', remotePlaintext ? 'critical' : 'note', {
          subject: `${service} ${instance}`,
          fact: `${service} is called without TLS, ${remotePlaintext ? 'from other machines' : 'from its own machine alone'}`,
          remedy,
        }),
      ),
    ...found(allowsPlaintext, 'PLAINTEXT_ALLOWED', 'weak', {
      subject: 'PORTCULLIS_PLAINTEXT',
      fact: 'tokens are taken over networks without TLS',
      remedy: 'set it to loopback, unless something else encrypts that network',
    }),
    ...found(
      listeners.some(({ isEncrypted }) => isEncrypted) && !asksForCertificates,
      'CERTIFICATES_NOT_ASKED',
      'note',
      {
        subject: 'PORTCULLIS_TLS_CLIENT_AUTH',
        fact: 'callers are not asked for certificates: whoever holds a token may use it',
        remedy: 'set it to optional or required',
      },
    ),
  ];
}

function checkServers({ settings: { broker, database } }: ReviewFacts): readonly ReviewFinding[] {
  return [
    ...found(broker === undefined, 'BROKER_MISSING', 'note', {
      subject: 'NATS_URL',
      fact: 'there is no broker: a revocation takes up to a fifth of the lease, and services send no reports',
      remedy: 'set NATS_URL',
    }),
    ...found(broker !== undefined && !broker.isEncrypted, 'BROKER_PLAINTEXT', gradeOf(broker), {
      subject: broker?.address ?? '',
      fact: `the broker is reached without TLS at ${broker?.address}`,
      remedy: 'use tls:// in NATS_URL',
    }),
    ...found(
      broker !== undefined && !broker.hasPassword,
      'BROKER_OPEN',
      broker?.isLoopback ? 'weak' : 'critical',
      {
        subject: broker?.address ?? '',
        fact: 'the broker is used without a user and a password',
        remedy:
          'give each service a user of its own at the broker, with the rights that it needs and no more',
      },
    ),
    ...found(!database.isEncrypted, 'DATABASE_PLAINTEXT', gradeOf(database), {
      subject: database.address,
      fact: `the database at ${database.address} is reached without TLS that knows whom it talks to`,
      remedy: 'add sslmode=verify-full and sslrootcert to DATABASE_URL',
    }),
  ];
}

function gradeOf(endpoint: Endpoint | undefined): Grade {
  return endpoint?.isLoopback === false ? 'critical' : 'note';
}

function checkShown({ settings: { reflection, logLevel } }: ReviewFacts): readonly ReviewFinding[] {
  return [
    ...found(reflection, 'REFLECTION_ON', 'note', {
      subject: 'PORTCULLIS_REFLECTION',
      fact: 'the schema is shown to anybody who asks',
      remedy: 'set it to off where strangers can reach auth',
    }),
    ...found(logLevel === 'debug' || logLevel === 'trace', 'LOG_TALKATIVE', 'note', {
      subject: 'PORTCULLIS_LOG_LEVEL',
      fact: `the log is at ${logLevel}: it says who calls what`,
      remedy: 'set it to info',
    }),
    ...found(['error', 'fatal', 'silent'].includes(logLevel), 'LOG_QUIET', 'weak', {
      subject: 'PORTCULLIS_LOG_LEVEL',
      fact: `the log is at ${logLevel}: warnings are not written`,
      remedy: 'set it to info',
    }),
  ];
}

function checkClients({ clients }: ReviewFacts): readonly ReviewFinding[] {
  return clients.flatMap(({ clientId, proof }) => {
    if (proof === 'none') return [];
    if (proof !== 'secret') {
      return checkSize(clientId, `the key of client ${clientId}`, proof, 'give the client another key');
    }
    return found(true, 'CLIENT_SECRET', 'weak', {
      subject: clientId,
      fact: `client ${clientId} proves itself with a secret, which it has to send`,
      remedy: 'give the client a key instead (private_key_jwt)',
    });
  });
}

function checkIssuers({ settings: { issuers } }: ReviewFacts): readonly ReviewFinding[] {
  return issuers.flatMap(({ issuer, isSymmetric, algorithms, lifetimeMaxSeconds }) => [
    ...found(isSymmetric, 'ISSUER_SYMMETRIC', 'weak', {
      subject: issuer,
      fact: `tokens of ${issuer} are verified with the secret that signs them: whoever verifies could also sign`,
      remedy: 'let that issuer sign with keys of which it publishes one half, and name its jwks_url instead',
    }),
    ...found(algorithms.includes('RS256'), 'ALGORITHM_WEAK', 'note', {
      subject: issuer,
      fact: `tokens of ${issuer} may be signed with RS256, whose padding (PKCS #1 v1.5) FAPI 2.0 no longer admits`,
      remedy: 'take RS256 out of its algorithms once that issuer signs with another one',
    }),
    ...found(lifetimeMaxSeconds > ACCESS_TOKEN_SECONDS_GOOD, 'ACCESS_TOKEN_LONG', 'note', {
      subject: issuer,
      fact: `tokens of ${issuer} are taken that live for up to ${lifetimeMaxSeconds} seconds`,
      remedy: `set its lifetime_max_seconds to ${ACCESS_TOKEN_SECONDS_GOOD} if its tokens are that short`,
    }),
  ]);
}

function checkPasswords({ users, settings: { bootstrapUsers } }: ReviewFacts): readonly ReviewFinding[] {
  return users.flatMap(({ username, roles, hasFirstPassword, isGuessable }) => [
    ...found(isGuessable, 'PASSWORD_GUESSABLE', 'critical', {
      subject: username,
      fact: `${username} has one of the passwords that are tried first`,
      remedy: 'let the user change it now, and look at its sessions',
    }),
    ...found(
      hasFirstPassword && bootstrapUsers.includes(username),
      'PASSWORD_FROM_BOOTSTRAP',
      roles.some((role) => role !== 'customer') ? 'weak' : 'note',
      {
        subject: username,
        fact: `${username} still has the password that stands in the bootstrap file`,
        remedy: 'let the user change it',
      },
    ),
  ]);
}

function checkClocks({ clockDifferenceMs, reporting }: ReviewFacts): readonly ReviewFinding[] {
  const clocks = [
    { subject: 'auth', differenceMs: clockDifferenceMs },
    ...reporting.map((one) => ({
      subject: `${one.service} ${one.instance}`,
      differenceMs: one.clockDifferenceMs,
    })),
  ];
  return clocks.flatMap(({ subject, differenceMs }) => {
    const away = Math.abs(differenceMs);
    const grade = away > CLOCK_DIFFERENCE_MS_MAX ? 'critical' : 'weak';
    return found(away > CLOCK_DIFFERENCE_MS_GOOD, 'CLOCK_DIFFERS', grade, {
      subject,
      fact: `the clock of ${subject} is ${Math.round(away)} ms ${differenceMs > 0 ? 'ahead of' : 'behind'} the database's`,
      remedy: 'let both machines follow one time server (NTP)',
    });
  });
}

function checkInstances({ instances, settings }: ReviewFacts): readonly ReviewFinding[] {
  return instances.flatMap((one) => {
    const subject = `${one.service} ${one.instance.toString('hex')}`;
    const isSilent = one.leaseLeftMs <= 0 && one.lastSyncAgeMs > settings.leaseMs;
    if (isSilent) {
      return found(true, 'INSTANCE_SILENT', 'note', {
        subject,
        fact: `it has not asked for ${Math.round(one.lastSyncAgeMs / 1000)} seconds: it has stopped, or is cut off and refuses calls`,
        remedy: 'nothing when it was stopped; else see its /readyz',
      });
    }
    const isBehind = one.lag > 0n || !one.currentEpoch || one.leaseLeftMs <= 0;
    return found(isBehind, 'INSTANCE_BEHIND', 'weak', {
      subject,
      fact: one.currentEpoch
        ? `it lacks ${one.lag} entries of the revocation log, and has ${Math.max(0, Math.round(one.leaseLeftMs))} ms of its lease left`
        : 'it follows an older epoch of the revocation log',
      remedy: 'see its /readyz and its log',
    });
  });
}

function checkRecord({ lostEvents, changedLogs }: ReviewFacts): readonly ReviewFinding[] {
  return [
    ...found(changedLogs > 0, 'LOG_CHANGED', 'critical', {
      subject: 'revocation log',
      fact: 'within the last day an instance has seen revocations that the database does not have',
      remedy: 'open a new epoch, unless that was done since: the database was restored or lost transactions',
    }),
    ...found(lostEvents > 0, 'EVENTS_LOST', 'weak', {
      subject: 'security events',
      fact: `within the last day ${lostEvents} security events, or reports of services, were lost`,
      remedy: 'see in the logs why: the database or the broker was away for long',
    }),
  ];
}
