/** The checks of what others can reach: logins, listeners, servers, and what is shown. */

import { type Endpoint, found, type Grade, type ReviewFacts, type ReviewFinding } from './review-findings.js';

/** Most guesses at one name within a day that the limits should let through. */
const GUESSES_PER_NAME_AND_DAY_GOOD = 20_000;

/** Most guesses from one network within a day that the limits should let through. */
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

export function checkServers({ settings: { broker, database } }: ReviewFacts): readonly ReviewFinding[] {
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

export function checkShown({ settings: { reflection, logLevel } }: ReviewFacts): readonly ReviewFinding[] {
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
