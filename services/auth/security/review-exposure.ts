/** Checks of what callers can reach: login limits, listeners, TLS servers and reflection. */

import { type Endpoint, found, type Grade, type ReviewFacts, type ReviewFinding } from './review-findings.js';

/** Maximum number of guesses at one name that the limits should allow in a day. */
const GUESSES_PER_NAME_AND_DAY_GOOD = 20_000;

/** Maximum number of guesses from one network that the limits should allow in a day. */
const GUESSES_PER_PEER_AND_DAY_GOOD = 1_000_000;

export function checkLimits({ settings }: ReviewFacts): readonly ReviewFinding[] {
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

export function checkListeners({ settings, reporting }: ReviewFacts): readonly ReviewFinding[] {
  const { listeners, allowsPlaintext, asksForCertificates } = settings;
  const remedy = 'set PORTCULLIS_TLS_CERT_FILE and PORTCULLIS_TLS_KEY_FILE';
  return [
    ...listeners.flatMap(({ address, isLoopback, isEncrypted }) =>
      found(!isEncrypted, 'PLAINTEXT_LISTENER', isLoopback ? 'note' : 'critical', {
        subject: `auth ${address}`,
        fact: `auth listens on ${address} without TLS${isLoopback ? ', reachable only from this machine' : ''}`,
        remedy,
      }),
    ),
    ...reporting
      .filter(({ service }) => service !== 'auth')
      .flatMap(({ service, instance, plaintext, remotePlaintext }) =>
        found(plaintext, 'PLAINTEXT_LISTENER', remotePlaintext ? 'critical' : 'note', {
          subject: `${service} ${instance}`,
          fact: `${service} receives calls without TLS, ${remotePlaintext ? 'also from other machines' : 'only from its own machine'}`,
          remedy,
        }),
      ),
    ...found(allowsPlaintext, 'PLAINTEXT_ALLOWED', 'weak', {
      subject: 'PORTCULLIS_PLAINTEXT',
      fact: 'tokens are accepted over networks without TLS',
      remedy: 'set it to loopback, unless another layer encrypts that network',
    }),
    ...found(
      listeners.some(({ isEncrypted }) => isEncrypted) && !asksForCertificates,
      'CERTIFICATES_NOT_ASKED',
      'note',
      {
        subject: 'PORTCULLIS_TLS_CLIENT_AUTH',
        fact: 'callers need no certificates: an attacker with a stolen token can use it',
        remedy: 'set it to optional or required',
      },
    ),
  ];
}

export function checkServers({ settings: { broker, database } }: ReviewFacts): readonly ReviewFinding[] {
  return [
    ...found(broker === undefined, 'BROKER_MISSING', 'note', {
      subject: 'NATS_URL',
      fact: 'there is no broker: a revocation takes up to a fifth of the lease to arrive, and services send no reports',
      remedy: 'set NATS_URL',
    }),
    ...found(broker !== undefined && !broker.isEncrypted, 'BROKER_PLAINTEXT', gradeOf(broker), {
      subject: broker?.address ?? '',
      fact: `auth connects to the broker at ${broker?.address} without TLS`,
      remedy: 'use tls:// in NATS_URL',
    }),
    ...found(
      broker !== undefined && !broker.hasPassword,
      'BROKER_OPEN',
      broker?.isLoopback ? 'weak' : 'critical',
      {
        subject: broker?.address ?? '',
        fact: 'the broker accepts auth without user name, token, nkey or credentials file',
        remedy: 'give each service its own user at the broker, with only the rights that it needs',
      },
    ),
    ...found(!database.isEncrypted, 'DATABASE_PLAINTEXT', gradeOf(database), {
      subject: database.address,
      fact: `auth connects to the database at ${database.address} without TLS that verifies the server`,
      remedy: 'add sslmode=verify-full and sslrootcert to DATABASE_URL',
    }),
  ];
}

function gradeOf(endpoint: Endpoint | undefined): Grade {
  return endpoint?.isLoopback === false ? 'critical' : 'note';
}

export function checkShown({ settings: { reflection, logLevel } }: ReviewFacts): readonly ReviewFinding[] {
  return [
    ...found(reflection, 'REFLECTION_ON', 'note', {
      subject: 'PORTCULLIS_REFLECTION',
      fact: 'any client can read the schema',
      remedy: 'set it to off where untrusted clients can reach auth',
    }),
    ...found(logLevel === 'debug' || logLevel === 'trace', 'LOG_TALKATIVE', 'note', {
      subject: 'PORTCULLIS_LOG_LEVEL',
      fact: `the log level is ${logLevel}: the log names every caller and method`,
      remedy: 'set it to info',
    }),
    ...found(['error', 'fatal', 'silent'].includes(logLevel), 'LOG_QUIET', 'weak', {
      subject: 'PORTCULLIS_LOG_LEVEL',
      fact: `the log level is ${logLevel}: warnings are not written`,
      remedy: 'set it to info',
    }),
  ];
}
